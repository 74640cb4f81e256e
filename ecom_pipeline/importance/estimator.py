"""The protocol of every estimator: what is known of training samples in, one value a sample out.

On the floor of `importance`. To add an estimator, add a frozen dataclass with `name`, `needs` and `fit` to the file of
its family in `estimators/`, and a line to `catalogue.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.errors import SampleError

Known = TypeVar("Known")
CREDIBLE_FLOOR = 1e-7  # probabilities are kept this far from 0 and 1, so that their logarithms are finite


@dataclass(frozen=True, slots=True)
class Holdout:
    """Samples that no head was trained on; some estimators ask what training samples do for them.

    Attributes:
        features: (m, d) float32, made as those of the training samples.
        label: (m, c) share of each class.
    """

    features: Singles
    label: Floats


@dataclass(frozen=True, slots=True)
class Dynamics:
    """How heads came to fit the samples that they were trained on; means over the heads that saw a sample.

    Attributes:
        margin: (n, e) logit of the observed class minus the largest other, after each of e epochs.
        loss: (n, e) cross-entropy of the label, in nats.
        error_norm: (n, e) length of the difference between probabilities and label, in [0, sqrt(2)].
        n_forgotten: (n,) how often a head that had the sample right got it wrong an epoch later, a head.
    """

    margin: Singles
    loss: Singles
    error_norm: Singles
    n_forgotten: Singles


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of n training samples. Only `label` is always there; an estimator says what else it needs.

    Attributes:
        label: (n, c) share of each class; rows add up to 1. Hard labels are one-hot.
        oof_score: (n, r, c) probability of each class, from a model that saw neither the sample nor its group.
        fold: (n, r) the fold that was held out for that score.
        features: (n, d) float32, what the heads see; the last column is the constant 1.
        dynamics: how heads came to fit the samples.
        holdout: samples that no head was trained on.
        group: (n,) number of the query or visit that the sample belongs to.
        user: (n,) number of one end of the interaction: the user, or the query.
        item: (n,) number of its other end.
        position: (n,) rank at which the item was shown, from 1.
        propensity: (n,) logged probability of showing it, in (0, 1].
        age_days: (n,) how long ago, in days, >= 0.
        target: (t, d) float32 features of the traffic that one wants to serve.
        device: of torch, where the arithmetic is done.
    """

    label: Floats
    oof_score: Floats | None = None
    fold: Ints | None = None
    features: Singles | None = None
    dynamics: Dynamics | None = None
    holdout: Holdout | None = None
    group: Ints | None = None
    user: Ints | None = None
    item: Ints | None = None
    position: Ints | None = None
    propensity: Floats | None = None
    age_days: Floats | None = None
    target: Singles | None = None
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.label)

    @property
    def n_classes(self) -> int:
        """How many classes a label may have."""
        return self.label.shape[1]

    @property
    def observed(self) -> Ints:
        """(n,) the class with the largest share; the later one of equals, so that a binary 0.5 counts as 1."""
        return self.n_classes - 1 - self.label[:, ::-1].argmax(1)

    @property
    def confidence(self) -> Floats:
        """(n, r) out-of-fold probability of the label that the sample has; soft labels mix the classes."""
        return np.einsum("nc,nrc->nr", self.label, required(self.oof_score))

    def lacks(self, needs: tuple[str, ...]) -> list[str]:
        """Which of the things that an estimator needs are not known."""
        return [name for name in needs if getattr(self, name) is None]

    def require(self, estimator: "Estimator") -> None:
        """Raises SampleError if something that the estimator needs is not known."""
        missing = self.lacks(estimator.needs)
        if missing:
            raise SampleError(
                f"{estimator.name}: {len(missing)} of the things that it needs are not known of these {len(self)} "
                f"samples; first: {missing[0]!r}. It needs {', '.join(estimator.needs)}: bring data that has them, or "
                "take another estimator."
            )


def required(thing: Known | None) -> Known:
    """What `Evidence.require` has found to be known.

    >>> required(3)
    3
    """
    assert thing is not None, "require comes first"
    return thing


def one_hot(label: NDArray, n_classes: int = 2) -> Floats:
    """(..., c) shares from labels: class numbers, or for two classes also shares of class 1 in [0, 1].

    >>> one_hot(np.array([1.0, 0.25])).tolist()
    [[0.0, 1.0], [0.75, 0.25]]
    >>> one_hot(np.array([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if n_classes == 2:
        share = np.asarray(label, np.float64)
        return np.stack([1 - share, share], -1)
    return np.eye(n_classes)[np.asarray(label, np.int64)]


@dataclass(frozen=True, slots=True)
class SampleValues:
    """What each sample is worth to learn from.

    Attributes:
        value: (n,) finite, higher is worth more, in the estimator's unit.
        stderr: (n,) of the value, or None where it is not known.
        notes: figures about the whole that a reader should see beside the values.
    """

    value: Floats
    stderr: Floats | None = None
    notes: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def over_repeats(cls, values: Floats) -> "SampleValues":
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

    @property
    def needs(self) -> tuple[str, ...]:
        """Which attributes of the evidence it reads beside the label."""
        ...

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample. Raises SampleError if something needed is not known."""
        ...
