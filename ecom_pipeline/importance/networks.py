"""Small networks of one hidden layer over the same features, trained together, and how heads come to fit samples.

On the floor of `importance`. For where a straight line is not enough; `heads` is exact and faster where it is.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR, Dynamics
from ecom_pipeline.importance.folds import OutOfFoldScores
from ecom_pipeline.importance.heads import Folds, Members, Watcher, probabilities, row_blocks

if TYPE_CHECKING:
    import torch

WEIGHT_DECAYS = (1.0, 3.0, 10.0)  # on features of variance 1; less changes little, as training stops early
_EPSILON = 1e-6  # of Adam; with less, where a gradient is 0 its rounding makes a full step
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How networks are built and trained.

    Attributes:
        width: hidden units.
        activation: 'gelu' or 'relu'.
        dropout: share of hidden units left out of a step, in [0, 1).
        learning_rate: of Adam, at its highest; it falls to 0 along half a cosine.
        weight_decay: decoupled, of all members or one a member; the constant feature and the bias are spared.
        n_epochs: passes over the samples.
        batch_size: samples a step, at most.
        start: number of the initial weights, of all members or one a member.
        seed: of the order of samples and of dropout, which all members share.
    """

    width: int = 64
    activation: str = "gelu"
    dropout: float = 0.0
    learning_rate: float = 3e-3
    weight_decay: float | tuple[float, ...] = 1.0
    n_epochs: int = 20
    batch_size: int = 128
    start: int | tuple[int, ...] = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Networks:
    """m networks of h hidden units.

    Attributes:
        inward: (d, m, h) from features to hidden units.
        outward: (m, h, q) from hidden units to logits; q = 1 for two classes, else c.
        bias: (m, q) of the logits.
        activation: 'gelu' or 'relu'.
    """

    inward: "torch.Tensor"
    outward: "torch.Tensor"
    bias: "torch.Tensor"
    activation: str

    def logits(self, x: "torch.Tensor", kept: "torch.Tensor | None" = None) -> "torch.Tensor":
        """(b, q, m) of (b, d) features; `kept` (b, h) scales hidden units, for dropout."""
        import torch

        hidden = getattr(torch.nn.functional, self.activation)(x @ self.inward.flatten(1))
        hidden = hidden.unflatten(1, self.inward.shape[1:])  # (b, m, h)
        if kept is not None:
            hidden = hidden * kept[:, None]
        return torch.baddbmm(self.bias[:, None], hidden.transpose(0, 1), self.outward).permute(1, 2, 0)

    def scores(self, x: "torch.Tensor") -> "torch.Tensor":
        """(n, c, m) probability of each class."""
        import torch

        return torch.cat([probabilities(self.logits(x[rows])) for rows in self.blocks(len(x))])

    def blocks(self, n: int) -> list[slice]:
        """Blocks of rows whose hidden units fit into memory."""
        return row_blocks(n, self.inward[0].numel())


