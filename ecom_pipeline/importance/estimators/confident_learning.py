"""Confident learning: which labels go with which likely classes, how often, and what follows for each sample.

On the floor of `importance`. Every estimator here reads the mean of the repeats, and says by the sign of its value
whether the sample is to be pruned: below 0 yes, else no.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.importance.estimator import Evidence, SampleValues, required
from ecom_pipeline.importance.estimators.out_of_fold import class_margins, usual_confidence

NEVER = 2.0  # threshold of a class without samples: no probability reaches it
NEAR = 1e-6  # probabilities closer than this count as equal, in favour of the label


def thresholds(label: Floats, score: Floats) -> Floats:
    """(c,) how sure the model usually is of a class, where the label says so.

    Args:
        label: (n, c) share of each class.
        score: (n, c) out-of-fold probabilities.

    Cost: O(n c); not random.
    Source: Northcutt, Jiang, Chuang 2021, equation 2. A class without samples has a threshold that nothing reaches.

    >>> thresholds(np.eye(2)[[0, 1, 1]], np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])).round(3).tolist()
    [0.9, 0.4]
    """
    usual = usual_confidence(label, score[:, None])[0]
    return np.maximum(np.where(np.isnan(usual), NEVER, usual), 2 * NEAR)


def likely_class(score: Floats, threshold: Floats) -> Ints:
    """(n,) the class that a sample is confidently counted for, or -1 where no class reaches its threshold.

    Where several classes reach theirs, the most probable of all classes counts.

    Args:
        score: (n, c) out-of-fold probabilities.
        threshold: (c,) of `thresholds`.

    Cost: O(n c); not random.
    Source: Northcutt et al. 2021, equation 1 and its rule for collisions.
    """
    reached = score >= threshold - NEAR
    alone = np.where(reached.any(1), reached.argmax(1), -1)
    return np.where(reached.sum(1) > 1, score.argmax(1), alone)


def confident_joint(label: Floats, score: Floats) -> Floats:
    """(c, c) how many samples with the label of the row are confidently of the class of the column.

    Args:
        label: (n, c) share of each class; a soft label is counted in each row by its share.
        score: (n, c) out-of-fold probabilities.

    Returns:
        Counts. Each class has at least one sample on the diagonal, so that its row can be scaled.

    Cost: O(n c²); not random.
    Source: Northcutt et al. 2021, equation 1; the floor of the diagonal is that of cleanlab.

    >>> score = np.array([[0.9, 0.1], [0.4, 0.6], [0.95, 0.05], [0.1, 0.9]])
    >>> confident_joint(np.eye(2)[[0, 1, 1, 1]], score).tolist()
    [[1.0, 0.0], [1.0, 2.0]]
    """
    n_classes = label.shape[1]
    likely = likely_class(score, thresholds(label, score))
    joint = label[likely >= 0].T @ np.eye(n_classes)[likely[likely >= 0]]
    diagonal = np.arange(n_classes)
    joint[diagonal, diagonal] = np.maximum(joint[diagonal, diagonal], 1.0)
    return joint


def calibrated_joint(label: Floats, score: Floats) -> Floats:
    """(c, c) estimated number of samples with the label of the row that are truly of the class of the column.

    Divided by n it is the joint distribution of observed and true labels; one minus its trace is the share of wrong
    labels.

    Args:
        label: (n, c) share of each class.
        score: (n, c) out-of-fold probabilities.

    Returns:
        Counts that are not rounded; rows add up to the samples of each label.

    Cost: O(n c²); not random.
    Source: Northcutt et al. 2021, equation 3. cleanlab rounds to whole samples, which `whole` does.
    """
    joint = confident_joint(label, score)
    return joint / joint.sum(1, keepdims=True) * label.sum(0)[:, None]


def whole(counts: Floats) -> Ints:
    """Counts rounded to whole samples so that each row keeps its (rounded) total.

    What is too much or too little is taken from, or given to, the entries that rounding has moved farthest.

    >>> whole(np.array([[1.4, 1.4, 0.2]])).tolist()
    [[1, 2, 0]]
    """
    rounded = np.round(counts)
    for row, wanted in zip(range(len(counts)), np.round(counts.sum(1)), strict=True):
        missing = int(wanted - rounded[row].sum())
        step = 1 if missing > 0 else -1
        farthest = np.argsort(counts[row] - rounded[row])[::-step]
        rounded[row, farthest[: abs(missing)]] += step
    return rounded.astype(np.int64)


@dataclass(frozen=True, slots=True)
class ConfidentLearning:
    """Is the sample confidently counted for another class than its label?

    Value: the margin of the label over the best other class, in [-1, 0), where the sample is off the diagonal of the
    confident joint and another class is more probable; 1 plus the margin, in [0, 2], where not.

    Cost: O(n c); not random.
    Source: Northcutt et al. 2021, method "C_confusion" with equation 1; `filter_by="confident_learning"` of cleanlab.

    >>> label, score = np.eye(2)[[0, 1, 1]], np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.95, 0.05]]])
    >>> ConfidentLearning().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [1.8, 1.2, -0.9]
    """

    name = "confident_learning"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value in [-1, 2] a sample; below 0: prune."""
        evidence.require(self)
        score = required(evidence.oof_score).mean(1)
        likely = likely_class(score, thresholds(evidence.label, score))
        margin = _margin(evidence.observed, score)
        off = (likely >= 0) & (likely != evidence.observed) & (margin < 0)
        return _told(np.where(off, margin, 1.0 + margin))


