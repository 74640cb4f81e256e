"""What the page and the terminal tell of raters' answers: what they changed, and whether the ranker is better for it.

On the floor of `report`.
"""

from dataclasses import dataclass

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.report.comparison import figure_of, how


@dataclass(frozen=True, slots=True)
class AnswersTold:
    """What raters answered, and what it did.

    Attributes:
        n_pairs: pairs of query and item that raters judged.
        by_split: a row a split: n_answered of its samples, n_changed labels, n_new samples that are there only now.
        effect: of the answers on the linear ranker's nDCG@10; None where no training label changed.
    """

    n_pairs: int
    by_split: pd.DataFrame
    effect: pd.Series | None

    @property
    def n_changed(self) -> int:
        """Samples whose label is another than the source's."""
        return int(self.by_split.n_changed.sum())


def gather(db: DuckDBPyConnection, evaluation: pd.DataFrame) -> AnswersTold | None:
    """Read what is told; None where nobody answered.

    Args:
        db: a connection to the warehouse.
        evaluation: the relation.
    """
    from ecom_pipeline.ranking.answers import EFFECT

    (n_pairs,) = db.execute("select count(*) from judgments where n_raters > 0").fetchall()[0]
    if not n_pairs:
        return None
    by_split = db.execute(
        f"""with answered as (
            select {identity.judgment_sample_id("query", "item_id")} as sample_id from judgments where n_raters > 0)
        select split, count(*) as n_answered, count(*) filter (where label <> source_label) as n_changed,
            count(*) filter (where source_label is null) as n_new
        from training_samples semi join answered using (sample_id) group by split order by split desc"""
    ).df()
    return AnswersTold(n_pairs, by_split, figure_of(evaluation, EFFECT, "ndcg_at_10", "all"))


def sentences(told: AnswersTold) -> str:
    """Two sentences: what raters changed, and what that did to the ranker."""
    n_new = int(told.by_split.n_new.sum())
    new = f" and {n_new:,} samples came new" if n_new else ""
    changes = {row.split: row.n_changed + row.n_new for row in told.by_split.itertuples()}
    where = ", ".join(f"{n:,} in {split}" for split, n in changes.items() if n)
    what = (
        f"Raters judged {told.n_pairs:,} pairs: {told.n_changed:,} labels of the source were changed{new}"
        f"{f' ({where})' if where else ''}."
    )
    if told.effect is None:
        return f"{what} No training label changed, so the ranker is as it was."
    row = told.effect
    return (
        f"{what} The linear ranker taught with the answers is {how(row)} its twin taught without them: {row.value:+.4f} "
        f"nDCG@10 [{row.ci_low:+.4f}, {row.ci_high:+.4f}] over {row.n_groups} test groups, both judged on the present labels."
    )
