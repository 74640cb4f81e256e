"""One rule, without any truth to look at, for "this label is wrong": how probable it is, and from where on to say so.

On the floor of `importance`. It reads out-of-fold probabilities of a model that was trained on the same wrong labels.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR, Evidence, SampleValues, required

MAX_FITTED = 1 << 15  # samples that the noise is estimated from; it has few parameters
_RATES = 20  # steps of the share of wrong labels that are weighed against each other
_MAX_STEPS = 60
_TOLERANCE = 0.01  # nats of the whole likelihood that a step must promise: far below what decides between models
_WIDE = 0.01  # weight of the prior on the temperature: a deviation of 10 is one standard deviation
_SMALL_SHIFT = 0.1  # weight of the prior on the shifts of the classes, which also fixes their sum
_NEGLIGIBLE = 1e-4  # weight, as a share of the largest, below which a rate is passed over
_HOPELESS = 1e8  # damping at which no step in any direction helps


class Structure(Enum):
    """How freely the noise may differ between classes; the richer one must earn its parameters."""

    UNIFORM = "one rate for all classes"
    BY_CLASS = "a rate for each class"
    BY_PAIR = "a rate for each pair of classes"


@dataclass(frozen=True, slots=True)
class WrongLabels:
    """Which labels are probably wrong.

    Attributes:
        probability: (n,) that the label is wrong, given the sample and its label.
        wrong: (n,) whether to say so.
        precision: expected share of wrong labels among those said to be wrong.
        recall: expected share of wrong labels that are said to be wrong.
        f1: expected F1, which the cut maximises.
        transition: (c, c) probability of the observed class (column) given the true one (row).
        temperature: how much the probabilities were sharpened (above 1) or softened to undo the noise.
        structure: (3,) how credible each `Structure` is, in its order; they add up to 1.
        told_apart: whether noise could be told from taste: in each observed class most labels are found right. Where a
            class is found mostly wrong, the scores may simply not predict it, and the probabilities claim too much.
    """

    probability: Floats
    wrong: Bools
    precision: float
    recall: float
    f1: float
    transition: Floats
    temperature: float
    structure: Floats
    told_apart: bool


@dataclass(frozen=True, slots=True)
class LabelPosterior:
    """How probable is it that the label is right, given the sample, its label and the noise of the whole set?

    Cost: as `find_wrong_labels`; not random.
    Source: as `find_wrong_labels`.
    """

    name = "label_posterior"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One probability a sample; the notes tell what the automatic cut would flag."""
        evidence.require(self)
        found = find_wrong_labels(evidence.label, required(evidence.oof_score))
        notes = {
            "expected_wrong_share": float(found.probability.mean()),
            "flagged_share": float(found.wrong.mean()),
            "expected_precision": found.precision,
            "expected_recall": found.recall,
        }
        return SampleValues(1.0 - found.probability, None, notes)


