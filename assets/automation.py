"""When things run without being asked: a schedule a day, a sensor for new files, a job for CI."""

import hashlib
from datetime import timedelta

import dagster as dg

from assets.refresh import FLOW, next_plan
from resources.home import Home
from resources.warehouse import Warehouse

EVERYTHING = dg.AssetSelection.all() - dg.AssetSelection.groups("benchmark")  # made when asked for

daily_refresh = dg.define_asset_job(
    "daily_refresh", selection=EVERYTHING, description="Everything that a new day touches."
)
ci = dg.define_asset_job(
    "ci",
    selection=dg.AssetSelection.assets("importance_weights").upstream(),
    description="Everything up to the weights, with all gates, without training: for a pull request.",
)
refresh = dg.define_asset_job("refresh", selection=EVERYTHING, description="What the sensor asks for.")


@dg.schedule(job=daily_refresh, cron_schedule="0 2 * * *", execution_timezone="UTC")
def daily_refresh_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Refresh the day that has just ended; today is a partition too, and not over."""
    day = (context.scheduled_execution_time.date() - timedelta(days=1)).isoformat()
    return dg.RunRequest(run_key=day, partition_key=day)


@dg.sensor(job=refresh, minimum_interval_seconds=60, description="Runs what new or changed files make stale.")
def source_changed(context: dg.SensorEvaluationContext, warehouse: Warehouse, home: Home):
    """Ask for the next stale part, once; while a run is under way, wait."""
    running = context.instance.get_runs(
        dg.RunsFilter(
            job_name="refresh",
            statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING],
        ),
        limit=1,
    )
    if running:
        return dg.SkipReason(f"run {running[0].run_id} is under way")
    plan = next_plan(warehouse, home, {}, made_assets(context.instance))
    if not plan.assets:
        return dg.SkipReason("nothing has changed")
    key = hashlib.sha256(repr((plan, warehouse_state(warehouse))).encode()).hexdigest()[:16]
    return dg.RunRequest(run_key=key, asset_selection=[dg.AssetKey(a) for a in plan.assets], tags=plan.tags())


def made_assets(instance: dg.DagsterInstance) -> list[str]:
    """Assets that Dagster has a record of."""
    keys = [key for asset in FLOW for key in asset.keys]
    events = instance.get_latest_materialization_events(keys)
    return [key.to_user_string() for key, event in events.items() if event]


def warehouse_state(warehouse: Warehouse) -> str:
    """Changes whenever an asset is written: what failed on one state is not asked for again on the same."""
    from ecom_pipeline import ledger

    with warehouse.connect() as db:
        return repr(sorted(ledger.contents(db).items()))
