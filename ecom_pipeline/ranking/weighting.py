"""The automatic choice over relations: which weights make the linear ranker better on validation?

On the floor of `ranking`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.importance.catalogue import ONLY_BY_NAME, named
from ecom_pipeline.importance.frames import Result
from ecom_pipeline.importance.group_stacks import rows_of_some
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.importance.selection import NONE, Search, choose
from ecom_pipeline.importance.weights import lifted
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.linear import fit_linear


def try_weightings(
    samples: pd.DataFrame,
    features: PairFeatures,
    values: Mapping[str, Floats],
    held: pd.DataFrame,
    held_features: PairFeatures,
    n_components: int,
    search: Search,
    device: str,
    *,
    n_tried: int,
) -> Result:
    """Rows of `weighting_trials`. Estimators that asked the validation samples take no part: they know the answers.

    Nor does the literal prediction gap, which is trained with only when asked for by name. Beyond `n_tried` samples,
    trials are fitted to whole groups that hold about so many; what they choose is then fitted to all samples beside no
    weights, and given up unless it is better there too.

    Args:
        samples: training samples.
        features: of them.
        values: (n,) by estimator.
        held: validation samples.
        held_features: of them.
        n_components: principal components of the features.
        search: how hard to look.
        device: of torch.
        n_tried: training samples that trials are fitted to, at most.

    Raises:
        SampleError: if fewer than two validation groups have a figure.

    Cost: n_trials + 1 weightings of `n_tried` samples and 2 of all. Random under the search's seed.
    """
    projection = Projection.fit(features, n_components)
    x, held_x = projection.apply(features), projection.apply(held_features)
    group = np.unique(samples.group_id, return_inverse=True)[1]
    rows = Rows(
        np.unique(held.group_id, return_inverse=True)[1], held.label.to_numpy(float), held.relevance.to_numpy(float)
    )

    label = samples.label.to_numpy(float)
    tried = rows_of_some(group, n_tried, search.seed)

    def utility(some: Ints, weight: Floats) -> Floats:
        return fit_linear(
            x[some], label[some], weight, held_features=held_x, held=rows, penalties=PENALTIES, device=device
        ).ndcg

    some_values = {name: values[name][tried] for name in _blind(list(values))}
    choice = choose(some_values, label[tried], group[tried], utility=partial(utility, tried), search=search)
    figures: dict[str, float | str] = {
        "gain_ndcg_cross_fitted": choice.gain,
        "gain_ndcg_lower_bound": choice.gain_low,
        "n_samples_tried": len(tried),
    }
    trials, chosen = choice.trials, choice.estimator
    if choice.weight_map is not None and len(tried) < len(label):
        weight = choice.weight_map.weights(lifted(values[chosen]), label, group)
        none, own = np.nanmean(utility(np.arange(len(label)), np.column_stack([np.ones(len(label)), weight])), 2).max(1)
        figures["gain_ndcg_of_all_samples"] = float(own - none)
        if own <= none:
            trials, chosen = trials.assign(chosen=trials.estimator == NONE), NONE
    return Result(trials, figures | {"chosen": chosen})


def _blind(names: Sequence[str]) -> list[str]:
    return [one.name for one in named(names) if "holdout" not in one.needs and one.name not in ONLY_BY_NAME]
