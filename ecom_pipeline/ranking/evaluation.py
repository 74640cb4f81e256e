"""Figures with intervals: each model alone, and differences of models on the same groups.

On the floor of `ranking`, above `intervals`. The bootstrap draws whole groups, or all groups of a user, because what belongs
together is not independent; what seeds bring, where there are several, is added to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats, Ints
from ecom_pipeline.ranking import metrics
from ecom_pipeline.ranking.intervals import crossed_interval, draws_of

COLUMNS = ("model", "split", "slice", "metric", "value", "ci_low", "ci_high", "p_value", "n_groups", "n_seeds")
_RANKING: dict[str, Callable] = {
    "ndcg_at_10": lambda rows, score: metrics.ndcg_at_k(rows.group, rows.relevance, score, 10),
    "mrr": lambda rows, score: metrics.mrr(rows.group, rows.relevant, score),
    "recall_at_5": lambda rows, score: metrics.recall_at_k(rows.group, rows.relevant, score, 5),
    "auc": lambda rows, score: metrics.auc(rows.group, rows.relevant, score),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """What is judged: (n,) groups 0..n_groups-1, labels and grades."""

    group: Ints
    label: Floats
    relevance: Floats

    @property
    def relevant(self) -> Bools:
        """(n,) whether the label says so."""
        return self.label >= 0.5

    def only(self, mask: Bools) -> "Rows":
        """Some rows, their groups numbered anew."""
        _, group = np.unique(self.group[mask], return_inverse=True)
        return Rows(group, self.label[mask], self.relevance[mask])


def evaluate(
    rows: Rows,
    scores: Mapping[str, Floats],
    slices: Mapping[str, Bools],
    probabilistic: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    split: str,
    seed: int,
    *,
    cluster: Ints | None = None,
) -> pd.DataFrame:
    """Every metric of every model on every slice, with 95 % intervals.

    Trainings that ended at the same ranker count as often as they are there, as ending there is what that share of the
    trainings does; `n_seeds` says how many rankers, or pairs of rankers, really differ. Two models are compared seed by seed.

    Args:
        rows: what is judged.
        scores: (s, n) a model, one row a seed; models have equally many, or one of them has one.
        slices: (n,) rows of each slice.
        probabilistic: models whose scores are probabilities, and so have a calibration.
        pairs: models whose difference is asked for, first minus second.
        split: the split's name, for the relation.
        seed: of the bootstrap.
        cluster: (g,) whose each group is, such as its user, where several are one's; None: each its own.

    Returns:
        Rows of the relation `evaluation`. A figure for which no group has a value is left out.

    Cost: O(models · seeds · slices · n log n), and 2000 draws of the groups a slice and seed.
    """
    found = []
    for name, mask in slices.items():
        if not mask.any():
            continue
        part = rows.only(mask)
        groups = np.unique(rows.group[mask])
        whose = groups if cluster is None else np.asarray(cluster)[groups]
        figures = _figures(part, {m: s[:, mask] for m, s in scores.items()}, probabilistic, draws_of(whose, seed))
        for metric, by_model in figures.items():
            used = _groups_used(part, metric)
            for model, drawn in _with_differences(by_model, pairs).items():
                if used.any() and np.isfinite(drawn[:, 0]).all():
                    told = crossed_interval(drawn, len(np.unique(whose[used])))
                    compared = " - " in model
                    low, high = max(told.low, -1.0 if compared else 0.0), min(told.high, 1.0)
                    chance = told.p_value if compared else None
                    n_seeds = _n_different([scores[one] for one in model.split(" - ")])
                    found.append((model, split, name, metric, told.value, low, high, chance, int(used.sum()), n_seeds))
    return pd.DataFrame(found, columns=list(COLUMNS)).astype({"p_value": float})


def _with_differences(by_model: Mapping[str, NDArray], pairs: Sequence[tuple[str, str]]) -> dict[str, NDArray]:
    """model or difference -> (seeds, 1 + draws)."""
    differences = {f"{a} - {b}": by_model[a] - by_model[b] for a, b in pairs if {a, b} <= by_model.keys()}
    return dict(by_model) | differences


def _n_different(models: Sequence[NDArray]) -> int:
    """How many rankers differ in what they say, or how many pairs do where there are equally many of both."""
    if len({len(scores) for scores in models}) == 1:
        return len({b"".join(score.tobytes() for score in scores) for scores in zip(*models, strict=True)})
    return max(_n_different([scores]) for scores in models)


def _figures(
    rows: Rows, scores: Mapping[str, NDArray], probabilistic: Sequence[str], draws: NDArray
) -> dict[str, dict[str, NDArray]]:
    """metric -> model -> (seeds, 1 + draws) means over the groups drawn."""
    figures: dict[str, dict[str, NDArray]] = {}
    for model, seeds in scores.items():
        for metric, function in _RANKING.items():
            by_seed = np.stack([_mean(function(rows, score), draws) for score in seeds])
            figures.setdefault(metric, {})[model] = by_seed
        if model in probabilistic:
            by_group = [metrics.brier(rows.group, rows.label, score) for score in seeds]
            figures.setdefault("brier", {})[model] = np.stack([_mean(one, draws) for one in by_group])
            errors = [_calibration_error(rows, score, draws) for score in seeds]
            figures.setdefault("calibration_error", {})[model] = np.stack(errors)
    return figures


def _mean(by_group: NDArray, draws: NDArray) -> NDArray:
    valid = np.isfinite(by_group)
    count = draws @ valid
    return np.where(count > 0, draws @ np.where(valid, by_group, 0.0) / np.maximum(count, 1), np.nan)


def _calibration_error(rows: Rows, score: NDArray, draws: NDArray) -> NDArray:
    bins = metrics.calibration_bins(rows.group, rows.label, score)
    return np.abs(draws @ bins).sum(1) / (draws @ np.bincount(rows.group))


def _groups_used(rows: Rows, metric: str) -> Bools:
    """(groups,) whether a group has the figure."""
    if metric not in _RANKING:
        return np.ones(int(rows.group.max()) + 1, bool)
    return np.isfinite(_RANKING[metric](rows, np.zeros(len(rows.group))))
