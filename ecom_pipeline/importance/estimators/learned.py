"""Values that are learned: a weighter is taught by what a head, trained on what it picks, does on the holdout.

On the floor of `importance`. They are as good as the holdout: if its labels are wrong, too, these learn to like that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ecom_pipeline.arrays import Floats
from ecom_pipeline.importance.estimator import Evidence, SampleValues, required
from ecom_pipeline.importance.heads import Weighted, fit_heads, probabilities
from ecom_pipeline.importance.networks import cross_entropy

if TYPE_CHECKING:
    import torch

    _Layers = tuple[torch.Tensor, ...]
    _Settings: TypeAlias = "LearningToReweight | MetaWeightNet"

_BOUNDS = (0.1, 0.9)  # the mean probability of being picked is kept within, so that there is something to compare
_BOUND_COST = 10.0  # of leaving them, in units of the spread of rewards
_MIN_SPREAD = 1e-6  # nats; selections that differ by less in reward are not told apart


@dataclass(frozen=True, slots=True)
class ReinforcedSelection:
    """With which probability should a sample be picked for training, if the holdout is to be predicted well? (DVRL)

    A value network sees a sample's features, its label, and how far the label is from what heads trained on the
    holdout predict; it gives the probability of picking the sample. In each step, several selections are drawn from a
    batch, a logistic head is fitted to each, and the network is pushed towards the selections whose heads have the
    smaller loss on the holdout (REINFORCE). The value is the probability at the end, averaged over restarts.

    Attributes:
        n_steps: of REINFORCE.
        n_selections: drawn in a step, each with its head; >= 2, as they are compared with each other.
        batch_size: samples a step, at most; bounds the cost of a step whatever n.
        width: units of each of the two hidden layers of the value network.
        learning_rate: of the value network (Adam).
        weight_decay: of the value network; against learning by heart which batches were lucky.
        penalty: L2 penalty a sample of the heads.
        n_inner: steps of a head, from the head of all samples.
        n_restarts: value networks, trained side by side; values are their mean.
        seed: of networks, batches and selections.

    Departs from the paper to reduce the variance of the reward: several selections share a step and their mean reward
    is the baseline, where the paper draws one and keeps a moving average; rewards are divided by their spread; heads
    are convex and start at the optimum of all samples; the value network decays.

    Cost: O(n_steps n_restarts n_selections n_inner b d c) time for batches of b, and O(n w) at the end;
    O(b n_restarts (n_selections + w)) memory. Random, by `seed`; `stderr` is over restarts and tells nothing of the
    draw of the holdout.
    Source: Yoon, Arik, Pfister 2020, Data Valuation using Reinforcement Learning, algorithm 1.
    """

    n_steps: int = 300
    n_selections: int = 16
    batch_size: int = 1024
    width: int = 32
    learning_rate: float = 0.003
    weight_decay: float = 3.0
    penalty: float = 0.1
    n_inner: int = 10
    n_restarts: int = 3
    seed: int = 0
    name = "dvrl"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """A probability in (0, 1) a sample."""
        import torch

        evidence.require(self)
        x, y, held_x, held_y = _tensors(evidence)
        reference = fit_heads(held_x, held_y, Weighted(held_x.new_ones(len(held_x), 1)), [self.penalty])[:, :, 0, 0]
        start = fit_heads(x, y, Weighted(x.new_ones(len(x), 1)), [self.penalty])[:, :, 0, 0]
        gap = (y - probabilities(x @ reference)).abs()
        inputs = torch.cat([x, y], 1)
        generator = torch.Generator(device=x.device).manual_seed(self.seed)
        layers = self._layers(inputs.shape[1], y.shape[1], generator)
        adam = torch.optim.AdamW(layers, lr=self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.n_steps):
            rows = torch.randperm(len(x), generator=generator, device=x.device)[: self.batch_size]
            with torch.enable_grad():
                logit = _value_logits(layers, inputs[rows], gap[rows])  # (r, b)
                picked = torch.rand(self.n_selections, *logit.shape, generator=generator, device=x.device)
                picked = (picked < torch.sigmoid(logit)).float()  # (s, r, b)
                heads = self._heads(x[rows], y[rows], picked.flatten(0, 1).T, start)
                reward = -_mean_loss(heads, held_x, held_y).unflatten(0, picked.shape[:2])  # (s, r)
                loss = self._loss(logit, picked, reward)
                for layer, gradient in zip(layers, torch.autograd.grad(loss, layers), strict=True):
                    layer.grad = gradient
            adam.step()
        with torch.no_grad():
            value = torch.sigmoid(_value_logits(layers, inputs, gap)).T.double().cpu().numpy()
        return SampleValues.over_repeats(value)

    def _layers(self, n_inputs: int, n_gaps: int, generator: "torch.Generator") -> list["torch.Tensor"]:
        """Weights (r, ...) and biases of three layers; the last starts at 0, so that all samples start at 1/2."""
        import torch

        r, w, device = self.n_restarts, self.width, generator.device
        first = torch.randn(r, n_inputs, w, generator=generator, device=device) / n_inputs**0.5
        second = torch.randn(r, w + n_gaps, w, generator=generator, device=device) / (w + n_gaps) ** 0.5
        b1, b2, last, b3 = (first.new_zeros(r, *shape) for shape in ((1, w), (1, w), (w, 1), (1, 1)))
        return [layer.requires_grad_() for layer in (first, b1, second, b2, last, b3)]

    def _heads(
        self, x: "torch.Tensor", y: "torch.Tensor", picked: "torch.Tensor", start: "torch.Tensor"
    ) -> "torch.Tensor":
        """(d, q, m) heads of (b, m) selections: steps as in `fit_heads`, whose bound for all samples holds for some."""
        import torch

        with torch.no_grad():
            d, q = start.shape
            target, share = (y[:, 1:], 0.25) if q == 1 else (y, 0.5)
            penalised = torch.cat([x.new_ones(d - 1), x.new_full((1,), 1e-6)])
            flat = 1e-3 + self.penalty * len(x) * penalised
            factor = torch.linalg.cholesky((share * x.T @ x + torch.diag(flat)).double()).float()
            ridge = self.penalty * picked.sum(0) * penalised[:, None, None]  # (d, 1, m)
            heads = start[:, :, None].repeat(1, 1, picked.shape[1])
            for _ in range(self.n_inner):
                logit = (x @ heads.flatten(1)).unflatten(1, heads.shape[1:])  # (b, q, m)
                residual = (probabilities(logit)[:, -q:] - target[:, :, None]) * picked[:, None]
                gradient = (x.T @ residual.flatten(1)).unflatten(1, heads.shape[1:]) + ridge * heads
                heads = heads - torch.cholesky_solve(gradient.flatten(1), factor).unflatten(1, heads.shape[1:])
            return heads

    def _loss(self, logit: "torch.Tensor", picked: "torch.Tensor", reward: "torch.Tensor") -> "torch.Tensor":
        """Whose gradient is minus that of the expected reward, by REINFORCE."""
        import torch

        spread = reward.std(0).clamp(min=_MIN_SPREAD)
        advantage = (reward - reward.mean(0)) / spread  # (s, r)
        likely = -torch.nn.functional.binary_cross_entropy_with_logits(
            logit.expand_as(picked), picked, reduction="none"
        ).mean(2)
        mean = torch.sigmoid(logit).mean(1)
        outside = (mean - _BOUNDS[1]).clamp(min=0) + (_BOUNDS[0] - mean).clamp(min=0)
        return -(advantage * likely).mean(0).sum() + _BOUND_COST * outside.sum()


@dataclass(frozen=True, slots=True)
class LearningToReweight:
    """Does a step on this sample lower the loss on the holdout?

    While a head learns, each batch is weighted by how far each sample's gradient points where the holdout's does; what
    points elsewhere gets 0. The value is the sample's mean weight over its epochs, in units of an equal share.

    Attributes:
        width: hidden units of the head; 0: a straight line.
        learning_rate: of the head (gradient descent), in units of the longest step that is safe for a straight line.
        penalty: L2 penalty a sample of the head, on all of its coefficients.
        n_epochs: passes over the samples.
        n_batches: steps an epoch.
        n_restarts: heads; values are their mean.
        seed: of heads and batches.

    A head that predicts the holdout as well as it can is pulled nowhere: from then on weights are noise, and wrong
    labels get some where they hold back a head that is too sure. So the head starts untrained, learns slowly for a
    fixed number of steps whatever n, and is penalised. A step weighs against the whole holdout, where the paper draws
    a batch of it.

    Cost: O(n_restarts n_epochs (n + n_batches m) d max(w, c)) time for a holdout of m, O(n w) memory.
    Random, by `seed`; `stderr` is over restarts and tells nothing of the draw of the holdout.
    Source: Ren et al. 2018, Learning to Reweight Examples for Robust Deep Learning, algorithm 1.
    """

    width: int = 32
    learning_rate: float = 0.1
    penalty: float = 0.1
    n_epochs: int = 20
    n_batches: int = 5
    n_restarts: int = 3
    seed: int = 0
    name = "learning_to_reweight"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """A weight >= 0 a sample, about 1 on average."""
        evidence.require(self)
        runs = [self._run(evidence, self.seed + restart) for restart in range(self.n_restarts)]
        return SampleValues.over_repeats(np.stack(runs, 1))

    def _run(self, evidence: Evidence, seed: int) -> Floats:
        import torch

        x, y, held_x, held_y = _tensors(evidence)
        generator = torch.Generator(device=x.device).manual_seed(seed)
        learner = _Learner.started(x, y, self, 0, generator)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for rows in _batches(len(x), self.n_batches, self.n_epochs, generator):
            aligned = learner.aligned(x[rows], y[rows], learner.gradient(held_x, held_y))
            weight = _shares(aligned.clamp(min=0))
            total[rows] += weight * len(rows)
            learner = learner.moved(learner.gradient(x[rows], y[rows], weight))
        return (total / self.n_epochs).cpu().numpy()


@dataclass(frozen=True, slots=True)
class MetaWeightNet:
    """Which weight does a sample's loss deserve, if the weighted head is to predict the holdout well?

    A small network maps a loss to a weight in (0, 1). While a head learns on weighted losses, the network is pushed
    towards weights that would have made the head's step better for the holdout. The value is the weight of the
    sample's loss, averaged over the second half of the epochs.

    Attributes:
        width: hidden units of the head; 0: a straight line.
        learning_rate: of the head (gradient descent), in units of the longest step that is safe for a straight line.
        penalty: L2 penalty a sample of the head, on all of its coefficients.
        net_width: hidden units of the weighting network.
        net_learning_rate: of the weighting network (Adam).
        n_warm_epochs: passes over the samples before weights are learned.
        n_epochs: passes over the samples while weights are learned.
        n_batches: steps an epoch.
        n_restarts: heads and weighting networks; values are their mean.
        seed: of heads, networks and batches.

    All that the weight knows of a sample is its loss, so the order is nearly that of the losses of heads in training;
    what is learned is how steeply to weight, and in which direction: to an untrained head large losses teach the most,
    and a network that starts then may learn to favour wrong labels. So the head first learns from all samples alike;
    and weights count by their share of a batch, as in the authors' program, so that nothing is won by raising all. A
    step weighs against the whole holdout, where the paper draws a batch of it.

    Cost: O(n_restarts n_epochs (n + n_batches m) d max(w, c)) time for a holdout of m, O(n w) memory.
    Random, by `seed`; `stderr` is over restarts and tells nothing of the draw of the holdout.
    Source: Shu et al. 2019, Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting, algorithm 1.
    """

    width: int = 32
    learning_rate: float = 0.5
    penalty: float = 0.03
    net_width: int = 100
    net_learning_rate: float = 0.001
    n_warm_epochs: int = 10
    n_epochs: int = 10
    n_batches: int = 5
    n_restarts: int = 3
    seed: int = 0
    name = "meta_weight_net"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """A weight in (0, 1) a sample."""
        evidence.require(self)
        runs = [self._run(evidence, self.seed + restart) for restart in range(self.n_restarts)]
        return SampleValues.over_repeats(np.stack(runs, 1))

    def _run(self, evidence: Evidence, seed: int) -> Floats:
        import torch

        x, y, held_x, held_y = _tensors(evidence)
        generator = torch.Generator(device=x.device).manual_seed(seed)
        learner = _Learner.started(x, y, self, self.n_warm_epochs, generator)
        layers = _weighting_layers(self.net_width, generator)
        adam = torch.optim.Adam(layers, lr=self.net_learning_rate)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        first, n_shown = len(x) * (self.n_epochs // 2), 0
        for rows in _batches(len(x), self.n_batches, self.n_epochs, generator):
            loss = _losses(learner.layers, x[rows], y[rows])
            share = _shares(_weights(layers, loss).detach())
            tried = learner.moved(learner.gradient(x[rows], y[rows], share))
            aligned = learner.aligned(x[rows], y[rows], tried.gradient(held_x, held_y))
            with torch.enable_grad():
                tried_weight = _weights(layers, loss)
                gained = (tried_weight * aligned).sum() / tried_weight.sum()
                for layer, gradient in zip(layers, torch.autograd.grad(-gained, layers), strict=True):
                    layer.grad = gradient
            adam.step()
            weight = _weights(layers, loss).detach()
            learner = learner.moved(learner.gradient(x[rows], y[rows], _shares(weight)))
            total[rows] += weight * (n_shown >= first)
            n_shown += len(rows)
        return (total / max(self.n_epochs - self.n_epochs // 2, 1)).cpu().numpy()


@dataclass(frozen=True, slots=True)
class _Learner:
    """A head in training: matrices from features to logits, with a GELU between them where there are two.

    Its steps are measured by the steepest curvature of the loss of a straight line, so that the scale of features
    does not matter.
    """

    layers: "_Layers"
    rate: float
    penalty: float

    @classmethod
    def started(
        cls, x: "torch.Tensor", y: "torch.Tensor", settings: "_Settings", n_warm: int, generator: "torch.Generator"
    ) -> "_Learner":
        """A head that has learned from all samples alike for some epochs."""
        import torch

        d, q, width = x.shape[1], 1 if y.shape[1] == 2 else y.shape[1], settings.width
        steepest = torch.linalg.matrix_norm(x.T @ x / len(x), 2).item() / (4 if q == 1 else 2) + settings.penalty
        sizes, spread = ([d, width, q], 1.0) if width else ([d, q], 0.0)
        drawn = (torch.randn(a, b, generator=generator, device=x.device) / a**0.5 for a, b in pairwise(sizes))
        layers = tuple(spread * layer for layer in drawn)
        learner = cls(layers, settings.learning_rate / steepest, settings.penalty)
        for rows in _batches(len(x), settings.n_batches, n_warm, generator):
            learner = learner.moved(learner.gradient(x[rows], y[rows]))
        return learner

    def aligned(self, x: "torch.Tensor", y: "torch.Tensor", direction: "_Layers") -> "torch.Tensor":
        """(b,) how fast each loss grows along a direction."""
        import torch

        with torch.enable_grad():
            layers, weight = self._watched(), x.new_ones(len(x)).requires_grad_()
            losses = _losses(layers, x, y)
            gradient = torch.autograd.grad((losses * weight).sum(), layers, create_graph=True)
            along = sum(((g * d).sum() for g, d in zip(gradient, direction, strict=True)), x.new_zeros(()))
            return torch.autograd.grad(along, weight)[0]

    def gradient(self, x: "torch.Tensor", y: "torch.Tensor", weight: "torch.Tensor | None" = None) -> "_Layers":
        """Of the weighted sum of losses; of their mean without weights."""
        import torch

        with torch.enable_grad():
            layers = self._watched()
            losses = _losses(layers, x, y)
            return torch.autograd.grad(losses.mean() if weight is None else (losses * weight).sum(), layers)

    def _watched(self) -> "_Layers":
        return tuple(layer.detach().requires_grad_() for layer in self.layers)

    def moved(self, gradient: "_Layers") -> "_Learner":
        """A step down a gradient, and towards 0."""
        kept = 1 - self.rate * self.penalty
        layers = tuple(kept * layer - self.rate * g for layer, g in zip(self.layers, gradient, strict=True))
        return replace(self, layers=layers)


def _shares(weight: "torch.Tensor") -> "torch.Tensor":
    """Weights that add up to 1, or all 0."""
    return weight / weight.sum().clamp(min=1e-12)


def _losses(layers: "_Layers", x: "torch.Tensor", y: "torch.Tensor") -> "torch.Tensor":
    import torch

    hidden = x
    for layer in layers[:-1]:
        hidden = torch.nn.functional.gelu(hidden @ layer)
    return cross_entropy(hidden @ layers[-1], y)


def _batches(n: int, n_batches: int, n_epochs: int, generator: "torch.Generator") -> Iterator["torch.Tensor"]:
    """Rows of samples, each once an epoch."""
    import torch

    for _ in range(n_epochs):
        order = torch.randperm(n, generator=generator, device=generator.device)
        yield from order.tensor_split(min(n_batches, n))


def _weighting_layers(width: int, generator: "torch.Generator") -> list["torch.Tensor"]:
    """From a loss to the logit of a weight; every weight starts at 1/2."""
    import torch

    drawn = torch.randn(2, width, generator=generator, device=generator.device)
    layers = [drawn[:1], drawn[1:], drawn.new_zeros(width, 1), drawn.new_zeros(1)]
    return [layer.clone().requires_grad_() for layer in layers]


def _weights(layers: list["torch.Tensor"], loss: "torch.Tensor") -> "torch.Tensor":
    import torch

    inward, inward_bias, outward, bias = layers
    return torch.sigmoid(torch.relu(loss[:, None] @ inward + inward_bias) @ outward + bias)[:, 0]


def _value_logits(layers: list["torch.Tensor"], inputs: "torch.Tensor", gap: "torch.Tensor") -> "torch.Tensor":
    """(r, b): the difference to the holdout's prediction joins after the first layer, as in the paper."""
    import torch

    first, b1, second, b2, last, b3 = layers
    hidden = torch.relu(inputs @ first + b1)  # (r, b, w)
    joined = torch.cat([hidden, gap.expand(len(hidden), -1, -1)], 2)
    return (torch.relu(joined @ second + b2) @ last + b3)[..., 0]


def _mean_loss(heads: "torch.Tensor", x: "torch.Tensor", y: "torch.Tensor") -> "torch.Tensor":
    """(m,) mean cross-entropy of (d, q, m) heads."""
    return cross_entropy((x @ heads.flatten(1)).unflatten(1, heads.shape[1:]), y).mean(0)


def _tensors(evidence: Evidence) -> tuple["torch.Tensor", ...]:
    import torch

    holdout = required(evidence.holdout)
    values = (required(evidence.features), evidence.label, holdout.features, holdout.label)
    return tuple(torch.as_tensor(value, dtype=torch.float32, device=evidence.device) for value in values)