def find_wrong_labels(label: Floats, score: Floats) -> WrongLabels:
    """Which labels are wrong, judged by what models that did not see them expect?

    The model behind `score` was fitted to the labels as they are, so it predicts *observed* labels: p(observed | x) is
    p(true | x) times the transition matrix of the noise. We take p(true | x) to be the scores with another temperature
    and a shift for each class, choose these and the transition matrix so that the observed labels are as likely as
    can be, and get the probability that a label is wrong by Bayes' rule. No truth is needed: observed labels are known.

    Three structures of the noise are weighed against each other by their likelihood and number of rates (Schwarz's
    criterion): that classes or pairs differ must be earned. For one rate for all, every rate is kept with the weight
    that the likelihood gives it, the recalibration integrated out, as data in which classes overlap hardly tell noise
    from overlap; a single best rate would be 0 or far too large now and then.

    What it cannot tell: scores that level off exactly at the noise, as those of an ideal model of the observed labels
    do, look like classes that overlap. Then the order and the cut still hold, but the probabilities are too low, and
    with them the expected figures. The same goes for labels that are wrong just where the classes overlap.

    Args:
        label: (n, c) share of each class; soft labels count as votes, and the question is whether the class with the
            largest share is wrong.
        score: (n, r, c) out-of-fold probabilities; their logarithms are averaged over repeats.

    Returns:
        Probabilities, and the cut of `most_f1`.

    Raises:
        SampleError: if there are no samples, or labels and scores are not of the same samples and classes.

    Cost: O(n c²) a step, some hundred steps on at most `MAX_FITTED` samples; O(n c) memory. Not random.
    Source: the noise model of Dawid and Skene 1979 with one rater, with a classifier for the prior as in Raykar et al.
        2010 and Bootkrajang and Kaban 2012; temperature and shifts are Platt scaling (Platt 1999, Guo et al. 2017)
        seen through the noise; Schwarz 1978.
    """
    _check(label, score)
    n = len(label)
    z = np.log(np.maximum(score, CREDIBLE_FLOOR)).mean(1)
    observed = Evidence(label=label).observed[:, None]
    rows = np.unique(np.linspace(0, n - 1, min(n, MAX_FITTED)).astype(np.int64))
    fits, weight, structure = _weighed(z[rows], label[rows])
    probability = np.zeros(n)
    for one, share in zip(fits, weight, strict=True):
        if share > 1e-6:
            right = _posterior(z, label, one)[0]
            probability += share * (1.0 - np.take_along_axis(right, observed, 1)[:, 0])
    probability = np.clip(probability, 0.0, 1.0)
    wrong = most_f1(probability)
    caught, total = float(probability[wrong].sum()), float(probability.sum())
    mostly_right = [probability[observed[:, 0] == one].mean() < 0.5 for one in np.unique(observed)]
    return WrongLabels(
        probability=probability,
        wrong=wrong,
        precision=caught / max(int(wrong.sum()), 1),
        recall=caught / total if total > 0 else 0.0,
        f1=2 * caught / (int(wrong.sum()) + total) if wrong.any() else float(np.prod(1.0 - probability)),
        transition=np.einsum("m,mkj->kj", weight, np.stack([one.transition for one in fits])),
        temperature=float(weight @ np.array([one.temperature for one in fits])),
        structure=structure,
        told_apart=all(mostly_right),
    )


def most_f1(probability: Floats) -> Bools:
    """(n,) the samples to flag so that the expected F1 is as large as can be.

    The k most probable ones are flagged, with the k for which 2 * (their sum) / (k + sum of all) is largest. None is
    flagged where it is more probable that nothing at all is wrong, for then flagging nothing has an F1 of 1.

    Args:
        probability: (n,) that each sample is positive.

    Cost: O(n log n); not random. Equal probabilities keep the order of rows.
    Source: Lewis 1995 for ranking by probability and choosing k; the ratio of expectations stands for the expectation
        of the ratio, which is exact to order 1 / n (Ye et al. 2012).

    >>> most_f1(np.array([0.9, 0.1, 0.8])).tolist(), most_f1(np.array([0.1, 0.2])).tolist()
    ([True, False, True], [False, False])
    """
    order = np.argsort(-probability, kind="stable")
    f1 = 2 * probability[order].cumsum() / (np.arange(1, len(order) + 1) + probability.sum())
    wrong = np.zeros(len(order), bool)
    if len(order) and f1.max() > np.prod(1.0 - probability):
        wrong[order[: int(f1.argmax()) + 1]] = True
    return wrong


@dataclass(frozen=True, slots=True)
class _Noise:
    """Noise and recalibration, and how credible the labels make them."""

    transition: Floats  # (c, c)
    temperature: float
    shift: Floats  # (c,)
    evidence: float = -np.inf  # log-likelihood of the labels, the recalibration integrated out (Laplace)


