"""Which labels of search are doubtful, and which pairs a rater should be asked about next.

On the floor of `report`. All are of the training split: test labels that a model's own doubts had corrected would flatter it.
"""

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.schema.samples import SuspectOrder

SUSPECT_BELOW = 0.5  # the other label is then the more probable one
_SCORED = """scored as (
            select sample_id, avg(oof_score) as oof_score from fold_predictions group by sample_id)"""
# pairs that no rater has answered yet, in whatever spelling and whether judged or searched for
_OPEN = f"""open_samples as (
            from training_samples anti join (
                select {identity.group_id("query")} as group_id, item_id from judgments where n_raters > 0
            ) using (group_id, item_id))"""
_ORDERS: dict[SuspectOrder, str] = {
    "probability": "flagged desc, wrong_probability desc, sample_id",
    "worth": "origin = 'judgment' desc, worth_of_asking desc, sample_id",  # what a user did is no judgment to mend
}


def suspects(db: DuckDBPyConnection, top: int, order: SuspectOrder = "probability") -> pd.DataFrame:
    """The training samples most likely mislabelled, of those that no rater has answered.

    Args:
        db: a connection to the warehouse.
        top: how many, at most.
        order: probability: flagged ones first, as models see it that know nothing of the query. worth: by
            `worth_of_asking`, which looks at the other labels of the query too and finds more wrong labels among as many;
            judgments first.

    Returns:
        sample_id, item_id, context_text, title, label, oof_score, wrong_probability, flagged, worth_of_asking and why.
    """
    frame = db.execute(
        f"""with {_SCORED}, {_OPEN}
        select sample_id, item_id, context_text, title, label, oof_score, wrong_probability, flagged, worth_of_asking
        from label_suspicions join scored using (sample_id) join open_samples using (sample_id)
        order by {_ORDERS[order]} limit ?""",
        [top],
    ).df()
    frame["why"] = [
        f"labelled {label:g}; models that did not see it give label 1 a chance of {score:.0%}"
        for label, score in zip(frame.label, frame.oof_score, strict=True)
    ]
    return frame


def n_flagged(db: DuckDBPyConnection) -> int:
    """How many training samples are flagged as mislabelled that no rater has answered."""
    query = f"with {_OPEN} select count(*) from label_suspicions semi join open_samples using (sample_id) where flagged"
    return db.execute(query).fetchall()[0][0]


def to_ask(db: DuckDBPyConnection, top: int) -> pd.DataFrame:
    """The training pairs whose label teaches most if a rater is asked, the most first; without those answered already.

    Models that did not see a pair give label 1 the chance p. If they are right, the label asked for lies from p by
    2 p (1 - p) on average: that is its expected prediction gap, at most 0.5.

    Returns:
        sample_id, item_id, context_text, title, label, oof_score (p), expected_gap, and judged: whether the source has
        judged it; what is only known from clicks teaches more than what is asked again.
    """
    return db.execute(
        f"""with {_SCORED}, {_OPEN}
        select sample_id, item_id, context_text, title, label, oof_score, 2 * oof_score * (1 - oof_score) as expected_gap,
            origin = 'judgment' as judged
        from scored join open_samples using (sample_id) order by expected_gap desc, sample_id limit ?""",
        [top],
    ).df()
