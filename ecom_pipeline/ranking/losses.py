"""What a ranker is taught by: pointwise, pairwise and listwise losses, all with sample weights.

On the floor of `ranking`. A loss is a sum over terms of a batch; whoever trains divides by the number of terms of the
whole batch, so that a batch may be worked on in parts. A weight of 2 is the same as the sample twice, a weight of 0 the
same as not being there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ecom_pipeline.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class Loss:
    """One way to teach.

    Attributes:
        total: (logit (n,), label (n,) in [0, 1], weight (n,) >= 0, group (n,)) to the sum over terms, in nats.
        terms: (label (n,), group (n,)) to the number of terms that weights of 1 would have.
        needs_groups: whether a group must not be cut.
    """

    total: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    terms: Callable[[Floats, Ints], float]
    needs_groups: bool


def pointwise(logit: Tensor, label: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """Cross-entropy of each sample's label, times its weight. Scores are probabilities."""
    return (weight * functional.binary_cross_entropy_with_logits(logit, label, reduction="none")).sum()


def literal(logit: Tensor, label: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """As the method was first written: w CE(p, w y), so that labels are scaled too and the factor is the weight's square.

    The softmax form over (0, logit): binary cross-entropy in its place is unbounded below for weights over 1. Weights may
    be negative.
    """
    target = torch.stack([1 - label, label], dim=1) * weight[:, None]
    log_probability = functional.log_softmax(torch.stack([torch.zeros_like(logit), logit], dim=1), dim=1)
    return -(weight * (target * log_probability).sum(1)).sum()


def pairwise(logit: Tensor, label: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """Logistic loss of every two samples of a group whose labels differ, times the difference and both weights.

    RankNet (Burges et al. 2005, equation 3) with a certain preference. A pair misleads if either label does, hence the
    product of the weights.
    """
    better, worse = _preferred(label, group)
    factor = weight[better] * weight[worse] * (label[better] - label[worse])
    return (factor * functional.softplus(logit[worse] - logit[better])).sum()


def listwise(logit: Tensor, label: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """Minus the log-probability that a relevant sample is drawn first from its group, times label and weight.

    ListNet's top-one form (Cao et al. 2007). A sample's weight counts in the softmax's sum too: as so many copies.
    """
    n_groups = int(group.max()) + 1
    highest = logit.new_full((n_groups,), -torch.inf).scatter_reduce(0, group, logit.detach(), "amax")
    shifted = logit - highest[group]
    mass = logit.new_zeros(n_groups).index_add(0, group, weight * shifted.exp())
    log_probability = shifted - mass.clamp(min=torch.finfo(mass.dtype).tiny).log()[group]
    return -(weight * label * log_probability).sum()


def _preferred(label: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """(p,), (p,): every two rows of one group of which the first has the higher label."""
    same = group[:, None] == group[None, :]
    first, second = torch.nonzero(same & (label[:, None] > label[None, :]), as_tuple=True)
    return first, second


def _samples(label: Floats, group: Ints) -> float:
    return float(len(label))


def _preferences(label: Floats, group: Ints) -> float:
    """Sum of label differences over all pairs of a group, 1 where there is none."""
    total = 0.0
    for one in np.unique(group):
        found = np.sort(label[group == one])
        total += float(((2 * np.arange(len(found)) - len(found) + 1) * found).sum())
    return total or 1.0


def _relevant(label: Floats, group: Ints) -> float:
    return float(label.sum()) or 1.0


LOSSES = {
    "pointwise": Loss(pointwise, _samples, False),
    "literal": Loss(literal, _samples, False),
    "pairwise": Loss(pairwise, _preferences, True),
    "listwise": Loss(listwise, _relevant, True),
}
