"""The estimators over relations: frames in, frames out, figures beside them.

On the floor of `importance`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecom_pipeline.importance.estimator import Estimator, Evidence, one_hot
from ecom_pipeline.importance.estimators.out_of_fold import OutOfFoldConfidence
from ecom_pipeline.importance.estimators.prediction_gap import LiteralPredictionGap, StabilisedPredictionGap
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.weights import WeightMap, ess_share
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.samples import fold_of


@dataclass(frozen=True, slots=True)
class Result:
    """Rows of a relation, and figures about them."""

    frame: pd.DataFrame
    figures: Mapping[str, float]


def estimators(smoothing: float) -> list[Estimator]:
    """Every estimator, the default first."""
    return [OutOfFoldConfidence(), StabilisedPredictionGap(smoothing), LiteralPredictionGap()]


def score(samples: pd.DataFrame, features: PairFeatures, n_repeats: int, n_components: int, device: str) -> Result:
    """Rows of `fold_predictions` for training samples; the first repeat has the samples' own folds."""
    n_folds = max(2, int(samples.fold.max()) + 1)
    others = [fold_of(samples.group_id, n_folds, repeat) for repeat in range(1, n_repeats)]
    fold = np.column_stack([samples.fold, *others]).astype(np.int64)
    projected = Projection.fit(features, n_components).apply(features)
    scores = out_of_fold_scores(projected, one_hot(samples.label), fold, n_folds, device)
    frame = pd.DataFrame(
        {
            "sample_id": np.repeat(samples.sample_id.to_numpy(), n_repeats),
            "repeat": np.tile(np.arange(n_repeats), len(samples)),
            "fold": scores.fold.ravel(),
            "oof_score": scores.score[:, :, 1].ravel(),
            "loss": scores.loss.ravel(),
        }
    )
    figures = {"penalty": scores.penalty, "mean_loss_nats": float(scores.loss.mean()), "n_folds": n_folds}
    return Result(frame, figures)


def value(samples: pd.DataFrame, predictions: pd.DataFrame, smoothing: float) -> Result:
    """Rows of `sample_values`: every estimator on the same scores."""
    wide = predictions.pivot(index="sample_id", columns="repeat", values=["oof_score", "fold"]).loc[samples.sample_id]
    evidence = Evidence(
        label=one_hot(samples.label),
        oof_score=one_hot(wide["oof_score"].to_numpy(float)),
        fold=wide["fold"].to_numpy().astype(np.int64),
    )
    parts, figures = [], {}
    for estimator in estimators(smoothing):
        values = estimator.fit(evidence)
        stderr = np.nan if values.stderr is None else values.stderr
        parts.append(
            pd.DataFrame(
                {
                    "estimator": estimator.name,
                    "sample_id": samples.sample_id.to_numpy(),
                    "sample_value": values.value,
                    "stderr": stderr,
                }
            )
        )
        figures |= {f"{estimator.name}/{note}": figure for note, figure in values.notes.items()}
    return Result(pd.concat(parts, ignore_index=True), figures)


def weigh(samples: pd.DataFrame, values: pd.DataFrame, weight_map: WeightMap) -> Result:
    """Rows of `importance_weights`: each estimator's values through one map."""
    label = samples.set_index("sample_id").label
    weight = values.groupby("estimator").sample_value.transform(
        lambda value: weight_map.weights(value.to_numpy(), label[values.sample_id[value.index]].to_numpy())
    )
    frame = values[["estimator", "sample_id"]].assign(sample_weight=weight)
    shares = frame.groupby("estimator").sample_weight.agg(lambda w: ess_share(w.to_numpy()))
    return Result(frame, {f"{name}/ess_share": float(share) for name, share in shares.items()})
