"""DataInf: influence by gradients of any layers, with an inverse Hessian in closed form; made for low-rank adapters.

On the floor of `importance`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecom_pipeline.arrays import Floats
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, SampleValues
from ecom_pipeline.importance.estimators.gradients import PENALTY
from ecom_pipeline.importance.head_gradients import Head, SampleGradients, Samples, known_samples

if TYPE_CHECKING:
    import torch

DAMPING = 0.1  # as the paper: a layer's damping, as a share of its mean squared gradient
Blocks = Iterable[tuple[str, "torch.Tensor | SampleGradients"]]


@dataclass(slots=True)
class _Layer:
    """What is known of a layer while its gradients go by."""

    target: "torch.Tensor"  # (d, k) sum, then mean, of the holdout's gradients
    lessened: "torch.Tensor"  # (d, k)
    n_held: int = 0
    n_train: int = 0
    squares: float = 0.0
    damping: float = 0.0


def data_influence(train: Blocks, holdout: Blocks, damping: float = DAMPING) -> Floats:
    """By how much would the loss on the holdout rise, had the model not been taught each sample?

    Layer by layer the mean over samples of inverses stands for the inverse of the mean of g g' plus a damping; each of
    those inverses is known in closed form. The effects of the layers are added and divided by n. Trust the order of
    the values and not their size: the mean of inverses is larger than the inverse of the mean.

    Args:
        train: pairs of a layer's name and the (b, p) gradients of the next b samples with respect to its p parameters,
            samples in the same order in every layer; layers may take turns. Gradients that are outer products may come
            as `SampleGradients`. It is gone over three times, so that no more than a block is ever held: give a list,
            or an object whose `__iter__` starts anew.
        holdout: the same of the holdout, gone over once.
        damping: of a layer, as a share of the mean square of its gradients' entries.

    Returns:
        (n,) in the unit of the loss, higher is worth more.

    Raises:
        SampleError: if `train` can be gone over only once, if layers differ in their number of samples, or if a layer
            has no gradients of the holdout.

    Cost: three passes of O(n p) time, O(p) memory beside a block; not random.
    Source: Kwon, Wu, Wu, Zou 2023, DataInf: efficiently estimating data influence in LoRA-tuned LLMs and diffusion
        models, section 3, negated as it is for leaving out; damped as in their experiments.

    >>> import torch
    >>> train, holdout = [("a", torch.tensor([[1.0], [-2.0]]))], [("a", torch.tensor([[1.0]]))]
    >>> data_influence(train, holdout, damping=0.4).round(4).tolist()  # (1 - (1/2 + 4/5) / 2) / 1 * g / 2
    [0.175, -0.35]
    """
    if iter(train) is train:
        raise SampleError(
            "train: 1 of 1 sequences of gradients can be gone over only once; first: "
            f"{type(train).__name__!r}. It must start anew each time: give a list, or an object with __iter__."
        )
    layers: dict[str, _Layer] = {}
    for name, gradients in _named(holdout):
        layer = layers.setdefault(name, _Layer(_nothing(gradients), _nothing(gradients)))
        layer.target += gradients.sum()
        layer.n_held += len(gradients)
    for layer in layers.values():
        layer.target /= layer.n_held
    n = _measure(train, layers, damping)
    for name, gradients in _named(train):
        layer = layers[name]
        layer.lessened += gradients.weighted_sum(
            gradients.dot(layer.target) / (layer.damping + gradients.squared_norm())
        )
    value, at = np.zeros(n), dict.fromkeys(layers, 0)
    for name, gradients in _named(train):
        layer = layers[name]
        direction = (layer.target - layer.lessened / n) / layer.damping
        value[at[name] : at[name] + len(gradients)] += gradients.dot(direction).double().cpu().numpy() / n
        at[name] += len(gradients)
    return value


@dataclass(frozen=True, slots=True)
class DataInf:
    """By how much would the loss on the holdout rise, had the head not been taught this sample? Without a Hessian.

    `data_influence` of the one layer that a head is, its gradients taken at its optimum.

    Attributes:
        damping: as a share of the mean square of the gradients' entries.
        penalty: L2 penalty of the head, a sample; it shapes the fit and is not part of the gradients.

    Cost: one fit, then three passes of O(n d c) time; memory of a block beside the features; not random.
    Source: Kwon et al. 2023, section 3. Parameters are counted as the c - 1 contrasts of classes times d.
    """

    damping: float = DAMPING
    penalty: float = PENALTY
    name = "datainf"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample, in nats of the mean loss on the holdout."""
        train, held = known_samples(self, evidence)
        head = Head.fitted(train, self.penalty)[0]
        return SampleValues(data_influence(_OfHead(head, train), _OfHead(head, held), self.damping))


@dataclass(frozen=True, slots=True)
class _OfHead:
    """Gradients of a head, made anew each time that they are gone over."""

    head: Head
    samples: Samples

    def __iter__(self) -> Iterator[tuple[str, SampleGradients]]:
        return (("head", gradients) for _, gradients in self.head.gradients(self.samples))


def _measure(train: Blocks, layers: dict[str, _Layer], damping: float) -> int:
    """How many samples there are; notes the damping of each layer."""
    for name, gradients in _named(train):
        if name not in layers:
            raise SampleError(
                f"holdout: 1 layer or more of train has no gradients of the holdout; first: {name!r}. Both must have "
                f"the same layers, and the holdout has {sorted(layers)!r}: give its gradients for every layer."
            )
        layers[name].n_train += len(gradients)
        layers[name].squares += gradients.squared_norm().double().sum().item()
    counts = {name: layer.n_train for name, layer in layers.items()}
    odd = [name for name, count in counts.items() if count != max(counts.values())]
    if odd:
        raise SampleError(
            f"train: {len(odd)} of {len(layers)} layers have gradients of fewer samples than others; first: "
            f"{odd[0]!r} has {counts[odd[0]]} of {max(counts.values())}. Every layer must have them of every sample: "
            "give those that are missing."
        )
    for layer in layers.values():
        mean_square = layer.squares / max(layer.n_train * layer.target.numel(), 1)
        layer.damping = damping * mean_square or 1.0  # where no gradient is left, any damping gives values of 0
    return max(counts.values(), default=0)


def _named(blocks: Blocks) -> Iterator[tuple[str, SampleGradients]]:
    """Blocks whose gradients are all outer products; a plain one is that with the number 1."""
    for name, gradients in blocks:
        if isinstance(gradients, SampleGradients):
            yield name, gradients
        else:
            yield name, SampleGradients(gradients, gradients.new_ones(len(gradients), 1))


def _nothing(gradients: SampleGradients) -> "torch.Tensor":
    return gradients.seen.new_zeros(gradients.seen.shape[1], gradients.asked.shape[1])
