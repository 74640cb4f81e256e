"""Leave-one-out without refitting: kernel ridge regression says it of every sample at the price of one fit.

On the floor of `importance`. Up to `n_landmarks` samples the kernel is exact; beyond, it is Nyström's approximation,
and the leave-one-out is exact for that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecom_pipeline.arrays import Floats
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, SampleValues, required
from ecom_pipeline.importance.group_stacks import rows_of_some, stacks

if TYPE_CHECKING:
    import torch

BANDWIDTHS = (0.5, 1.0, 2.0)  # times the median distance between samples
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # variance of the noise, where that of the function is 1
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
_BLOCK = 1 << 22  # numbers at a time: bounds the memory of a pass
_TRIAL_LANDMARKS = 250  # enough to tell bandwidths apart, and cheap
_LEAST = 1e-9  # 1 less a leverage, of a sample that nothing else resembles
_JITTER = 1e-6  # on the diagonal of the landmarks' kernel: the same text twice makes it singular


@dataclass(frozen=True, slots=True)
class LeaveOneOutCredibility:
    """How credible is a sample's label against its strongest rival, to a smooth function of all other samples?

    Kernel ridge regression of the label shares; the prediction of each sample is that of a fit without it (without
    its whole group, where groups are known, so that near-copies do not vouch for each other). Value: softmax
    probability of the label, divided by that plus the probability of the likeliest other class: 0.5 where the two
    tie, low where the label looks wrong. For two classes that is the plain probability. Soft labels mix the classes.
    Bandwidth, ridge and temperature are those under which the observed labels have the lowest leave-one-out
    cross-entropy; nothing else is known of the truth.

    Attributes:
        n_landmarks: D, samples that the kernel is expanded on; with D >= n it is exact.
        bandwidths: of the Gaussian kernel, tried; in median distances between samples.
        ridges: tried.
        seed: of the draw of landmarks and of samples to choose by.
        n_tried: samples in whole groups by whose loss settings are chosen; every sample is in every fit.

    Cost: O(n D² + D³) time, O(k³) a group of k samples, and for r ridges the losses of `n_tried` samples; bandwidths are
    compared on at most 250 landmarks. O(D² + n d) memory. Random only in the landmarks and in who chooses, and not at
    all for n up to 250.

    Source: Allen 1974 (PRESS) for the residual over 1 - leverage; Craven and Wahba 1979 for choosing the ridge by it;
    Rifkin and Klautau 2004 for one-against-all regression as a classifier; Williams and Seeger 2001 for the
    landmarks. The temperature is that of Guo et al. 2017, but fitted on leave-one-out predictions.

    >>> from ecom_pipeline.importance.estimator import one_hot
    >>> x = np.array([[0.0, 1], [0.1, 1], [0.2, 1], [0.3, 1], [5.0, 1], [5.1, 1], [5.2, 1]], np.float32)
    >>> label = one_hot(np.array([0, 0, 1, 0, 1, 1, 1]))  # the third sits among zeros
    >>> values = LeaveOneOutCredibility().fit(Evidence(label=label, features=x)).value
    >>> int(values.argmin()), bool(values[2] < 0.5 < values[4])
    (2, True)
    """

    n_landmarks: int = 1000
    bandwidths: tuple[float, ...] = BANDWIDTHS
    ridges: tuple[float, ...] = RIDGES
    seed: int = 0
    n_tried: int = 20_000
    name = "leave_one_out_credibility"
    needs = ("features",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One probability a sample, in (0, 1)."""
        import torch

        evidence.require(self)
        chosen = _choose(self, evidence)
        value = torch.empty(len(evidence), dtype=torch.float64)
        for rows, predicted in chosen.expansion.left_out(chosen.stacks, [chosen.ridge]):
            label = chosen.expansion.y[rows]
            value[rows.cpu()] = _against_rival(predicted[..., 0], label, chosen.temperature).cpu()
        return SampleValues(value.numpy(), None, chosen.notes)


