"""A linear ranker whose columns stand on each visit's own scale, so that nothing of other users is in it but what it learnt.

On the floor of `promise`. A mean or a spread over all users would be one more figure of theirs to let out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.errors import ModelError
from ecom_pipeline.recommend.candidates import Candidates
from ecom_pipeline.recommend.pilot import design
from ecom_pipeline.recommend.private.promise import Promise

FARTHEST = 4.0  # deviations from a visit's mean
FLOOR = 1e-3  # of a deviation: a column that is the same all through a visit says nothing in it
_ROWS = 200_000  # at a time


@dataclass(frozen=True, slots=True)
class PrivateRanker:
    """A ranker of candidates that learnt privately; it is asked as `Ranker` is, with all candidates of a visit.

    Attributes:
        names: columns that it reads.
        coefficients: (d + 1,) of the columns on each visit's own scale, the last the constant.
        promise: what holds of the coefficients.
    """

    names: tuple[str, ...]
    coefficients: Floats
    promise: Promise

    @property
    def trees(self) -> str:
        """None: trees would need a promise of their own."""
        return ""

    def score(self, rows: Candidates) -> Floats:
        """(n,) logits that a candidate is taken."""
        if rows.names != self.names:
            differ = sorted(set(rows.names) ^ set(self.names)) or ["their order"]
            raise ModelError(
                f"ranker: {len(differ)} columns of the candidates differ from those that it learnt; first: {differ[0]!r}. "
                "Both must be made by one version, of the same divisions of the catalogue: make `ranker` again."
            )
        found = np.empty(len(rows))
        for part in _visits_together(rows.visit):
            x = within_visits(rows.known[part], self.names, rows.visit[part])
            found[part] = x @ self.coefficients[:-1].astype(np.float32)
        return found + self.coefficients[-1]

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "private": self.promise.to_json(),
            "names": list(self.names),
            "coefficients": self.coefficients.tolist(),
        }

    @classmethod
    def from_json(cls, plain: dict) -> "PrivateRanker":
        """From `to_json`."""
        return cls(tuple(plain["names"]), np.array(plain["coefficients"]), Promise.from_json(plain["private"]))


def within_visits(known: Singles, names: Sequence[str], visit: Ints) -> Singles:
    """(n, d) the design of `pilot`, each column less its visit's mean, in its visit's deviations, `FARTHEST` at most.

    Args:
        known: (n, c) columns of all candidates of some visits.
        names: of the columns.
        visit: (n,) whose; rows of a visit stand together.
    """
    x = design(known, names)
    if not len(x):
        return x
    start = np.flatnonzero(np.diff(visit, prepend=visit[0] - 1))
    n = np.diff(start, append=len(x))
    x -= np.repeat(np.add.reduceat(x, start) / n[:, None].astype(np.float32), n, axis=0)
    deviation = np.sqrt(np.add.reduceat(x * x, start) / n[:, None].astype(np.float32))
    x /= np.repeat(np.maximum(deviation, FLOOR), n, axis=0)
    return np.clip(x, -FARTHEST, FARTHEST, out=x)


def _visits_together(visit: Ints) -> Iterator[slice]:
    """Consecutive rows, about so many at a time, no visit in two parts."""
    start = 0
    while start < len(visit):
        end = start + _ROWS
        end = len(visit) if end >= len(visit) else int(np.searchsorted(visit, visit[end]))
        end = end if end > start else int(np.searchsorted(visit, visit[start], side="right"))
        yield slice(start, end)
        start = end
