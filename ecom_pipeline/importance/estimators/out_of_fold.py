"""Values read off out-of-fold scores: what a model that did not see the sample thinks of its label.

On the floor of `importance`.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats
from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR, Evidence, SampleValues, required


@dataclass(frozen=True, slots=True)
class OutOfFoldConfidence:
    """How probable is the label that the sample has, in the eyes of a model that did not see it?

    Cost: O(n r c); not random.
    Source: "self-confidence" in Northcutt, Jiang, Chuang 2021, Confident Learning.

    >>> import numpy as np
    >>> label, score = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[[0.2, 0.8]], [[0.2, 0.8]]])
    >>> OutOfFoldConfidence().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [0.8, 0.2]
    """

    name = "oof_confidence"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One probability a sample, averaged over repeats."""
        evidence.require(self)
        return SampleValues.over_repeats(evidence.confidence)


@dataclass(frozen=True, slots=True)
class NormalisedMargin:
    """By how much is the label that the sample has more probable than the best other one?

    A soft label mixes the margins of the classes. For two classes it orders samples as their confidence does.

    Cost: O(n r c); not random.
    Source: "normalized margin" in Northcutt et al. 2021, Confident Learning; cleanlab's score of that name is
        (1 + margin) / 2.

    >>> import numpy as np
    >>> label, score = np.array([[0.0, 1.0, 0.0]]), np.array([[[0.5, 0.3, 0.2]]])
    >>> NormalisedMargin().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [-0.2]
    """

    name = "oof_margin"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One margin in [-1, 1] a sample, averaged over repeats."""
        evidence.require(self)
        return SampleValues.over_repeats(_of_label(evidence.label, class_margins(required(evidence.oof_score))))


@dataclass(frozen=True, slots=True)
class EntropyAdjustedConfidence:
    """Is the label improbable although the model is sure, rather than because the sample is hard for any label?

    With h the entropy of the prediction as a share of its maximum and a = h / confidence: log(1 + a) / a, in (0, 1].

    Cost: O(n r c); not random.
    Source: "confidence weighted entropy" of cleanlab (Kuan and Mueller 2022, Model-agnostic label quality scoring),
        from which we depart at a = 0: there the limit, 1, is taken, and not 0, as a model that is wholly sure of the
        very label finds nothing wrong.

    >>> import numpy as np
    >>> label, score = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[[0.2, 0.8]], [[0.2, 0.8]]])
    >>> EntropyAdjustedConfidence().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [0.713, 0.423]
    """

    name = "oof_entropy_adjusted"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One score in (0, 1] a sample, averaged over repeats."""
        evidence.require(self)
        score = required(evidence.oof_score)
        surprise = np.where(score > 0, score * np.log(np.where(score > 0, score, 1.0)), 0.0)
        entropy = -surprise.sum(2) / np.log(max(evidence.n_classes, 2))
        ratio = np.maximum(entropy, 0.0) / np.maximum(evidence.confidence, CREDIBLE_FLOOR)
        small = ratio < 1e-12  # log(1 + a) / a is 1 - a / 2 there
        return SampleValues.over_repeats(np.where(small, 1.0, np.log1p(ratio) / np.where(small, 1.0, ratio)))


@dataclass(frozen=True, slots=True)
class CrossValidatedLoss:
    """How little does the label surprise a model that did not see it? Minus the cross-entropy, in nats.

    Cost: O(n r c); not random.
    Source: the logarithmic score of Good 1952, Rational decisions; probabilities are kept above a floor, so that a
        value is finite.

    >>> import numpy as np
    >>> label, score = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[[0.2, 0.8]], [[0.2, 0.8]]])
    >>> CrossValidatedLoss().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [-0.223, -1.609]
    """

    name = "oof_loss"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value <= 0 a sample, averaged over repeats."""
        evidence.require(self)
        surprise = np.log(np.maximum(required(evidence.oof_score), CREDIBLE_FLOOR))
        return SampleValues.over_repeats(_of_label(evidence.label, surprise))


@dataclass(frozen=True, slots=True)
class ClassAdjustedConfidence:
    """How probable is the label, compared with what is usual for its class?

    From each class's probability its usual self-confidence is taken (its mean over the samples of the class), all are
    raised by the largest of these, and the row is made to add up to 1 again. A rare class is no longer suspect only
    because the model is seldom sure of it.

    Cost: O(n r c); not random.
    Source: Kuan and Mueller 2022, Model-agnostic label quality scoring, "adjusted" self-confidence; Northcutt et al.
        2021, equation 2, for the usual self-confidence. Departs in one thing: a class without samples, which has no
        usual self-confidence, is given the largest one of the others.

    >>> import numpy as np
    >>> label = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    >>> score = np.array([[[0.6, 0.4]], [[0.8, 0.2]], [[0.6, 0.4]]])
    >>> ClassAdjustedConfidence().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [0.538, 0.615, 0.462]
    """

    name = "oof_class_adjusted"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One share in [0, 1] a sample, averaged over repeats."""
        evidence.require(self)
        usual = usual_confidence(evidence.label, required(evidence.oof_score))  # (r, c)
        most = np.nanmax(usual, axis=1, keepdims=True)
        adjusted = required(evidence.oof_score) + np.where(np.isnan(usual), 0.0, most - usual)
        adjusted /= adjusted.sum(2, keepdims=True)
        return SampleValues.over_repeats(_of_label(evidence.label, adjusted))


