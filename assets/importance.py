"""Stage 4: what each training sample is worth, and the weight that follows."""

from typing import Literal

import dagster as dg
import pandas as pd
from duckdb import DuckDBPyConnection
from pydantic import Field

from assets.language import embeddings
from assets.modes import sample_attributes
from assets.prepare import training_samples
from assets.publish import column_schema, nothing_to_learn, publish, recipe, settings_of
from ecom_pipeline import schema
from ecom_pipeline.importance import frames
from ecom_pipeline.importance.selection import Search
from ecom_pipeline.importance.weights import WeightMap
from ecom_pipeline.language.embeddings import sample_features
from ecom_pipeline.language.features import PairFeatures
from resources.compute import Compute
from resources.warehouse import Warehouse

TRAIN = "select * from training_samples where split = 'train' order by sample_id"
VALIDATION = "select * from training_samples where split = 'validation' order by sample_id"


def _with_features(db: DuckDBPyConnection, query: str) -> tuple[pd.DataFrame, PairFeatures]:
    samples = db.sql(query).df()
    return samples, sample_features(db, samples)


class FoldConfig(dg.Config):
    """How samples are scored by models that did not see them."""

    n_repeats: int = Field(default=2, ge=1, le=100, description="Divisions into folds.")
    n_components: int = Field(default=100, ge=1, description="Principal components of the pair features.")


@dg.asset(
    deps=[training_samples, embeddings, sample_attributes],
    group_name="importance",
    kinds={"pytorch"},
    metadata={"dagster/column_schema": column_schema(schema.FOLD_PREDICTIONS)},
)
def fold_predictions(
    context: dg.AssetExecutionContext, config: FoldConfig, warehouse: Warehouse, compute: Compute
) -> dg.MaterializeResult:
    """One row per training sample and repeat: its score by a model that saw neither it nor its group."""
    made = recipe(context, config, warehouse)
    if empty := nothing_to_learn(context, warehouse, made, schema.FOLD_PREDICTIONS):
        return empty
    with warehouse.connect() as db:
        samples, features = _with_features(db, TRAIN)
    context.log.info("scoring %d samples, %d repeats", len(samples), config.n_repeats)
    scored = frames.score(samples, features, **settings_of(config), device=compute.torch_device())
    return publish(context, warehouse, schema.FOLD_PREDICTIONS, scored.frame, made, scored.figures)


class SuspicionsConfig(dg.Config):
    """What is looked at beside out-of-fold scores."""

    n_components: int = Field(default=100, ge=1, description="As for `fold_predictions`.")


@dg.asset(
    deps=[fold_predictions, training_samples, embeddings, sample_attributes],
    group_name="importance",
    kinds={"pytorch"},
    metadata={"dagster/column_schema": column_schema(schema.LABEL_SUSPICIONS)},
)
def label_suspicions(
    context: dg.AssetExecutionContext, config: SuspicionsConfig, warehouse: Warehouse, compute: Compute
) -> dg.MaterializeResult:
    """One row per training sample: how probable it is that its label is wrong, and what asking a rater is worth."""
    made = recipe(context, config, warehouse)
    if empty := nothing_to_learn(context, warehouse, made, schema.LABEL_SUSPICIONS):
        return empty
    with warehouse.connect() as db:
        samples, features = _with_features(db, TRAIN)
    found = frames.suspect(
        samples, features, warehouse.read("fold_predictions"), config.n_components, compute.torch_device()
    )
    return publish(context, warehouse, schema.LABEL_SUSPICIONS, found.frame, made, found.figures)


class ValuesConfig(dg.Config):
    """Who is asked what samples are worth."""

    estimators: list[str] = Field(
        default=[
            "oof_confidence",
            "oof_class_adjusted",
            "stabilised_prediction_gap",
            "literal_prediction_gap",
            "leave_one_out_credibility",
            "group_kernel",
            "group_agreement",
            "rank_ensemble",
        ],
        min_length=1,
        description="Names from the catalogue; `ecom estimators` lists them with what they need and cost.",
    )
    n_components: int = Field(default=100, ge=1, description="As for `fold_predictions`.")


@dg.asset(
    deps=[fold_predictions, training_samples, embeddings, sample_attributes],
    group_name="importance",
    kinds={"pytorch"},
    metadata={"dagster/column_schema": column_schema(schema.SAMPLE_VALUES)},
)
def sample_values(
    context: dg.AssetExecutionContext, config: ValuesConfig, warehouse: Warehouse, compute: Compute
) -> dg.MaterializeResult:
    """One row per estimator and training sample: what the sample is worth to learn from."""
    made = recipe(context, config, warehouse)
    if empty := nothing_to_learn(context, warehouse, made, schema.SAMPLE_VALUES):
        return empty
    with warehouse.connect() as db:
        (seen, seen_features), (held, held_features) = (_with_features(db, split) for split in (TRAIN, VALIDATION))
        predictions = db.sql("from fold_predictions").df()
    valued = frames.value(
        seen,
        seen_features,
        predictions,
        held=held,
        held_features=held_features,
        names=config.estimators,
        n_components=config.n_components,
        device=compute.torch_device(),
    )
    return publish(context, warehouse, schema.SAMPLE_VALUES, valued.frame, made, valued.figures)


