"""How good is a ranker that had few labels? The linear ranker on 50, 500 and 5,000 labelled samples, and on all.

On the floor of `ranking`. Labels are drawn by whole groups, several times. What needs no label stays: the components of
the features are those of all training pairs, and the penalty is chosen on the whole of validation.
"""

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.language.features import Projection
from ecom_pipeline.ranking.ablation import Parts
from ecom_pipeline.ranking.evaluation import COLUMNS
from ecom_pipeline.ranking.intervals import crossed_interval, draws_of
from ecom_pipeline.ranking.linear import fit_linear
from ecom_pipeline.ranking.metrics import ndcg_at_k

SIZES = (50, 500, 5_000)
N_DRAWS = 10


def called(n_labels: int) -> str:
    """What the ranker on so many labels is called in `evaluation`."""
    return f"linear: {n_labels} labels"


def learning_curve(parts: Parts, n_components: int, device: str, generator: np.random.Generator) -> pd.DataFrame:
    """Rows of `evaluation`: test nDCG@10 for each number of labels; numbers that there are not labels for are left out.

    Each interval is over test groups and draws of the labels together; `n_seeds` says how many draws.

    Args:
        parts: the three splits.
        n_components: principal components of the features.
        device: of torch.
        generator: of the draws and the bootstrap.

    Cost: as one `fit_linear` with 10 weightings a size. Random under the generator.
    """
    group = parts.train.rows.group
    sizes = [size for size in SIZES if size < len(group)]
    drawn = {
        called(size): np.column_stack([draw_groups(group, size, generator) for _ in range(N_DRAWS)]) for size in sizes
    } | {called(len(group)): np.ones((len(group), 1))}
    projection = Projection.fit(parts.train.features, n_components)
    heads = fit_linear(
        projection.apply(parts.train.features),
        parts.train.rows.label,
        np.hstack(list(drawn.values())),
        held_features=projection.apply(parts.validation.features),
        held=parts.validation.rows,
        penalties=PENALTIES,
        device=device,
    ).tuned
    test, score = parts.test.rows, projection.apply(parts.test.features) @ heads.T
    ndcg = np.stack([ndcg_at_k(test.group, test.relevance, one.astype(np.float64), 10) for one in score.T])
    ndcg = ndcg[:, np.isfinite(ndcg).all(0)]
    if not ndcg.size:
        return pd.DataFrame(columns=list(COLUMNS))
    found, first = [], 0
    drawn_groups = draws_of(np.arange(ndcg.shape[1]), int(generator.integers(1 << 31)))
    for name, draws in drawn.items():
        of_size = ndcg[first : first + draws.shape[1]]
        told = crossed_interval(of_size @ drawn_groups.T / ndcg.shape[1], ndcg.shape[1])
        ends = (max(told.low, 0.0), min(told.high, 1.0))
        found.append((name, "test", "all", "ndcg_at_10", told.value, *ends, np.nan, ndcg.shape[1], len(of_size)))
        first += len(of_size)
    return pd.DataFrame(found, columns=list(COLUMNS))


def draw_groups(group: Ints, n_samples: int, generator: np.random.Generator) -> Floats:
    """(n,) 1 for the samples of whole groups, drawn until there are as nearly as possible the samples asked for, else 0.

    >>> draw_groups(np.array([0, 0, 1, 1, 2, 2]), 4, np.random.default_rng(0)).sum()
    np.float64(4.0)
    """
    order = generator.permutation(group.max() + 1)
    so_far = np.bincount(group)[order].cumsum()
    kept = order[: np.abs(so_far - n_samples).argmin() + 1]
    return np.isin(group, kept).astype(np.float64)
