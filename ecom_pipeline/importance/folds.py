"""Out-of-fold scores: k folds, r repeats and a grid of penalties as one batched program over frozen features.

On the floor of `importance`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR
from ecom_pipeline.importance.heads import PENALTIES, Folds, fit_heads, probabilities, row_blocks

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutOfFoldScores:
    """Scores of n samples in r repeats.

    Attributes:
        score: (n, r, c) probability of each class.
        fold: (n, r) the fold held out.
        penalty: the penalty of the grid with the lowest out-of-fold loss.
        loss: (n, r) cross-entropy of the label, in nats.
    """

    score: Floats
    fold: Ints
    penalty: float
    loss: Floats


def out_of_fold_scores(
    features: Singles,
    label: Floats,
    fold: Ints,
    n_folds: int,
    device: str,
    penalties: Sequence[float] = PENALTIES,
) -> OutOfFoldScores:
    """How probable is each class, in the eyes of heads that did not see the sample's fold?

    Args:
        features: (n, d) float32; the last column is the constant 1 and is not penalised.
        label: (n, c) share of each class.
        fold: (n, r) in [0, n_folds), one division a repeat; whole groups must share a fold.
        n_folds: k.
        device: of torch.
        penalties: grid; the one with the lowest out-of-fold loss is taken, for all folds and repeats alike.

    Returns:
        Scores and losses in the order of the samples.

    Cost: as `fit_heads` with r k members, and O(n r c p) memory. Not random.
    """
    import torch

    x, y = (torch.as_tensor(values, dtype=torch.float32, device=device) for values in (features, label))
    held_out = torch.as_tensor(fold, device=device)
    members = Folds(held_out, n_folds, torch.ones(len(x), device=device))
    coefficients = fit_heads(x, y, members, penalties)  # (d, q, p, r k)
    score = held_out_scores(x, coefficients, held_out, n_folds)  # (n, c, p, r)
    score = np.clip(score, CREDIBLE_FLOOR, 1 - CREDIBLE_FLOOR)
    loss = np.zeros((len(label), len(penalties), fold.shape[1]))
    for one in range(label.shape[1]):
        loss -= label[:, one, None, None] * np.log(score[:, one])
    best = int(loss.mean((0, 2)).argmin())
    log.info("penalty %g has the lowest out-of-fold loss, %.4f nats", penalties[best], loss[:, best].mean())
    chosen = np.ascontiguousarray(score[:, :, best].transpose(0, 2, 1), np.float64)
    return OutOfFoldScores(chosen, fold, float(penalties[best]), loss[:, best])


def held_out_scores(x: "torch.Tensor", coefficients: "torch.Tensor", fold: "torch.Tensor", n_folds: int) -> Singles:
    """(n, c, p, r): each sample's probabilities by the head of each repeat that did not see its fold."""

    q, p = coefficients.shape[1:3]
    n_repeats = fold.shape[1]
    result = np.empty((len(x), max(q, 2), p, n_repeats), np.float32)
    for rows in row_blocks(len(x), coefficients[0].numel()):
        logit = (x[rows] @ coefficients.flatten(1)).unflatten(1, (q, p, n_repeats, n_folds))
        own = fold[rows, None, None, :, None].expand(-1, q, p, -1, 1)
        result[rows] = probabilities(logit.gather(4, own)[..., 0]).cpu().numpy()
    return result
