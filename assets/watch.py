"""Stage 9: whether today is like other days."""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from assets.code import function_of, version
from assets.importance import importance_weights, label_suspicions
from assets.language import embeddings
from assets.prepare import items, training_samples
from assets.publish import column_schema, recipe, remember, settings_of, told
from assets.recommend import interaction_weights, recommendations
from ecom_pipeline import schema
from ecom_pipeline.watching.drift import Limits
from ecom_pipeline.watching.series import watch
from resources.warehouse import Warehouse


class DriftConfig(dg.Config):
    """When a day is told."""

    threshold: float = Field(
        default=Limits().threshold, gt=0, description="Distance from usual, in spreads of ordinary days, that is told."
    )
    window: int = Field(default=Limits().window, ge=14, description="Days that a day is compared with.")


@dg.asset(
    deps=[
        *("cleaned_interactions", "rejected_rows", items, training_samples, label_suspicions, embeddings),
        *(interaction_weights, importance_weights, recommendations),
    ],
    group_name="evaluate",
    kinds={"duckdb"},
    metadata={"dagster/column_schema": column_schema(schema.DRIFT)},
)
def drift(context: dg.AssetExecutionContext, config: DriftConfig, warehouse: Warehouse) -> dg.MaterializeResult:
    """One row per watched figure of a day, beside what is usual and how far ordinary days are from it."""
    made, today = recipe(context, config, warehouse), datetime.now(UTC).date()
    with warehouse.transaction() as db:
        counts = watch(db, Limits(**settings_of(config)), today, code=version(function_of(context.assets_def)))
        remember(db, "drift", made)
    context.log.info("drift: %s", counts)
    return told(warehouse, "drift", counts)
