"""What a group has in common: leave-one-out in closed form, with the other samples of the query or visit.

On the floor of `importance`. One fit gives all n leave-one-out predictions exactly; nothing is refitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.importance.estimator import Evidence, SampleValues

if TYPE_CHECKING:
    import torch

_CONSTANT = 10.0  # prior standard deviation of the mean label: wide enough to say nothing
_LANDMARK_JITTER = 1e-6


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
        seed: which samples are landmarks.

    The value is a prediction of the share of the label's class and may lie a little outside of [0, 1]. It has seen the
    group, so a whole group that is labelled wrongly looks credible; `LeaveOneOutCredibility` leaves the group out.

    Cost: O(n D (D + d) + sum of g³ over groups of g samples) time for each ridge or share tried, O(n D) memory; random
    under the seed.
    Source: leave-one-out residual of linear smoothers (Allen 1974); Nyström features (Williams and Seeger 2001); block
    inverse by Woodbury's identity; regression on labels as least-squares classification (Rifkin and Klautau 2004).
    """

    n_landmarks: int = 600
    ridges: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0)
    shared: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    sharpness: float = 3.0
    largest_group: int = 500
    seed: int = 0
    name = "group_kernel"
    needs = ("features", "group")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One prediction of the share of the label's class a sample."""
        import torch

        evidence.require(self)
        x = torch.as_tensor(evidence.features, device=evidence.device)
        y = torch.as_tensor(evidence.label, device=evidence.device)
        z = _landmark_features(x, self.n_landmarks, self.seed)
        rows = [torch.as_tensor(part, device=x.device) for part in _parts(evidence.group, self.largest_group)]
        alike = [_likeness(x[part], self.sharpness) for part in rows]
        tried = _Tried(z, y, list(zip(rows, alike, strict=True)), {})
        middle = self.shared[len(self.shared) // 2]
        ridge = min(self.ridges, key=lambda one: tried.loss(one, middle))
        share = min(self.shared, key=lambda one: tried.loss(ridge, one))
        notes = {"ridge": ridge, "shared": share, "loss": tried.loss(ridge, share)}
        return SampleValues((y * tried.predicted(ridge, share)).sum(1).cpu().numpy(), None, notes)


@dataclass(frozen=True, slots=True)
class _Tried:
    """Leave-one-out predictions of the settings that were asked for, each computed once."""

    z: "torch.Tensor"
    y: "torch.Tensor"
    groups: Sequence[tuple["torch.Tensor", "torch.Tensor"]]
    kept: dict[tuple[float, float], "torch.Tensor"]

    def predicted(self, ridge: float, share: float) -> "torch.Tensor":
        """(n, c)."""
        if (ridge, share) not in self.kept:
            blocks = [(rows, share * alike) for rows, alike in self.groups] if share else []
            self.kept[ridge, share] = leave_one_out(self.z, blocks, self.y, ridge)
        return self.kept[ridge, share]

    def loss(self, ridge: float, share: float) -> float:
        """Mean squared error of the labels."""
        return float(((self.y - self.predicted(ridge, share)) ** 2).sum(1).mean())


def leave_one_out(
    z: "torch.Tensor", blocks: Sequence[tuple["torch.Tensor", "torch.Tensor"]], y: "torch.Tensor", ridge: float
) -> "torch.Tensor":
    """What ridge regression under the kernel z zᵀ + blocks predicts for each sample from all others.

    Args:
        z: (n, D) features of the first kernel.
        blocks: rows and (g, g) kernel of each group; rows outside of all groups have no second kernel.
        y: (n, c) targets.
        ridge: added to the diagonal, > 0.

    Returns:
        (n, c) y_i - (A⁻¹ y)_i / (A⁻¹)_ii with A the kernel plus ridge.

    Cost: O(n D² + sum of g³).
    """
    import torch

    diagonal = torch.full((len(z),), 1 / ridge, dtype=z.dtype, device=z.device)
    scaled_z, scaled_y = z / ridge, y / ridge
    for rows, block in blocks:
        own = block + ridge * torch.eye(len(rows), dtype=z.dtype, device=z.device)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(own))
        scaled_z[rows], scaled_y[rows], diagonal[rows] = inverse @ z[rows], inverse @ y[rows], inverse.diagonal()
    inner = torch.eye(z.shape[1], dtype=z.dtype, device=z.device) + z.T @ scaled_z
    root = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), scaled_z.T, upper=False)  # (D, n)
    residual = scaled_y - root.T @ (root @ y)
    return y - residual / (diagonal - (root**2).sum(0))[:, None]


def _landmark_features(x: "torch.Tensor", n_landmarks: int, seed: int) -> "torch.Tensor":
    """(n, D + 1) float64 features whose products are the Gaussian kernel seen through the landmarks, and a constant."""
    import torch

    drawn = np.random.default_rng(seed).permutation(len(x))[:n_landmarks]
    landmarks = x[torch.as_tensor(drawn, device=x.device)].double()
    apart = torch.cdist(landmarks, landmarks) ** 2
    between = apart[~torch.eye(len(landmarks), dtype=bool, device=x.device)]
    width = max(float(between.median()), 1e-12) if len(between) else 1.0
    among = torch.exp(-apart / (2 * width))
    factor = torch.linalg.cholesky(among + _LANDMARK_JITTER * torch.eye(len(landmarks), device=x.device).double())
    result = torch.empty(len(x), len(landmarks) + 1, dtype=torch.float64, device=x.device)
    result[:, -1] = _CONSTANT
    for start in range(0, len(x), 1 << 14):
        rows = slice(start, start + (1 << 14))
        near = torch.exp(-(torch.cdist(x[rows].double(), landmarks) ** 2) / (2 * width))
        result[rows, :-1] = torch.linalg.solve_triangular(factor, near.T, upper=False).T
    return result


def _likeness(x: "torch.Tensor", sharpness: float) -> "torch.Tensor":
    """(g, g) how much the samples of a group have in common: something as a group, and more where they are alike."""
    import torch

    centred = torch.nn.functional.normalize((x - x.mean(0)).double(), dim=1, eps=1e-6)
    return 0.3 + 0.7 * torch.exp(sharpness * (centred @ centred.T - 1))


def _parts(group: NDArray[np.int64], largest: int) -> list[NDArray[np.int64]]:
    """Rows of each group, large ones in parts."""
    order = np.argsort(group, kind="stable")
    whole = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return [part for rows in whole for part in np.array_split(rows, -(-len(rows) // largest)) if len(part)]
