"""Values read off the training itself: how soon, how surely and how lastingly heads came to fit a sample.

On the floor of `importance`. Heads fit what others confirm first, and a wrong label late, barely or never.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.importance.estimator import Evidence, SampleValues, required
from ecom_pipeline.importance.heads import Weighted
from ecom_pipeline.importance.networks import DynamicsRecorder, NetworkSettings, fit_networks


@dataclass(frozen=True, slots=True)
class AreaUnderMargin:
    """By how much did the label that the sample has lead all others, on average, while heads learned?

    In logits; below 0, another class led most of the time.

    Cost: O(n e); not random.
    Source: Pleiss et al. 2020, Identifying Mislabeled Data using the Area Under the Margin Ranking. The mean is over
    heads, too, where several saw the sample; their cut is in `ThresholdedAreaUnderMargin`.

    >>> from ecom_pipeline.importance.estimator import Dynamics
    >>> margin = np.array([[-1.0, 3.0], [-2.0, -2.0]])
    >>> dynamics = Dynamics(margin, margin, margin, np.zeros(2))
    >>> AreaUnderMargin().fit(Evidence(label=np.eye(2), dynamics=dynamics)).value.tolist()
    [1.0, -2.0]
    """

    name = "aum"
    needs = ("dynamics",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """A mean lead in logits a sample."""
        evidence.require(self)
        return SampleValues(required(evidence.dynamics).margin.mean(1, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class ThresholdedAreaUnderMargin:
    """By how much did a sample's label lead, beyond what a label that cannot be learned would?

    A network is trained with an extra class, to which a share 1 / (c + 1) of the samples is assigned at random. Their
    labels are wrong on purpose, so a quantile of their areas under the margin is a cut: samples below it behave as
    wrong labels do. A second network gives other samples to the extra class, so that every sample is valued with the
    label that it has. Values are areas less the cut, in logits: below 0, a label is called wrong.

    Attributes:
        quantile: of the areas of the extra class, in [0, 1].
        settings: of the two networks.
        seed: of the choice of samples for the extra class.

    Samples that served neither network have the mean of the two; the paper takes one. With few classes the cut is
    strict: a class that no feature tells apart is learned from its share alone, so on hard data most samples are
    below it. Look at the note `share_below_cut` before you believe it.

    Cost: as two networks of `fit_networks`; random, by `seed` and `settings`.
    Source: Pleiss et al. 2020, threshold samples (N / (c + 1) of them, 99th percentile).
    """

    quantile: float = 0.99
    settings: NetworkSettings = field(default_factory=NetworkSettings)
    seed: int = 0
    name = "thresholded_aum"
    needs = ("features",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """A mean lead beyond the cut, in logits, a sample."""
        evidence.require(self)
        n = len(evidence)
        size = max(n // (evidence.n_classes + 1), 1)
        order = np.random.default_rng(self.seed).permutation(n)
        total, count, cuts = np.zeros(n), np.zeros(n), []
        for extra in (order[:size], order[size : 2 * size]):
            area = self._areas(evidence, extra)
            cuts.append(np.quantile(area[extra], self.quantile) if len(extra) else 0.0)
            own = np.ones(n, bool)
            own[extra] = False
            total[own] += area[own] - cuts[-1]
            count[own] += 1
        value = total / np.maximum(count, 1)
        return SampleValues(value, None, {"cut": float(np.mean(cuts)), "share_below_cut": float((value < 0).mean())})

    def _areas(self, evidence: Evidence, extra: Ints) -> Floats:
        import torch

        label = np.pad(evidence.label, ((0, 0), (0, 1)))
        label[extra] = np.eye(label.shape[1])[-1]
        both = (required(evidence.features), label)
        x, y = (torch.as_tensor(values, dtype=torch.float32, device=evidence.device) for values in both)
        recorder = DynamicsRecorder(label, self.settings.n_epochs)
        fit_networks(x, y, Weighted(torch.ones_like(x[:, :1])), self.settings, recorder.watch)
        return recorder.dynamics().margin.mean(1, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class EarlyError:
    """How far from its label is a sample, early in training? (EL2N, with its sign turned.)

    The value is minus the length of the difference between probabilities and label, in [-sqrt(2), 0], after a share
    of the epochs, averaged over the heads that saw the sample.

    In the paper a large error means that a sample is worth *keeping*: there labels are right, and far from the label
    means hard. With wrong labels the largest errors are theirs; the paper sees that, too, and drops the highest scores
    under label noise. We are after wrong labels, hence the sign. If labels are known to be right,
    turn the values around.

    Attributes:
        share: of the epochs after which to look, in (0, 1]. The paper's best are the first tenth and the first fifth.

    Cost: O(n); not random.
    Source: Paul, Ganguli, Dziugaite 2021, Deep Learning on a Data Diet.
    """

    share: float = 0.1
    name = "el2n"
    needs = ("dynamics",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """Minus an error in [0, sqrt(2)] a sample."""
        evidence.require(self)
        error, epoch = _after(self.share, required(evidence.dynamics).error_norm)
        return SampleValues(-error, None, {"epoch": float(epoch)})


@dataclass(frozen=True, slots=True)
class Forgetting:
    """How often did heads that had a sample right get it wrong again?

    The value is minus that number, a head. A sample that was never right, as far as the heads' mean margin tells,
    counts as forgotten once an epoch: the paper says infinitely often, and e is more than can be counted.

    In the paper what is never forgotten can be left out of training; here it is worth the most, as what is forgotten
    all the time is often wrong. Most samples tie at 0: use it to find bad labels, not to order good ones.

    Cost: O(n e); not random.
    Source: Toneva et al. 2019, An Empirical Study of Example Forgetting.
    """

    name = "forgetting"
    needs = ("dynamics",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """Minus a number of times a sample."""
        evidence.require(self)
        margin = required(evidence.dynamics).margin
        never = (margin <= 0).all(1)
        times = np.where(never, margin.shape[1], required(evidence.dynamics).n_forgotten)
        return SampleValues(-times.astype(np.float64), None, {"n_never_right": float(never.sum())})


@dataclass(frozen=True, slots=True)
class SmallLoss:
    """Would a sample survive if the largest losses among positives were dropped?

    The value is the drop rate up to which a positive stays, in [0, 1]: the share of the other positives with a larger
    loss, equals counting half, averaged over epochs. Truncated cross-entropy at rate r keeps what has a value >= r.
    Positives are all classes but class 0. Negatives, whose label is only that nobody was interested, always stay: 1.

    The paper raises the rate from epoch to epoch up to its bound and truncates a batch at a time; a mean over epochs
    of ranks within all positives is what that ordering has without a schedule.

    Cost: O(e n log n); not random.
    Source: Wang et al. 2021, Denoising Implicit Feedback for Recommendation (T-CE).
    """

    name = "small_loss"
    needs = ("dynamics",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """A drop rate a sample."""
        from scipy.stats import rankdata  # a quarter of the time that the definitions take to load

        evidence.require(self)
        positive = evidence.observed > 0
        loss = required(evidence.dynamics).loss[positive].astype(np.float64)
        value = np.ones(len(evidence))
        if len(loss) > 1:
            value[positive] = ((rankdata(-loss, axis=0) - 1) / (len(loss) - 1)).mean(1)
        return SampleValues(value)


@dataclass(frozen=True, slots=True)
class ReweightedLoss:
    """How much weight does a sample keep if losses are weighted by the probability of its label to a power?

    The value is p^power, in (0, 1], averaged over epochs: p is the probability of the label that the sample has, in
    the eyes of heads that were trained on it.

    Attributes:
        power: beta, > 0; small keeps nearly all. It matters for the order only where epochs differ.
        positives_only: whether negatives keep 1. The paper weights them by the same rule, (1 - p)^beta.

    Cost: O(n e); not random.
    Source: Wang et al. 2021, Denoising Implicit Feedback for Recommendation (R-CE). p is exp(-loss), the
    geometric mean over heads and, for soft labels, over classes.
    """

    power: float = 0.2
    positives_only: bool = False
    name = "reweighted_loss"
    needs = ("dynamics",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """A weight in (0, 1] a sample."""
        evidence.require(self)
        value = np.exp(-self.power * required(evidence.dynamics).loss.astype(np.float64)).mean(1)
        return SampleValues(np.where((evidence.observed == 0) & self.positives_only, 1.0, value))


@dataclass(frozen=True, slots=True)
class ReducibleLoss:
    """How much of a sample's loss would learning from it take away, that no other data could?

    The loss of heads in training that see the sample, less the loss of heads that never saw it, in nats. What is
    already learned has nothing to give (about 0); a wrong label is not learnable from other data (below 0); what
    others would confirm, but is not learned yet, is worth the most.

    Higher is worth more in the paper, too. There the second model learns from a holdout, the first is taken as it is
    at each step, and only the highest values are trained on; here out-of-fold heads, which saw the rest of the
    training data, stand for the second, and the first is that of an early epoch. Late, what is learned and what is
    wrong but not learned by heart are both near 0, and the value tells only what is still worth a step.

    Attributes:
        share: of the epochs after which to look, in (0, 1].

    It wants a first model that has only begun to learn. Take the dynamics of networks: the first step of the linear
    heads' solver is already close to the end. A first model that has learned for longer than the second, which may
    stop early, has the larger loss on wrong labels, and the order turns around.

    Cost: O(n r c); not random.
    Source: Mindermann et al. 2022, Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet
    Learnt (reducible holdout loss).
    """

    share: float = 0.05
    name = "reducible_loss"
    needs = ("dynamics", "oof_score")

    def fit(self, evidence: Evidence) -> SampleValues:
        """A difference of losses in nats a sample."""
        evidence.require(self)
        unseen = -np.einsum("nc,nrc->nr", evidence.label, np.log(required(evidence.oof_score)))
        seen, epoch = _after(self.share, required(evidence.dynamics).loss)
        return replace(SampleValues.over_repeats(seen[:, None] - unseen), notes={"epoch": float(epoch)})


def _after(share: float, values: Singles) -> tuple[Floats, int]:
    """The column of (n, e) values after a share of the epochs, and the number of that epoch."""
    epoch = max(int(np.ceil(share * values.shape[1])), 1)
    return values[:, epoch - 1].astype(np.float64), epoch
