"""Gradients of softmax heads, sample by sample and block by block, kept as the two factors that they are products of.

On the floor of `importance`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Estimator, Evidence, required
from ecom_pipeline.importance.heads import Weighted, fit_heads, row_blocks

if TYPE_CHECKING:
    import torch

LARGEST_HESSIAN = 6000  # rows: 288 MB in float64, and three of them at most
_UNPENALISED = 1e-6  # share of the penalty that the constant bears


@dataclass(frozen=True, slots=True)
class SampleGradients:
    """Gradients of a layer's (d, k) parameters for b samples: outer products of what it sees and what it is asked.

    A gradient that is known as a whole, of p parameters, is the case of d = p, k = 1 and `asked` = 1.

    Attributes:
        seen: (b, d) input of the layer.
        asked: (b, k) gradient of its outputs.
    """

    seen: "torch.Tensor"
    asked: "torch.Tensor"

    def __len__(self) -> int:
        return len(self.seen)

    def dot(self, direction: "torch.Tensor") -> "torch.Tensor":
        """(b,): inner products with a (d, k) direction."""
        return ((self.seen @ direction) * self.asked).sum(1)

    def squared_norm(self) -> "torch.Tensor":
        """(b,): squared lengths."""
        return self.seen.square().sum(1) * self.asked.square().sum(1)

    def weighted_sum(self, weight: "torch.Tensor") -> "torch.Tensor":
        """(d, k): sum of the gradients times (b,) weights."""
        return self.seen.T @ (self.asked * weight[:, None])

    def sum(self) -> "torch.Tensor":
        """(d, k): sum of the gradients."""
        return self.seen.T @ self.asked

    def whole(self) -> "torch.Tensor":
        """(b, k d): the gradients written out, output by output."""
        return (self.asked[:, :, None] * self.seen[:, None, :]).flatten(1)


@dataclass(frozen=True, slots=True)
class Samples:
    """Features and labels on the device, n of them.

    Attributes:
        x: (n, d) float32; the last column is the constant 1.
        y: (n, c) float32 share of each class, c >= 2.
    """

    x: "torch.Tensor"
    y: "torch.Tensor"

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def on(cls, device: str, features: NDArray, label: NDArray) -> "Samples":
        """Move them there. Where there is one class only, a second is added that no sample has."""
        import torch

        if label.shape[1] < 2:
            label = np.pad(label, ((0, 0), (0, 1)))
        x, y = (torch.as_tensor(values, dtype=torch.float32, device=device) for values in (features, label))
        return cls(x, y)


@dataclass(frozen=True, slots=True)
class Head:
    """A softmax head in coordinates in which no two parameters say the same.

    Only c - 1 orthonormal contrasts of the logits matter to the probabilities, so these are kept and their Hessian has
    an inverse; inner products of gradients stay what they are. Two classes share one logit, as in `fit_heads`.

    Attributes:
        theta: (d, k) coefficients, k = c - 1.
        basis: (c, k) logits of the classes from the coordinates.
    """

    theta: "torch.Tensor"
    basis: "torch.Tensor"

    @classmethod
    def start(cls, samples: Samples) -> "Head":
        """The head that finds all classes equally probable."""
        import torch

        basis = _contrasts(samples.y.shape[1], samples.x.device)
        return cls(torch.zeros(samples.x.shape[1], basis.shape[1], device=samples.x.device), basis)

    @classmethod
    def fitted(cls, samples: Samples, penalty: float, weights: "torch.Tensor | None" = None) -> "list[Head]":
        """Optimal heads, one for each column of (n, m) weights; by default one that sees every sample once.

        Raises:
            SampleError: if the penalty is not positive.
        """
        import torch

        if not penalty > 0:
            raise SampleError(
                f"penalty: 1 of 1 is not positive; first: {penalty!r}. It must be > 0, as without it the head of "
                "separable samples has no optimum: take 0.01 or more."
            )
        weights = torch.ones(len(samples), 1, device=samples.x.device) if weights is None else weights
        found = fit_heads(samples.x, samples.y, Weighted(weights), (penalty,))[:, :, 0]  # (d, q, m)
        basis = _contrasts(samples.y.shape[1], samples.x.device)
        inward = basis if found.shape[1] > 1 else torch.ones(1, 1, device=basis.device)
        return [cls(found[..., member] @ inward, basis) for member in range(found.shape[2])]

    def score(self, x: "torch.Tensor") -> "torch.Tensor":
        """(b, c) float64: probability of each class."""
        return (x @ self.theta @ self.basis.T).double().softmax(1)

    def gradients(self, samples: Samples) -> Iterator[tuple[slice, SampleGradients]]:
        """Gradients of each sample's cross-entropy, block by block."""
        for rows in row_blocks(len(samples), samples.x.shape[1]):
            x = samples.x[rows]
            yield rows, SampleGradients(x, (self.score(x) - samples.y[rows]).float() @ self.basis)

    def margin_gradients(self, samples: Samples) -> Iterator[tuple[slice, SampleGradients, "torch.Tensor"]]:
        """Gradients of each sample's margin log p / (1 - p), and (b,) 1 - p, block by block; soft labels mix them."""
        for rows in row_blocks(len(samples), samples.x.shape[1]):
            x, label = samples.x[rows], samples.y[rows].double()
            score = self.score(x)
            odds = label / (1 - score).clamp(min=1e-12)
            asked = label - score * (odds.sum(1, keepdim=True) - odds)
            yield rows, SampleGradients(x, asked.float() @ self.basis), (label * (1 - score)).sum(1)

    def mean_gradient(self, samples: Samples) -> "torch.Tensor":
        """(d, k): gradient of the mean cross-entropy."""
        import torch

        total = torch.zeros_like(self.theta)
        for _, gradients in self.gradients(samples):
            total += gradients.sum()
        return total / len(samples)

    def pull(self, penalty: float) -> "torch.Tensor":
        """(d, k): gradient of a sample's share of the penalty."""
        return self.penalised(penalty) * self.theta

    def penalised(self, penalty: float) -> "torch.Tensor":
        """(d, k): penalty of each coefficient; the constant's is next to nothing, as in `fit_heads`."""
        import torch

        share = torch.full_like(self.theta, penalty)
        share[-1] *= _UNPENALISED
        return share

    def hessian(self, samples: Samples, penalty: float) -> "torch.Tensor":
        """(k d, k d) float64: second derivative of the mean cross-entropy with its penalty, output by output.

        Raises:
            SampleError: if it has more than `LARGEST_HESSIAN` rows.

        Cost: O(n d² k²) time, O(d² k²) memory; not random.
        Source: Böhning 1992, Multinomial logistic regression algorithm, for the closed form.
        """
        import torch

        d, k = self.theta.shape
        if d * k > LARGEST_HESSIAN:
            raise SampleError(
                f"features and classes: the Hessian of 1 head has {d * k} rows; first: {d} features times {k} "
                f"contrasts of classes. There must be at most {LARGEST_HESSIAN}: take fewer components of the "
                "features, or an estimator that inverts no Hessian, as `tracin` and `datainf`."
            )
        basis = self.basis.double()
        total = torch.zeros(k, d, k, d, dtype=torch.float64, device=self.theta.device)
        for rows in row_blocks(len(samples), d):
            x = samples.x[rows]
            score = self.score(x)
            mean = score @ basis  # (b, k)
            spread = torch.einsum("bc,ci,cj->bij", score, basis, basis) - mean[:, :, None] * mean[:, None]
            spread = spread.float()
            for i in range(k):
                for j in range(i + 1):
                    total[i, :, j] += x.T @ (x * spread[:, i, j, None])
                    total[j, :, i] = total[i, :, j]
        share = self.penalised(penalty).T.flatten().double()
        return total.flatten(2).flatten(0, 1) / len(samples) + torch.diag(share)


def known_samples(estimator: Estimator, evidence: Evidence) -> tuple[Samples, Samples]:
    """Training and holdout samples on the device.

    Raises:
        SampleError: if either is not known, or the holdout is empty.
    """
    evidence.require(estimator)
    held = required(evidence.holdout)
    if not len(held.label):
        raise SampleError(
            f"{estimator.name}: the holdout has 0 samples; first: none of {held.features.shape!r}. It needs at least "
            "1, as a value is what a sample does for them: keep some samples back."
        )
    train = Samples.on(evidence.device, required(evidence.features), evidence.label)
    return train, Samples.on(evidence.device, held.features, held.label)


def _contrasts(c: int, device: "torch.device") -> "torch.Tensor":
    """(c, c - 1) orthonormal columns that add up to 0 (Helmert's); for two classes (0, 1), one logit."""
    import torch

    if c == 2:
        return torch.tensor([[0.0], [1.0]], device=device)
    count = torch.arange(1, c, dtype=torch.float64)
    columns = torch.ones(c, c - 1, dtype=torch.float64).triu()
    columns[torch.arange(1, c), torch.arange(c - 1)] = -count
    return (columns / (count * (count + 1)).sqrt()).float().to(device)
