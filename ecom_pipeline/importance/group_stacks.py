"""Groups of one size side by side, so that a step over thousands of small groups is a step over a few arrays.

On the floor of `importance`.
"""

import numpy as np

from ecom_pipeline.arrays import Ints


def in_parts(group: Ints, largest: int) -> Ints:
    """(n,) numbers of the groups, where one of more than `largest` samples has become several as equal as can be.

    >>> in_parts(np.array([7, 7, 7, 7, 7, 3]), 2).tolist()
    [1, 1, 2, 2, 3, 0]

    Cost: O(n log n).
    """
    order = np.argsort(group, kind="stable")
    _, first, number, size = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    place = np.arange(len(group)) - first[number]  # within the group
    n_parts = -(-size // largest)
    least, n_larger = size // n_parts, size % n_parts  # the first parts have one sample more
    in_larger = (least + 1) * n_larger
    q, m, edge = least[number], n_larger[number], in_larger[number]
    part = np.where(place < edge, place // (q + 1), m + (place - edge) // np.maximum(q, 1))
    result = np.empty(len(group), np.int64)
    result[order] = (np.cumsum(n_parts) - n_parts)[number] + part
    return result


def stacks(group: Ints) -> list[Ints]:
    """(g, k) rows of the groups of k samples each, for every k that there is, smallest first.

    >>> [stack.tolist() for stack in stacks(np.array([5, 8, 5, 6, 8]))]
    [[[3]], [[0, 2], [1, 4]]]

    Cost: O(n log n).
    """
    _, number, size = np.unique(group, return_inverse=True, return_counts=True)
    order = np.lexsort((number, size[number]))
    sizes = size[number][order]
    return [order[sizes == k].reshape(-1, k) for k in np.unique(sizes)]


def rows_of_some(group: Ints, n_samples: int, seed: int) -> Ints:
    """(m,) rows of whole groups drawn at random, about so many, in order; all rows where there are not more.

    Cost: O(n log n); random under the seed.
    """
    if len(group) <= n_samples:
        return np.arange(len(group))
    _, number, size = np.unique(group, return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(seed).permutation(len(size))
    kept = drawn[: np.searchsorted(size[drawn].cumsum(), n_samples) + 1]
    return np.flatnonzero(np.isin(number, kept))
