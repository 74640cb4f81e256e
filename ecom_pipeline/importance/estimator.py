"""The protocol of every estimator: scored samples in, one value a sample out.

On the floor above `language`. To add an estimator, add a frozen dataclass with `fit` and a `name`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ScoredSamples:
    """Training samples with their out-of-fold scores.

    Attributes:
        label: (n,) in [0, 1], what the model is taught.
        oof_score: (n, r) probability of label 1, from a model that saw neither the sample nor its group.
        fold: (n, r) the fold that was held out for that score.
    """

    label: NDArray[np.float64]
    oof_score: NDArray[np.float64]
    fold: NDArray[np.int64]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(n, r) out-of-fold probability of the label that the sample has; soft labels mix both."""
        label = self.label[:, None]
        return label * self.oof_score + (1 - label) * (1 - self.oof_score)


@dataclass(frozen=True, slots=True)
class SampleValues:
    """What each sample is worth to learn from.

    Attributes:
        value: (n,) finite, higher is worth more, in the estimator's unit.
        stderr: (n,) over repeats, or None where there is one repeat.
        notes: figures about the whole that a reader should see beside the values.
    """

    value: NDArray[np.float64]
    stderr: NDArray[np.float64] | None
    notes: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def over_repeats(cls, values: NDArray[np.float64]) -> "SampleValues":
        """Mean and standard error of (n, r) values."""
        n_repeats = values.shape[1]
        stderr = values.std(1, ddof=1) / np.sqrt(n_repeats) if n_repeats > 1 else None
        return cls(values.mean(1), stderr)


class Estimator(Protocol):
    """A way to value samples."""

    @property
    def name(self) -> str:
        """What the estimator is called in `sample_values`."""
        ...

    def fit(self, samples: ScoredSamples) -> SampleValues:
        """One value a sample."""
        ...
