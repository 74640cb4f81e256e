"""The prediction gap: how far a sample's prediction falls short of what is expected.

On the floor of `importance`. The literal form is kept to the letter and judged; it is not the default.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.importance.estimator import Evidence, SampleValues, required

NEAR_ZERO = 0.01  # a mean gap smaller than this, in probability, makes a weight of over 100


@dataclass(frozen=True, slots=True)
class LiteralPredictionGap:
    """Imp_ij = E[pred_ij] - pred_ij; value 1 / sum over j of Imp_ij, exactly as first written.

    pred_ij is the out-of-fold probability of the sample's label in repeat j, and E the mean over the samples of the
    fold that was held out with it: under the other reading, E over j, the sum is 0 for every sample. The pole then
    sits at the average sample, so values are huge, negative, or both; they are not ordered by worth. Where the sum is
    exactly 0 the formula has no value: we write 0 and count it.

    Cost: O(n r); not random.

    >>> label, score = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[[0.1, 0.9]], [[0.6, 0.4]]])
    >>> evidence = Evidence(label=label, oof_score=score, fold=np.array([[0], [0]]))
    >>> LiteralPredictionGap().fit(evidence).value.round(3).tolist()
    [-4.0, 4.0]
    """

    name = "literal_prediction_gap"
    needs = ("oof_score", "fold")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One raw weight a sample, negatives and all."""
        evidence.require(self)
        confidence = evidence.confidence
        total = (mean_by_fold(confidence, required(evidence.fold)) - confidence).sum(1)
        undefined = np.abs(total) < 1e-12
        value = np.where(undefined, 0.0, 1.0 / np.where(undefined, 1.0, total))
        notes = {
            "n_undefined": float(undefined.sum()),
            "n_divided_by_nearly_zero": float((np.abs(total) < NEAR_ZERO * confidence.shape[1]).sum()),
            "n_negative": float((value < 0).sum()),
            "raw_ess_share": float(value.sum() ** 2 / max((value**2).sum(), 1e-300) / len(value)),
        }
        return SampleValues(value, None, notes)


@dataclass(frozen=True, slots=True)
class StabilisedPredictionGap:
    """The same idea without its poles: 1 / (smoothing + max(0, Imp)), with Imp within the class of the label.

    Attributes:
        smoothing: the gap at which a sample is worth half of the best, in probability.

    Departs from the formula in three ways: only the fold that held the sample out counts, the expectation is over
    samples with the same label, and a prediction above expectation counts as no gap.

    Cost: O(n r); not random.
    """

    smoothing: float
    name = "stabilised_prediction_gap"
    needs = ("oof_score", "fold")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value in (0, 1 / smoothing] a sample."""
        evidence.require(self)
        confidence = evidence.confidence
        same_class = required(evidence.fold) * evidence.n_classes + evidence.observed[:, None]
        gap = (mean_by_fold(confidence, same_class) - confidence).mean(1)
        return SampleValues(1.0 / (self.smoothing + np.maximum(0.0, gap)), None)


def mean_by_fold(values: Floats, fold: Ints) -> Floats:
    """(n, r): for each sample, the mean of a repeat's values over the samples of its fold."""
    means = np.empty_like(values)
    for repeat in range(values.shape[1]):
        place = fold[:, repeat]
        count = np.bincount(place)
        means[:, repeat] = (np.bincount(place, values[:, repeat]) / np.maximum(count, 1))[place]
    return means
