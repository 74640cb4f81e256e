"""How good is a list of the whole catalogue? One figure a visit, for the whole list and for repeats and new items apart.

On the floor above `candidates`. Gain is linear, the ideal list is cut where the list is, and what was taken but not
retrieved counts as missed. A visit on which nothing of the kind was taken has no figure (NaN).
"""

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints


def hits(top: Ints, visit: Ints, item: Ints, n_items: int) -> Bools:
    """(v, k) whether each listed item is among the (visit, item) pairs that were taken."""
    key = np.arange(len(top))[:, None] * n_items + top
    return np.isin(key, visit * n_items + item) & (top >= 0)


def ndcg(hit: Bools, n_taken: Ints) -> Floats:
    """(v,) nDCG at the width of `hit`.

    >>> ndcg(np.array([[False, True]]), np.array([1])).round(4).tolist()
    [0.6309]
    """
    discount = 1 / np.log2(np.arange(hit.shape[1]) + 2)
    best = np.r_[0, np.cumsum(discount)][np.minimum(n_taken, hit.shape[1])]
    return np.where(n_taken > 0, hit @ discount / np.where(n_taken > 0, best, 1), np.nan)


def recall(hit: Bools, n_taken: Ints) -> Floats:
    """(v,) share of what was taken that is listed."""
    return np.where(n_taken > 0, hit.sum(1) / np.maximum(n_taken, 1), np.nan)


def hit_rate(hit: Bools, n_taken: Ints) -> Floats:
    """(v,) 1 where anything that was taken is listed."""
    return np.where(n_taken > 0, hit.any(1).astype(float), np.nan)
