"""What was known of the catalogue on one day: which items go together, what is popular, what is like what in text.

On the floor above `weighting`. Everything here is of interactions before one day, so nothing later leaks into a list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.recommend.interactions import NEVER, Interactions, Visits
from ecom_pipeline.recommend.weighting import Weighting, rank_share

SOLVED = 6000  # users or items up to which the ridge model is solved exactly: 6,000 squared is 0.14 GB
DENSE = 150_000_000  # cells of a users x items matrix that is kept: 0.6 GB
NEIGHBOURS = 200  # kept of each item, where the ridge model is too large
SHRINKAGE = 10.0  # users that are added to a co-occurrence before it is believed
RIDGE = 300.0  # of the item-item model
UNKNOWN = 0.5  # opinion of a pair of which nothing is known: the mean rank share
SMOOTHING = 5.0  # pairs of the whole shop that are added to an item's own rate of repetition


class ItemItem(Protocol):
    """How strongly a weighted history speaks for every item."""

    def scores(self, history: sparse.csr_matrix) -> Singles:
        """(v, items) from (v, items); an item's own presence in the history does not speak for it."""
        ...


@dataclass(frozen=True, slots=True)
class RidgeByUsers:
    """EASE where users are fewer than items: the same numbers from a users x users inverse.

    With X (users, items) and P = (X'X + r I)^-1, EASE is B = I - P / diag(P). By Woodbury's identity
    P = (I - X' M X) / r with M = (X X' + r I)^-1, so neither P nor B need ever be made.

    Source: Steck 2019, Embarrassingly Shallow Autoencoders, equation 8; in this form our own.
    """

    back: sparse.csr_matrix  # (items, users) X'
    solved: Singles  # (users, items) M X
    own: Singles  # (items,) r diag(P)
    leverage: Singles  # (users,) diag(M)
    ridge: float

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, ridge: float) -> "RidgeByUsers":
        """From (users, items) weights. Cost: O(users^3 + users nnz)."""
        gram = (matrix @ matrix.T).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += ridge
        inverse = np.linalg.inv(gram).astype(np.float32)
        solved = inverse @ matrix.toarray().astype(np.float32, copy=False)
        cells = matrix.tocoo()
        explained = np.bincount(cells.col, cells.data * solved[cells.row, cells.col], matrix.shape[1])
        return cls(matrix.T.tocsr(), solved, (1 - explained).astype(np.float32), np.diag(inverse).copy(), ridge)

    def held_out(self, user: Ints, item: Ints) -> Singles:
        """(k,) what the rest of a history foretells of pairs that the model was fitted on: without the pair itself.

        The item's regression on all others, fitted without that user, asked about that user. In closed form: the
        residual is what leave-one-out leaves of it, (MX / own) / (1 - leverage of the user in that regression).

        Source: Allen 1974 for the residual; in this form our own.
        """
        value, solved = np.asarray(self.back[item, user], np.float32).ravel(), self.solved[user, item]
        return value - solved / (self.leverage[user] * self.own[item] + solved**2)

    def own_scores(self, user: int, history: sparse.csr_matrix) -> Singles:
        """(items,) `scores` of the history that the model was fitted on, which `history` is, for the cost of reading a row.

        As X X' M = I - r M, the user's row of X B is x - r m X / diag(r P).
        """
        return np.asarray(history.todense(), np.float32).ravel() - np.float32(self.ridge) * self.solved[user] / self.own

    def item_scores(self, item: int) -> Singles:
        """(items,) `scores` of a history of one item, once, for the cost of a row of each user who took it."""
        cells = slice(self.back.indptr[item], self.back.indptr[item + 1])
        result = self.back.data[cells] @ self.solved[self.back.indices[cells]] / self.own
        result[item] += 1 - 1 / self.own[item]
        return result

    def scores(self, history: sparse.csr_matrix) -> Singles:
        """(v, items)."""
        through = np.asarray((history @ self.back).todense(), np.float32) @ self.solved
        through /= self.own
        entries = history.tocoo()  # one for each (visit, item), or the last of them alone would count
        through[entries.row, entries.col] += entries.data * (1 - 1 / self.own[entries.col])
        return through