class DynamicsRecorder:
    """Records how heads come to fit samples, from what `fit_heads` or `fit_networks` shows a watcher.

    Give `recorder.watch` as `watch`, then ask for `recorder.dynamics()`. Epochs are steps 1 to e of the solver of
    linear heads (step 0 is the start, where every logit is 0, and says nothing of the sample), or epochs 1 to e of
    networks. Where a solver converges sooner, its last state is repeated; later steps are not recorded. Heads of
    different penalties count alike. A sample that no head saw has what a head knows before it learns.

    Args:
        label: (n, c) share of each class.
        n_epochs: e.

    Cost: O(n e) memory and a byte a sample, penalty and head, for what was forgotten; each step costs a fraction of a
    step of the solver. Not random.
    """

    def __init__(self, label: Floats, n_epochs: int) -> None:
        self._label = label
        self._sums = np.zeros((3, len(label), n_epochs), np.float32)
        self._n_seen = np.zeros(len(label), np.float32)
        self._n_forgotten = np.zeros(len(label), np.float32)
        self._right: Bools | None = None  # (n, p m) after the epoch before
        self._last = 0

    def watch(self, step: int, rows: slice, logits: "torch.Tensor", seen: "torch.Tensor") -> None:
        """Take in (b, q, p, m) logits of some samples, and (b, m) which head was trained on which of them."""
        import torch

        if not 1 <= step <= self._sums.shape[2]:
            return
        label = torch.as_tensor(self._label[rows], dtype=logits.dtype, device=logits.device)
        margin, loss, error = _fit_of(logits, label)  # (b, p, m)
        counted = seen[:, None].expand_as(margin)
        for which, values in enumerate((margin, loss, error)):
            self._sums[which, rows, step - 1] = (values * counted).sum((1, 2)).cpu().numpy()
        self._n_seen[rows] = counted.sum((1, 2)).cpu().numpy()
        right = (margin > 0).flatten(1).cpu().numpy()
        if self._right is None:
            self._right = np.zeros((len(self._label), right.shape[1]), bool)
        if step > 1:
            lost = self._right[rows] & ~right & counted.flatten(1).cpu().numpy()
            self._n_forgotten[rows] += lost.sum(1)
        self._right[rows] = right
        self._last = step

    def dynamics(self) -> Dynamics:
        """Means over the heads that saw a sample."""
        sums = self._sums.copy()
        if self._last:
            sums[:, :, self._last :] = sums[:, :, self._last - 1, None]
        n_classes = self._label.shape[1]
        untaught = np.array([0.0, np.log(n_classes), np.sqrt(1 - 1 / n_classes)], np.float32)
        seen = self._n_seen > 0
        count: Singles = np.maximum(self._n_seen, np.float32(1))
        means = np.where(seen[None, :, None], sums / count[None, :, None], untaught[:, None, None])
        return Dynamics(means[0], means[1], means[2], self._n_forgotten / count)


def fit_networks(
    x: "torch.Tensor", y: "torch.Tensor", members: Members, settings: NetworkSettings, watch: Watcher | None = None
) -> Networks:
    """Networks of one hidden layer, one a member, trained together as one batched program.

    All members see the same samples in the same order; a sample of weight 0 adds exactly 0 to a member's gradient.
    Members therefore differ by what they see, and, where `settings.start` says so, by their initial weights; each is
    what it would be if trained alone. The last layer starts at 0: before training, all classes are alike.

    Args:
        x: (n, d); the last column is the constant 1.
        y: (n, c) share of each class.
        members: what each member sees.
        settings: how they are built and trained.
        watch: is shown (epoch from 1, rows, logits (b, q, 1, m), seen (b, m)) of every block after every epoch.

    Returns:
        The networks after the last epoch.

    Cost: O(e n d h m) time, O(m h (d + b)) memory beside the features for minibatches of b. Random, by the seeds in
    `settings`.
    Source: Kingma and Ba 2015 for Adam; Loshchilov and Hutter 2019 for decoupled weight decay.
    """
    for epoch, networks in enumerate(_epochs(x, y, members, settings), 1):
        if watch is not None:
            for rows in networks.blocks(len(x)):
                watch(epoch, rows, networks.logits(x[rows])[:, :, None], members.weight(rows) > 0)
    return networks


