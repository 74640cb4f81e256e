"""Which items go together: models of (users, items) weights that say how strongly a history speaks for every item.

On the floor above `weighting`. Each also says what the rest foretells of a pair that it was fitted on, as if the pair had
never been: that is what a pair can be doubted by.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Ints, Singles

SOLVED = 6000  # users or items up to which the ridge model is solved exactly: 6,000 squared is 0.14 GB
FEW = 0.1  # share of cells below which a sparse matrix is multiplied as such
BLOCK = 512  # items whose rows of M X are looked at together
NEIGHBOURS = 200  # kept of each item, where the ridge model is too large
SHRINKAGE = 10.0  # users that are added to a co-occurrence before it is believed
RIDGE = 300.0  # of the item-item model


class ItemItem(Protocol):
    """How strongly a weighted history speaks for every item."""

    def scores(self, history: sparse.csr_matrix) -> Singles:
        """(v, items) from (v, items); an item's own presence in the history does not speak for it."""
        ...


class Fitted(ItemItem, Protocol):
    """An item-item model that knows the histories it was fitted on, and can leave each user out of its own fit."""

    def own_scores(self, matrix: sparse.csr_matrix, user: Ints) -> Singles:
        """(v, items) `scores` of some rows of the (users, items) matrix that the model was fitted on."""
        ...

    def held_out(self, matrix: sparse.csr_matrix, user: Ints, item: Ints) -> Singles:
        """(k,) what the rest foretells of pairs: a fit without the pair's user, asked about the rest of his history.

        Args:
            matrix: (users, items) that the model was fitted on.
            user: (k,) of each pair, sorted.
            item: (k,) likewise; the pair is a cell of the matrix.
        """
        ...


@dataclass(frozen=True, slots=True)
class RidgeByUsers:
    """EASE where users are fewer than items: the same numbers from a users x users inverse, and the histories as they are.

    With X (users, items) and P = (X'X + r I)^-1, EASE is B = I - P / diag(P). By Woodbury's identity
    P = (I - X' M X) / r with M = (X X' + r I)^-1, so neither P nor B need ever be made, nor any users x items table.

    Source: Steck 2019, Embarrassingly Shallow Autoencoders, equation 8; in this form our own.
    """

    back: sparse.csr_matrix  # (items, users) X'
    inverse: Singles  # (users, users) M
    own: Singles  # (items,) r diag(P)
    ridge: float

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, ridge: float) -> "RidgeByUsers":
        """From (users, items) weights. Cost: O(users^3 + users nnz); memory O(users^2 + nnz)."""
        gram = (matrix @ matrix.T).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += ridge
        back, inverse = matrix.T.tocsr(), _inverse(gram).astype(np.float32)
        cells = matrix.tocoo()
        explained = cells.data * _solved(back, inverse, cells.row, cells.col)
        own = 1 - np.bincount(cells.col, explained, matrix.shape[1])
        return cls(back, inverse, own.astype(np.float32), ridge)

    def held_out(self, matrix: sparse.csr_matrix, user: Ints, item: Ints) -> Singles:
        """(k,) by the item's regression on all others, fitted without that user. Cost: as a fit; not random.

        In closed form: the residual is what leave-one-out leaves of it, (MX / own) / (1 - leverage of the user in that
        regression).

        Source: Allen 1974 for the residual; in this form our own.
        """
        value, solved = _cells(matrix, user, item), _solved(self.back, self.inverse, user, item)
        leverage = np.diag(self.inverse)[user]
        return value - solved / (leverage * self.own[item] + solved**2)

    def own_scores(self, matrix: sparse.csr_matrix, user: Ints) -> Singles:
        """(v, items) `scores` of histories that the model was fitted on, without a product of users by users.

        As X X' M = I - r M, a user's row of X B is x - r m X / diag(r P).
        """
        history = np.asarray(matrix[user].todense(), np.float32)
        return history - np.float32(self.ridge) * self._through(self.inverse[user]) / self.own

    def scores(self, history: sparse.csr_matrix) -> Singles:
        """(v, items)."""
        near = history @ self.back  # (v, users)
        few = near.nnz < FEW * near.shape[0] * near.shape[1]
        found = self._through(near @ self.inverse if few else near.toarray().astype(np.float32) @ self.inverse)
        found /= self.own
        entries = history.tocoo()  # one for each (visit, item), or the last of them alone would count
        found[entries.row, entries.col] += entries.data * (1 - 1 / self.own[entries.col])
        return found

    def _through(self, by_user: Singles) -> Singles:
        """(v, items) what (v, users) weights of users make of all that they took."""
        return np.ascontiguousarray((self.back @ by_user.T).T, np.float32)


