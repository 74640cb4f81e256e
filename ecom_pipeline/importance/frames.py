"""The estimators over relations: frames in, frames out, figures beside them.

On the floor of `importance`.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.asking import worth_of_asking, wrong_in_query
from ecom_pipeline.importance.catalogue import named
from ecom_pipeline.importance.estimator import Estimator, Evidence, Holdout, SampleValues, one_hot, required
from ecom_pipeline.importance.estimators.ensemble import RankEnsemble
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.preparation import prepared
from ecom_pipeline.importance.selection import NONE
from ecom_pipeline.importance.threshold import find_wrong_labels
from ecom_pipeline.importance.weights import WeightMap, ess_share, lifted
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.samples import fold_of

AUTOMATIC = "automatic"  # what the weights of the automatic choice are called among those of the estimators


@dataclass(frozen=True, slots=True)
class Result:
    """Rows of a relation, and figures about them."""

    frame: pd.DataFrame
    figures: Mapping[str, float | str]


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


def suspect(
    samples: pd.DataFrame, features: PairFeatures, predictions: pd.DataFrame, n_components: int, device: str
) -> Result:
    """Rows of `label_suspicions`: which labels are probably wrong, by the automatic threshold, and what asking is worth.

    Only what a rater judged is flagged. What a user did is a fact: models that did not see a purchase find it unlikely as
    often because it is new as because it is an accident, and what was shown and not taken may not have been looked at.
    There, and where noise among judgments cannot be told from taste, the probability is that of the other label. Asking
    about what a user did is worth as much: a rater's answer is a pair of its own.

    Args:
        samples: training samples.
        features: of them.
        predictions: rows of `fold_predictions`.
        n_components: principal components of the features.
        device: of torch.
    """
    score, _ = _wide(samples, predictions)
    label = one_hot(samples.label)
    probability = (1 - Evidence(label=label, oof_score=score).confidence.mean(1)).clip(0, 1)
    flagged = np.zeros(len(samples), bool)
    judged = (samples.origin == "judgment").to_numpy()
    figures: dict[str, float | str] = {"n_judged": int(judged.sum())}
    if judged.any():
        found = find_wrong_labels(label[judged], score[judged])
        if found.told_apart:
            probability[judged], flagged[judged] = found.probability, found.wrong
            figures |= {"expected_precision": found.precision, "expected_recall": found.recall}
        else:
            figures["note"] = "noise cannot be told from taste: a label would be found mostly wrong; none is flagged"
    worth = probability.copy()
    if judged.any():
        projected = Projection.fit(features, n_components).apply(features)[judged]
        group = np.unique(samples.group_id[judged], return_inverse=True)[1]
        in_query = wrong_in_query(projected, samples.label[judged].to_numpy(float), group, device)
        worth[judged] = worth_of_asking(probability[judged], in_query)
    frame = pd.DataFrame(
        {
            "sample_id": samples.sample_id.to_numpy(),
            "wrong_probability": probability,
            "flagged": flagged,
            "worth_of_asking": worth,
        }
    )
    return Result(frame, figures | {"flagged_share": float(flagged.mean())})


def value(
    samples: pd.DataFrame,
    features: PairFeatures,
    predictions: pd.DataFrame,
    held: pd.DataFrame,
    held_features: PairFeatures,
    names: Sequence[str],
    n_components: int,
    device: str,
) -> Result:
    """Rows of `sample_values`: every estimator that is named, on the same evidence.

    Args:
        samples: training samples.
        features: of them.
        predictions: rows of `fold_predictions`.
        held: validation samples, for estimators that ask what a sample does for others.
        held_features: of them.
        names: of the estimators, as in the catalogue.
        n_components: principal components of the features.
        device: of torch.

    Raises:
        SampleError: if a name is not known, or an estimator needs what these samples do not have.
    """
    score, fold = _wide(samples, predictions)
    projection = Projection.fit(features, n_components)
    group = np.unique(samples.group_id, return_inverse=True)[1]
    latest = max(samples.occurred_at.max(), held.occurred_at.max())
    evidence = Evidence(
        label=one_hot(samples.label),
        oof_score=score,
        fold=fold,
        features=projection.apply(features),
        holdout=Holdout(projection.apply(held_features), one_hot(held.label)),
        group=group,
        user=group,
        item=np.unique(samples.item_id, return_inverse=True)[1],
        position=known(samples.position, np.int64),
        propensity=known(samples.propensity, np.float64),
        age_days=known((latest - samples.occurred_at).dt.total_seconds() / 86400, np.float64),
        target=projection.apply(held_features),  # the later period, without its labels
        device=device,
    )
    estimators = named(names)
    evidence, _ = prepared(evidence, estimators, max(2, int(required(evidence.fold).max()) + 1))
    sample_id = samples.sample_id.to_numpy()
    parts, figures = [], {}
    start = time.perf_counter()
    for estimator, values in fit_each(estimators, evidence):
        figures[f"{estimator.name}/seconds"], start = time.perf_counter() - start, time.perf_counter()
        figures |= {f"{estimator.name}/{note}": figure for note, figure in values.notes.items()}
        stderr = np.nan if values.stderr is None else values.stderr
        parts.append(
            pd.DataFrame(
                {"estimator": estimator.name, "sample_id": sample_id, "sample_value": values.value, "stderr": stderr}
            )
        )
    return Result(pd.concat(parts, ignore_index=True), figures)


def fit_each(estimators: Iterable[Estimator], evidence: Evidence) -> Iterator[tuple[Estimator, SampleValues]]:
    """Every estimator with its values; an ensemble takes those of members that were asked before it.

    Cost: a fit of each estimator and of each member that was not asked for itself.
    """
    told: dict[Estimator, Floats] = {}
    for estimator in estimators:
        if isinstance(estimator, RankEnsemble):
            told |= {member: member.fit(evidence).value for member in estimator.members if member not in told}
            values = estimator.of_values([told[member] for member in estimator.members])
        else:
            values = estimator.fit(evidence)
            told[estimator] = values.value
        yield estimator, values


def read_values(db: DuckDBPyConnection, n_samples: int) -> dict[str, Floats]:
    """(n,) values by estimator, in the order of the samples' ids.

    Args:
        db: a connection to the warehouse.
        n_samples: how many training samples there are.

    Raises:
        SampleError: if an estimator has not as many values.

    Cost: a sort of the values of one estimator at a time; no id is held in memory.
    """
    names = db.execute("select distinct estimator from sample_values order by 1").fetchall()
    query = "select sample_value from sample_values where estimator = ? order by sample_id"
    found = {name: db.execute(query, [name]).fetchnumpy()["sample_value"] for (name,) in names}
    short = [name for name, value in found.items() if len(value) != n_samples]
    if short:
        raise SampleError(
            f"sample_values: {len(short)} of {len(found)} estimators do not have {n_samples} values; first: {short[0]!r} "
            f"has {len(found[short[0]])}. There must be one a training sample: materialise `sample_values` again."
        )
    return found


def weigh(samples: pd.DataFrame, values: Mapping[str, Floats], weight_map: WeightMap, trials: pd.DataFrame) -> Result:
    """Rows of `importance_weights`: each estimator's values through one map, and the automatic choice through its own.

    Args:
        samples: training samples.
        values: (n,) by estimator.
        weight_map: of all but the automatic choice.
        trials: rows of `weighting_trials`.
    """
    label, sample_id = samples.label.to_numpy(), samples.sample_id.to_numpy()
    group = np.unique(samples.group_id, return_inverse=True)[1]
    weights = {name: weight_map.weights(lifted(value), label, group) for name, value in values.items()}
    chosen = trials[trials.chosen].iloc[0]
    if chosen.estimator == NONE:
        weights[AUTOMATIC] = np.ones(len(samples))
    else:
        own = WeightMap(chosen.kind, chosen.strength, chosen.clip_quantile, chosen.within)
        weights[AUTOMATIC] = own.weights(lifted(values[chosen.estimator]), label, group)
    parts = [
        pd.DataFrame({"estimator": name, "sample_id": sample_id, "sample_weight": weight})
        for name, weight in weights.items()
    ]
    shares = {f"{name}/ess_share": ess_share(weight) for name, weight in weights.items()}
    return Result(pd.concat(parts, ignore_index=True), shares)


def known(column: pd.Series, kind: type) -> NDArray | None:
    """A column's values, or None if some are not known."""
    return column.to_numpy(kind) if column.notna().all() else None


def _wide(samples: pd.DataFrame, predictions: pd.DataFrame) -> tuple[Floats, Ints]:
    """(n, r, 2) scores and (n, r) folds of `fold_predictions`, in the order of the samples."""
    wide = predictions.pivot(index="sample_id", columns="repeat", values=["oof_score", "fold"]).loc[samples.sample_id]
    return one_hot(wide["oof_score"].to_numpy(float)), wide["fold"].to_numpy().astype(np.int64)
