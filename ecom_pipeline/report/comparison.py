"""What both halves of the page do with figures: find one, put it in words, and pick the strongest of the simple ones.

On the floor of `report`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ecom_pipeline.ranking.baselines import SIMPLE

if TYPE_CHECKING:
    from ecom_pipeline.report.search import SearchTold


def figure_of(evaluation: pd.DataFrame, model: str, metric: str, slice_: str) -> pd.Series | None:
    """One figure of `evaluation` or `next_visit_evaluation`, or None where it has no value."""
    asked = {"model": model, "metric": metric, "slice": slice_}
    rows = np.flatnonzero(np.all([evaluation[name].to_numpy() == value for name, value in asked.items()], axis=0))
    return evaluation.iloc[rows[0]] if len(rows) else None


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The first six trials, with none and the chosen one always among them; trials come with the best first."""
    return trials[(np.arange(len(trials)) < 6) | (trials.trial == 0) | trials.chosen]


def strongest_of(evaluation: pd.DataFrame, simple: Sequence[str]) -> str | None:
    """Of some models the one with the highest nDCG@10 on what is tested, which favours it; None without any."""
    found = {
        name: row.value for name in simple if (row := figure_of(evaluation, name, "ndcg_at_10", "all")) is not None
    }
    return max(found, key=found.__getitem__) if found else None


def how(row: pd.Series, undecided: str = "not certainly different from") -> str:
    """What an interval of a difference says of the first beside the second."""
    return "better than" if row.ci_low > 0 else "worse than" if row.ci_high < 0 else undecided


def cell(row: pd.Series | None, signed: bool = False) -> str:
    """A figure with its interval, if it has one."""
    if row is None:
        return ""
    sign = "+" if signed else ""
    interval = "" if pd.isna(row.ci_low) else f" [{row.ci_low:{sign}.3f}, {row.ci_high:{sign}.3f}]"
    return f"{row.value:{sign}.3f}{interval}"


def strongest_baseline(told: "SearchTold") -> str | None:
    """The strongest ranking without learning."""
    return strongest_of(told.evaluation, SIMPLE)


def baseline_told(told: "SearchTold") -> str:
    """One sentence: is the weighted ranker better than the strongest ranking without learning?"""
    name = strongest_baseline(told)
    row = told.figure(f"weighted - {name}")
    if row is None:
        return ""
    return (
        f"The strongest ranking without learning is {name}, picked on the test split in its favour; the weighted ranker is "
        f"{how(row)} it: {row.value:+.4f} nDCG@10 [{row.ci_low:+.4f}, {row.ci_high:+.4f}]."
    )


def seeds_told(told: "SearchTold") -> str:
    """One or two sentences: over how many seeds rankers are averaged, and how many of them really differ."""
    twins = told.manifest["twins"]
    n_seeds = len(twins["weighted"]["seeds"])
    differ = {name: twin.get("n_rankers", n_seeds) for name, twin in twins.items()}
    words = f"Rankers are averaged over {n_seeds} seed{'s' if n_seeds > 1 else ''}."
    if min(differ.values()) == n_seeds:
        return words
    counts = " and ".join(f"{n} of {n_seeds} {name}" for name, n in sorted(differ.items(), reverse=True))
    return (
        f"{words} Only {counts} rankers differ from each other: where no epoch was better on validation than the head that "
        "training began with, every seed leaves that head."
    )
