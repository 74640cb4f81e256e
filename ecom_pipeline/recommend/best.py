"""The highest of many: of each row of a table, or of the rows of each visit. Of equals the first is taken, on every machine.

On the ground floor of `recommend`: it knows no other module.
"""

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles

_STRIDE = 8  # of the columns, one in so many is looked at for a guess of the border
_MARGIN = 1.5  # by which the guess is too low on purpose


def best_columns(table: Singles | Floats, k: int) -> Ints:
    """(v, k) columns of the highest values of each row, the highest first; of equals the first column.

    Args:
        table: (v, n), without NaN.
        k: how many; n where there are fewer.

    Cost: some passes over the table; only what lies above a border, guessed from an eighth of the columns, is sorted.

    >>> best_columns(np.array([[1.0, 3.0, 3.0]]), 2).tolist()
    [[1, 2]]
    """
    width = table.shape[1]
    k = min(k, width)
    if k * _STRIDE >= width:
        return np.argsort(-table, axis=1, kind="stable")[:, :k]
    row, column = np.divmod(np.flatnonzero(_above(table, k)), width)
    begin = np.searchsorted(row, np.arange(len(table) + 1))
    place = np.arange(len(row)) - begin[row]
    few = np.full((len(table), int(np.diff(begin).max(initial=k))), np.inf, table.dtype)
    few[row, place] = -table[row, column]
    columns = np.zeros(few.shape, np.int64)
    columns[row, place] = column
    return np.take_along_axis(columns, np.argsort(few, axis=1, kind="stable")[:, :k], 1)


def _above(table: NDArray, k: int) -> Bools:
    """(v, n) cells that hold the k best of each row, and not many more."""
    sample = -table[:, ::_STRIDE]  # negative, as numpy is slow where many are equal to the lowest
    n = min(int(k / _STRIDE * _MARGIN) + 8, sample.shape[1]) - 1
    found = table > -np.partition(sample, n, axis=1)[:, n, None]
    for place in np.flatnonzero(np.count_nonzero(found, axis=1) < k):  # too high a guess, or many are equal there
        row = table[place]
        border = -np.partition(-row, k - 1)[k - 1]
        found[place] = row > border
        found[place, np.flatnonzero(row == border)[: k - np.count_nonzero(found[place])]] = True
    return found


def top_items(visit: Ints, item: Ints, score: Floats | Singles, *, n_visits: int, k: int) -> Ints:
    """(v, k) codes of the highest scores of each visit, the highest first; -1 where there are not k. Ties: lower code first.

    Args:
        visit: (n,) place of each row's visit.
        item: (n,) its code.
        score: (n,) without NaN.
        n_visits: v.
        k: length of a list.

    Cost: as `best_columns`, once more a sort where rows do not come by visit and item.

    >>> top_items(np.array([0, 0, 1]), np.array([7, 8, 9]), np.array([0.1, 0.2, 0.3]), n_visits=2, k=2).tolist()
    [[8, 7], [9, -1]]
    """
    same, later = visit[1:] == visit[:-1], visit[1:] > visit[:-1]
    if not (later | (same & (item[1:] > item[:-1]))).all():
        order = np.lexsort((item, visit))
        visit, item, score = visit[order], item[order], score[order]
    begin = np.searchsorted(visit, np.arange(n_visits + 1))
    place = np.arange(len(visit)) - begin[visit]
    shape = (n_visits, max(int(np.diff(begin).max(initial=0)), k))
    scores, items = np.full(shape, -np.inf, score.dtype), np.full(shape, -1, np.int64)
    scores[visit, place], items[visit, place] = score, item
    return np.take_along_axis(items, best_columns(scores, k), 1)
