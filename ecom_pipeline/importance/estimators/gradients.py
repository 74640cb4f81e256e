"""Influence by gradients of a softmax head: what would the holdout look like to it without this sample?

On the floor of `importance`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, SampleValues, required
from ecom_pipeline.importance.head_gradients import Head, SampleGradients, Samples, known_samples
from ecom_pipeline.importance.heads import Weighted, row_blocks

if TYPE_CHECKING:
    import torch

PENALTY = 0.1  # a sample's share of the L2 penalty on features of variance 1


@dataclass(frozen=True, slots=True)
class LastLayerInfluence:
    """By how much would the loss on the holdout rise, had the head not been taught this sample?

    To first order, for a head at its optimum: the mean gradient of the holdout's loss, times the inverse Hessian, times
    the gradient of the sample's own loss with its share of the penalty, divided by n. In nats. At the optimum that
    share is minus the mean gradient, which is what we take, so that values add up to 0 for a fit stopped early too.

    Attributes:
        penalty: L2 penalty of the head, a sample.

    Cost: one fit, then O(n d² c²) time and O(d² c²) memory beside the features; not random. The standard error is of
        the mean over the holdout; that the head is uncertain too is not in it.
    Source: Koh and Liang 2017, Understanding black-box predictions via influence functions, equation 2, negated as it
        is for leaving out, for the last layer alone with its Hessian in closed form. Departs by giving each sample its
        share of the penalty, which leaves with it here; that shifts all values by the same amount.
    """

    penalty: float = PENALTY
    name = "influence"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample, in nats of the mean loss on the holdout."""
        import torch

        train, held = known_samples(self, evidence)
        head = Head.fitted(train, self.penalty)[0]
        factor = torch.linalg.cholesky(head.hessian(train, self.penalty))
        target = head.mean_gradient(held)
        direction = torch.cholesky_solve(target.T.flatten()[:, None].double(), factor)
        direction = direction.reshape(target.T.shape).T.float()
        share = -head.mean_gradient(train)  # the penalty's, at the optimum; and values add up to 0 short of it too
        value = torch.cat([gradients.dot(direction) for _, gradients in head.gradients(train)])
        value = (value.double() + (share * direction).double().sum()) / len(train)
        if len(held) < 2:
            return SampleValues(value.cpu().numpy(), None)
        spread = _covariance(head, held, target) / len(held)
        spread = torch.cholesky_solve(torch.cholesky_solve(spread, factor).T, factor)
        stderr = _quadratic(head, train, spread, share).sqrt() / len(train)
        return SampleValues(value.cpu().numpy(), stderr.cpu().numpy())