@dataclass(frozen=True, slots=True)
class RidgeByItems:
    """EASE where items are fewer than users.

    Source: Steck 2019, equation 8.
    """

    between: Singles  # (items, items), diagonal 0

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, ridge: float) -> "RidgeByItems":
        """From (users, items) weights. Cost: O(items^3 + nnz)."""
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += ridge
        inverse = np.linalg.inv(gram)
        between = -inverse / np.diag(inverse)
        np.fill_diagonal(between, 0)
        return cls(between.astype(np.float32))

    def scores(self, history: sparse.csr_matrix) -> Singles:
        """(v, items)."""
        return np.asarray(history @ self.between, np.float32)


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


def item_item(matrix: sparse.csr_matrix, ridge: float = RIDGE) -> ItemItem:
    """The item-item model that fits: the ridge model where it can be solved, else the nearest neighbours.

    Args:
        matrix: (users, items) weights.
        ridge: of the ridge model.
    """
    n_users, n_items = matrix.shape
    if n_users <= min(SOLVED, n_items) and n_users * n_items <= DENSE:
        return RidgeByUsers.fit(matrix, ridge)
    return RidgeByItems.fit(matrix, ridge) if n_items <= SOLVED else Neighbours.fit(matrix, NEIGHBOURS)


def history_value(weight: NDArray) -> Singles:
    """What a pair's weight adds to a history: a tenth purchase says less than the second."""
    return np.log1p(3 * weight).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Index:
    """The catalogue as it was known when a day began.

    Attributes:
        day: the day.
        weighting: of the interactions.
        together: the item-item model.
        opinion: (k,) rank share of the evidence for each pair of `pairs`; None where the weighting asks for none.
        pairs: (k,) user * items + item, sorted.
        n_users: (items,) how many users took it.
        repeat_share: (items,) of them, who took it again; drawn to the shop's share where there are few.
        usual_gap: (items,) days between two takings by one user, on average; drawn likewise.
        text: (items, d) unit vectors of the titles, or None.
    """

    day: int
    weighting: Weighting
    together: ItemItem
    opinion: Singles | None
    pairs: Ints
    n_users: Ints
    repeat_share: Singles
    usual_gap: Singles
    text: Singles | None

    @classmethod
    def fit(cls, acts: Interactions, day: int, *, weighting: Weighting, text: Singles | None = None) -> "Index":
        """Everything from interactions before a day.

        Args:
            acts: interactions; later ones are not looked at.
            day: when the index was made.
            weighting: of the interactions.
            text: (items, d) unit vectors.

        Cost: as `item_item`, and a few passes over the interactions.
        """
        known = acts.before(day)
        pairs, pair = known.pairs()
        opinion = evidence(known, pairs, pair, day=day, weighting=weighting, text=text)
        weight = weighting.as_of(known, day, None if opinion is None else opinion[pair])
        together = item_item(_matrix(pairs, np.bincount(pair, weight), acts))
        n_users, share, gap = repetition(known, pairs, pair)
        return cls(day, weighting, together, opinion, pairs, n_users, share, gap, text)

    def weights(self, acts: Interactions, day: NDArray) -> Singles:
        """(n,) weights of rows of interactions as of some days; a pair that the index does not know has the mean opinion."""
        if self.opinion is None:
            return self.weighting.as_of(acts, day)
        key = acts.user * acts.n_items + acts.item
        place = np.minimum(np.searchsorted(self.pairs, key), len(self.pairs) - 1)
        opinion = np.where(self.pairs[place] == key, self.opinion[place], np.float32(UNKNOWN))
        return self.weighting.as_of(acts, day, opinion)