@dataclass(frozen=True, slots=True)
class RankedProbabilityScore:
    """How far, in squared cumulated probability, is the prediction from a graded label? For classes in order.

    The mean over the c - 1 steps between grades of the squared difference between the predicted and the labelled
    probability of lying above the step, negated. A grade that is off by one costs less than one that is off by three.

    Cost: O(n r c); not random.
    Source: Epstein 1969, A scoring system for probability forecasts of ranked categories, in the form of Murphy 1971.
        A soft label is read as a distribution of grades, so that predicting exactly that costs nothing.

    >>> import numpy as np
    >>> label, score = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([[[0.5, 0.3, 0.2]]] * 2)
    >>> RankedProbabilityScore().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [-0.145, -0.445]
    """

    name = "oof_ranked_probability"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value in [-1, 0] a sample, averaged over repeats."""
        evidence.require(self)
        steps = _above_label(evidence) ** 2
        return SampleValues.over_repeats(-steps.sum(2) / max(evidence.n_classes - 1, 1))


@dataclass(frozen=True, slots=True)
class ExpectedGradeDistance:
    """How many grades is a graded label away from what the model expects? For classes in order.

    Grades are one step apart. For a soft label it is the least number of steps that turns one distribution of grades
    into the other (their Wasserstein distance), which for a hard label is the expected distance.

    Cost: O(n r c); not random.
    Source: Vallender 1974 for the distance as a sum of differences of cumulated probabilities.

    >>> import numpy as np
    >>> label, score = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([[[0.5, 0.3, 0.2]]] * 2)
    >>> ExpectedGradeDistance().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [-0.7, -1.3]
    """

    name = "oof_grade_distance"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value in [1 - c, 0] a sample, averaged over repeats."""
        evidence.require(self)
        return SampleValues.over_repeats(-np.abs(_above_label(evidence)).sum(2))


def class_margins(score: Floats) -> Floats:
    """(..., c): each class's probability minus the largest of the others; for one class alone its probability.

    >>> import numpy as np
    >>> class_margins(np.array([0.5, 0.3, 0.2])).round(3).tolist()
    [0.2, -0.2, -0.3]
    """
    if score.shape[-1] < 2:
        return score
    ordered = np.sort(score, axis=-1)
    best, second = ordered[..., -1:], ordered[..., -2:-1]
    return score - np.where(score == best, np.where(best == second, best, second), best)


def usual_confidence(label: Floats, score: Floats) -> Floats:
    """(r, c): mean probability of a class over the samples of that class; nan for a class without samples.

    Args:
        label: (n, c) share of each class; a soft label counts for each class by its share.
        score: (n, r, c) out-of-fold probabilities.

    Cost: O(n r c); not random.
    Source: Northcutt et al. 2021, equation 2.
    """
    total = label.sum(0)
    known = total > 0
    return np.where(known, np.einsum("nc,nrc->rc", label, score) / np.where(known, total, 1.0), np.nan)


def _of_label(label: Floats, of_class: Floats) -> Floats:
    """(n, r): what (n, r, c) says of the classes, mixed as the label mixes them."""
    return np.einsum("nc,nrc->nr", label, of_class)


def _above_label(evidence: Evidence) -> Floats:
    """(n, r, c - 1): predicted minus labelled probability of lying above each step between grades."""
    return (evidence.label[:, None, :] - required(evidence.oof_score)).cumsum(2)[..., :-1]
