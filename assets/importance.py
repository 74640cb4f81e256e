"""Stage 4: what each training sample is worth, and the weight that follows."""

import dagster as dg
from pydantic import Field

from assets.language import embeddings
from assets.prepare import training_samples
from assets.publish import column_schema, publish, recipe, settings_of
from ecom_pipeline import schema
from ecom_pipeline.importance import frames
from ecom_pipeline.importance.weights import WeightMap
from ecom_pipeline.language.embeddings import sample_features
from resources.compute import Compute
from resources.warehouse import Warehouse

TRAIN = "select * from training_samples where split = 'train' order by sample_id"


class FoldConfig(dg.Config):
    """How samples are scored by models that did not see them."""

    n_repeats: int = Field(default=2, ge=1, le=100, description="Divisions into folds.")
    n_components: int = Field(default=100, ge=1, description="Principal components of the pair features.")


@dg.asset(
    deps=[training_samples, embeddings],
    code_version="1",
    group_name="importance",
    kinds={"pytorch"},
    metadata={"dagster/column_schema": column_schema(schema.FOLD_PREDICTIONS)},
)
def fold_predictions(
    context: dg.AssetExecutionContext, config: FoldConfig, warehouse: Warehouse, compute: Compute
) -> dg.MaterializeResult:
    """One row per training sample and repeat: its score by a model that saw neither it nor its group."""
    made = recipe(context, config, warehouse)
    with warehouse.connect() as db:
        samples = db.sql(TRAIN).df()
        features = sample_features(db, samples)
    context.log.info("scoring %d samples, %d repeats", len(samples), config.n_repeats)
    scored = frames.score(samples, features, **settings_of(config), device=compute.torch_device())
    return publish(context, warehouse, schema.FOLD_PREDICTIONS, scored.frame, made, scored.figures)


class ValuesConfig(dg.Config):
    """What the estimators are asked."""

    smoothing: float = Field(default=0.05, gt=0, description="Of the stabilised gap, in probability.")


@dg.asset(
    deps=[fold_predictions, training_samples],
    code_version="1",
    group_name="importance",
    kinds={"numpy"},
    metadata={"dagster/column_schema": column_schema(schema.SAMPLE_VALUES)},
)
def sample_values(
    context: dg.AssetExecutionContext, config: ValuesConfig, warehouse: Warehouse
) -> dg.MaterializeResult:
    """One row per estimator and training sample: what the sample is worth to learn from."""
    made = recipe(context, config, warehouse)
    valued = frames.value(warehouse.read(TRAIN), warehouse.read("fold_predictions"), config.smoothing)
    return publish(context, warehouse, schema.SAMPLE_VALUES, valued.frame, made, valued.figures)


class WeightsConfig(dg.Config):
    """How a value becomes a weight."""

    power: float = Field(default=1.0, ge=0, le=10, description="weight = max(0, value) ** power; 0: all equal.")
    clip_quantile: float = Field(default=0.99, gt=0, le=1, description="Weights above this quantile come down to it.")
    within_label: bool = Field(default=True, description="Scale each label's weights to mean 1 of their own.")


@dg.asset(
    deps=[sample_values, training_samples],
    code_version="1",
    group_name="importance",
    kinds={"numpy"},
    metadata={"dagster/column_schema": column_schema(schema.IMPORTANCE_WEIGHTS)},
)
def importance_weights(
    context: dg.AssetExecutionContext, config: WeightsConfig, warehouse: Warehouse
) -> dg.MaterializeResult:
    """One row per estimator and training sample: its weight, at least 0 and 1 on average."""
    made = recipe(context, config, warehouse)
    weighted = frames.weigh(warehouse.read(TRAIN), warehouse.read("sample_values"), WeightMap(**settings_of(config)))
    return publish(context, warehouse, schema.IMPORTANCE_WEIGHTS, weighted.frame, made, weighted.figures)