def _matrix(pairs: Ints, weight: NDArray, acts: Interactions) -> sparse.csr_matrix:
    shape = (acts.n_users, acts.n_items)
    return sparse.csr_matrix((history_value(weight), (pairs // acts.n_items, pairs % acts.n_items)), shape=shape)


def evidence(
    known: Interactions, pairs: Ints, pair: Ints, *, day: int, weighting: Weighting, text: Singles | None
) -> Singles | None:
    """(k,) rank share of what the rest of each user's history says of each pair.

    Leave-one-out in closed form where the ridge model is solved by users; else the other models' answer, whose
    likeness of items may have seen the pair, though the item itself does not speak.

    Args:
        known: interactions before the day.
        pairs: (k,) user * items + item, sorted.
        pair: (n,) place of each row among them.
        day: as of which histories are weighed, without evidence.
        weighting: says which kind of evidence is asked for.
        text: (items, d) unit vectors.

    Returns:
        None where none is asked for, or texts are asked and there are none.
    """
    if weighting.evidence == "none" or (weighting.evidence == "text" and text is None):
        return None
    matrix = _matrix(pairs, np.bincount(pair, weighting.as_of(known, day)), known)
    user, item = np.divmod(pairs, matrix.shape[1])
    found = np.empty(len(pairs), np.float32)
    model = item_item(matrix) if weighting.evidence == "behaviour" else None
    if isinstance(model, RidgeByUsers):
        return rank_share(model.held_out(user, item))
    for start in range(0, matrix.shape[0], 256):
        rows = slice(*np.searchsorted(user, [start, start + 256]))
        history, place = matrix[start : start + 256], user[rows] - start
        if model:  # its diagonal is 0: the item itself does not speak
            found[rows] = model.scores(history)[place, item[rows]]
        else:
            assert text is not None
            own = np.asarray(history[place, item[rows]]).ravel()
            rest = (history @ text)[place] - own[:, None] * text[item[rows]]
            length = np.maximum(np.linalg.norm(rest, axis=1), 1e-9)
            found[rows] = np.einsum("nd,nd->n", rest, text[item[rows]]) / length
    return rank_share(found)


def repetition(known: Interactions, pairs: Ints, pair: Ints) -> tuple[Ints, Singles, Singles]:
    """(items,) how many took each item; who of them took it again; and after how many days, on average.

    The last two are drawn to the shop's figures where few took the item. `pairs` and `pair` are those of `known`.
    """
    n_items = known.n_items
    item = pairs % n_items
    n_days = np.bincount(pair, minlength=len(pairs))
    first, last = np.full(len(pairs), np.iinfo(np.int64).max), np.zeros(len(pairs), np.int64)
    np.minimum.at(first, pair, known.day)
    np.maximum.at(last, pair, known.day)
    again = n_days > 1
    n_users, n_again = np.bincount(item, minlength=n_items), np.bincount(item[again], minlength=n_items)
    gaps = np.bincount(item[again], ((last - first) / np.maximum(n_days - 1, 1))[again], minlength=n_items)
    share_of_all = again.sum() / max(len(pairs), 1)
    gap_of_all = gaps.sum() / max(again.sum(), 1)
    share = (n_again + SMOOTHING * share_of_all) / (n_users + SMOOTHING)
    return (
        n_users,
        share.astype(np.float32),
        ((gaps + SMOOTHING * gap_of_all) / (n_again + SMOOTHING)).astype(np.float32),
    )


def popularity(acts: Interactions, visits: Visits, *, days: int) -> dict[int, Singles]:
    """(items,) takings of each item in the days before each day on which there is a visit.

    Cost: one sort of the interactions' days, and the rows of the window for each day.
    """
    lately = Lately.of(acts, visits, windows=(days,))
    return dict(zip(lately.days.tolist(), lately.takings[days], strict=True))


@dataclass(frozen=True, slots=True)
class Lately:
    """What all users together took shortly before each day on which there is a visit.

    Attributes:
        days: (d,) sorted.
        takings: (d, items) of each item, by how many days are looked back.
    """

    days: Ints
    takings: Mapping[int, Singles]
    _by_class: dict[tuple[str, int], Floats] = field(default_factory=dict, repr=False, compare=False)

    def row(self, visits: Visits) -> Ints:
        """(v,) place of each visit's day among the days."""
        return np.searchsorted(self.days, visits.day)

    def of_classes(self, name: str, code: Ints, n_days: int) -> Floats:
        """(d, classes) takings of each class of items; summed once.

        Args:
            name: of the division.
            code: (items,) class of each item.
            n_days: how many days are looked back.
        """
        key = (name, n_days)
        if key not in self._by_class:
            n = int(code.max()) + 1
            self._by_class[key] = np.stack([np.bincount(code, row, n) for row in self.takings[n_days]])
        return self._by_class[key]

    @classmethod
    def of(cls, acts: Interactions, visits: Visits, *, windows: Sequence[int]) -> "Lately":
        """Cost: one sort of the days that are looked at, and the rows of each window for each day."""
        days = np.unique(visits.day)
        inside = (acts.day >= days.min(initial=NEVER) - max(windows)) & (acts.day < days.max(initial=0))
        order = np.flatnonzero(inside)
        order = order[np.argsort(acts.day[order], kind="stable")]
        by_day, item = acts.day[order], acts.item[order]
        takings = {n: np.zeros((len(days), acts.n_items), np.float32) for n in windows}
        for n, table in takings.items():
            for place, day in enumerate(days):
                rows = slice(*np.searchsorted(by_day, [day - n, day]))
                table[place] = np.bincount(item[rows], minlength=acts.n_items)
        return cls(days, takings)
