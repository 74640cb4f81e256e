"""Values that mend what the log shows too much of: positions, policies, classes, segments, old days, other traffic.

On the floor of `importance`. These say nothing of whether a label is wrong; they are > 0 and meant to be weights as
they are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR, Evidence, SampleValues, one_hot, required
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.importance.weights import ess_share

Feedback = Literal["clicks", "bandit"]


@dataclass(frozen=True, slots=True)
class InversePropensity:
    """How rarely would the log have shown this? What it seldom shows counts for the many times that it did not.

    Attributes:
        feedback: "clicks": what was clicked counts 1 / propensity and the rest 1, since a skip may be for want of a
            look; a label between 0 and 1 is a share of clicks. "bandit": everything counts 1 / propensity, since what
            was drawn was seen.
        clip: a weight is lowered to this times sqrt(n) times the mean, n weights; inf: never.
        self_normalised: divide by the mean of the weights, so that the clicked keep the share that they have in the log
            and the scale of the propensities does not matter.

    With "clicks" and rare clicks a pointwise head then learns the odds of attraction; exactly unbiased it is for
    rankings of the clicked alone.

    Cost: O(n); not random.
    Source: Joachims, Swaminathan, Schnabel 2017, Unbiased Learning-to-Rank with Biased Feedback (clicks);
    Swaminathan and Joachims 2015, The Self-Normalized Estimator for Counterfactual Learning (bandit); the clip of the
    order of sqrt(n) is of Ionides 2008, Truncated Importance Sampling.

    >>> evidence = Evidence(label=one_hot(np.array([1.0, 1.0, 0.0])), propensity=np.array([0.5, 0.25, 0.1]))
    >>> InversePropensity(self_normalised=False, clip=np.inf).fit(evidence).value.tolist()
    [2.0, 4.0, 1.0]
    >>> InversePropensity(feedback="bandit", self_normalised=False, clip=np.inf).fit(evidence).value.tolist()
    [2.0, 4.0, 10.0]
    """

    feedback: Feedback = "clicks"
    clip: float = 1.0
    self_normalised: bool = True
    name = "inverse_propensity"
    needs = ("propensity",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One weight > 0 a sample. Raises SampleError if a propensity is not in (0, 1]."""
        evidence.require(self)
        p = required(evidence.propensity)
        _require("propensity", p, (p > 0) & (p <= 1), "in (0, 1]", "what was never shown has none: leave it out")
        return _inverse(evidence, required(evidence.propensity), self.feedback, self.clip, self.self_normalised)


