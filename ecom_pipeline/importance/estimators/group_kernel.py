"""What a group has in common: leave-one-out in closed form, with the other samples of the query or visit.

On the floor of `importance`. One fit gives all n leave-one-out predictions exactly; nothing is refitted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecom_pipeline.importance.estimator import Evidence, SampleValues, required
from ecom_pipeline.importance.group_stacks import in_parts, rows_of_some, stacks

if TYPE_CHECKING:
    import torch

_CONSTANT = 10.0  # prior standard deviation of the mean label: wide enough to say nothing
_LANDMARK_JITTER = 1e-6
_BLOCK = 1 << 22  # numbers at a time: bounds the memory of a pass


@dataclass(frozen=True, slots=True)
class GroupKernelLeaveOneOut:
    """How probable is the label, for a smooth classifier that learned from all other samples, its group's among them?

    Ridge regression on the shares of the classes under the sum of two kernels. The first is Gaussian, spanned by some
    samples as landmarks, its bandwidth their median distance. The second is 0 between groups; within a group it is the
    higher, the more alike two samples are: a query's items may be better as a whole than others, and near-duplicates
    even more so. The ridge, and then how much the second kernel counts, are chosen by the leave-one-out loss of the
    labels that are there; it may count nothing.

    Attributes:
        n_landmarks: functions that span the first kernel, at most; all samples where there are fewer.
        ridges: grid; noise variance of a label over the variance of the function.
        shared: grid; variance of what a group shares over the variance of what all share.
        sharpness: a likeness of cosine c counts exp(sharpness (c - 1)).
        largest_group: larger groups are dealt with in parts of this size, to bound the cost.
        seed: which samples are landmarks, and which choose.
        n_tried: samples in whole groups that ridge and share are chosen on; the values are of a fit to all.

    The value is a prediction of the share of the label's class and may lie a little outside of [0, 1]. It has seen the
    group, so a whole group that is labelled wrongly looks credible; `LeaveOneOutCredibility` leaves the group out.

    Cost: O(n D (D + d) + sum of g³ over groups of g samples) time, and the same of `n_tried` samples for each ridge or
    share tried; O(D²) memory beside the features. Random under the seed.
    Source: leave-one-out residual of linear smoothers (Allen 1974); Nyström features (Williams and Seeger 2001); block
    inverse by Woodbury's identity; regression on labels as least-squares classification (Rifkin and Klautau 2004).
    """

    n_landmarks: int = 600
    ridges: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0)
    shared: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    sharpness: float = 3.0
    largest_group: int = 500
    seed: int = 0
    n_tried: int = 20_000
    name = "group_kernel"
    needs = ("features", "group")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One prediction of the share of the label's class a sample."""
        import torch

        evidence.require(self)
        x = torch.as_tensor(required(evidence.features), device=evidence.device)
        y = torch.as_tensor(evidence.label, device=evidence.device)
        spanned = _Spanned.by_landmarks(x, self.n_landmarks, self.seed)
        parts = in_parts(required(evidence.group), self.largest_group)
        some = rows_of_some(parts, self.n_tried, self.seed)
        few, z = x[some], spanned.features(x[some])
        seen = Kernels(lambda rows: z[rows], lambda groups: _likeness(few[groups], self.sharpness))
        tried = _Tried(seen, [torch.as_tensor(stack) for stack in stacks(parts[some])], y[some], {})
        middle = self.shared[len(self.shared) // 2]
        ridge = min(self.ridges, key=lambda one: tried.loss(one, middle))
        share = min(self.shared, key=lambda one: tried.loss(ridge, one))
        notes = {"ridge": ridge, "shared": share, "loss": tried.loss(ridge, share)}
        if len(some) == len(x):
            predicted = tried.predicted(ridge, share)
        else:
            every = [torch.as_tensor(stack) for stack in stacks(parts)]
            kernels = Kernels(lambda rows: spanned.features(x[rows]), lambda at: _likeness(x[at], self.sharpness))
            predicted = leave_one_out(kernels, every, y, ridge=ridge, share=share)
            notes["n_tried"] = len(some)
        return SampleValues((y * predicted).sum(1).cpu().numpy(), None, notes)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The two kernels, asked for a block of samples at a time, so that neither is ever held whole.

    Attributes:
        common: (b,) rows to the (b, D) features of the first, float64.
        within: (s, k) rows of s groups to their (s, k, k) second kernels, float64.
    """

    common: Callable[["torch.Tensor"], "torch.Tensor"]
    within: Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class _Tried:
    """Leave-one-out predictions of the settings that were asked for, each computed once."""

    kernels: Kernels
    stacks: Sequence["torch.Tensor"]
    y: "torch.Tensor"
    kept: dict[tuple[float, float], "torch.Tensor"]

    def predicted(self, ridge: float, share: float) -> "torch.Tensor":
        """(n, c)."""
        if (ridge, share) not in self.kept:
            self.kept[ridge, share] = leave_one_out(self.kernels, self.stacks, self.y, ridge=ridge, share=share)
        return self.kept[ridge, share]

    def loss(self, ridge: float, share: float) -> float:
        """Mean squared error of the labels."""
        return float(((self.y - self.predicted(ridge, share)) ** 2).sum(1).mean())


def leave_one_out(
    kernels: Kernels, stacks: Sequence["torch.Tensor"], y: "torch.Tensor", *, ridge: float, share: float
) -> "torch.Tensor":
    """What ridge regression under the kernel common + share within predicts for each sample from all others.

    Two passes: the first adds up the D x D equations, the second solves them for each block of groups.

    Args:
        kernels: of the samples.
        stacks: (g, k) rows of all groups, by size; each row once.
        y: (n, c) targets.
        ridge: added to the diagonal, > 0.
        share: what the second kernel counts, >= 0.

    Returns:
        (n, c) y_i - (A⁻¹ y)_i / (A⁻¹)_ii with A the kernel plus ridge.

    Cost: O(n D² + sum of g³) time, O(D²) memory beside blocks.
    """
    import torch

    first = kernels.common(stacks[0][:1].flatten())
    inner = torch.eye(first.shape[1], dtype=first.dtype, device=first.device)
    projected = inner.new_zeros(len(inner), y.shape[1])
    for rows, z, inverse in _blocks(kernels, stacks, len(inner), ridge, share):
        inner += z.T @ _times(inverse, z)
        projected += z.T @ _times(inverse, y[rows])
    root = torch.linalg.cholesky(inner)
    solved = torch.cholesky_solve(projected, root)
    unroot = torch.linalg.solve_triangular(root, torch.eye(len(root), dtype=z.dtype, device=z.device), upper=False).T
    result = torch.empty_like(y)
    for rows, z, inverse in _blocks(kernels, stacks, len(inner), ridge, share):
        scaled = _times(inverse, z)
        residual = _times(inverse, y[rows]) - scaled @ solved
        diagonal = inverse.diagonal(dim1=1, dim2=2).flatten() - (scaled @ unroot).square().sum(1)
        result[rows] = y[rows] - residual / diagonal[:, None]
    return result


def _blocks(
    kernels: Kernels, stacks: Sequence["torch.Tensor"], n_features: int, ridge: float, share: float
) -> Iterator[tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]]:
    """(b,) rows of some groups of one size, their (b, D) features, and (s, k, k) inverses of second kernel and ridge."""
    import torch

    for stack in stacks:
        k = stack.shape[1]
        for groups in stack.split(max(1, _BLOCK // (k * (k + n_features)))):
            rows = groups.flatten()
            z = kernels.common(rows)
            noise = ridge * torch.eye(k, dtype=z.dtype, device=z.device)
            if share:
                inverse = torch.cholesky_inverse(torch.linalg.cholesky(share * kernels.within(groups) + noise))
            else:
                inverse = (noise / ridge**2).expand(len(groups), k, k)
            yield rows, z, inverse


def _times(inverse: "torch.Tensor", values: "torch.Tensor") -> "torch.Tensor":
    """(b, q): the block-diagonal matrix of (s, k, k) inverses times (b, q) values."""
    return (inverse @ values.unflatten(0, inverse.shape[:2])).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class _Spanned:
    """Features whose products are the Gaussian kernel seen through some samples as landmarks, and a constant.

    Attributes:
        landmarks: (D, d) float64.
        width: of the kernel, squared.
        whitening: (D, D) from kernels with the landmarks to features.
    """

    landmarks: "torch.Tensor"
    width: float
    whitening: "torch.Tensor"

    @classmethod
    def by_landmarks(cls, x: "torch.Tensor", n_landmarks: int, seed: int) -> "_Spanned":
        """Landmarks drawn from the samples; the bandwidth is their median distance."""
        import torch

        drawn = np.random.default_rng(seed).permutation(len(x))[:n_landmarks]
        landmarks = x[torch.as_tensor(drawn, device=x.device)].double()
        apart = torch.cdist(landmarks, landmarks) ** 2
        one = torch.eye(len(landmarks), dtype=apart.dtype, device=x.device)
        between = apart[one == 0]
        width = max(float(between.median()), 1e-12) if len(between) else 1.0
        factor = torch.linalg.cholesky(torch.exp(-apart / (2 * width)) + _LANDMARK_JITTER * one)
        return cls(landmarks, width, torch.linalg.solve_triangular(factor, one, upper=False).T.contiguous())

    def features(self, x: "torch.Tensor") -> "torch.Tensor":
        """(b, D + 1) float64."""
        import torch

        near = torch.cdist(x.double(), self.landmarks).square_().div_(-2 * self.width).exp_()
        return torch.nn.functional.pad(near @ self.whitening, (0, 1), value=_CONSTANT)


def _likeness(x: "torch.Tensor", sharpness: float) -> "torch.Tensor":
    """(s, k, k) what samples of a group of k have in common: something as a group, and more where they are alike."""
    import torch

    centred = torch.nn.functional.normalize((x - x.mean(1, keepdim=True)).double(), dim=2, eps=1e-6)
    return 0.3 + 0.7 * torch.exp(sharpness * (centred @ centred.mT - 1))