@dataclass(frozen=True, slots=True)
class LeaveOneOutInfluence:
    """By how much would the squared error on the holdout grow if the sample were left out of a smooth fit?

    Exactly U(all) - U(all but the sample), where U is minus the mean over the holdout of the squared distance between
    label shares and the prediction of the kernel ridge regression of `LeaveOneOutCredibility`, its bandwidth and ridge
    kept. The standard error is over holdout samples.

    Attributes:
        n_landmarks: D, samples that the kernel is expanded on; with D >= n it is exact.
        bandwidths: of the Gaussian kernel, tried; in median distances between samples.
        ridges: tried.
        seed: of the draw of landmarks and of samples to choose by.
        n_tried: samples in whole groups by whose loss settings are chosen; every sample is in every fit.

    Cost: that of `LeaveOneOutCredibility` and O(n m D) for m holdout samples, in blocks. Random only in the landmarks.

    Source: Cook 1977 for the change of a linear fit when a sample goes, here summed over a holdout.
    """

    n_landmarks: int = 1000
    bandwidths: tuple[float, ...] = BANDWIDTHS
    ridges: tuple[float, ...] = RIDGES
    seed: int = 0
    n_tried: int = 20_000
    name = "leave_one_out_influence"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One difference of squared errors a sample, in [-2, 2] for labels that are not far off."""
        import torch

        evidence.require(self)
        holdout = required(evidence.holdout)
        if len(holdout.label) == 0:
            raise SampleError(
                f"{self.name}: the holdout has 0 samples for {len(evidence)} training samples; first: None. Influence "
                "is measured on at least 1: hold some samples out, or take an estimator that needs none."
            )
        chosen = _choose(self, evidence)
        expansion, coefficients = chosen.expansion, chosen.expansion.coefficients(chosen.ridge)
        held_x, held_y = (
            torch.as_tensor(part, dtype=torch.float64, device=evidence.device)
            for part in (holdout.features, holdout.label)
        )
        held = expansion.coordinates(held_x)  # (m, D)
        error = held_y - held @ coefficients  # (m, c)
        shrink = 1 / (expansion.spectrum + chosen.ridge)
        value, stderr = np.empty(len(evidence)), np.empty(len(evidence))
        size = max(1, _BLOCK // (len(held) + len(shrink)))
        for start in range(0, len(evidence), size):
            rows = slice(start, start + size)
            own = expansion.coordinates(expansion.x[rows])
            leverage = own.square() @ shrink
            moved = (expansion.y[rows] - own @ coefficients) / (1 - leverage).clamp(min=_LEAST)[:, None]  # (b, c)
            reach = (own * shrink) @ held.mT  # (b, m): how far the sample pulls each prediction
            change = 2 * reach * (moved @ error.mT) + reach.square() * moved.square().sum(1, keepdim=True)
            value[rows] = change.mean(1).cpu().numpy()
            stderr[rows] = (change.var(1, correction=0) / max(len(held) - 1, 1)).sqrt().cpu().numpy()
        return SampleValues(value, stderr, chosen.notes)


@dataclass(frozen=True, slots=True)
class _Expansion:
    """Kernel ridge regression in the coordinates in which the Gram matrix of the samples is diagonal.

    Attributes:
        x: (n, d) float64.
        y: (n, c) share of each class.
        landmarks: (D, d).
        width: of the Gaussian kernel.
        whitening: (D, D) from kernels with the landmarks to coordinates.
        spectrum: (D,) diagonal of the Gram matrix.
        projected: (D, c) coordinates times labels.
    """

    x: "torch.Tensor"
    y: "torch.Tensor"
    landmarks: "torch.Tensor"
    width: float
    whitening: "torch.Tensor"
    spectrum: "torch.Tensor"
    projected: "torch.Tensor"

    def coordinates(self, x: "torch.Tensor") -> "torch.Tensor":
        """(b, D)."""
        return _kernel(x, self.landmarks, self.width) @ self.whitening

    def coefficients(self, ridge: float) -> "torch.Tensor":
        """(D, c) of the fit to all samples."""
        return self.projected / (self.spectrum + ridge)[:, None]

    def left_out(
        self, stacks: Sequence["torch.Tensor"], ridges: Sequence[float]
    ) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
        """(b,) rows and (b, c, r) predictions for them by fits that saw nothing of their group, for stacks of groups."""
        import torch

        for stack in stacks:
            k, n_dimensions = stack.shape[1], len(self.spectrum)
            if k > n_dimensions:  # cheaper to take the group out of the D x D equations
                for rows in stack:
                    yield from self._large_group_left_out(rows, ridges)
                continue
            for groups in stack.split(max(1, _BLOCK // (k * (k + n_dimensions)))):
                rows = groups.flatten()
                own = self.coordinates(self.x[rows])
                yield rows, torch.stack([self._without(own, rows, k, ridge) for ridge in ridges], 2)

    def _without(self, own: "torch.Tensor", rows: "torch.Tensor", k: int, ridge: float) -> "torch.Tensor":
        """(b, c): y - (I - H_GG)^-1 (y - fitted), where H_GG is the group's block of the hat matrix."""
        import torch

        residual = self.y[rows] - own @ self.coefficients(ridge)
        shrink = 1 / (self.spectrum + ridge)
        if k == 1:
            return self.y[rows] - residual / (1 - own.square() @ shrink).clamp(min=_LEAST)[:, None]
        grouped = own.unflatten(0, (-1, k))
        kept = torch.eye(k, device=own.device, dtype=own.dtype) * (1 + _LEAST) - (grouped * shrink) @ grouped.mT
        return self.y[rows] - torch.linalg.solve(kept, residual.unflatten(0, (-1, k))).flatten(0, 1)

    def _large_group_left_out(
        self, rows: "torch.Tensor", ridges: Sequence[float]
    ) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
        import torch

        blocks = rows.split(max(1, _BLOCK // len(self.spectrum)))
        gram, projected = torch.diag(self.spectrum), self.projected.clone()
        for block in blocks:
            own = self.coordinates(self.x[block])
            gram -= own.mT @ own
            projected -= own.mT @ self.y[block]
        identity = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        fits = torch.stack([torch.linalg.solve(gram + ridge * identity, projected) for ridge in ridges], 2)
        for block in blocks:
            yield block, (self.coordinates(self.x[block]) @ fits.flatten(1)).unflatten(1, fits.shape[1:])


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The expansion, ridge and temperature with the lowest leave-one-out cross-entropy of the labels."""

    expansion: _Expansion
    stacks: list["torch.Tensor"]  # (g, k) rows of the groups of k samples each, for every k that there is
    ridge: float
    temperature: float
    notes: dict[str, float]


def _choose(estimator: LeaveOneOutCredibility | LeaveOneOutInfluence, evidence: Evidence) -> _Chosen:
    import torch

    x, y = (
        torch.as_tensor(part, dtype=torch.float64, device=evidence.device)
        for part in (required(evidence.features), evidence.label)
    )
    drawn = np.random.default_rng(estimator.seed).permutation(len(x))[: estimator.n_landmarks]
    landmarks = x[torch.as_tensor(drawn, device=x.device)]
    distance = torch.cdist(landmarks, landmarks)
    apart = distance[distance > 0]
    median = float(apart.median()) if len(apart) else 1.0
    every, few_groups = (
        _stacks(evidence, n_samples, seed=estimator.seed, device=x.device) for n_samples in (len(x), estimator.n_tried)
    )
    few = landmarks[:_TRIAL_LANDMARKS]
    trials = [
        (_losses(_expand(x, y, few, width * median), few_groups, estimator.ridges).min(), width)
        for width in (estimator.bandwidths if len(estimator.bandwidths) > 1 else ())
    ]
    bandwidth = min(trials)[1] if trials else estimator.bandwidths[0]
    expansion = _expand(x, y, landmarks, bandwidth * median)
    loss = _losses(expansion, few_groups, estimator.ridges)
    best, warmth = np.unravel_index(int(loss.argmin()), loss.shape)
    ridge, temperature = estimator.ridges[best], TEMPERATURES[warmth]
    notes = {"bandwidth": bandwidth, "ridge": ridge, "temperature": temperature, "loss_nats": float(loss.min())}
    return _Chosen(expansion, every, ridge, temperature, notes)


def _stacks(evidence: Evidence, n_samples: int, *, seed: int, device: "torch.device") -> list["torch.Tensor"]:
    """Stacks of all groups, or of some that hold about so many samples; a sample without a group is its own."""
    import torch

    group = np.arange(len(evidence)) if evidence.group is None else evidence.group
    rows = rows_of_some(group, n_samples, seed)
    return [torch.as_tensor(rows[stack], device=device) for stack in stacks(group[rows])]


def _expand(x: "torch.Tensor", y: "torch.Tensor", landmarks: "torch.Tensor", width: float) -> _Expansion:
    import torch

    kernel = _kernel(landmarks, landmarks, width)
    kernel.diagonal().add_(_JITTER)
    factor = torch.linalg.cholesky(kernel)
    gram, projected = torch.zeros_like(kernel), kernel.new_zeros(len(kernel), y.shape[1])
    size = max(1, _BLOCK // len(kernel))
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        whitened = torch.linalg.solve_triangular(factor, _kernel(x[rows], landmarks, width).mT, upper=False)  # (D, b)
        gram += whitened @ whitened.mT
        projected += whitened @ y[rows]
    spectrum, rotation = torch.linalg.eigh(gram)
    whitening = torch.linalg.solve_triangular(factor.mT, rotation, upper=True)
    return _Expansion(x, y, landmarks, width, whitening, spectrum.clamp(min=0), rotation.mT @ projected)


def _losses(expansion: _Expansion, stacks: Sequence["torch.Tensor"], ridges: Sequence[float]) -> Floats:
    """(r, t) mean cross-entropy of the labels for each ridge and temperature, in nats."""
    import torch

    total = np.zeros((len(ridges), len(TEMPERATURES)))
    for rows, predicted in expansion.left_out(stacks, ridges):
        label = expansion.y[rows][:, :, None]
        for i, temperature in enumerate(TEMPERATURES):
            logarithm = torch.log_softmax(temperature * predicted, 1)
            total[:, i] -= (label * logarithm).sum((0, 1)).cpu().numpy()
    return total / sum(stack.numel() for stack in stacks)


def _kernel(x: "torch.Tensor", landmarks: "torch.Tensor", width: float) -> "torch.Tensor":
    """(b, D): Gaussian, and 1 for an intercept."""
    import torch

    return torch.cdist(x, landmarks).div_(width).square_().mul_(-0.5).exp_().add_(1)


def _against_rival(predicted: "torch.Tensor", label: "torch.Tensor", temperature: float) -> "torch.Tensor":
    """(b,): how probable is the label among itself and the likeliest other class, by a softmax of predictions?"""
    import torch

    first, second = predicted.topk(2, 1).values.unbind(1)
    top = torch.nn.functional.one_hot(predicted.argmax(1), predicted.shape[1]).bool()
    rival = torch.where(top, second[:, None], first[:, None])  # (b, c): the largest of the other classes
    return (label * torch.sigmoid(temperature * (predicted - rival))).sum(1)