def _solved(back: sparse.csr_matrix, inverse: Singles, user: Ints, item: Ints) -> Singles:
    """(k,) cells of M X, by blocks of items, so that no users x items table is made. Cost: O(users nnz)."""
    found, order = np.empty(len(user), np.float32), np.argsort(item, kind="stable")
    begins = np.arange(0, back.shape[0], BLOCK)
    ends = np.searchsorted(item[order], np.append(begins, back.shape[0]))
    for begin, first, last in zip(begins, ends, ends[1:], strict=False):
        places = order[first:last]
        found[places] = (back[begin : begin + BLOCK] @ inverse)[item[places] - begin, user[places]]
    return found


@dataclass(frozen=True, slots=True)
class RidgeByItems:
    """EASE where items are fewer than users.

    Source: Steck 2019, equation 8.
    """

    between: Singles  # (items, items), diagonal 0
    ridge: float = RIDGE

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, ridge: float) -> "RidgeByItems":
        """From (users, items) weights. Cost: O(items^3 + nnz)."""
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += ridge
        inverse = _inverse(gram)
        between = -inverse / np.diag(inverse)
        np.fill_diagonal(between, 0)
        return cls(between.astype(np.float32), ridge)

    def scores(self, history: sparse.csr_matrix) -> Singles:
        """(v, items)."""
        return np.asarray(history @ self.between, np.float32)

    def own_scores(self, matrix: sparse.csr_matrix, user: Ints) -> Singles:
        """(v, items)."""
        return self.scores(matrix[user])

    def held_out(self, matrix: sparse.csr_matrix, user: Ints, item: Ints) -> Singles:
        """(k,) as `RidgeByUsers.held_out`, from what the fit leaves of each cell. Cost: O(items) a cell, by blocks.

        With e = X - XB and P_jj = 1 / (r + sum of x e of the item), the user's leverage in the item's regression is
        h = q - e^2 P_jj, q being the sum of x e P_jj over his items; leave-one-out leaves e / (1 - h).

        Source: Allen 1974 for the residual; in this form our own.
        """
        cells = matrix.tocoo()
        left = cells.data - _at_cells(matrix, self.between, cells.row, cells.col)
        spread = 1 / (self.ridge + np.bincount(cells.col, cells.data * left, matrix.shape[1]))
        of_user = np.bincount(cells.row, cells.data * left * spread[cells.col], matrix.shape[0])
        residual = _cells(sparse.csr_matrix((left, (cells.row, cells.col)), shape=matrix.shape), user, item)
        leverage = of_user[user] - residual**2 * spread[item]
        return (_cells(matrix, user, item) - residual / (1 - leverage)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Item-kNN by weighted cosine, for catalogues and crowds that are too large for the ridge model.

    Source: Sarwar et al. 2001; shrinkage as Koren 2008.
    """

    between: sparse.csr_matrix  # (items, items), the nearest of each row's item

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, k: int) -> "Neighbours":
        """From (users, items) weights. Cost: one sparse product, by blocks of items; O(items k) memory."""
        norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(0)).ravel())
        n_users = np.bincount(matrix.indices, minlength=matrix.shape[1])
        columns, nearest, lengths = matrix.tocsc(), [], []
        for start in range(0, matrix.shape[1], 1000):
            block = (columns[:, start : start + 1000].T @ matrix).tocsr()
            for row in range(block.shape[0]):
                cells = slice(block.indptr[row], block.indptr[row + 1])
                other, item = block.indices[cells], start + row
                believed = np.minimum(n_users[item], n_users[other])
                cosine = block.data[cells] / (norm[item] * norm[other]) * believed / (believed + SHRINKAGE)
                cosine[other == item] = -np.inf
                near = np.flatnonzero(cosine >= np.partition(cosine, -k)[-k]) if len(cosine) > k else slice(None)
                other, cosine = other[near], cosine[near]
                order = np.lexsort((other, -cosine))[:k]
                other, cosine = other[order], cosine[order]
                real = np.isfinite(cosine)
                nearest.append((other[real], cosine[real]))
                lengths.append(int(real.sum()))
        other, cosine = (np.concatenate(arrays) for arrays in zip(*nearest, strict=True))
        shape = (matrix.shape[1], matrix.shape[1])
        return cls(sparse.csr_matrix((cosine.astype(np.float32), other, np.r_[0, np.cumsum(lengths)]), shape=shape))

    def scores(self, history: sparse.csr_matrix) -> Singles:
        """(v, items)."""
        return np.asarray((history @ self.between).todense(), np.float32)

    def own_scores(self, matrix: sparse.csr_matrix, user: Ints) -> Singles:
        """(v, items)."""
        return self.scores(matrix[user])

    def held_out(self, matrix: sparse.csr_matrix, user: Ints, item: Ints) -> Singles:
        """(k,) by cosines without that user; which neighbours are kept has seen him. Cost: as two of `scores`.

        Leaving a user out takes x_i x_j from a dot product, x^2 from a squared norm and 1 from a count. So the sum over
        his items i of x_i cos(i, j) is that of y_i (C_ij s_ij) less x_j times that of x_i y_i s_ij, over the norm of j, with
        y = x / norm without him, dot products C and what is believed of them, s.
        """
        square = np.asarray(matrix.multiply(matrix).sum(0), np.float64).ravel()
        n_users = np.bincount(matrix.indices, minlength=matrix.shape[1])
        near = self.between.tocoo()
        believed = np.minimum(n_users[near.row], n_users[near.col])
        without = (believed - 1) / (believed - 1 + SHRINKAGE)
        dot = near.data * np.sqrt(square[near.row] * square[near.col]) * (believed + SHRINKAGE) / believed
        place = (near.row, near.col)
        dots, shares = (sparse.csr_matrix((v, place), shape=near.shape) for v in (dot * without, without))
        by_norm, by_value = matrix.astype(np.float64), matrix.astype(np.float64)
        by_norm.data *= _inverse_root(square[matrix.indices] - by_norm.data**2)
        by_value.data *= by_norm.data
        value = _cells(matrix, user, item).astype(np.float64)
        found = _at_cells(by_norm, dots, user, item) - value * _at_cells(by_value, shares, user, item)
        return (found * _inverse_root(square[item] - value**2)).astype(np.float32)


def _cells(matrix: sparse.csr_matrix, user: Ints, item: Ints) -> Singles:
    return np.asarray(matrix[user, item], np.float32).ravel()


def _at_cells(left: sparse.csr_matrix, right: sparse.csr_matrix | Singles, user: Ints, item: Ints) -> Floats:
    """(k,) cells of a product, by blocks of rows; `user` is sorted."""
    found = np.empty(len(user))
    for start in range(0, left.shape[0], 256):
        rows = slice(*np.searchsorted(user, [start, start + 256]))
        product = left[start : start + 256] @ right
        dense = product.toarray() if sparse.issparse(product) else product
        found[rows] = dense[user[rows] - start, item[rows]]
    return found


def _inverse(gram: Floats) -> Floats:
    """Of a positive definite matrix, which is used up. Cost: n^3, half of that of any matrix."""
    from scipy.linalg.lapack import dpotrf, dpotri

    factor, _ = dpotrf(gram, lower=1, overwrite_a=1)
    half, _ = dpotri(factor, lower=1, overwrite_c=1)
    below = np.tril(half, -1)
    return below + below.T + np.diag(np.diag(half))


def _inverse_root(square: Floats) -> Floats:
    """0 where nothing is left."""
    known = square > 1e-6
    return np.where(known, 1 / np.sqrt(np.where(known, square, 1)), 0)


def item_item(matrix: sparse.csr_matrix, ridge: float = RIDGE) -> Fitted:
    """The item-item model that fits: the ridge model where it can be solved, else the nearest neighbours.

    Args:
        matrix: (users, items) weights.
        ridge: of the ridge model.
    """
    n_users, n_items = matrix.shape
    if n_users <= min(SOLVED, n_items):
        return RidgeByUsers.fit(matrix, ridge)
    return RidgeByItems.fit(matrix, ridge) if n_items <= SOLVED else Neighbours.fit(matrix, NEIGHBOURS)


def history_value(weight: NDArray) -> Singles:
    """What a pair's weight adds to a history: a tenth purchase says less than the second."""
    return np.log1p(3 * weight).astype(np.float32)
