"""How likely is a position to be looked at? Two fits from clicks alone, for logs that hold no propensity.

On the floor of `importance`. Both rest on one solver: clicks have probability examination times attraction, which is
concave in the two logarithms, so Newton's steps reach the one optimum in a few passes.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ecom_pipeline.errors import SampleError

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAX_STEPS = 100
_TOLERANCE = 1e-9  # gain of a Newton step, in nats a click, at which we stop
_BARRIER = 0.01  # skips put into a cell that has clicks alone, so that its probability stays below 1


@dataclass(frozen=True, slots=True)
class ClickCounts:
    """Clicks on each pair of query and item, by the position at which it was shown. A row a pair and position.

    Attributes:
        query: (n,) number of the query.
        pair: (n,) number of the pair of query and item, from 0.
        position: (n,) rank, from 1.
        n_shown: (n,) how often the pair was shown there, > 0.
        n_clicked: (n,) how often it was then clicked, in [0, n_shown].
    """

    query: Ints
    pair: Ints
    position: Ints
    n_shown: Floats
    n_clicked: Floats

    @classmethod
    def of(cls, query: ArrayLike, item: ArrayLike, position: ArrayLike, clicked: ArrayLike) -> "ClickCounts":
        """Counts of impressions, a row each.

        Args:
            query: (i,) ids or texts.
            item: (i,) ids.
            position: (i,) rank, from 1.
            clicked: (i,) whether it was clicked.

        Raises:
            SampleError: if there is no impression, or a position is below 1.

        Cost: O(i) time and memory.

        >>> counts = ClickCounts.of(["tv", "tv", "tv"], ["a", "a", "a"], [1, 1, 2], [True, False, False])
        >>> counts.position.tolist(), counts.n_shown.tolist(), counts.n_clicked.tolist()
        ([1, 2], [2.0, 1.0], [1.0, 0.0])
        """
        place = np.asarray(position, np.int64)
        low = np.flatnonzero(place < 1)
        if low.size or not place.size:
            first = repr(int(place[low[0]])) if low.size else "none, there are no impressions"
            raise SampleError(
                f"position: {low.size} of {place.size} impressions are above the first position; first: {first}. "
                "Positions must be counted from 1, and there must be at least one impression: add 1 where a log "
                "counts from 0."
            )
        queries, query_texts = pd.factorize(np.asarray(query))
        items, item_texts = pd.factorize(np.asarray(item))
        depth = int(place.max()) + 1
        key = (queries * len(item_texts) + items) * depth + place
        cell, found = pd.factorize(key)
        order = np.argsort(found, kind="stable")
        found = found[order]
        shown = np.bincount(cell)[order].astype(float)
        clicks = np.bincount(cell, np.asarray(clicked, float))[order]
        pair = np.unique(found // depth, return_inverse=True)[1]
        return cls(found // depth // len(item_texts), pair, found % depth, shown, clicks)

    @property
    def n_positions(self) -> int:
        """The last position."""
        return int(self.position.max())

    def weighted(self, weight: Floats) -> "ClickCounts":
        """As if each query had come (n_queries,) times as often."""
        times = weight[self.query]
        return ClickCounts(self.query, self.pair, self.position, self.n_shown * times, self.n_clicked * times)


@dataclass(frozen=True, slots=True)
class ExaminationCurve:
    """Chance that a position is looked at, as a share of that of position 1.

    Clicks tell the curve up to its scale alone: half the examination with twice the attraction gives the same clicks.

    Attributes:
        examination: (k,) of positions 1..k; the first is 1. It may pass 1 where a later position is looked at more.
        stderr: (k,) by bootstrap over queries, or None where it was not asked for or there is but one query.
        n_clicked: (k,) clicks that told of a position: those on pairs that were shown at several.
        linked: (k,) whether pairs shown at several positions link it to position 1. Where not, smoothing alone speaks.
    """

    examination: Floats
    stderr: Floats | None
    n_clicked: Floats
    linked: NDArray[np.bool_]

    def at(self, position: Ints) -> Floats:
        """(n,) examination of given positions.

        Raises:
            SampleError: if a position is not on the curve.
        """
        bad = np.flatnonzero((position < 1) | (position > len(self.examination)))
        if bad.size:
            raise SampleError(
                f"position: {bad.size} of {len(position)} are not on the curve; first: {int(position[bad[0]])!r}. "
                f"They must be in 1..{len(self.examination)}: fit the curve on a log that shows as many positions."
            )
        return self.examination[position - 1]


@dataclass(frozen=True, slots=True)
class AllPairs:
    """Intervention harvesting: what the same item gets at two positions tells how much more one of them is seen.

    For each two positions k, k' the pairs of query and item that were shown at both are put together: the sum of their
    click rates at k and at k'. That sum's attraction r_kk' is unknown but the same at both, so all k, k' together give
    the curve p that makes sum c_k,kk' log(p_k r_kk') + (1 - c_k,kk') log(1 - p_k r_kk') largest. Unlike the
    position-based model it needs no attraction for each pair, so it holds where pairs are shown a few times each.

    Attributes:
        smoothing: in clicks; as if that many had been seen to say that neighbouring positions are examined alike. It
            keeps the curve above 0 and bridges positions that no pair links. Not in the paper.
        n_bootstrap: draws of the queries for the standard error; 0: none.
        seed: of those draws.

    Departs from the paper in the solver (Newton's steps on the concave form instead of L-BFGS) and in `smoothing`; click
    rates are scaled to the number of clicks, which moves no optimum but gives `smoothing` its unit.

    Cost: O(cells · positions a pair) once and O(k⁴) a step, k positions; each draw the same. Draws are random.
    Source: Agarwal, Zaitsev, Wang, Li, Najork, Joachims 2019, Estimating Position Bias without Intrusive Interventions,
    equation 6 (AllPairs).

    >>> counts = ClickCounts(*np.array([[0, 0], [0, 0], [1, 2]]), np.array([100.0, 50.0]), np.array([40.0, 5.0]))
    >>> AllPairs(smoothing=1e-6, n_bootstrap=0).fit(counts).examination.round(4).tolist()
    [1.0, 0.25]
    """

    smoothing: float = 1.0
    n_bootstrap: int = 100
    seed: int = 0

    def fit(self, counts: ClickCounts) -> ExaminationCurve:
        """The curve. Raises SampleError if no click is on a pair that was shown at two positions."""
        _require_links(counts)
        return _with_stderr(counts, _harvested, self.smoothing, self.n_bootstrap, self.seed)


@dataclass(frozen=True, slots=True)
class PositionBasedModel:
    """The click model of examination times attraction, an attraction for each pair of query and item.

    Attributes:
        smoothing: as in `AllPairs`.
        n_bootstrap: draws of the queries for the standard error; 0: none.
        seed: of those draws.

    The likelihood is that of expectation maximisation in the paper; we climb it by Newton's steps, because one EM step
    closes but a share of the gap that is as small as the attraction itself. The attraction is a table, not a
    regression on features. Where pairs are shown once or twice at a position, so many attractions bias the curve:
    take `AllPairs` there.

    Cost: O(cells · positions a pair) a step, about ten steps; each draw the same. Draws are random.
    Source: Wang, Golbandi, Bendersky, Metzler, Najork 2018, Position Bias Estimation for Unbiased Learning to Rank in
    Personal Search, section 4; the model is of Richardson, Dominowska, Ragno 2007.

    >>> counts = ClickCounts(*np.array([[0, 0], [0, 0], [1, 2]]), np.array([100.0, 50.0]), np.array([40.0, 5.0]))
    >>> PositionBasedModel(smoothing=1e-6, n_bootstrap=0).fit(counts).examination.round(4).tolist()
    [1.0, 0.25]
    """

    smoothing: float = 1.0
    n_bootstrap: int = 100
    seed: int = 0

    def fit(self, counts: ClickCounts) -> ExaminationCurve:
        """The curve. Raises SampleError if no click is on a pair that was shown at two positions."""
        _require_links(counts)
        return _with_stderr(counts, _tabled, self.smoothing, self.n_bootstrap, self.seed)


@dataclass(frozen=True, slots=True)
class _Cells:
    """What the solver sees: clicks and skips of a thing at a place, and how many of both there are."""

    thing: Ints
    place: Ints
    clicked: Floats
    skipped: Floats
    n_things: int
    n_places: int

    @classmethod
    def informative(cls, thing: Ints, place: Ints, clicked: Floats, skipped: Floats, n_places: int) -> "_Cells":
        """Without things that were never clicked (their attraction is 0) or were shown at one place alone."""
        seen = clicked + skipped > 0
        n_seen = np.bincount(thing, seen)[thing]
        kept = seen & (n_seen > 1) & (np.bincount(thing, clicked)[thing] > 0)
        names, number = np.unique(thing[kept], return_inverse=True)
        barred = np.maximum(skipped[kept], _BARRIER)
        return cls(number, place[kept], clicked[kept], barred, len(names), n_places)


def _tabled(counts: ClickCounts) -> _Cells:
    skipped = counts.n_shown - counts.n_clicked
    return _Cells.informative(counts.pair, counts.position - 1, counts.n_clicked, skipped, counts.n_positions)


def _harvested(counts: ClickCounts) -> _Cells:
    """A thing is two positions; its clicks at one are the sum of the click rates of the pairs shown at both."""
    k = counts.n_positions
    seen = counts.n_shown > 0
    rows, columns = counts.pair[seen], counts.position[seen] - 1
    shape = (int(counts.pair.max()) + 1, k)
    # a query drawn twice counts twice: rates do not tell, so the weight comes back through the pair's share
    weight = _pair_weight(counts)
    rate = sparse.csr_array((counts.n_clicked[seen] / counts.n_shown[seen] * weight[seen], (rows, columns)), shape)
    shown = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape)
    both = sparse.csr_array((weight[seen], (rows, columns)), shape)
    clicks = (rate.T @ shown).toarray()  # (k, k) clicks at the first of those shown at both
    total = (both.T @ shown).toarray()
    first, second = np.nonzero(total * (1 - np.eye(k)))
    thing = np.minimum(first, second) * k + np.maximum(first, second)
    clicked = clicks[first, second]
    scale = _informing(counts).sum() / max(clicked.sum(), 1e-300)
    skipped = np.maximum(total[first, second] - clicked, 0.0)
    return _Cells.informative(thing, first, clicked * scale, skipped * scale, k)
