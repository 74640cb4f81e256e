"""Which labels of search are doubtful, and which pairs a rater should be asked about next.

On the floor of `report`.
"""

import pandas as pd
from duckdb import DuckDBPyConnection

SUSPECT_BELOW = 0.5  # the other label is then the more probable one
_SCORED = """scored as (
            select sample_id, avg(oof_score) as oof_score from fold_predictions group by sample_id)"""


def suspects(db: DuckDBPyConnection, top: int) -> pd.DataFrame:
    """The training samples most likely mislabelled, flagged ones first, with text, label, score and why."""
    frame = db.execute(
        f"""with {_SCORED}
        select sample_id, item_id, context_text, title, label, oof_score, wrong_probability, flagged
        from label_suspicions join scored using (sample_id) join training_samples using (sample_id)
        order by flagged desc, wrong_probability desc, sample_id limit ?""",
        [top],
    ).df()
    frame["why"] = [
        f"labelled {label:g}; models that did not see it give label 1 a chance of {score:.0%}"
        for label, score in zip(frame.label, frame.oof_score, strict=True)
    ]
    return frame


def to_ask(db: DuckDBPyConnection, top: int) -> pd.DataFrame:
    """The training pairs whose label teaches most if a rater is asked, the most first.

    Models that did not see a pair give label 1 the chance p. If they are right, the label asked for lies from p by
    2 p (1 - p) on average: that is its expected prediction gap, at most 0.5.

    Returns:
        sample_id, item_id, context_text, title, label, oof_score (p), expected_gap, and judged: whether a rater has said
        so; what is only known from clicks teaches more than what is asked again.
    """
    return db.execute(
        f"""with {_SCORED}
        select sample_id, item_id, context_text, title, label, oof_score, 2 * oof_score * (1 - oof_score) as expected_gap,
            origin = 'judgment' as judged
        from scored join training_samples using (sample_id) order by expected_gap desc, sample_id limit ?""",
        [top],
    ).df()
