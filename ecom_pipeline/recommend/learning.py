"""Periods in, rankers out: rows are streamed, judged by the pilot and kept; nothing holds them all at once.

On the floor above `ranker`.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.recommend.candidates import Candidates, Catalogue, Retrieval, retrieve
from ecom_pipeline.recommend.interactions import Interactions, Ints, Visits
from ecom_pipeline.recommend.periods import Origin, Period
from ecom_pipeline.recommend.pilot import Chooser, Floats, RowChoice, joined, some, user_folds
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
    """

    acts: Interactions
    catalogue: Catalogue
    weighting: Weighting
    retrieval: Retrieval
    choice: RowChoice
    n_visits: int
    _indexes: dict[int, Index] = field(default_factory=dict)
    _kept: dict[Period, Kept] = field(default_factory=dict)
    _asked: dict[Period, Asked] = field(default_factory=dict)

    def __post_init__(self):
        self.folds = user_folds(self.acts.user_ids)

    def index(self, day: int) -> Index:
        """The catalogue as of a day."""
        if day not in self._indexes:
            self._indexes[day] = Index.fit(self.acts, day, weighting=self.weighting, text=self.catalogue.text)
        return self._indexes[day]

    def candidates(self, visits: Visits, index_day: int) -> Iterator[tuple[slice, Candidates]]:
        """As `retrieve`, with the index of a day."""
        return retrieve(self.acts, self.index(index_day), self.catalogue, visits, self.retrieval)

    def visits(self, period: Period) -> Visits:
        """Visits of a period to learn from, by day."""
        visits = self.acts.visits(period.first, period.end)
        if len(visits) <= self.n_visits:
            return visits
        drawn = np.random.default_rng([self.choice.seed, period.first]).permutation(len(visits))[: self.n_visits]
        return visits.only(np.sort(drawn))

    def chooser(self, origins: list[Origin]) -> Chooser:
        """A pilot of the earliest period's visits, for all periods: none of them is earlier than what it has seen."""
        period = origins[0].train[0]
        visits = self.visits(period)
        per_visit, n = [], len(visits)
        order = np.random.default_rng([self.choice.seed, 1]).permutation(n)
        wanted, rows, folds = self.choice.pilot_rows, [], []
        for start in range(0, n, 256):
            part = visits.only(np.sort(order[start : start + 256]))
            for block, found in self.candidates(part, period.first):
                rows.append(found)
                folds.append(self.folds[part.user[block]][found.visit])
                per_visit.append(len(found) / max(block.stop - block.start, 1))
            if sum(map(len, rows)) >= wanted:
                break
        in_all = float(np.mean(per_visit)) * sum(len(self.visits(one)) for one in origins[0].train)
        return Chooser.fit(joined(rows), np.concatenate(folds), self.choice, n_rows_in_all=round(in_all))

    def kept(self, period: Period, chooser: Chooser) -> Kept:
        """Rows of a period that the chooser keeps. Cost: as `retrieve` of its visits; memory of the rows kept."""
        if period not in self._kept:
            visits = self.visits(period)
            draw = np.random.default_rng([self.choice.seed, 2, period.first])
            parts, probabilities, chances, n, taken = [], [], [], 0, 0
            for block, rows in self.candidates(visits, period.first):
                fold = self.folds[visits.user[block]][rows.visit]
                places, probability, chance = chooser.choose(rows, fold, draw)
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
            visits = self.acts.next_visits(period.first, period.end)
            self._asked[period] = self.ask(visits, period.first)
        return self._asked[period]

    def ask(self, visits: Visits, index_day: int) -> Asked:
        """Visits with all their candidates."""
        parts = [replace(rows, visit=rows.visit + block.start) for block, rows in self.candidates(visits, index_day)]
        rows = joined(parts)
        fold = self.folds[visits.user][rows.visit]
        return Asked(rows, fold, len(visits), self.acts.taken(visits), self.acts.n_items)

    def fit(self, origin: Origin, chooser: Chooser, search: TreeSearch) -> Ranker:
        """The ranker of an origin."""
        kept = [self.kept(period, chooser) for period in origin.train]
        known = np.concatenate([one.rows.known for one in kept])
        label = np.concatenate([one.rows.taken for one in kept])
        return fit_ranker(known, label, chooser, self.asked(origin.validation), search=search)


def class_codes(divisions: Mapping[str, NDArray]) -> dict[str, Ints]:
    """Codes of each division's classes; a missing class is a class; divisions with one class alone are left out."""
    found = {}
    for name, values in divisions.items():
        classes, code = np.unique(values.astype(str), return_inverse=True)
        if len(classes) > 1:
            found[name] = code
    return found