@dataclass(frozen=True, slots=True)
class PruneByClass:
    """Is the sample among the least confident of its label, as many as the calibrated joint says are wrong?

    Value: its probability minus the cut of its label, or the margin over the best other class if that is larger, for
    what the model itself predicts is never pruned.

    Cost: O(n (c + log n)); not random.
    Source: Northcutt et al. 2021, "prune by class"; `filter_by="prune_by_class"` of cleanlab. Samples as confident as
        the first one kept are kept: cleanlab takes any of them.
    """

    name = "prune_by_class"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value in [-1, 1] a sample; below 0: prune."""
        evidence.require(self)
        return _told(_by_class(evidence.label, evidence.observed, required(evidence.oof_score).mean(1)))


@dataclass(frozen=True, slots=True)
class PruneByNoiseRate:
    """Is another class more probable by as much as in those pairs of classes that the calibrated joint says are wrong?

    For each other class, the pairs of label and class have as many pruned as the joint has there, those with the
    largest margin of the class over the label. Value: the least distance to such a cut, or the margin of the label
    over the best other class if that is larger.

    Cost: O(n c log n); not random.
    Source: Northcutt et al. 2021, "prune by noise rate"; `filter_by="prune_by_noise_rate"` of cleanlab, its default.
        Samples with the margin of the first one kept are kept.
    """

    name = "prune_by_noise_rate"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value in [-1, 2] a sample; below 0: prune."""
        evidence.require(self)
        return _told(_by_noise_rate(evidence.label, evidence.observed, required(evidence.oof_score).mean(1)))


@dataclass(frozen=True, slots=True)
class PruneByBoth:
    """Do pruning by class and pruning by noise rate agree that the label is wrong?

    Value: the larger of the two values.

    Cost: O(n c log n); not random.
    Source: Northcutt et al. 2021, "C + NR"; `filter_by="both"` of cleanlab.
    """

    name = "prune_by_both"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value in [-1, 2] a sample; below 0: prune."""
        evidence.require(self)
        known = evidence.label, evidence.observed, required(evidence.oof_score).mean(1)
        return _told(np.maximum(_by_class(*known), _by_noise_rate(*known)))


def _told(value: Floats) -> SampleValues:
    return SampleValues(value, None, {"pruned_share": float((value < 0).mean()) if len(value) else 0.0})


def _margin(observed: Ints, score: Floats) -> Floats:
    """(n,) of the label over the best other class; what is nearly equal counts for the label."""
    return class_margins(score)[np.arange(len(score)), observed] + NEAR


def _by_class(label: Floats, observed: Ints, score: Floats) -> Floats:
    counts = _to_prune(label, score)
    cut = np.zeros(len(counts))  # nothing is below 0: nothing is pruned
    for one in range(len(counts)):
        of_class = np.sort(score[observed == one, one])
        n_pruned = min(int(label[:, one].sum().round()) - counts[one, one], len(of_class) - 1)
        if n_pruned > 0:
            cut[one] = (of_class[n_pruned - 1] + of_class[n_pruned]) / 2
    confidence = score[np.arange(len(score)), observed]
    return np.maximum(confidence - cut[observed], _margin(observed, score))


def _by_noise_rate(label: Floats, observed: Ints, score: Floats) -> Floats:
    counts = _to_prune(label, score)
    distance = np.full(len(score), np.inf)
    for one in range(len(counts)):
        rows = np.flatnonzero(observed == one)
        for other in range(len(counts)):
            n_pruned = counts[one, other] if other != one and len(rows) > 1 else 0
            if n_pruned == 0:
                continue
            lead = score[rows, other] - score[rows, one]
            ordered = np.append(np.sort(lead)[::-1], -1.0)
            cut = (ordered[min(n_pruned, len(rows)) - 1] + ordered[min(n_pruned, len(rows))]) / 2
            distance[rows] = np.minimum(distance[rows], cut - lead)
    margin = _margin(observed, score)
    return np.maximum(np.where(np.isfinite(distance), distance, 1.0 + margin), margin)


def _to_prune(label: Floats, score: Floats) -> Ints:
    """(c, c) samples by label and likely class, in whole numbers; at least one of each label is right.

    The one is taken from the other entries of its row evenly, as cleanlab does.
    """
    counts = whole(calibrated_joint(label, score))
    diagonal = np.arange(len(counts))
    lacking = np.maximum(1 - counts[diagonal, diagonal], 0)
    others = np.maximum((counts != 0).sum(1) - 1, 1)
    reduced = np.maximum(counts - (lacking / others)[:, None], 0.0)
    reduced[diagonal, diagonal] = np.maximum(counts[diagonal, diagonal], 1)
    return whole(reduced.T).T