@dataclass(frozen=True, slots=True)
class InverseExamination:
    """The same for clicks at positions: a click far down counts for the many who did not look so far.

    Attributes:
        examination: of positions 1, 2, ..., as `AllPairs` or `PositionBasedModel` found it; positions below the last
            are taken to be examined as the last is. None: 1 / position ** eta.
        eta: steepness where no curve is given.
        clip: as in `InversePropensity`.
        self_normalised: as in `InversePropensity`; with it the scale of the curve, which clicks cannot tell, is no
            matter.

    Cost: O(n); not random.
    Source: as `InversePropensity`; the power of the position is the examination assumed there too.

    >>> evidence = Evidence(label=one_hot(np.array([1.0, 1.0, 0.0])), position=np.array([1, 4, 9]))
    >>> InverseExamination(self_normalised=False, clip=np.inf).fit(evidence).value.tolist()
    [1.0, 4.0, 1.0]
    """

    examination: tuple[float, ...] | None = None
    eta: float = 1.0
    clip: float = 1.0
    self_normalised: bool = True
    name = "inverse_examination"
    needs = ("position",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One weight > 0 a sample. Raises SampleError if a position is below 1 or an examination not above 0."""
        evidence.require(self)
        place = required(evidence.position)
        _require("position", place, place >= 1, ">= 1", "add 1 where ranks are counted from 0")
        if self.examination is None:
            examined = place.astype(float) ** -self.eta
        else:
            curve = np.asarray(self.examination, float)
            _require("examination", curve, curve > 0, "above 0", "estimate the curve with smoothing")
            examined = curve[np.minimum(place, len(curve)) - 1]
        return _inverse(evidence, examined, "clicks", self.clip, self.self_normalised)


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """Is the label a rare one? Then the sample counts more, so that no class is drowned by another.

    Attributes:
        overlap: how alike the samples of a class are, in [0, 1]. 1: weights are inverse to the number of samples.
            Below, to the effective number (1 - overlap^n) / (1 - overlap): a class of many gains ever less by more of
            them. 0: all classes alike.

    A soft label is in each class for its share. Weights have mean 1.

    Cost: O(n c); not random.
    Source: Cui, Jia, Lin, Song, Belongie 2019, Class-Balanced Loss Based on Effective Number of Samples,
    Proposition 1 (their beta is our overlap).

    >>> label = one_hot(np.array([0.0, 0.0, 0.0, 1.0]))
    >>> ClassBalance().fit(Evidence(label=label)).value.round(4).tolist()
    [0.6667, 0.6667, 0.6667, 2.0]
    """

    overlap: float = 1.0
    name = "class_balance"
    needs = ()

    def fit(self, evidence: Evidence) -> SampleValues:
        """One weight > 0 a sample."""
        evidence.require(self)
        inverse = _inverse_number(evidence.label.sum(0), self.overlap)
        return _weights(evidence.label @ inverse)


@dataclass(frozen=True, slots=True)
class SegmentBalance:
    """Does the sample come from a segment that the log holds little of? Then it counts more.

    Attributes:
        segment: what a segment is: "group" (query or visit), "user" or "item".
        overlap: as in `ClassBalance`. 1: each segment counts the same in sum, whatever its size.

    Cost: O(n); not random.
    Source: as `ClassBalance`.

    >>> evidence = Evidence(label=one_hot(np.ones(4)), group=np.array([7, 7, 7, 2]))
    >>> SegmentBalance().fit(evidence).value.round(4).tolist()
    [0.6667, 0.6667, 0.6667, 2.0]
    """

    segment: Literal["group", "user", "item"] = "group"
    overlap: float = 1.0
    name = "segment_balance"

    @property
    def needs(self) -> tuple[str, ...]:
        """The segment."""
        return (self.segment,)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One weight > 0 a sample."""
        evidence.require(self)
        place = np.unique(getattr(evidence, self.segment), return_inverse=True)[1]
        return _weights(_inverse_number(np.bincount(place), self.overlap)[place])


@dataclass(frozen=True, slots=True)
class Recency:
    """How long ago was it? A sample of one half-life ago counts half as much as one of today.

    Attributes:
        half_life_days: > 0.

    Values below 1e-7 are raised to it: an old sample is worth little, not nothing.

    Cost: O(n); not random.

    >>> evidence = Evidence(label=one_hot(np.ones(3)), age_days=np.array([0.0, 90.0, 180.0]))
    >>> Recency(half_life_days=90).fit(evidence).value.tolist()
    [1.0, 0.5, 0.25]
    """

    half_life_days: float = 90.0
    name = "recency"
    needs = ("age_days",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One weight in (0, 1] a sample. Raises SampleError if an age is below 0 or the half-life not above."""
        evidence.require(self)
        age, half = required(evidence.age_days), np.array([self.half_life_days])
        _require("half_life_days", half, half > 0, "above 0", "take the days after which a sample counts half")
        _require("age_days", age, age >= 0, ">= 0", "count from a day that is later than every sample")
        return _weights(np.maximum(np.exp2(-age / half), CREDIBLE_FLOOR))


@dataclass(frozen=True, slots=True)
class DensityRatio:
    """Does the sample look like the traffic that one wants to serve? What resembles it counts more.

    A classifier tells training samples from target samples; with p the chance that a sample is of the target, the
    ratio of the densities is p / (1 - p) · n / t. Each sample is judged by a classifier that did not see it.

    Attributes:
        n_folds: of the cross-fit.
        clip: as in `InversePropensity`.
        penalties: of the classifier; the one with the lowest out-of-fold loss is taken.
        seed: of the folds.

    Values are self-normalised: they have mean 1. Noted is the classifier's AUC: 0.5 where nothing has shifted, near 1
    where the two hardly overlap and ratios tell little.

    Cost: as `fit_heads` with n_folds members over n + t samples. The folds are random.
    Source: Bickel, Brückner, Scheffer 2009, Discriminative Learning Under Covariate Shift; the cross-fit is ours.
    """

    n_folds: int = 5
    clip: float = 1.0
    penalties: tuple[float, ...] = (1e-4, 1e-3, *PENALTIES)
    seed: int = 0
    name = "density_ratio"
    needs = ("features", "target")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One ratio > 0 a sample. Raises SampleError if the target is empty or has other features."""
        evidence.require(self)
        x, target = required(evidence.features), required(evidence.target)
        if not len(target) or target.shape[1] != x.shape[1]:
            raise SampleError(
                f"target: 1 of 1 shapes does not fit the training samples; first: {target.shape!r} beside {x.shape!r}. "
                "It must have at least one row and the same features: make both with one projection."
            )
        origin = np.r_[np.zeros(len(x)), np.ones(len(target))]
        fold = np.random.default_rng(self.seed).permutation(len(origin)) % self.n_folds
        found = out_of_fold_scores(
            np.vstack([x, target]), one_hot(origin), fold[:, None], self.n_folds, evidence.device, self.penalties
        )
        chance = found.score[:, 0, 1]
        ratio = chance[: len(x)] / (1 - chance[: len(x)]) * len(x) / len(target)
        clipped, n_clipped = _clipped(ratio, self.clip)
        return _weights(clipped / clipped.mean(), n_clipped, {"auc": _auc(chance, origin), "penalty": found.penalty})


def _inverse(
    evidence: Evidence, chance: Floats, feedback: Feedback, clip: float, self_normalised: bool
) -> SampleValues:
    """Weights 1 / chance, of all samples or of their clicked share."""
    share = 1 - evidence.label[:, 0] if feedback == "clicks" else np.ones(len(evidence))
    moved = share > 0
    value = np.ones(len(evidence))
    n_clipped = 0
    if moved.any():
        weight, n_clipped = _clipped(1 / chance[moved], clip)
        if self_normalised:
            weight = weight / np.average(weight, weights=share[moved])
        value[moved] = share[moved] * weight + 1 - share[moved]
    return _weights(value, n_clipped)


def _weights(value: Floats, n_clipped: int = 0, more: dict[str, float] | None = None) -> SampleValues:
    notes = {"ess_share": ess_share(value), "n_clipped": float(n_clipped)} if len(value) else {}
    return SampleValues(value, None, notes | (more or {}))


def _clipped(weight: Floats, clip: float) -> tuple[Floats, int]:
    limit = clip * np.sqrt(len(weight)) * weight.mean()
    return np.minimum(weight, limit), int((weight > limit).sum())


def _inverse_number(count: NDArray, overlap: float) -> Floats:
    """(k,) inverse effective number of each class, scaled so that the weights of the samples have mean 1."""
    if not 0 <= overlap <= 1:
        raise SampleError(
            f"overlap: 1 of 1 values is outside [0, 1]; first: {overlap!r}. It is a share: take 1 for weights inverse "
            "to the number of samples, 0 for none."
        )
    effective = count.astype(float) if overlap == 1 else (1 - overlap**count) / (1 - overlap)
    inverse = np.where(count > 0, 1 / np.where(count > 0, effective, 1.0), 0.0)
    return inverse * count.sum() / max((inverse * count).sum(), 1e-300)


def _auc(chance: Floats, origin: Floats) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(origin, chance))


def _require(name: str, values: NDArray, valid: Bools, must_be: str, remedy: str) -> None:
    bad = np.flatnonzero(~valid)
    if bad.size:
        raise SampleError(
            f"{name}: {bad.size} of {len(values)} values are not {must_be}; first: {values[bad[0]].item()!r} in row "
            f"{int(bad[0])}. All must be: {remedy}."
        )
