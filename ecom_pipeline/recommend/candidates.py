"""What is retrieved for a visit, and what is known of each (visit, candidate) when the visit begins.

On the floor above `retrieval`. A candidate's columns are for a ranker; retrieved candidates are its only negatives.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Ints, Singles
from ecom_pipeline.recommend.best import best_columns
from ecom_pipeline.recommend.interactions import Interactions, Visits
from ecom_pipeline.recommend.item_item import history_value
from ecom_pipeline.recommend.nearest_items import Asked, ExactItems, NearestItems
from ecom_pipeline.recommend.retrieval import Index, Lately

CHANNELS = ("own", "together", "popular", "text", "sequence")
CELLS = 6_000_000  # visits x items at a time: about 0.3 GB in all
RECENT, SEASON = 28, 84  # days
WEEK, FEW, DAY = 7, 3, 1  # days: what is on offer changes within a week
WINDOWS = (RECENT, WEEK, FEW, DAY)
FADE = 0.9  # of a taking's weight, a visit of the user later


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How many candidates each channel brings to a visit.

    Attributes:
        n_own: items that the user took before, the weightiest first.
        n_together: new items for which his history speaks most.
        n_popular: new items taken most often in the last 28 days.
        n_text: new items whose texts are most like his history.
        n_sequence: new items that the order of his visits asks for most; 0: no model of sequences is learnt.
    """

    n_own: int = 400
    n_together: int = 150
    n_popular: int = 100
    n_text: int = 30
    n_sequence: int = 0


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known of the items themselves.

    Attributes:
        classes: (items,) codes by the name of a division, such as each level of the category.
        text: (items, d) unit vectors, or None.
        graph: by which items near to a text are found; None: all of `text` is looked at.
    """

    classes: Mapping[str, Ints]
    text: Singles | None = None
    graph: NearestItems | None = None

    @property
    def by_text(self) -> NearestItems | None:
        """Answers which items' texts are nearest; None where no text was read."""
        return ExactItems(self.text) if self.graph is None and self.text is not None else self.graph


@dataclass(frozen=True, slots=True)
class Candidates:
    """n retrieved pairs of some visits, by visit.

    Attributes:
        visit: (n,) place among the visits.
        item: (n,) codes.
        known: (n, c) what is known, named by `names`; NaN where it cannot be known.
        taken: (n,) whether the item was taken on the visit.
        channels: (n, 5) which of `CHANNELS` brought it.
        names: of the columns.
    """

    visit: Ints
    item: Ints
    known: Singles
    taken: Bools
    channels: Bools
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.visit)

    def column(self, name: str) -> Singles:
        """(n,) one column."""
        return self.known[:, self.names.index(name)]


@dataclass(frozen=True, slots=True)
class Market:
    """What all users together took lately, and paid.

    Attributes:
        lately: before each day that is asked for.
        prices: (items,) of a piece.
    """

    lately: Lately
    prices: Singles

    @classmethod
    def of(cls, acts: Interactions, visits: Visits, day: int) -> "Market":
        """As of the days of some visits; prices as of the day of an index."""
        return cls(Lately.of(acts, visits, windows=WINDOWS), _item_prices(acts.before(day)))