class TrialsConfig(dg.Config):
    """How hard to look for weights that help."""

    n_trials: int = Field(default=48, ge=0, description="Combinations tried beside none; 0: none is chosen.")
    clip_quantile: float = Field(default=0.99, gt=0, le=1, description="Weights above this quantile come down to it.")
    confidence: float = Field(
        default=0.95,
        gt=0,
        lt=1,
        description="How sure one must be that weights gain anything; else none are chosen. Where none gains anything, "
        "some are chosen by mistake in at most 1 - confidence of the runs.",
    )
    n_parts: int = Field(default=5, ge=2, description="Parts of the validation groups, for the estimate of the gain.")
    n_tried: int = Field(
        default=50_000,
        ge=1,
        description="Training samples, in whole groups, that trials are fitted to; what they choose is then fitted to all.",
    )
    n_components: int = Field(default=100, ge=1, description="As for `fold_predictions`.")
    seed: int = Field(default=0, ge=0, description="Of the combinations, the parts and the bootstrap.")


@dg.asset(
    deps=[sample_values, training_samples, embeddings, sample_attributes],
    group_name="importance",
    kinds={"pytorch"},
    metadata={"dagster/column_schema": column_schema(schema.WEIGHTING_TRIALS)},
)
def weighting_trials(
    context: dg.AssetExecutionContext, config: TrialsConfig, warehouse: Warehouse, compute: Compute
) -> dg.MaterializeResult:
    """One row per weighting that was tried on validation with a linear ranker; one of them, or none, is chosen."""
    made = recipe(context, config, warehouse)
    if empty := nothing_to_learn(context, warehouse, made, schema.WEIGHTING_TRIALS):
        return empty
    from ecom_pipeline.ranking.weighting import try_weightings

    search = Search(**config.model_dump(exclude={"n_components", "n_tried"}))
    with warehouse.connect() as db:
        (seen, seen_features), (held, held_features) = (_with_features(db, split) for split in (TRAIN, VALIDATION))
        values = frames.read_values(db, len(seen))
    context.log.info("trying %d weightings on %d validation samples", config.n_trials, len(held))
    tried = try_weightings(
        seen,
        seen_features,
        values,
        held=held,
        held_features=held_features,
        n_components=config.n_components,
        search=search,
        device=compute.torch_device(),
        n_tried=config.n_tried,
    )
    return publish(context, warehouse, schema.WEIGHTING_TRIALS, tried.frame, made, tried.figures)


class WeightsConfig(dg.Config):
    """How a value becomes a weight, for all but the automatic choice."""

    kind: Literal["power", "temperature", "rank", "drop"] = Field(
        default="power",
        description="power: max(0, value) ** strength; temperature: exp(strength * standardised value); rank: rank share "
        "** strength; drop: 0 for the share `strength` with the lowest values.",
    )
    strength: float = Field(default=1.0, ge=0, le=10, description="0: all equal.")
    clip_quantile: float = Field(default=0.99, gt=0, le=1, description="Weights above this quantile come down to it.")
    within: Literal["all", "label", "group"] = Field(
        default="label",
        description="Scale weights to mean 1 over all samples, or each label's or group's of their own.",
    )


@dg.asset(
    deps=[sample_values, training_samples, weighting_trials],
    group_name="importance",
    kinds={"numpy"},
    metadata={"dagster/column_schema": column_schema(schema.IMPORTANCE_WEIGHTS)},
)
def importance_weights(
    context: dg.AssetExecutionContext, config: WeightsConfig, warehouse: Warehouse
) -> dg.MaterializeResult:
    """One row per estimator and training sample: its weight, at least 0 and 1 on average; `automatic` is the choice."""
    made = recipe(context, config, warehouse)
    if empty := nothing_to_learn(context, warehouse, made, schema.IMPORTANCE_WEIGHTS):
        return empty
    with warehouse.connect() as db:
        samples = db.sql(f"select sample_id, group_id, label from ({TRAIN}) order by sample_id").df()
        values, trials = frames.read_values(db, len(samples)), db.sql("from weighting_trials").df()
    weighted = frames.weigh(samples, values, WeightMap(**settings_of(config)), trials)
    return publish(context, warehouse, schema.IMPORTANCE_WEIGHTS, weighted.frame, made, weighted.figures)
