"""The automatic choice over relations: which weights make the linear ranker better on validation?

On the floor of `ranking`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecom_pipeline.importance.catalogue import ONLY_BY_NAME, named
from ecom_pipeline.importance.frames import Result
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.importance.selection import Search, choose
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.linear import fit_linear


def try_weightings(
    samples: pd.DataFrame,
    features: PairFeatures,
    values: pd.DataFrame,
    held: pd.DataFrame,
    held_features: PairFeatures,
    n_components: int,
    search: Search,
    device: str,
) -> Result:
    """Rows of `weighting_trials`. Estimators that asked the validation samples take no part: they know the answers.

    Nor does the literal prediction gap, which is trained with only when asked for by name.

    Args:
        samples: training samples.
        features: of them.
        values: rows of `sample_values`.
        held: validation samples.
        held_features: of them.
        n_components: principal components of the features.
        search: how hard to look.
        device: of torch.

    Raises:
        SampleError: if fewer than two validation groups have a figure.
    """
    projection = Projection.fit(features, n_components)
    x, held_x = projection.apply(features), projection.apply(held_features)
    group = np.unique(samples.group_id, return_inverse=True)[1]
    rows = Rows(
        np.unique(held.group_id, return_inverse=True)[1], held.label.to_numpy(float), held.relevance.to_numpy(float)
    )

    def utility(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return fit_linear(x, samples.label.to_numpy(float), weight, held_x, rows, PENALTIES, device).ndcg

    by_estimator = {
        name: values[values.estimator == name].set_index("sample_id").sample_value.loc[samples.sample_id].to_numpy()
        for name in _blind(values.estimator.unique().tolist())
    }
    choice = choose(by_estimator, samples.label.to_numpy(float), group, utility=utility, search=search)
    figures = {"gain_ndcg_cross_fitted": choice.gain, "gain_ndcg_lower_bound": choice.gain_low}
    return Result(choice.trials, figures | {"chosen": choice.estimator})


def _blind(names: Sequence[str]) -> list[str]:
    return [one.name for one in named(names) if "holdout" not in one.needs and one.name not in ONLY_BY_NAME]
