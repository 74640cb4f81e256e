"""Figures with intervals: each model alone, and differences of models on the same groups.

On the floor of `ranking`. The bootstrap draws whole groups, because rows of a group are not independent; figures of
several seeds are averaged within a group first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecom_pipeline.ranking import metrics

N_BOOTSTRAP = 2000
_RANKING: dict[str, Callable] = {
    "ndcg_at_10": lambda rows, score: metrics.ndcg_at_k(rows.group, rows.relevance, score, 10),
    "mrr": lambda rows, score: metrics.mrr(rows.group, rows.relevant, score),
    "recall_at_5": lambda rows, score: metrics.recall_at_k(rows.group, rows.relevant, score, 5),
    "auc": lambda rows, score: metrics.auc(rows.group, rows.relevant, score),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """What is judged: (n,) groups 0..n_groups-1, labels and grades."""

    group: NDArray[np.int64]
    label: NDArray[np.float64]
    relevance: NDArray[np.float64]

    @property
    def relevant(self) -> NDArray[np.bool_]:
        """(n,) whether the label says so."""
        return self.label >= 0.5

    def only(self, mask: NDArray[np.bool_]) -> "Rows":
        """Some rows, their groups numbered anew."""
        _, group = np.unique(self.group[mask], return_inverse=True)
        return Rows(group, self.label[mask], self.relevance[mask])


def evaluate(
    rows: Rows,
    scores: Mapping[str, NDArray[np.float64]],
    slices: Mapping[str, NDArray[np.bool_]],
    probabilistic: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    split: str,
    seed: int,
) -> pd.DataFrame:
    """Every metric of every model on every slice, with 95 % intervals.

    Args:
        rows: what is judged.
        scores: (s, n) a model, one row a seed.
        slices: (n,) rows of each slice.
        probabilistic: models whose scores are probabilities, and so have a calibration.
        pairs: models whose difference is asked for, first minus second.
        split: the split's name, for the relation.
        seed: of the bootstrap.

    Returns:
        Rows of the relation `evaluation`. A figure for which no group has a value is left out.

    Cost: O(models · seeds · slices · n log n), and 2000 draws of the groups a slice.
    """
    found = []
    for name, mask in slices.items():
        if not mask.any():
            continue
        part = rows.only(mask)
        n_groups = int(part.group.max()) + 1
        draws = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), N_BOOTSTRAP)
        draws = np.vstack([np.ones(n_groups, np.int64), draws])  # the first draw is the sample itself
        for metric, by_model in _figures(
            part, {m: s[:, mask] for m, s in scores.items()}, probabilistic, draws
        ).items():
            sampled = by_model | {
                f"{a} - {b}": by_model[a] - by_model[b] for a, b in pairs if {a, b} <= by_model.keys()
            }
            used = _groups_used(part, metric)
            for model, values in sampled.items():
                seeds = max(len(scores[one]) for one in model.split(" - "))
                if used and np.isfinite(values[0]):
                    low, high = np.nanquantile(values[1:], [0.025, 0.975])
                    found.append((model, split, name, metric, values[0], low, high, used, seeds))
    columns = ["model", "split", "slice", "metric", "value", "ci_low", "ci_high", "n_groups", "n_seeds"]
    return pd.DataFrame(found, columns=columns)


def _figures(
    rows: Rows, scores: Mapping[str, NDArray], probabilistic: Sequence[str], draws: NDArray
) -> dict[str, dict[str, NDArray]]:
    """metric -> model -> (1 + draws,) means over the groups drawn."""
    figures: dict[str, dict[str, NDArray]] = {}
    for model, seeds in scores.items():
        for metric, function in _RANKING.items():
            figures.setdefault(metric, {})[model] = _mean(np.mean([function(rows, s) for s in seeds], 0), draws)
        if model in probabilistic:
            by_group = np.mean([metrics.brier(rows.group, rows.label, s) for s in seeds], 0)
            figures.setdefault("brier", {})[model] = _mean(by_group, draws)
            errors = [_calibration_error(rows, s, draws) for s in seeds]
            figures.setdefault("calibration_error", {})[model] = np.mean(errors, 0)
    return figures


def _mean(by_group: NDArray, draws: NDArray) -> NDArray:
    valid = np.isfinite(by_group)
    count = draws @ valid
    return np.where(count > 0, draws @ np.where(valid, by_group, 0.0) / np.maximum(count, 1), np.nan)


def _calibration_error(rows: Rows, score: NDArray, draws: NDArray) -> NDArray:
    bins = metrics.calibration_bins(rows.group, rows.label, score)
    return np.abs(draws @ bins).sum(1) / (draws @ np.bincount(rows.group))


def _groups_used(rows: Rows, metric: str) -> int:
    if metric not in _RANKING:
        return int(rows.group.max()) + 1
    return int(np.isfinite(_RANKING[metric](rows, np.zeros(len(rows.group)))).sum())
