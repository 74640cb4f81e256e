"""Which rows to train on: those that a cheap pilot predicts worst, and the correction that keeps the odds right.

On the floor of `importance`. The prediction gap is a sampling rule here, not a loss weight: what is kept is trained on
without weights, and the pilot's logit comes back as an offset of the answer.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.errors import SampleError

PROBABILITY_FLOOR = 1e-6  # no pilot is surer than this: every row keeps a chance to be drawn
METHODS = ("gap", "random", "balanced", "all")


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """How often labels are wrong, as one believes; none by default.

    Attributes:
        missed: chance that a true 1 is recorded as 0.
        invented: chance that a true 0 is recorded as 1.
    """

    missed: float = 0.0
    invented: float = 0.0

    def right(self, probability: Floats, label: Floats) -> Floats:
        """(n,) chance that a recorded label is right, given the pilot's probability that label 1 is recorded.

        >>> LabelNoise().right(np.array([0.01]), np.array([1.0])).tolist()
        [1.0]
        >>> LabelNoise(invented=0.01).right(np.array([0.01]), np.array([1.0])).tolist()
        [0.0]

        Raises:
            SampleError: if labels are as often wrong as right.
        """
        if self.missed + self.invented >= 1:
            raise SampleError(
                f"label noise: 2 chances add up to {self.missed + self.invented!r}; the first is {self.missed!r}. "
                "Together they must be below 1, or a label says nothing: lower them."
            )
        true = np.clip((probability - self.invented) / (1 - self.missed - self.invented), 0, 1)
        recorded = np.where(label >= 0.5, probability, 1 - probability)
        true_and_right = np.where(label >= 0.5, true * (1 - self.missed), (1 - true) * (1 - self.invented))
        return np.clip(true_and_right / np.maximum(recorded, PROBABILITY_FLOOR), 0, 1)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """With what chance a row is kept, as a function of the pilot's probability and the label alone.

    A function of nothing else, so that the correction is exact for every row, drawn or not.

    Attributes:
        method: "gap": in proportion to |label - probability|, times the chance that the label is right. "random": the
            same chance for all. "balanced": as many of one label as of the other. "all": every row.
        scale: (2,) factor for label 0 and label 1, set by `fit` so that the budget is met.
        noise: what one believes of wrong labels; used by "gap".
    """

    method: str
    scale: tuple[float, float]
    noise: LabelNoise = LabelNoise()

    @classmethod
    def fit(
        cls, method: str, probability: Floats, label: Floats, *, n_rows: int, noise: LabelNoise | None = None
    ) -> "Acceptance":
        """The acceptance that keeps `n_rows` rows on average; all of them where there are not more.

        Args:
            method: as above.
            probability: (n,) the pilot's, of label 1, by a pilot that did not see the row.
            label: (n,) 0 or 1.
            n_rows: budget.
            noise: what one believes of wrong labels; None: that there are none.

        Raises:
            SampleError: if the method is unknown, the budget is not positive, or probabilities are outside [0, 1].

        Cost: O(n) a step of a bisection of 60 steps. Not random.
        """
        _check(method, probability, n_rows)
        noise = noise or LabelNoise()
        if method == "all" or n_rows >= len(label):
            return cls("all", (1.0, 1.0), noise)
        one = label >= 0.5
        if method == "balanced":
            n_one = int(one.sum())
            half = n_rows / 2
            kept_one = min(n_one, max(half, n_rows - (len(label) - n_one)))
            return cls(method, ((n_rows - kept_one) / max(len(label) - n_one, 1), kept_one / max(n_one, 1)), noise)
        if method == "random":
            share = n_rows / len(label)
            return cls(method, (share, share), noise)
        worth = cls("gap", (1.0, 1.0), noise)._worth(probability, label)
        scale = _scale(worth, n_rows)
        return cls("gap", (scale, scale), noise)

    def chance(self, probability: Floats, label: Floats) -> Floats:
        """(n,) in (0, 1]: chance of each row to be kept."""
        if self.method == "all":
            return np.ones(len(label))
        factor = np.where(label >= 0.5, self.scale[1], self.scale[0])
        worth = self._worth(probability, label) if self.method == "gap" else 1.0
        return np.clip(factor * worth, PROBABILITY_FLOOR, 1.0)

    def offset(self, probability: Floats) -> Floats:
        """(n,) what a model of the kept rows must add to its logit to be a model of all rows.

        Bayes: the odds among kept rows are the true odds times chance(x, 1) / chance(x, 0). Where no chance is capped
        at 1 and no noise is believed in, this is the pilot's logit, as in the paper.

        >>> half = Acceptance("gap", (0.1, 0.1))
        >>> half.offset(np.array([0.5, 0.9])).round(3).tolist()
        [0.0, 2.197]
        """
        n = len(probability)
        return np.log(self.chance(probability, np.zeros(n))) - np.log(self.chance(probability, np.ones(n)))

    def draw(self, probability: Floats, label: Floats, coin: Floats) -> Ints:
        """(k,) places of the rows kept, in order; each by its own coin, (n,) uniform in [0, 1)."""
        return np.flatnonzero(coin < self.chance(probability, label))

    def _worth(self, probability: Floats, label: Floats) -> Floats:
        gap = np.abs((label >= 0.5) - probability)
        if self.noise.missed or self.noise.invented:
            gap = gap * self.noise.right(probability, label)
        return np.maximum(gap, PROBABILITY_FLOOR)


def pilot_rows(label: Floats, n_rows: int, coin: Floats) -> Ints:
    """(k,) places of the rows that a pilot learns from: those of the lowest coins, and both labels if both exist."""
    drawn = np.argsort(coin, kind="stable")[:n_rows]
    absent = [value for value in (False, True) if not ((label[drawn] >= 0.5) == value).any()]
    extra = [np.flatnonzero((label >= 0.5) == value)[:1] for value in absent]
    return np.unique(np.concatenate([drawn, *extra]))


def _scale(worth: Floats, n_rows: int) -> float:
    """The factor c for which sum(min(1, c worth)) is `n_rows`."""
    low, high = 0.0, 1.0 / worth.min()
    for _ in range(60):
        middle = (low + high) / 2
        if np.minimum(1.0, middle * worth).sum() < n_rows:
            low = middle
        else:
            high = middle
    return high


def _check(method: str, probability: Floats, n_rows: int) -> None:
    if method not in METHODS:
        raise SampleError(
            f"sample_choice: 1 method is unknown: {method!r}. It must be one of {', '.join(METHODS)}: choose one."
        )
    if n_rows < 1:
        raise SampleError(f"sample_choice: 1 budget is {n_rows!r} rows. It must be at least 1: raise it.")
    outside = np.flatnonzero(~((probability >= 0) & (probability <= 1)))
    if outside.size:
        raise SampleError(
            f"sample_choice: {outside.size} of {len(probability)} probabilities are outside [0, 1]; first: row "
            f"{outside[0]} has {float(probability[outside[0]])!r}. A pilot must give probabilities: mend it."
        )