def out_of_fold_network_scores(
    features: Singles,
    label: Floats,
    fold: Ints,
    n_folds: int,
    device: str,
    settings: NetworkSettings,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    recorder: DynamicsRecorder | None = None,
) -> OutOfFoldScores:
    """How probable is each class, in the eyes of networks that did not see the sample's fold?

    As `folds.out_of_fold_scores`, with networks for linear heads; repeats start from different initial weights. The
    weight decay and the number of epochs are those of the lowest out-of-fold loss, the same for all folds and repeats.

    Args:
        features: (n, d) float32; the last column is the constant 1.
        label: (n, c) share of each class.
        fold: (n, r) in [0, n_folds), one division a repeat; whole groups must share a fold.
        n_folds: k.
        device: of torch.
        settings: of the networks; their `weight_decay` and `start` are not looked at.
        weight_decays: grid; one is taken for all folds and repeats alike.
        recorder: is shown every epoch of every network; the pass that scores an epoch serves it, too.

    Returns:
        Scores and losses in the order of the samples; `penalty` is the weight decay taken.

    Cost: as `fit_networks` with r k networks a weight decay, and O(n r c p) memory. Random, by `settings.seed`.
    """
    import torch

    x, y = (torch.as_tensor(values, dtype=torch.float32, device=device) for values in (features, label))
    held_out = torch.as_tensor(fold, device=device)
    n_repeats, n_decays = fold.shape[1], len(weight_decays)
    members = Folds(held_out, n_folds, torch.ones(len(x), device=device))
    decays = tuple(float(decay) for decay in weight_decays for _ in range(members.n))
    starts = tuple(repeat for _ in weight_decays for repeat in range(n_repeats) for _ in range(n_folds))
    grid = replace(settings, weight_decay=decays, start=starts)
    lowest, best, taken = np.inf, 0, 0
    chosen: Singles = np.empty((0, 0, 0, 0), np.float32)
    score: Singles = np.empty((len(label), label.shape[1], n_decays, n_repeats), np.float32)
    for epoch, networks in enumerate(_epochs(x, y, _Repeated(members, n_decays), grid), 1):
        for rows in networks.blocks(len(x)):
            logit = networks.logits(x[rows]).unflatten(2, (n_decays, n_repeats, n_folds))
            own = held_out[rows, None, None, :, None].expand(*logit.shape[:4], 1)
            score[rows] = probabilities(logit.gather(4, own)[..., 0]).cpu().numpy()
            if recorder:
                recorder.watch(epoch, rows, logit.flatten(3), members.weight(rows) > 0)
        losses = _cross_entropy(score, label).mean((0, 2))
        if losses.min() < lowest:
            lowest, best, taken = losses.min(), int(losses.argmin()), epoch
            chosen = score[:, :, best : best + 1].copy()
    log.info("weight decay %g and %d epochs have the lowest out-of-fold loss, %.4f", weight_decays[best], taken, lowest)
    final = np.ascontiguousarray(_credible(chosen)[:, :, 0].transpose(0, 2, 1), np.float64)
    return OutOfFoldScores(final, fold, float(weight_decays[best]), _cross_entropy(chosen, label)[:, 0])


@dataclass(frozen=True, slots=True)
class _Repeated:
    """The same members several times over, one after the other."""

    members: Members
    times: int

    @property
    def n(self) -> int:
        return self.members.n * self.times

    def weight(self, rows: "slice | torch.Tensor") -> "torch.Tensor":
        return self.members.weight(rows).repeat(1, self.times)

    def total(self) -> "torch.Tensor":
        return self.members.total().repeat(self.times)


