"""Periods in, rankers out: rows are streamed, judged by the pilot and kept; nothing holds them all at once.

On the floor above `ranker`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ecom_pipeline.arrays import Floats
from ecom_pipeline.recommend.candidates import Candidates, Catalogue, Retrieval, retrieve
from ecom_pipeline.recommend.interactions import Interactions, Visits
from ecom_pipeline.recommend.periods import Origin, Period
from ecom_pipeline.recommend.pilot import N_FOLDS, Chooser, RowChoice, coins, joined, keys, some
from ecom_pipeline.recommend.ranker import Asked, Ranker, TreeSearch, fit_ranker
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.weighting import Weighting

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of one period that are learnt from.

    Attributes:
        period: whose.
        rows: with `visit` as place in `visits`.
        visits: of the period that were looked at.
        pilot_probability: (n,).
        chance: (n,) with which each was kept.
        n_retrieved: rows that there were.
        n_taken: of them, with label 1.
    """

    period: Period
    rows: Candidates
    visits: Visits
    pilot_probability: Floats
    chance: Floats
    n_retrieved: int
    n_taken: int


@dataclass
class Learner:
    """One way to weigh and to choose, over all periods; what one period needs is made once.

    Attributes:
        acts: all interactions.
        catalogue: of the items.
        weighting: of the interactions, in every history.
        retrieval: how many candidates.
        choice: how rows are chosen.
        n_visits: visits of a period that are learnt from, at most; drawn at random where there are more.
        n_asked: next visits of a period that are chosen or tested on, at most; likewise.
    """

    acts: Interactions
    catalogue: Catalogue
    weighting: Weighting
    retrieval: Retrieval
    choice: RowChoice
    n_visits: int
    n_asked: int = 5000
    _index: Index | None = None
    _kept: dict[Period, Kept] = field(default_factory=dict)
    _asked: dict[Period, Asked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.users, self.items = keys(self.acts.user_ids), keys(self.acts.item_ids)
        self.folds = self.users % N_FOLDS

    def index(self, day: int) -> Index:
        """The catalogue as of a day; the one asked for last is kept, as it may be as large as users x items."""
        if self._index is None or self._index.day != day:
            self._index = None  # the old one goes before the new one is made
            self._index = Index.fit(
                self.acts,
                day,
                weighting=self.weighting,
                text=self.catalogue.text,
                sequences=self.retrieval.n_sequence > 0,
            )
        return self._index

    def candidates(self, visits: Visits, index_day: int) -> Iterator[tuple[slice, Candidates]]:
        """As `retrieve`, with the index of a day."""
        return retrieve(self.acts, self.index(index_day), self.catalogue, visits, self.retrieval)

    def visits(self, period: Period) -> Visits:
        """Visits of a period to learn from, by day."""
        return self._drawn(self.acts.visits(period.first, period.end), self.n_visits, period)

    def next_visits(self, period: Period) -> Visits:
        """Next visits of a period to choose or to test on."""
        return self._drawn(self.acts.next_visits(period.first, period.end), self.n_asked, period)

    def _drawn(self, visits: Visits, n: int, period: Period) -> Visits:
        if len(visits) <= n:
            return visits
        drawn = np.random.default_rng([self.choice.seed, period.first]).permutation(len(visits))[:n]
        return visits.only(np.sort(drawn))

    def chooser(self, origins: list[Origin]) -> Chooser:
        """A pilot of the earliest period's visits, for all periods: none of them is earlier than what it has seen."""
        period = origins[0].train[0]
        visits = self.visits(period)
        per_visit, n = [], len(visits)
        order = np.random.default_rng([self.choice.seed, 1]).permutation(n)
        wanted, rows, folds, flipped = self.choice.pilot_rows, [], [], []
        for start in range(0, n, 256):
            part = visits.only(np.sort(order[start : start + 256]))
            for block, found in self.candidates(part, period.first):
                rows.append(found)
                folds.append(self.folds[part.user[block]][found.visit])
                flipped.append(self.coins(part.only(block), found, pilot=True))
                per_visit.append(len(found) / max(block.stop - block.start, 1))
            if sum(map(len, rows)) >= wanted:
                break
        in_all = float(np.mean(per_visit)) * sum(len(self.visits(one)) for one in origins[0].train)
        fold, coin = np.concatenate(folds), np.concatenate(flipped)
        return Chooser.fit(joined(rows), fold, self.choice, coin=coin, n_rows_in_all=round(in_all))

    def trial_rows(self, period: Period) -> Candidates:
        """Candidates of some hundred visits of a period, by which the cost of learning is tried."""
        visits = self.visits(period)
        drawn = np.random.default_rng([self.choice.seed, 4]).permutation(len(visits))[:128]
        return joined([rows for _, rows in self.candidates(visits.only(np.sort(drawn)), period.first)])

    def coins(self, visits: Visits, rows: Candidates, *, pilot: bool = False) -> Floats:
        """(n,) by which candidates of some visits are drawn; those of the pilot are its own."""
        user, day = self.users[visits.user][rows.visit], visits.day[rows.visit]
        return coins(user, day, self.items[rows.item], seed=2 * self.choice.seed + pilot)

    def kept(self, period: Period, chooser: Chooser) -> Kept:
        """Rows of a period that the chooser keeps. Cost: as `retrieve` of its visits; memory of the rows kept."""
        if period not in self._kept:
            visits = self.visits(period)
            parts, probabilities, chances, n, taken = [], [], [], 0, 0
            for block, rows in self.candidates(visits, period.first):
                fold = self.folds[visits.user[block]][rows.visit]
                places, probability, chance = chooser.choose(rows, fold, self.coins(visits.only(block), rows))
                of_all = replace(rows, visit=rows.visit + block.start)
                parts.append(some(of_all, places))
                probabilities.append(probability[places])
                chances.append(chance[places])
                n, taken = n + len(rows), taken + int(rows.taken.sum())
            self._kept[period] = Kept(
                period, joined(parts), visits, np.concatenate(probabilities), np.concatenate(chances), n, taken
            )
            log.info("%d of %d candidates of %d visits kept", len(self._kept[period].rows), n, len(visits))
        return self._kept[period]

    def asked(self, period: Period) -> Asked:
        """Next visits of a period, with all their candidates."""
        if period not in self._asked:
            self._asked[period] = self.ask(self.next_visits(period), period.first)
        return self._asked[period]

    def forget(self, day: int) -> None:
        """Let go of what periods before a day were asked, the largest thing that is kept."""
        self._asked = {period: asked for period, asked in self._asked.items() if period.first >= day}

    def ask(self, visits: Visits, index_day: int) -> Asked:
        """Visits with all their candidates."""
        parts = [replace(rows, visit=rows.visit + block.start) for block, rows in self.candidates(visits, index_day)]
        return Asked(joined(parts), len(visits), self.acts.taken(visits), self.acts.n_items)

    def learnt(self, origin: Origin, chooser: Chooser) -> tuple[Candidates, Floats]:
        """Rows that an origin learns from, and the pilot's probabilities by which they were kept."""
        kept = [self.kept(period, chooser) for period in origin.train]
        return joined([one.rows for one in kept]), np.concatenate([one.pilot_probability for one in kept])

    def fit(self, origin: Origin, chooser: Chooser, search: TreeSearch) -> Ranker:
        """The ranker of an origin."""
        rows, probability = self.learnt(origin, chooser)
        return fit_ranker(rows, probability, chooser, self.asked(origin.validation), search=search)
