"""Out-of-fold scores: k folds, r repeats and a grid of penalties as one batched program over frozen features.

On the floor of `importance`. Heads are logistic; their exact optimum is found without a learning rate.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # a sample's share of the L2 penalty on features of variance 1
_BLOCK = 1 << 16  # rows at a time: bounds the memory of a pass to some hundred MiB
_MAX_STEPS = 300
_TOLERANCE = 1e-6  # largest change of a coefficient at which we stop
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutOfFoldScores:
    """Scores of n samples in r repeats.

    Attributes:
        score: (n, r) probability of label 1.
        fold: (n, r) the fold held out.
        penalty: the penalty of the grid with the lowest out-of-fold loss.
        loss: (n, r) cross-entropy of the label, in nats.
    """

    score: NDArray[np.float64]
    fold: NDArray[np.int64]
    penalty: float
    loss: NDArray[np.float64]


def out_of_fold_scores(
    features: NDArray[np.float32],
    label: NDArray[np.float64],
    fold: NDArray[np.int64],
    n_folds: int,
    device: str,
    penalties: Sequence[float] = PENALTIES,
) -> OutOfFoldScores:
    """How probable is label 1, in the eyes of heads that did not see the sample's fold?

    Args:
        features: (n, d) float32; the last column is the constant 1 and is not penalised.
        label: (n,) in [0, 1].
        fold: (n, r) in [0, n_folds), one division a repeat; whole groups must share a fold.
        n_folds: k.
        device: of torch.
        penalties: grid; the one with the lowest out-of-fold loss is taken, for all folds and repeats alike.

    Returns:
        Scores and losses in the order of the samples.

    Cost: O(n r d²) once and O(n d k r p) a step for p penalties, some tens of steps; O(r k d²) memory beside the
    features. Not random.
    """
    import torch

    x = torch.as_tensor(features, device=device)
    y = torch.as_tensor(label, dtype=torch.float32, device=device)
    held_out = torch.as_tensor(fold, device=device)
    coefficients = fit_heads(x, y, torch.ones_like(y), penalties, held_out, n_folds)  # (d, p, r, k)
    score = np.empty((len(label), len(penalties), fold.shape[1]))
    for start in range(0, len(label), _BLOCK):
        rows = slice(start, start + _BLOCK)
        logit = torch.einsum("nd,dprk->nprk", x[rows], coefficients)
        own = held_out[rows, None, :, None].expand(-1, len(penalties), -1, 1)
        score[rows] = torch.sigmoid(logit.gather(3, own)[..., 0]).cpu().numpy()
    score = np.clip(score, 1e-7, 1 - 1e-7)
    observed = label[:, None, None]
    loss = -(observed * np.log(score) + (1 - observed) * np.log1p(-score))  # (n, p, r)
    best = int(loss.mean((0, 2)).argmin())
    log.info("penalty %g has the lowest out-of-fold loss, %.4f nats", penalties[best], loss[:, best].mean())
    return OutOfFoldScores(score[:, best], fold, float(penalties[best]), loss[:, best])


def fit_heads(
    x: "torch.Tensor",
    y: "torch.Tensor",
    weight: "torch.Tensor",
    penalties: Sequence[float],
    fold: "torch.Tensor | None" = None,
    n_folds: int = 1,
) -> "torch.Tensor":
    """L2-penalised logistic heads, one for each penalty, repeat and held-out fold, fitted together.

    The curvature of the logistic loss is at most a quarter of the Gram matrix, whatever the coefficients; so each
    head's bound is factored once, from Gram matrices summed by fold, and every step with it lowers the loss.

    Args:
        x: (n, d); the last column is the constant 1 and is not penalised.
        y: (n,) labels in [0, 1].
        weight: (n,) >= 0.
        penalties: (p,) L2 penalty a sample.
        fold: (n, r) or None; head k of a repeat does not see the samples of fold k. None: all see all.
        n_folds: k; 1 where fold is None.

    Returns:
        (d, p, r, k) coefficients.

    Source: Böhning and Lindsay 1988 for the bound; Nesterov 1983 with restarts of O'Donoghue and Candès 2015.
    """
    import torch

    n, d = x.shape
    held = torch.full((n, 1), -1, device=x.device) if fold is None else fold
    bound, total = _bounds(x, weight, held, n_folds)
    penalised = torch.ones(d, device=x.device)
    penalised[-1] = 1e-6
    ridge = torch.as_tensor(penalties, device=x.device, dtype=torch.float32)[:, None, None] * total  # (p, r, k)
    curvature = bound[None] / 4 + ridge[..., None, None] * torch.diag(penalised)
    factor = torch.linalg.cholesky(curvature.double()).flatten(0, 2).float()  # (h, d, d)
    shape = (len(penalties), held.shape[1], n_folds)
    slope = ridge.flatten()
    now = torch.zeros(d, slope.numel(), device=x.device)
    ahead, momentum = now, 1.0
    for _ in range(_MAX_STEPS):
        gradient = _gradient(x, y, weight, held, n_folds, ahead, len(penalties))
        gradient += slope * penalised[:, None] * ahead
        step = torch.cholesky_solve(gradient.T.unsqueeze(-1), factor).squeeze(-1).T
        following = ahead - step
        if step.abs().max() < _TOLERANCE:
            now = following
            break
        if ((ahead - following) * (following - now)).sum() > 0:  # momentum leads uphill
            momentum = 1.0
        grown = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        ahead = following + (momentum - 1) / grown * (following - now)
        now, momentum = following, grown
    return now.reshape(d, *shape)


def _bounds(
    x: "torch.Tensor", weight: "torch.Tensor", held: "torch.Tensor", n_folds: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Gram matrix (r, k, d, d) and sum of weights (r, k) of what each head sees."""
    import torch

    def gram(rows: "torch.Tensor") -> "torch.Tensor":
        result = torch.zeros(x.shape[1], x.shape[1], device=x.device)
        for part in rows.split(_BLOCK):
            seen = x[part]
            result += seen.T @ (seen * weight[part, None])
        return result

    everything = gram(torch.arange(len(x), device=x.device))
    left_out = [[(held[:, r] == k).nonzero().squeeze(1) for k in range(n_folds)] for r in range(held.shape[1])]
    seen = torch.stack([torch.stack([everything - gram(rows) for rows in repeat]) for repeat in left_out])
    total = torch.stack([torch.stack([weight.sum() - weight[rows].sum() for rows in repeat]) for repeat in left_out])
    # a head that sees nothing, or features that do not vary, still needs a positive definite bound
    return seen + torch.eye(x.shape[1], device=x.device) * 1e-3, total.clamp(min=1.0)


def _gradient(
    x: "torch.Tensor",
    y: "torch.Tensor",
    weight: "torch.Tensor",
    held: "torch.Tensor",
    n_folds: int,
    coefficients: "torch.Tensor",
    n_penalties: int,
) -> "torch.Tensor":
    import torch

    result = torch.zeros_like(coefficients)
    heads = torch.arange(n_folds, device=x.device)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        residual = torch.sigmoid(x[rows] @ coefficients).sub_(y[rows, None]).mul_(weight[rows, None])
        seen = (held[rows, :, None] != heads).reshape(len(residual), 1, -1)
        residual = residual.reshape(len(residual), n_penalties, -1).mul_(seen)
        result += x[rows].T @ residual.flatten(1)
    return result
