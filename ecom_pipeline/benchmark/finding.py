"""Task: find the wrong labels. How well do values sort them out?

On the floor of `benchmark`.
"""

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats


def found(wrong: Bools, value: Floats, strata: NDArray | None = None) -> dict[str, float]:
    """How well low values find wrong labels.

    Args:
        wrong: (n,) the truth, with at least one of each.
        value: (n,) higher is worth more.
        strata: (n,) within which to judge, or None; strata that are all wrong or all right are left out.

    Returns:
        auroc: chance that a wrong label has the lower value. average_precision. precision_at_count: share of wrong
        labels among as many of the lowest values as there are wrong labels. f1_two_means: F1 of the lower of two
        clusters of the values (OpenDataVal's protocol; depends on the scale of the values). With strata, auroc alone,
        as mean over strata.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if strata is not None:
        inside = [strata == one for one in np.unique(strata)]
        figures = [roc_auc_score(wrong[rows], -value[rows]) for rows in inside if 0 < wrong[rows].mean() < 1]
        return {"auroc_within_grade": float(np.mean(figures))}
    lowest = np.argsort(value, kind="stable")[: int(wrong.sum())]
    return {
        "auroc": float(roc_auc_score(wrong, -value)),
        "average_precision": float(average_precision_score(wrong, -value)),
        "precision_at_count": float(wrong[lowest].mean()),
        "f1_two_means": f1(wrong, lower_of_two_means(value)),
    }


def f1(wrong: Bools, flagged: Bools) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is flagged rightly."""
    return float(2 * (wrong & flagged).sum() / max(wrong.sum() + flagged.sum(), 1))


def lower_of_two_means(value: Floats) -> Bools:
    """(n,) whether a value is in the lower of two clusters.

    Sorted values are cut where the squares within both parts add up to least, which is two-means in one dimension,
    solved exactly.

    Cost: O(n log n).

    >>> lower_of_two_means(np.array([0.9, 0.1, 1.0, 0.2])).tolist()
    [False, True, False, True]
    """
    order = np.argsort(value, kind="stable")
    ordered = value[order] - value.mean()
    if len(value) < 2 or ordered[0] == ordered[-1]:
        return np.zeros(len(value), bool)
    size = np.arange(1, len(value))
    below = np.cumsum(ordered)[:-1]
    between = below**2 / size + (ordered.sum() - below) ** 2 / (len(value) - size)
    between[np.diff(ordered) == 0] = -np.inf  # equal values are not torn apart
    result = np.zeros(len(value), bool)
    result[order[: int(between.argmax()) + 1]] = True
    return result
