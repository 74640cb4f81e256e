"""A cheap model that scores every candidate once, and the rows that it says teach most.

On the floor above `candidates`. Rows are judged by a pilot that did not see their user.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.errors import ModelError
from ecom_pipeline.importance.sample_choice import PROBABILITY_FLOOR, Acceptance, LabelNoise, pilot_rows
from ecom_pipeline.recommend.candidates import Candidates

_BENT = ("own_weight", "own_visit_share", "own_recent", "together", "popular_week", "due")  # whose squares matter too
N_FOLDS = 2
_BLOCK = 2048  # rows of a design that are made at a time: what a processor's own memory holds


@dataclass(frozen=True, slots=True)
class Linear:
    """A logistic model for each fold of users, fitted on the others.

    Attributes:
        names: columns that it reads.
        mean: (d,) of the design's columns.
        scale: (d,) of the design's columns.
        coefficients: (folds, d + 1), the last the constant; a single one serves all users.
        penalty: chosen out of fold.
    """

    names: tuple[str, ...]
    mean: Singles
    scale: Singles
    coefficients: Floats
    penalty: float

    @classmethod
    def fit(cls, rows: Candidates, fold: Ints, *, penalties: Sequence[float] = (1.0, 10.0, 100.0)) -> "Linear":
        """Fit by folds, and take the penalty with the lowest loss out of fold.

        Args:
            rows: candidates with labels.
            fold: (n,) of each row's user.
            penalties: L2, on coefficients of standardised columns.

        Newton's method, to the optimum: short of it the pilot would hang on the kind of processor, and with it which rows
        are kept.

        Cost: folds x penalties fits of some ten steps of O(n d^2). Not random.
        """
        from sklearn.linear_model import LogisticRegression

        x, label = design(rows.known, rows.names), rows.taken
        mean, scale = x.mean(0), x.std(0) + 1e-6
        x = ((x - mean) / scale).astype(np.float64)
        losses, fits = np.zeros(len(penalties)), []
        for place, penalty in enumerate(penalties):
            by_fold = []
            for one in range(N_FOLDS):
                seen = fold != one
                if len(np.unique(label[seen])) < 2:
                    by_fold.append(np.r_[np.zeros(x.shape[1]), _logit(label.mean())])
                    continue
                model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-8).fit(x[seen], label[seen])
                by_fold.append(np.r_[model.coef_[0], model.intercept_])
                logit = x[~seen] @ model.coef_[0] + model.intercept_[0]
                losses[place] += np.logaddexp(0, np.where(label[~seen], -logit, logit)).sum()
            fits.append(np.stack(by_fold))
        best = int(losses.argmin())
        return cls(rows.names, mean, scale, fits[best], float(penalties[best]))

    def probability(self, rows: Candidates, fold: Ints) -> Floats:
        """(n,) that each candidate is taken, by the model that did not see the fold of its user."""
        return 1 / (1 + np.exp(-self._logits(rows)[np.arange(len(rows)), fold]))

    def logit(self, rows: Candidates) -> Floats:
        """(n,) mean over the models: the same for every user, whose fold is nothing that he is."""
        return self._logits(rows).mean(1)

    def _logits(self, rows: Candidates) -> Floats:
        if rows.names != self.names:
            differ = sorted(set(rows.names) ^ set(self.names)) or ["their order"]
            raise ModelError(
                f"ranker: {len(differ)} columns of the candidates differ from those that it learnt; first: {differ[0]!r}. "
                "Both must be made by one version, of the same divisions of the catalogue: make `ranker` again."
            )
        slope, by_fold = (self.coefficients[:, :-1] / self.scale).astype(np.float32).T, []
        for start in range(0, max(len(rows), 1), _BLOCK):
            x = design(rows.known[start : start + _BLOCK], self.names)
            x -= self.mean
            by_fold.append(x @ slope)
        surest = -_logit(0)
        return np.clip(np.concatenate(by_fold) + self.coefficients[:, -1], -surest, surest)

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "names": list(self.names),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "coefficients": self.coefficients.tolist(),
            "penalty": self.penalty,
        }

    @classmethod
    def from_json(cls, plain: dict) -> "Linear":
        """From `to_json`."""
        mean, scale = (np.array(plain[name], np.float32) for name in ("mean", "scale"))
        return cls(tuple(plain["names"]), mean, scale, np.array(plain["coefficients"]), plain["penalty"])


def design(known: Singles, names: Sequence[str]) -> Singles:
    """(n, d) what a linear model reads: logs, squares of a few, and whether a value is known at all."""
    bent = [names.index(name) for name in _BENT]
    absent = np.isnan(known[:, [names.index("own_age"), names.index("own_gap")]])
    logs = np.abs(known)
    logs += 1
    logs = np.copysign(np.log(logs, out=logs), known)
    np.nan_to_num(logs, copy=False)
    basket = logs[:, [names.index("user_basket")]]
    squares = logs[:, bent]
    return np.hstack([logs, absent.astype(np.float32), squares**2, squares * absent[:, :1], squares * basket])


def keys(ids: NDArray) -> Ints:
    """(n,) a 32-bit hash of each id, so that a new one moves nobody; modulo `N_FOLDS` it is a user's fold."""
    return np.array([crc32(str(one).encode()) for one in ids], np.int64)


