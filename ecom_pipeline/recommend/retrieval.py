"""What was known of the catalogue on one day: which items go together, what is popular, what is like what in text.

On the floor above `item_item`. Everything here is of interactions before one day, so nothing later leaks into a list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.recommend.interactions import NEVER, Interactions, Visits
from ecom_pipeline.recommend.item_item import ItemItem, history_value, item_item
from ecom_pipeline.recommend.weighting import Weighting, rank_share

if TYPE_CHECKING:
    from ecom_pipeline.recommend.sequence import SequenceModel

UNKNOWN = 0.5  # opinion of a pair of which nothing is known: the mean rank share
SMOOTHING = 5.0  # pairs of the whole shop that are added to an item's own rate of repetition


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
        sequence: what the order of a user's visits asks for; None where it was not learnt.
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
    sequence: "SequenceModel | None" = None

    @classmethod
    def fit(
        cls,
        acts: Interactions,
        day: int,
        *,
        weighting: Weighting,
        text: Singles | None = None,
        sequences: bool = False,
    ) -> "Index":
        """Everything from interactions before a day.

        Args:
            acts: interactions; later ones are not looked at.
            day: when the index was made.
            weighting: of the interactions.
            text: (items, d) unit vectors.
            sequences: whether a model of sequences is learnt, with the weights in its loss.

        Cost: as `item_item`, and a few passes over the interactions; as `fit_next_items` where it is asked for.
        """
        known = acts.before(day)
        pairs, pair = known.pairs()
        opinion = evidence(known, pairs, pair, day=day, weighting=weighting, text=text)
        weight = weighting.as_of(known, day, None if opinion is None else opinion[pair])
        together = item_item(_matrix(pairs, np.bincount(pair, weight), acts))
        n_users, share, gap = repetition(known, pairs, pair)
        sequence = None
        if sequences and len(known):
            from ecom_pipeline.recommend.next_items import fit_next_items

            sequence = fit_next_items(known, weight=weight, text=text)
        return cls(day, weighting, together, opinion, pairs, n_users, share, gap, text, sequence)

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

    Behaviour is heard without the user whose pair it is, in closed form: `Fitted.held_out`.

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
    if weighting.evidence == "behaviour":
        return rank_share(item_item(matrix).held_out(matrix, user, item))
    assert text is not None
    return rank_share(likeness(matrix, user, item, text))


def likeness(matrix: sparse.csr_matrix, user: Ints, item: Ints, text: Singles) -> Singles:
    """(k,) cosine of an item's text with the weighted mean of the user's other items' texts.

    Args:
        matrix: (users, items) weights.
        user: (k,) of each pair, sorted.
        item: (k,) likewise; the pair is a cell of the matrix.
        text: (items, d) unit vectors.
    """
    found = np.empty(len(user), np.float32)
    for start in range(0, matrix.shape[0], 256):
        rows = slice(*np.searchsorted(user, [start, start + 256]))
        history, place = matrix[start : start + 256], user[rows] - start
        own = np.asarray(history[place, item[rows]]).ravel()
        rest = (history @ text)[place] - own[:, None] * text[item[rows]]
        length = np.maximum(np.linalg.norm(rest, axis=1), 1e-9)
        found[rows] = np.einsum("nd,nd->n", rest, text[item[rows]]) / length
    return found


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
