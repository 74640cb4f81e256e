"""Intervals that cover, whatever the forecast: errors of past forecasts say how wide, by rank.

Of m past errors the ceil((m + 1) q)-th holds with probability q or more if the next error is exchangeable with them (Vovk,
Gammerman and Shafer 2005). Errors are scaled by what is expected, and compared within groups of like size (Mondrian). Where the
shop changes, the level adapts by how often the last weeks were missed (Gibbs and Candes 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ecom_pipeline.arrays import Floats, Ints

QUANTILES = (0.025, 0.1, 0.9, 0.95, 0.975)
_GROUPS = 12  # of forecasts by size
_RATE = 0.05  # by which a level moves when a whole week is missed


def ranked(errors: Floats, q: float) -> float:
    """The error that the next one stays below with probability q or more; infinite where there are too few.

    >>> [ranked(np.arange(9.0), q) for q in (0.5, 0.9, 0.95)]
    [4.0, 8.0, inf]
    """
    rank = int(np.ceil((len(errors) + 1) * q - 1e-9))
    return float("inf") if rank > len(errors) else float(np.partition(errors, rank - 1)[rank - 1])


def spread(expected: Floats) -> Floats:
    """How much counts of an expected size vary, up to a factor: as Poisson where few, by a share where many."""
    return np.sqrt(np.maximum(expected, 0.0) + 0.05 + 0.05 * np.maximum(expected, 0.0) ** 2)


@dataclass(frozen=True, slots=True)
class Conformal:
    """Scaled errors of past forecasts, by size of what was expected and how far ahead.

    Attributes:
        edges: of the groups of sizes.
        steps: weeks ahead at which groups begin.
        margin: (groups, steps, quantiles) scaled distance from the forecast.
    """

    edges: Floats
    steps: Ints
    margin: np.ndarray

    @classmethod
    def fit(
        cls, actual: np.ndarray, expected: np.ndarray, origin: Ints, *, levels: Sequence[float] = QUANTILES
    ) -> "Conformal":
        """From forecasts that did not see what came.

        Args:
            actual: (r, h) what came, of r items and origins.
            expected: (r, h) what was foretold.
            origin: (r,) when each was foretold; later ones come later. Levels adapt along them.
            levels: quantiles, in order.
        """
        error = (actual - expected) / spread(expected)
        h = actual.shape[1]
        steps = np.unique(np.array([0, 1, 2, 4])[np.array([0, 1, 2, 4]) < h])
        size = expected.mean(1)
        edges = np.unique(np.quantile(size, np.linspace(0, 1, _GROUPS + 1)[1:-1])) if len(size) else np.empty(0)
        group = np.searchsorted(edges, size, side="right")
        margin = np.zeros((len(edges) + 1, len(steps), len(levels)))
        for g in range(len(edges) + 1):
            rows = group == g
            for s, begin in enumerate(steps):
                stop = steps[s + 1] if s + 1 < len(steps) else h
                part = error[rows, begin:stop]
                for place, level in enumerate(levels):
                    margin[g, s, place] = _margin(part, origin[rows], level)
        return cls(edges, steps, np.maximum.accumulate(margin, axis=2))

    def quantiles(self, expected: np.ndarray) -> np.ndarray:
        """(n, h, quantiles) of what will come, at least 0, and never crossing."""
        group = np.searchsorted(self.edges, expected.mean(1), side="right")
        step = np.searchsorted(self.steps, np.arange(expected.shape[1]), side="right") - 1
        margin = self.margin[group[:, None], step[None, :]]
        found = expected[:, :, None] + margin * spread(expected)[:, :, None]
        return np.maximum.accumulate(np.maximum(found, 0.0), axis=2)


def _margin(error: np.ndarray, origin: Ints, level: float) -> float:
    """The margin of a group at a level that was adapted along its origins; the largest error where there are too few."""
    found = ranked(error.ravel(), adapted(error, origin, level))
    return found if np.isfinite(found) else float(error.max(initial=0.0))


def adapted(error: np.ndarray, origin: Ints, level: float, *, rate: float = _RATE) -> float:
    """A level that is raised where the last origins fell short of it by the errors before them, and lowered where not.

    Args:
        error: (r, k) scaled errors.
        origin: (r,) when each was foretold.
        level: that shall hold.
        rate: step for an origin all of whose values are missed.
    """
    now = level
    times = np.unique(origin)
    for before, time in pairwise(times):
        past = error[origin <= before].ravel()
        bound = ranked(past, now)
        held = float((error[origin == time] <= bound).mean()) if np.isfinite(bound) else 1.0
        now = float(np.clip(now + rate * (level - held), 0.5 * level, 1 - 0.5 * (1 - level)))
    return now