def _weighed(z: Floats, label: Floats) -> tuple[list[_Noise], Floats, Floats]:
    """Fits, their weights, and the weight of each structure."""
    n, c = z.shape
    root = (np.arange(_RATES) + 0.5) / _RATES
    fits, found, within = _one_rate(z, label, root)
    likely = root[within > _NEGLIGIBLE * within.max()]
    if 2 * len(likely) < _RATES:  # many samples tell the rate more exactly than the steps do: finer ones there
        low, high = max(likely[0] - 1 / _RATES, 0.0), min(likely[-1] + 1 / _RATES, 1.0)
        fits, found, within = _one_rate(z, label, low + (high - low) * root)
    weights = [within / within.sum()]
    schwarz = [found.max() - 0.5 * np.log(n)]
    starts = [_Noise(_uniform(rate, c), 1.0, np.zeros(c)) for rate in (0.1, 0.4)] + [fits[int(found.argmax())]]
    by_class = max((_climb(z, label, one, True) for one in starts), key=lambda one: one.evidence)
    richer = [(by_class, c)] if c == 2 else [(by_class, c), (_by_pair(z, label, by_class), c * (c - 1))]
    for best, n_rates in richer:
        fits.append(best)
        weights.append(np.ones(1))
        schwarz.append(best.evidence - 0.5 * n_rates * np.log(n))
    share = np.exp(np.array(schwarz) - max(schwarz))
    share /= share.sum()
    weight = np.concatenate([one * own for one, own in zip(share, weights, strict=True)])
    return fits, weight, np.pad(share, (0, len(Structure) - len(share)))


def _one_rate(z: Floats, label: Floats, root: Floats) -> tuple[list[_Noise], Floats, Floats]:
    """Fits with one rate for all classes, their evidence, and their weights for a prior that is even in the rate.

    The rates are even in their root, so finer where noise is rare. Beyond the largest one, (c - 1) / c, a label would
    tell what a sample is not.
    """
    c = z.shape[1]
    fits, now = [], _Noise(np.eye(c), 1.0, np.zeros(c))
    for rate in (c - 1) / c * root**2:
        now = _climb(z, label, _Noise(_uniform(rate, c), now.temperature, now.shift), False)
        fits.append(now)
    found = np.array([one.evidence for one in fits])
    return fits, found, np.exp(found - found.max()) * root


def _climb(z: Floats, label: Floats, now: _Noise, free_rates: bool) -> _Noise:
    """The most likely temperature and shifts, with the transition matrix as it is or with a free rate for each class.

    Damped steps with the summed outer products of the samples' gradients for a curvature (Berndt et al. 1974): unlike
    expectation-maximisation, they do not slow down where much is hidden by noise.
    """
    right, reached = _reached(z, label, now, free_rates)
    damping = 0.01
    for _ in range(_MAX_STEPS):
        gradient, curvature = _slope(z, label, right, now, free_rates)
        while damping < _HOPELESS:
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
            if gradient @ step < 2 * _TOLERANCE:
                damping = _HOPELESS
                break
            tried = _moved(now, step / max(1.0, float(np.abs(step).max()) / 2), free_rates)
            tried_right, tried_reached = _reached(z, label, tried, free_rates)
            if tried_reached > reached:
                now, right, reached, damping = tried, tried_right, tried_reached, max(damping / 10, 1e-6)
                break
            damping *= 10
        if damping >= _HOPELESS:
            break
    inner = _slope(z, label, right, now, False)[1]
    evidence = _reached(z, label, now, False)[1] - 0.5 * float(np.linalg.slogdet(inner)[1])
    return _Noise(now.transition, now.temperature, now.shift, evidence)


def _reached(z: Floats, label: Floats, noise: _Noise, free_rates: bool) -> tuple[Floats, float]:
    """Posterior of the true classes, and the log-likelihood with the priors."""
    right, likelihood = _posterior(z, label, noise)
    reached = float(likelihood.sum()) - 0.5 * _WIDE * (noise.temperature - 1) ** 2
    reached -= 0.5 * _SMALL_SHIFT * float(noise.shift @ noise.shift)
    if free_rates:  # as if one right and one wrong label of each class had been seen before
        share = np.diag(noise.transition)
        reached += float(np.log(share * (1 - share)).sum())
    return right, reached