def _epochs(
    x: "torch.Tensor", y: "torch.Tensor", members: "Members | _Repeated", settings: NetworkSettings
) -> Iterator[Networks]:
    """The networks after each epoch; they are trained in place."""
    import torch

    networks = _untrained(x, y, members.n, settings)
    parameters = [networks.inward, networks.outward, networks.bias]
    adam = torch.optim.Adam(parameters, lr=settings.learning_rate, eps=_EPSILON)
    decay = torch.as_tensor(settings.weight_decay, device=x.device, dtype=torch.float32).expand(members.n)
    scale = len(x) / members.total().clamp(min=1e-12)  # (m,) a weighting times a constant is the same weighting
    generator = torch.Generator(device=x.device).manual_seed(settings.seed)
    n_batches = -(-len(x) // settings.batch_size)
    rates = _half_cosine(settings.learning_rate, n_batches * settings.n_epochs)
    for _ in range(settings.n_epochs):
        order = torch.randperm(len(x), generator=generator, device=x.device)
        for rows in order.tensor_split(n_batches):
            adam.param_groups[0]["lr"] = rate = next(rates)
            kept = _kept(len(rows), settings, generator)
            with torch.enable_grad():
                logit = networks.logits(x[rows], kept)
                loss = _member_losses(logit, y[rows], members.weight(rows) * scale).sum()
                for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.grad = gradient
            with torch.no_grad():
                shrink = 1 - rate * decay
                networks.inward[:-1].mul_(shrink[:, None])
                networks.outward.mul_(shrink[:, None, None])
            adam.step()
        with torch.no_grad():
            yield networks


def _half_cosine(highest: float, n_steps: int) -> Iterator[float]:
    return (highest * (1 + np.cos(np.pi * step / n_steps)) / 2 for step in range(n_steps))


def _untrained(x: "torch.Tensor", y: "torch.Tensor", n_members: int, settings: NetworkSettings) -> Networks:
    """Members of the same start are alike; drawn on the CPU, so that a device does not change them."""
    import torch

    d, h, q = x.shape[1], settings.width, 1 if y.shape[1] == 2 else y.shape[1]
    start = np.broadcast_to(settings.start, n_members)
    drawn = {
        number: torch.randn(d, h, generator=torch.Generator().manual_seed(int(number))) / d**0.5
        for number in np.unique(start)
    }
    inward = torch.stack([drawn[number] for number in start], 1).to(x.device)
    outward = torch.zeros(n_members, h, q, device=x.device, requires_grad=True)
    bias = torch.zeros(n_members, q, device=x.device, requires_grad=True)
    return Networks(inward.requires_grad_(), outward, bias, settings.activation)


def _kept(n: int, settings: NetworkSettings, generator: "torch.Generator") -> "torch.Tensor | None":
    """(b, h) what remains of hidden units; the same for all members, so that each is as if trained alone."""
    import torch

    if not settings.dropout:
        return None
    drawn = torch.rand(n, settings.width, generator=generator, device=generator.device)
    return (drawn >= settings.dropout) / (1 - settings.dropout)


def _member_losses(logit: "torch.Tensor", y: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
    """(m,) weighted mean cross-entropy."""
    return (cross_entropy(logit, y) * weight).mean(0)


def cross_entropy(logit: "torch.Tensor", label: "torch.Tensor") -> "torch.Tensor":
    """(b, ...) cross-entropy of (b, c) shares under (b, q, ...) logits."""
    import torch

    target = label.reshape(label.shape + (1,) * (logit.dim() - 2))
    if logit.shape[1] == 1:
        return torch.nn.functional.softplus(logit[:, 0]) - target[:, 1] * logit[:, 0]
    return torch.logsumexp(logit, 1) - (target * logit).sum(1)


def _fit_of(logit: "torch.Tensor", label: "torch.Tensor") -> tuple["torch.Tensor", ...]:
    """Margin, loss and error norm, each (b, p, m), of (b, q, p, m) logits."""
    import torch

    error = (probabilities(logit) - label[:, :, None, None]).norm(dim=1)
    observed = label.shape[1] - 1 - label.flip(1).argmax(1)  # the later one of equals, as in Evidence
    if logit.shape[1] == 1:
        return logit[:, 0] * (2 * observed - 1)[:, None, None], cross_entropy(logit, label), error
    is_own = torch.nn.functional.one_hot(observed, label.shape[1]).bool()[:, :, None, None]
    own = logit.masked_fill(~is_own, 0.0).sum(1)
    return own - logit.masked_fill(is_own, -torch.inf).amax(1), cross_entropy(logit, label), error


def _credible(score: Singles) -> Singles:
    return np.clip(score, CREDIBLE_FLOOR, 1 - CREDIBLE_FLOOR)


def _cross_entropy(score: Singles, label: Floats) -> Floats:
    """(n, p, r) nats from (n, c, p, r) scores."""
    of_class = (label[:, one, None, None] * np.log(_credible(score[:, one])) for one in range(label.shape[1]))
    return -sum(of_class, np.zeros(()))
