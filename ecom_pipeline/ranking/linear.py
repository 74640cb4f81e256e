"""The linear ranker: logistic heads on frozen features, tuned on validation by their penalty.

On the floor of `ranking`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.importance.estimator import one_hot
from ecom_pipeline.importance.heads import Weighted, fit_heads
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.metrics import ndcg_at_k


@dataclass(frozen=True, slots=True)
class LinearRankers:
    """Heads for t weightings and p penalties of the same samples.

    Attributes:
        heads: (t, p, d) coefficients.
        ndcg: (t, p, g) nDCG@10 of each validation group; NaN where it has no relevant item.
    """

    heads: Singles
    ndcg: Floats

    @property
    def best(self) -> Ints:
        """(t,) the penalty with the highest mean nDCG@10 on validation; the first of equals."""
        return np.nanmean(self.ndcg, 2).argmax(1)

    @property
    def tuned(self) -> Singles:
        """(t, d) each weighting's head under its own best penalty."""
        return self.heads[np.arange(len(self.heads)), self.best]


def fit_linear(
    features: Singles,
    label: Floats,
    weight: Floats,
    *,
    held_features: Singles,
    held: Rows,
    penalties: Sequence[float],
    device: str | torch.device,
) -> LinearRankers:
    """Fit and validate all weightings and penalties together.

    Args:
        features: (n, d); the last column is the constant 1.
        label: (n,) in [0, 1].
        weight: (n, t) >= 0, mean 1.
        held_features: (m, d) of the validation samples.
        held: their groups, labels and grades.
        penalties: the grid.
        device: of torch.

    Cost: as `fit_heads` with t members, and t p sorts of the validation samples. Not random.
    """
    x, y, w, held_x = (
        torch.as_tensor(values, dtype=torch.float32, device=device)
        for values in (features, one_hot(label), weight, held_features)
    )
    heads = fit_heads(x, y, Weighted(w), penalties)[:, 0]  # (d, p, t)
    score = (held_x @ heads.flatten(1)).double().cpu().numpy().T
    ndcg = np.stack([ndcg_at_k(held.group, held.relevance, one, 10) for one in score])
    shape = heads.shape[1:]
    return LinearRankers(heads.permute(2, 1, 0).contiguous().cpu().numpy(), ndcg.reshape(*shape, -1).transpose(1, 0, 2))