def _slope(z: Floats, label: Floats, right: Floats, now: _Noise, free_rates: bool) -> tuple[Floats, Floats]:
    """Gradient and curvature for the temperature, the shifts and, if free, the logits of the rates."""
    error = right - _prior(z, now)
    each = [(error * z).sum(1, keepdims=True), error]
    prior = [np.array([-_WIDE * (now.temperature - 1)]), -_SMALL_SHIFT * now.shift]
    bend = [np.array([_WIDE]), np.full(len(now.shift), _SMALL_SHIFT)]
    if free_rates:
        rate = 1 - np.diag(now.transition)
        each.append(right * (1 - label - rate))
        prior.append(1 - 2 * rate)
        bend.append(2 * rate * (1 - rate))
    gradients = np.hstack(each)
    return gradients.sum(0) + np.concatenate(prior), gradients.T @ gradients + np.diag(np.concatenate(bend))


def _moved(now: _Noise, step: NDArray[np.floating], free_rates: bool) -> _Noise:
    c = len(now.shift)
    transition = now.transition
    if free_rates:
        rate = 1 - np.diag(transition)
        transition = _spread(1 / (1 + (1 - rate) / rate * np.exp(-step[c + 1 :])))
    return _Noise(transition, max(now.temperature + float(step[0]), 0.05), now.shift + step[1 : c + 1])


def _by_pair(z: Floats, label: Floats, now: _Noise) -> _Noise:
    """A rate for each pair of classes, by expectation-maximisation; one label of each pair is added to what is seen."""
    same = np.eye(z.shape[1], dtype=bool)
    for _ in range(_MAX_STEPS):
        counts = _posterior(z, label, now)[0].T @ label
        rate = (counts.sum(1) - np.diag(counts) + 1) / (counts.sum(1) + 2)
        to = np.where(same, 0.0, counts + 1.0)
        transition = np.where(same, 1 - rate[:, None], rate[:, None] * to / to.sum(1, keepdims=True))
        before, now = now, _climb(z, label, _Noise(transition, now.temperature, now.shift), False)
        if np.abs(now.transition - before.transition).max() < 1e-3:
            break
    return now


def _prior(z: Floats, noise: _Noise) -> Floats:
    """(n, c) probability of the true class before the label is looked at."""
    logit = noise.temperature * z + noise.shift
    odds = np.exp(logit - logit.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def _posterior(z: Floats, label: Floats, noise: _Noise) -> tuple[Floats, Floats]:
    """(n, c) probability of the true class given the label too, and (n,) log-likelihood of the label."""
    joint = _prior(z, noise) * np.exp(label @ np.log(noise.transition).T)
    total = joint.sum(1, keepdims=True)
    return joint / total, np.log(total[:, 0])


def _uniform(rate: float, c: int) -> Floats:
    return _spread(np.full(c, rate))


def _spread(rate: Floats) -> Floats:
    """(c, c) transition matrix in which a class is wrong at its rate, and then any other one."""
    c = len(rate)
    rate = np.clip(rate, CREDIBLE_FLOOR, 1 - CREDIBLE_FLOOR)[:, None]
    return np.where(np.eye(c, dtype=bool), 1.0 - rate, rate / (c - 1))


def _check(label: Floats, score: Floats) -> None:
    if len(label) and label.shape[1] > 1 and (score.shape[0], score.shape[-1]) == label.shape and score.ndim == 3:
        return
    raise SampleError(
        f"wrong labels: {len(label)} samples with labels of shape {label.shape!r} and scores of shape {score.shape!r}; "
        "first: 0. At least one sample, two classes, and scores (samples, repeats, classes) are needed: score the same "
        "samples that are labelled."
    )
