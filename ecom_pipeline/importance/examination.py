"""How likely is a position to be looked at? Two fits from clicks alone, for logs that hold no propensity.

On the floor of `importance`. Both rest on one solver: clicks have probability examination times attraction, which is
concave in the two logarithms, so Newton's steps reach the one optimum in a few passes.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ecom_pipeline.arrays import Bools, Floats, Ints, summed
from ecom_pipeline.errors import SampleError

log = logging.getLogger(__name__)

_MAX_STEPS = 100
_TOLERANCE = 1e-13  # gain of a Newton step, in nats a click, at which we stop
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
        queries = pd.factorize(np.asarray(query))[0]
        items, item_texts = pd.factorize(np.asarray(item))
        depth = int(place.max()) + 1
        key = (queries * len(item_texts) + items) * depth + place
        cell, found = pd.factorize(key)
        order = np.argsort(found, kind="stable")
        found = found[order]
        shown = np.bincount(cell)[order].astype(float)
        clicks = summed(cell, np.asarray(clicked, float))[order]
        pair = np.unique(found // depth, return_inverse=True)[1]
        return cls(found // depth // len(item_texts), pair, found % depth, shown, clicks)

    @property
    def n_positions(self) -> int:
        """The last position."""
        return int(self.position.max())


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
    linked: Bools

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

    Departs from the paper in the solver (Newton's steps on the concave form instead of L-BFGS) and in `smoothing`;
    click rates are scaled to the number of clicks, which moves no optimum but gives `smoothing` its unit.

    Cost: O(cells · positions a pair) once and O(k⁴) a step, k positions; each draw the same. Draws are random.
    Source: Agarwal, Zaitsev, Wang, Li, Najork, Joachims 2019, Estimating Position Bias without Intrusive
    Interventions, the AllPairs estimator.

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
    regression on features. Where pairs are shown once or twice at a position, so many attractions make the curve too
    steep: take `AllPairs` there.

    Cost: O(cells · positions a pair) a step, about ten steps; each draw the same. Draws are random.
    Source: Wang, Golbandi, Bendersky, Metzler, Najork 2018, Position Bias Estimation for Unbiased Learning to Rank in
    Personal Search; the model is of Richardson, Dominowska, Ragno 2007.

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


def _tabled(counts: ClickCounts, times: Floats) -> _Cells:
    skipped = counts.n_shown - counts.n_clicked
    return _Cells.informative(
        counts.pair, counts.position - 1, counts.n_clicked * times, skipped * times, counts.n_positions
    )


def _harvested(counts: ClickCounts, times: Floats) -> _Cells:
    """A thing is two positions; its clicks at one are the sum of the click rates of the pairs shown at both."""
    k = counts.n_positions
    where = (counts.pair, counts.position - 1)
    shape = (int(counts.pair.max()) + 1, k)
    shown = sparse.csr_array((np.ones(len(times)), where), shape)
    rate = sparse.csr_array((times * counts.n_clicked / counts.n_shown, where), shape)
    clicks = (rate.T @ shown).toarray()  # (k, k') click rates at k, summed over pairs shown at both
    total = (sparse.csr_array((times, where), shape).T @ shown).toarray()
    first, second = np.nonzero(total * (1 - np.eye(k)))
    thing = np.minimum(first, second) * k + np.maximum(first, second)
    clicked, skipped = clicks[first, second], (total - clicks)[first, second]
    scale = (times * counts.n_clicked).sum() / max(clicked.sum(), 1e-300)
    return _Cells.informative(thing, first, clicked * scale, np.maximum(skipped, 0.0) * scale, k)


def _require_links(counts: ClickCounts) -> None:
    cells = _tabled(counts, np.ones(len(counts.pair)))
    if counts.n_positions > 1 and not cells.n_things:
        n_pairs = int(counts.pair.max()) + 1
        raise SampleError(
            f"examination: 0 of {n_pairs} pairs of query and item were clicked and shown at two positions; the first "
            f"pair was shown at position {int(counts.position[0])!r}. At least one must be: what is always shown at "
            "the same place tells nothing of the place. Bring a longer log, or one whose ranking changed."
        )


def _with_stderr(
    counts: ClickCounts, cells_of: Callable[[ClickCounts, Floats], _Cells], smoothing: float, n_draws: int, seed: int
) -> ExaminationCurve:
    cells = cells_of(counts, np.ones(len(counts.pair)))
    start = np.zeros(counts.n_positions)
    best = _climb(cells, smoothing, start)
    queries, number = np.unique(counts.query, return_inverse=True)
    draws = []
    generator = np.random.default_rng(seed)
    for _ in range(n_draws if len(queries) > 1 else 0):
        times = generator.multinomial(len(queries), np.full(len(queries), 1 / len(queries)))[number].astype(float)
        drawn = cells_of(counts, times)
        if drawn.n_things:
            draws.append(np.exp(_climb(drawn, smoothing, best)))
    stderr = np.std(draws, 0, ddof=1) if len(draws) > 1 else None
    table = _tabled(counts, np.ones(len(counts.pair)))
    told = summed(table.place, table.clicked, counts.n_positions)
    log.info("examination of %d positions from %g clicks, %d draws", len(start), told.sum(), len(draws))
    return ExaminationCurve(np.exp(best), stderr, told, _linked(table))


def _linked(cells: _Cells) -> Bools:
    size = cells.n_places + cells.n_things
    edges = sparse.csr_array((np.ones(len(cells.place)), (cells.place, cells.thing + cells.n_places)), (size, size))
    part = connected_components(edges, directed=False)[1]
    return part[: cells.n_places] == part[0]


def _climb(cells: _Cells, smoothing: float, start: Floats) -> Floats:
    """(k,) logarithm of the examination, 0 at position 1, at which the penalised likelihood is largest."""
    count = np.bincount(cells.thing, cells.clicked + cells.skipped, minlength=cells.n_things)
    attraction = np.log(np.bincount(cells.thing, cells.clicked, minlength=cells.n_things) / count)
    curve = np.minimum(start, 0.0)  # so that every probability starts below 1
    now = _objective(cells, smoothing, curve, attraction)
    enough = _TOLERANCE * max(cells.clicked.sum(), 1.0)
    for _ in range(_MAX_STEPS):
        step_curve, step_attraction, gain = _newton(cells, smoothing, curve, attraction)
        if gain < enough:
            break
        length = 1.0
        while length > 1e-12:
            ahead = curve + length * step_curve, attraction + length * step_attraction
            value = _objective(cells, smoothing, *ahead)
            if value >= now + 1e-4 * length * gain:
                break
            length /= 2
        else:
            break  # no more to be gained within rounding
        (curve, attraction), now = ahead, value
    return curve


def _objective(cells: _Cells, smoothing: float, curve: Floats, attraction: Floats) -> float:
    level = curve[cells.place] + attraction[cells.thing]  # log of the click probability
    if (level >= 0).any():
        return -np.inf
    rough = 0.5 * smoothing * (np.diff(curve) ** 2).sum()
    return float((cells.clicked * level + cells.skipped * np.log(-np.expm1(level))).sum() - rough)


def _newton(cells: _Cells, smoothing: float, curve: Floats, attraction: Floats) -> tuple[Floats, Floats, float]:
    """Step of the curve, step of the attractions, and what both promise to gain; attractions are eliminated first."""
    level = curve[cells.place] + attraction[cells.thing]
    odds = np.exp(level) / -np.expm1(level)
    slope = cells.clicked - cells.skipped * odds
    bend = cells.skipped * odds * (1 + odds)
    k = cells.n_places
    apart = np.diff(np.eye(k), axis=0)
    slope_curve = np.bincount(cells.place, slope, minlength=k) - smoothing * apart.T @ (apart @ curve)
    slope_attraction = np.bincount(cells.thing, slope, minlength=cells.n_things)
    bend_attraction = np.bincount(cells.thing, bend, minlength=cells.n_things)
    crossed = sparse.csr_array((bend, (cells.place, cells.thing)), (k, cells.n_things))
    scaled = crossed / bend_attraction[None, :]
    matrix = np.diag(np.bincount(cells.place, bend, minlength=k)) + smoothing * apart.T @ apart
    matrix -= (scaled @ crossed.T).toarray()
    step = np.zeros(k)
    right = slope_curve - scaled @ slope_attraction
    step[1:] = np.linalg.solve(matrix[1:, 1:], right[1:])  # position 1 stays where it is: the scale
    step_attraction = (slope_attraction - crossed.T @ step) / bend_attraction
    return step, step_attraction, float(slope_curve @ step + slope_attraction @ step_attraction) / 2