def coins(user: Ints, day: Ints, item: Ints, *, seed: int) -> Floats:
    """(n,) uniform in [0, 1): a row's own coin, whatever other rows there are.

    A row that comes or goes, as where another processor rounds a score to the other side of a border, moves no other row's
    coin.

    Args:
        user: (n,) `keys` of the visits' users.
        day: (n,) of the visits.
        item: (n,) `keys` of the items.
        seed: another one gives other coins.

    Source: the mixing of SplitMix64, Steele, Lea and Flood 2014.
    """
    mixed = np.full(len(item), seed, np.uint64)
    for part in (user, day, item):
        mixed = (mixed ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, slots=True)
class RowChoice:
    """How rows to learn from are chosen.

    Attributes:
        method: of `Acceptance`: gap, random, balanced, all.
        n_rows: budget of a training, all its periods together.
        pilot_rows: drawn at random for the pilot.
        noise: what one believes of wrong labels.
        seed: of all draws.
    """

    method: str = "gap"
    n_rows: int = 200_000
    pilot_rows: int = 150_000
    noise: LabelNoise = field(default_factory=LabelNoise)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Chooser:
    """A pilot, and the acceptance that it was given: the same for every period, so that one offset corrects them all."""

    pilot: Linear
    acceptance: Acceptance

    @classmethod
    def fit(cls, rows: Candidates, fold: Ints, choice: RowChoice, *, coin: Floats, n_rows_in_all: int) -> "Chooser":
        """From candidates of visits drawn at random.

        Args:
            rows: candidates.
            fold: (n,) of their users.
            choice: how rows are chosen.
            coin: (n,) by which rows are drawn.
            n_rows_in_all: candidates of all training visits of one training, about.
        """
        drawn = pilot_rows(rows.taken.astype(float), choice.pilot_rows, coin)
        pilot = Linear.fit(some(rows, drawn), fold[drawn])
        probability = pilot.probability(rows, fold)
        share = min(1.0, choice.n_rows / max(n_rows_in_all, 1))
        acceptance = Acceptance.fit(
            choice.method,
            probability,
            rows.taken.astype(float),
            n_rows=max(1, round(share * len(rows))),
            noise=choice.noise,
        )
        return cls(pilot, acceptance)

    def choose(self, rows: Candidates, fold: Ints, coin: Floats) -> tuple[Ints, Floats, Floats]:
        """Places of the rows kept by their coins, and for all rows the pilot's probability and the chance to be kept."""
        probability = self.pilot.probability(rows, fold)
        label = rows.taken.astype(float)
        return (
            self.acceptance.draw(probability, label, coin),
            probability,
            self.acceptance.chance(probability, label),
        )


def some(rows: Candidates, places: NDArray) -> Candidates:
    """Some rows."""
    return replace(
        rows,
        visit=rows.visit[places],
        item=rows.item[places],
        known=rows.known[places],
        taken=rows.taken[places],
        channels=rows.channels[places],
    )


def joined(parts: Sequence[Candidates] | Iterator[Candidates]) -> Candidates:
    """Rows one after the other; visits are those of each part."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        visit=np.concatenate([part.visit for part in parts]),
        item=np.concatenate([part.item for part in parts]),
        known=np.concatenate([part.known for part in parts]),
        taken=np.concatenate([part.taken for part in parts]),
        channels=np.concatenate([part.channels for part in parts]),
    )


def _logit(probability: float) -> float:
    clipped = min(max(float(probability), PROBABILITY_FLOOR), 1 - PROBABILITY_FLOOR)
    return float(np.log(clipped) - np.log(1 - clipped))