@dataclass(frozen=True, slots=True)
class SelfInfluence:
    """How much does a sample's own fit rest on having been taught it? Negated: what is learnt by heart is suspect.

    To first order, the rise of the sample's own loss, in nats, were the head fitted without it. Needs no holdout.

    Attributes:
        penalty: L2 penalty of the head, a sample.

    Cost: one fit, then O(n d² c²) time and O(d² c²) memory beside the features; not random.
    Source: Koh and Liang 2017, section 5.4, which checks labels by it.
    """

    penalty: float = PENALTY
    name = "self_influence"
    needs = ("features",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value <= 0 a sample, in nats of its own loss."""
        import torch

        evidence.require(self)
        train = Samples.on(evidence.device, required(evidence.features), evidence.label)
        head = Head.fitted(train, self.penalty)[0]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(head.hessian(train, self.penalty)))
        own = _quadratic(head, train, inverse, torch.zeros_like(head.theta)) / len(train)
        return SampleValues(-own.cpu().numpy())


@dataclass(frozen=True, slots=True)
class TracIn:
    """By how much did the steps that a head took with this sample lower the loss on the holdout?

    A head descends from 0 by plain gradient steps over all samples; at each step the gradient of the sample's loss is
    multiplied with that of the holdout's mean loss, times the step, divided by n. With short steps and no penalty the
    values add up to what the loss on the holdout fell by. Every step is a checkpoint, as one costs no more than the
    step itself. The path of `fit_heads` is not taken: preconditioned and with momentum, it is not along gradients.

    Attributes:
        n_steps: length of the descent.
        step: share of the longest step that is sure to lower the loss, in (0, 1].
        penalty: L2 penalty of the head, a sample.

    Cost: O((n + m) d c) a step for m holdout samples; not random.
    Source: Pruthi, Liu, Kale, Sundararajan 2020, Estimating training data influence by tracing gradient descent,
        TracInCP with every step as a checkpoint. Departs in that a step is over all samples.

    >>> from ecom_pipeline.importance.estimator import Holdout
    >>> one, label = np.ones((1, 1), np.float32), np.array([[0.0, 1.0]])  # both gradients -1/2, curvature 1/4
    >>> evidence = Evidence(features=one, label=label, holdout=Holdout(one, label))
    >>> TracIn(n_steps=1, penalty=0.0).fit(evidence).value.round(3).tolist()
    [1.0]
    """

    n_steps: int = 100
    step: float = 1.0
    penalty: float = PENALTY
    name = "tracin"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample, in nats of the mean loss on the holdout."""
        train, held = known_samples(self, evidence)

        def along_the_holdouts(head: Head) -> Callable[[SampleGradients], "torch.Tensor"]:
            target = head.mean_gradient(held)
            return lambda gradients: gradients.dot(target)

        return SampleValues(_descend(train, self, along_the_holdouts).cpu().numpy())


@dataclass(frozen=True, slots=True)
class SelfTracIn:
    """How much did the steps that a head took with this sample lower the sample's own loss? Negated.

    What a head can only learn from the sample itself is suspect. Needs no holdout; otherwise as `TracIn`.

    Attributes:
        n_steps: length of the descent.
        step: share of the longest step that is sure to lower the loss, in (0, 1].
        penalty: L2 penalty of the head, a sample.

    Cost: O(n d c) a step; not random.
    Source: Pruthi et al. 2020, section 4.1, which finds wrong labels by it.
    """

    n_steps: int = 100
    step: float = 1.0
    penalty: float = PENALTY
    name = "self_tracin"
    needs = ("features",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value <= 0 a sample, in nats of its own loss."""
        import torch

        evidence.require(self)
        train = Samples.on(evidence.device, required(evidence.features), evidence.label)
        asked = _descend(train, self, lambda _: lambda gradients: gradients.asked.square().sum(1))
        squares = torch.cat([train.x[rows].square().sum(1) for rows in row_blocks(*train.x.shape)])
        return SampleValues(-(asked * squares).cpu().numpy())


@dataclass(frozen=True, slots=True)
class Trak:
    """By how much would the margins of the holdout fall, had heads not been taught this sample?

    Heads are fitted to random parts of the samples. For each, the gradient of a sample's margin log p / (1 - p) is
    projected at random; the mean projection of the holdout, times the inverse of the projections' Gram matrix over all
    samples, times the sample's projection is averaged over heads, and multiplied with the mean of 1 - p, how unsure
    the heads are of the sample. In log odds. Soft labels mix the margins of the classes.

    Attributes:
        n_heads: how many.
        share: of the samples that a head is taught, in (0, 1].
        n_projections: dimensions of the projection. A head with no more parameters than that is not projected, as it
            would gain nothing but noise.
        ridge: added to the diagonal of the Gram matrix, in multiples of what the heads are penalised by, n times
            `penalty`; the paper's is 0.
        penalty: L2 penalty of a head, a sample.
        seed: of the parts and the projections.

    Cost: n_heads fits, then O(n d c p + n p²) a head for p dimensions; O(d c p + p²) memory beside the features;
        random. The standard error is over heads.
    Source: Park, Georgiev, Ilyas, Leclerc, Madry 2023, TRAK: attributing model behavior at scale, section 3.
        Departs in three things: the projection is skipped where it is not smaller; the Gram matrix has a
        ridge, as our heads are penalised and the step that it stands for is theirs (without it few samples give noise);
        effects are not thresholded, as we want their mean over the holdout.
    """

    n_heads: int = 5
    share: float = 0.5
    n_projections: int = 512
    ridge: float = 1.0
    penalty: float = PENALTY
    seed: int = 0
    name = "trak"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample, in log odds of the mean margin on the holdout.

        Raises:
            SampleError: if a setting is out of range.
        """
        import torch

        self._check()
        train, held = known_samples(self, evidence)
        rng = np.random.default_rng(self.seed)
        taught = np.zeros((len(train), self.n_heads), np.float32)
        for member in range(self.n_heads):
            taught[rng.permutation(len(train))[: max(1, round(self.share * len(train)))], member] = 1
        effect = torch.zeros(len(train), self.n_heads, dtype=torch.float64, device=train.x.device)
        doubt = torch.zeros(len(train), dtype=torch.float64, device=train.x.device)
        weights = torch.as_tensor(taught, device=train.x.device)
        for member, head in enumerate(Head.fitted(train, self.penalty, weights)):
            projection = _drawn(head, self.n_projections, rng)
            direction = self._direction(head, train, held, projection)
            for rows, gradients, unsure in head.margin_gradients(train):
                effect[rows, member] = _projected(gradients, projection).double() @ direction
                doubt[rows] += unsure / self.n_heads
        return SampleValues.over_repeats((effect * doubt[:, None]).cpu().numpy())

    def _direction(
        self, head: Head, train: Samples, held: Samples, projection: "torch.Tensor | None"
    ) -> "torch.Tensor":
        """(p,) float64: inverse Gram matrix of the samples' projections times the mean projection of the holdout."""
        import torch

        size = head.theta.numel() if projection is None else projection.shape[2]
        gram = torch.zeros(size, size, dtype=torch.float64, device=head.theta.device)
        target = torch.zeros(size, dtype=torch.float64, device=head.theta.device)
        for _, gradients, _ in head.margin_gradients(train):
            seen = _projected(gradients, projection)
            gram += seen.T @ seen
        for _, gradients, _ in head.margin_gradients(held):
            target += _projected(gradients, projection).double().sum(0) / len(held)
        least = 1e-9 * gram.diagonal().mean().item() + 1e-12  # some features may not vary
        gram.diagonal().add_(max(self.ridge * self.penalty * len(train), least))
        return torch.linalg.solve(gram, target)

    def _check(self) -> None:
        wrong = [name for name in ("n_heads", "share", "n_projections") if not getattr(self, name) > 0]
        wrong += ["share"] if self.share > 1 else []
        wrong += ["ridge"] if not self.ridge >= 0 else []
        if wrong:
            raise SampleError(
                f"trak: {len(wrong)} of its settings are out of range; first: {wrong[0]} = "
                f"{getattr(self, wrong[0])!r}. None may be negative, only the ridge may be 0, and the share is at most "
                "1: correct them."
            )


def _covariance(head: Head, samples: Samples, mean: "torch.Tensor") -> "torch.Tensor":
    """(k d, k d) float64: of the samples' gradients about their mean."""
    import torch

    d, k = mean.shape
    total = torch.zeros(k * d, k * d, dtype=torch.float64, device=mean.device)
    for _, gradients in head.gradients(samples):
        for rows in row_blocks(len(gradients), k * d):
            apart = SampleGradients(gradients.seen[rows], gradients.asked[rows]).whole() - mean.T.flatten()
            total += apart.T @ apart
    return total / (len(samples) - 1)


def _quadratic(head: Head, samples: Samples, matrix: "torch.Tensor", shift: "torch.Tensor") -> "torch.Tensor":
    """(n,) float64 >= 0: each sample's gradient plus the shift, on both sides of a (k d, k d) matrix."""
    import torch

    matrix, shift = matrix.float(), shift.T.flatten()
    found = []
    for _, gradients in head.gradients(samples):
        for rows in row_blocks(len(gradients), len(matrix)):
            moved = SampleGradients(gradients.seen[rows], gradients.asked[rows]).whole() + shift
            found.append(((moved @ matrix) * moved).sum(1).double().clamp(min=0.0))
    return torch.cat(found)


def _descend(
    samples: Samples,
    settings: TracIn | SelfTracIn,
    watch: Callable[[Head], Callable[[SampleGradients], "torch.Tensor"]],
) -> "torch.Tensor":
    """(n,) float64: what is read off the gradients of each sample at each step, summed, times the step, over n.

    Steps are at most 1 over a bound of the loss's curvature. `watch` makes a reader for the head of a step.
    """
    import torch

    if settings.n_steps < 1 or not 0 < settings.step <= 1 or not settings.penalty >= 0:
        raise SampleError(
            f"{settings.name}: its descent cannot be taken; first: {settings!r}. It must have 1 step or more, of a "
            "share in (0, 1], and a penalty >= 0, or the loss might rise: correct them."
        )
    n, head = len(samples), Head.start(samples)
    gram = Weighted(torch.ones(n, 1, device=samples.x.device)).gram(samples.x)[0]
    bound = (0.25 if head.theta.shape[1] == 1 else 0.5) * torch.linalg.eigvalsh(gram)[-1].item() / n
    length = settings.step / (bound + settings.penalty)
    total = torch.zeros(n, dtype=torch.float64, device=samples.x.device)
    for _ in range(settings.n_steps):
        read, downhill = watch(head), torch.zeros_like(head.theta)
        for rows, gradients in head.gradients(samples):
            total[rows] += read(gradients)
            downhill += gradients.sum()
        head = Head(head.theta - length * (downhill / n + head.pull(settings.penalty)), head.basis)
    return total * (length / n)


def _drawn(head: Head, size: int, rng: np.random.Generator) -> "torch.Tensor | None":
    """(k, d, p) normal numbers that keep lengths on average, or None where a head has no more than p parameters."""
    import torch

    d, k = head.theta.shape
    if d * k <= size:
        return None
    drawn = rng.standard_normal((k, d, size), dtype=np.float32) / np.float32(np.sqrt(size))
    return torch.as_tensor(drawn, device=head.theta.device)


def _projected(gradients: SampleGradients, projection: "torch.Tensor | None") -> "torch.Tensor":
    """(b, p): projections of the gradients, from their factors."""
    if projection is None:
        return gradients.whole()
    result = gradients.asked[:, :1] * (gradients.seen @ projection[0])
    for output in range(1, len(projection)):
        result += gradients.asked[:, output, None] * (gradients.seen @ projection[output])
    return result