def retrieve(
    acts: Interactions,
    index: Index,
    catalogue: Catalogue,
    visits: Visits,
    retrieval: Retrieval,
    market: Market | None = None,
) -> Iterator[tuple[slice, Candidates]]:
    """Candidates of visits, some visits at a time; `visit` counts from the start of each part.

    Args:
        acts: all interactions; of each visit only earlier ones are looked at.
        index: made no later than the first visit.
        catalogue: of the items.
        visits: what is asked.
        retrieval: how many candidates.
        market: of the visits' days, where it is known already; then `acts` may be of these users alone.

    Cost: for v visits O(v items) for the channels, and the length of the histories; 0.5 GB.
    """
    market = market or Market.of(acts, visits, index.day)
    at, item = acts.taken(visits)
    order = np.argsort(at, kind="stable")
    at, item = at[order], item[order]
    for rows in visits.blocks(max(8, min(512, CELLS // max(acts.n_items, 1)))):
        taken = slice(*np.searchsorted(at, [rows.start, rows.stop]))
        part = _Part(acts, index, catalogue, visits.only(rows), market)
        yield rows, part.candidates(retrieval, (at[taken] - rows.start, item[taken]))


class _Part:
    """Some visits, their histories, and dense (visits, items) tables of them."""

    def __init__(self, acts: Interactions, index: Index, catalogue: Catalogue, visits: Visits, market: Market) -> None:
        self.index, self.catalogue, self.visits, self.prices = index, catalogue, visits, market.prices
        self.lately, self.of_day = market.lately, market.lately.row(visits)
        self.visit, row = acts.histories(visits)
        past = acts.only(row)
        self.past, self.age = past, (visits.day[self.visit] - past.day).astype(np.float32)
        self.weight = index.weights(past, visits.day[self.visit])
        key = self.visit * acts.n_items + past.item
        days, place = np.unique(self.visit * (1 << 20) + past.day, return_inverse=True)
        n_visits = np.bincount(days >> 20, minlength=len(visits))
        self.since = (np.cumsum(n_visits)[self.visit] - 1 - place).astype(np.float32)  # later visits of the user
        self.n_visits = np.maximum(n_visits, 1).astype(np.float32)
        self.start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else np.empty(0, np.int64)
        self.of, self.item = self.visit[self.start], past.item[self.start]  # of each distinct (visit, item)
        self.pair_weight = self._sum(self.weight)
        shape = (len(visits), acts.n_items)
        self.history = sparse.csr_matrix((history_value(self.pair_weight), (self.of, self.item)), shape=shape)
        self.together = index.together.scores(self.history)
        self.alike = self._alike()
        self.sequence = self._sequence()
        self.place = np.full(shape, -1, np.int32)
        self.place[self.of, self.item] = np.arange(len(self.of))

    def _sum(self, value: NDArray) -> Singles:
        return np.add.reduceat(value, self.start).astype(np.float32) if len(self.start) else np.empty(0, np.float32)

    def _alike(self) -> Asked | None:
        """The weighted mean of each history's texts, held against all texts."""
        by_text = self.catalogue.by_text
        if by_text is None:
            return None
        mean = np.asarray(self.history @ by_text.vectors, np.float32)
        return by_text.ask(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9))

    def _sequence(self) -> Singles | None:
        """(v, items) how much the order of each history asks for each item."""
        if self.index.sequence is None:
            return None
        from ecom_pipeline.recommend.next_items import next_item_scores

        return next_item_scores(self.index.sequence, self.visit, self.past, n_visits=len(self.visits))

    def candidates(self, retrieval: Retrieval, truth: tuple[Ints, Ints]) -> Candidates:
        """What the channels bring, with what is known of it, and whether it is among the (visit, item) taken."""
        channel = np.zeros((len(CHANNELS), *self.place.shape), bool)
        channel[0] = self._own(retrieval.n_own)
        had = self.place >= 0
        for name, table, n in (
            ("together", self.together, retrieval.n_together),
            ("popular", self.lately.takings[RECENT][self.of_day], retrieval.n_popular),
            ("sequence", self.sequence, retrieval.n_sequence),
        ):
            if table is not None and n:
                found = channel[CHANNELS.index(name)]
                top = best_columns(np.where(had, -np.inf, table), n)
                found[np.arange(len(self.visits))[:, None], top] = True
                found &= ~had
        if self.alike is not None and retrieval.n_text:
            near, _ = self.alike.nearest(retrieval.n_text, but=self.history)
            of, rank = np.nonzero(near >= 0)
            channel[CHANNELS.index("text")][of, near[of, rank]] = True
        visit, item = np.nonzero(channel.any(0))
        known = self._known(visit, item)
        taken = np.zeros(self.place.shape, bool)
        taken[truth] = True
        columns = np.empty((len(visit), len(known)), np.float32)
        for number, column in enumerate(known.values()):
            columns[:, number] = column
        return Candidates(visit, item, columns, taken[visit, item], channel[:, visit, item].T, tuple(known))

    def _own(self, n_own: int) -> Bools:
        order = np.lexsort((self.item, -self.pair_weight, self.of))
        rank = np.arange(len(order)) - np.searchsorted(self.of[order], self.of[order])
        kept = order[rank < n_own]
        table = np.zeros(self.place.shape, bool)
        table[self.of[kept], self.item[kept]] = True
        return table

    def _known(self, visit: Ints, item: Ints) -> dict[str, NDArray]:
        own = self._own_columns(visit, item)
        known = {**own, **self._item_columns(visit, item, own), **self._user_columns(visit)}
        if self.sequence is not None:
            known["sequence"] = self.sequence[visit, item]
        for name, code in self.catalogue.classes.items():
            known |= self._class_columns(name, code, visit, item, own["own_weight"])
        return known

    def _own_columns(self, visit: Ints, item: Ints) -> dict[str, NDArray]:
        """Of the user and the item: how often, how heavily, how long ago, and how regularly."""
        place = self.place[visit, item]
        had = place >= 0

        def of_pair(value: NDArray, absent: float) -> NDArray:
            return np.where(had, np.append(value, absent)[place], absent)

        ends = np.append(self.start, len(self.age))[1:] - 1  # rows of a pair come by day
        n_days = of_pair((ends - self.start + 1).astype(np.float32), 0)
        first, last = (of_pair(self.age[rows], np.nan) for rows in (self.start, ends))
        first_visit, last_visit = (of_pair(self.since[rows], np.nan) for rows in (self.start, ends))
        pieces = of_pair(self._sum(self.past.quantity), 0) / np.maximum(n_days, 1)
        between = (first - last) / np.maximum(n_days - 1, 1)
        usual = self.index.usual_gap[item]
        expected = np.where(n_days > 1, (between * (n_days - 1) + usual) / np.maximum(n_days, 1), usual)
        total = np.maximum(np.bincount(self.visit, self.weight, len(self.visits)), 1e-9)
        weight = of_pair(self.pair_weight, 0)
        return {
            "own_days": n_days,
            "own_acts": of_pair(self._sum(self.past.n_acts.sum(1)), 0),
            "own_weight": weight,
            "own_weight_share": weight / total[visit],
            "own_visit_share": n_days / self.n_visits[visit],
            "own_recent": of_pair(self._sum((self.age <= RECENT).astype(np.float32)), 0),
            "own_season": of_pair(self._sum((self.age <= SEASON).astype(np.float32)), 0),
            "own_age": last,
            "own_visits_since": last_visit,
            "own_visits_due": (last_visit + 1) * n_days / (first_visit + 1),
            "own_fade": of_pair(self._sum(FADE**self.since), 0),
            "own_pieces": pieces,
            "own_last_pieces": of_pair(self.past.quantity[ends], np.nan) / np.maximum(pieces, 1e-3),
            "own_first_age": first,
            "own_gap": np.where(n_days > 1, between, np.nan),
            "due": last / np.maximum(expected, 1e-3),
        }

    def _item_columns(self, visit: Ints, item: Ints, own: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Of the item alone, and of what the channels say."""
        row = self.of_day[visit]
        recent, week, few, day = (self.lately.takings[n][row, item] for n in (RECENT, WEEK, FEW, DAY))
        price = np.log(self.prices[item])
        bought = np.isfinite(self.past.price) & (self.past.price > 0)
        paid = np.where(bought, np.log(np.where(bought, self.past.price, 1)), 0) * self.weight
        usual = np.bincount(self.visit, paid, len(self.visits)) / np.maximum(
            np.bincount(self.visit, self.weight * bought, len(self.visits)), 1e-9
        )
        return {
            "together": self.together[visit, item],
            "text": self.alike.cosines(visit, item) if self.alike is not None else np.zeros(len(item), np.float32),
            "popular_recent": np.log1p(recent),
            "popular_week": np.log1p(week),
            "popular_few": np.log1p(few),
            "popular_day": np.log1p(day),
            "trend": np.log((week + 0.5) / (recent / 4 + 0.5)),
            "trend_few": np.log((few + 0.5) / (recent * FEW / RECENT + 0.5)),
            "item_users": np.log1p(self.index.n_users[item]),
            "repeat_share": self.index.repeat_share[item],
            "usual_gap": self.index.usual_gap[item],
            "price": price,
            "price_from_usual": price - usual[visit],
        }

    def _user_columns(self, visit: Ints) -> dict[str, NDArray]:
        """Of the user: size, rhythm, and taste for the new."""
        n_rows = np.bincount(self.visit, minlength=len(self.visits)).astype(np.float32)
        n_pairs = np.bincount(self.of, minlength=len(self.visits)).astype(np.float32)
        n_visits = self.n_visits
        last, first = np.full(len(self.visits), np.inf), np.zeros(len(self.visits))
        np.minimum.at(last, self.visit, self.age)
        np.maximum.at(first, self.visit, self.age)
        last = np.where(np.isfinite(last), last, np.nan)
        gap = (first - last) / np.maximum(n_visits - 1, 1)
        columns = {
            "user_visits": n_visits,
            "user_visit_age": last,
            "user_visit_gap": gap,
            "user_due": last / np.maximum(gap, 1),
            "user_last_basket": np.bincount(self.visit, self.since == 0, len(self.visits)),
            "user_basket": n_rows / n_visits,
            "user_items": n_pairs,
            "user_new_share": n_pairs / np.maximum(n_rows, 1),
            "weekday": (self.visits.day + 3) % 7.0,
        }
        return {name: value[visit] for name, value in columns.items()}

    def _class_columns(self, name: str, code: Ints, visit: Ints, item: Ints, own: NDArray) -> dict[str, NDArray]:
        """Of the user and a class of items: its share of the weight, what lately fell on it, and the item's place in it."""
        n, shape, place = int(code.max()) + 1, (len(self.visits), -1), (visit, code[item])
        cell = self.visit * n + code[self.past.item]
        size = len(self.visits) * n
        weight = np.bincount(cell, self.weight, size).reshape(shape)
        recent = np.bincount(cell[self.age <= RECENT], minlength=size).reshape(shape)
        total = np.maximum(weight.sum(1), 1e-9)
        of_class = weight[place]
        share = of_class / total[visit]
        takings = self.lately.takings[RECENT]
        in_class = self.lately.of_classes(name, code, RECENT)
        within = takings[self.of_day[visit], item] / (in_class[self.of_day[visit], code[item]] + 1)
        n_days, first, last = (value.reshape(shape)[place] for value in self._class_days(cell, size))
        gap = (last - first) / np.maximum(n_days - 1, 1)
        age = self.visits.day[visit] - last
        return {
            f"{name}_age": age,
            f"{name}_days": n_days,
            f"{name}_due": np.where(n_days > 1, age / np.maximum(gap, 1), np.nan),
            f"{name}_loyal": own / np.maximum(of_class, 1e-9),
            f"{name}_share": share,
            f"{name}_rest": of_class - own,
            f"{name}_recent": recent[place],
            f"{name}_popular": within,
            f"{name}_affinity": share * within,
        }

    def _class_days(self, cell: Ints, size: int) -> tuple[NDArray, NDArray, NDArray]:
        """(size,) on how many days something of each (visit, class) was taken, and the first and the last of them."""
        taken_on = np.sort(cell * (1 << 20) + self.past.day)  # far quicker than `np.unique`
        taken_on = taken_on[np.diff(taken_on, prepend=-1) > 0]
        cell, day = taken_on >> 20, taken_on & ((1 << 20) - 1)
        start = np.flatnonzero(np.diff(cell, prepend=-1))
        found, n = cell[start], np.diff(start, append=len(cell))
        n_days, first, last = np.zeros(size), np.full(size, np.nan), np.full(size, np.nan)
        n_days[found], first[found], last[found] = n, day[start], day[start + n - 1]
        return n_days, first, last


def _item_prices(known: Interactions) -> Singles:
    """(items,) price of a piece: the geometric mean of what was paid, drawn by one purchase to the mean of the shop."""
    paid = np.isfinite(known.price) & (known.price > 0)
    log = np.log(known.price[paid])
    n = np.bincount(known.item[paid], minlength=known.n_items)
    of_all = log.mean() if len(log) else 0.0
    return np.exp((np.bincount(known.item[paid], log, known.n_items) + of_all) / (n + 1)).astype(np.float32)
