"""Stage 9: whether today is like other days, and what it cost."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from assets.code import function_of, version
from assets.importance import importance_weights, label_suspicions
from assets.language import embeddings
from assets.prepare import items, training_samples
from assets.publish import WRITTEN, column_schema, recipe, remember, settings_of, told
from assets.recommend import interaction_weights, recommendations
from ecom_pipeline import schema
from ecom_pipeline.watching.costs import Cost, note, noted_until
from ecom_pipeline.watching.drift import Limits
from ecom_pipeline.watching.series import watch
from resources.home import Home, size_of
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


@dg.asset(
    deps=[drift],
    group_name="evaluate",
    kinds={"duckdb"},
    metadata={"dagster/column_schema": column_schema(schema.COSTS)},
)
def costs(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per run and asset that it made: seconds, rows, a GPU's seconds, and how large the home had become.

    What a run makes after this asset is noted by the run after it.
    """
    made, home_bytes = recipe(context, None, warehouse), home.n_bytes + sum(map(size_of, warehouse.elsewhere))
    with warehouse.transaction() as db:
        n_noted = note(db, _costs(context.instance, noted_until(db), home_bytes))
        remember(db, "costs", made)
    return told(warehouse, "costs", {"n_noted": n_noted, "home_bytes": home_bytes})


def _costs(instance: dg.DagsterInstance, since: datetime | None, home_bytes: int) -> Iterator[Cost]:
    """What Dagster remembers of steps that ended in runs which were going on after some moment."""
    kinds = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.ASSET_MATERIALIZATION}
    for run in instance.get_runs(dg.RunsFilter(updated_after=since.replace(tzinfo=UTC) if since else None)):
        made: dict[str, tuple[int, float]] = {}  # by asset; each of its days tells the same of all of them
        for entry in instance.all_logs(run.run_id, of_type=kinds):
            event = entry.get_dagster_event()
            if not event.is_step_success:
                made[event.asset_key.to_user_string()] = rows_and_gpu(event)  # type: ignore[union-attr]  # it has one
                continue
            ended = datetime.fromtimestamp(entry.timestamp, UTC).replace(tzinfo=None)
            seconds = event.step_success_data.duration_ms / 1000
            for asset, (n_rows, gpu) in made.items():
                yield Cost(run.run_id, asset, ended, seconds, n_rows, gpu, home_bytes)
            made.clear()  # a step's assets are told before it ends, and one step is made after the other


def rows_and_gpu(event: dg.DagsterEvent) -> tuple[int, float]:
    """Rows that a step says it wrote, and seconds that it had a GPU."""
    told: dict = {name: one.value for name, one in event.step_materialization_data.materialization.metadata.items()}
    names = (WRITTEN, "dagster/row_count", "dagster/partition_row_count")
    n_rows = next((told[name] for name in names if name in told), 0)
    return n_rows, told["device_seconds"] if told.get("device", "cpu") != "cpu" else 0.0
