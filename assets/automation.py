"""When things run without being asked: every night, when files change, and on until nothing is stale; a job for CI."""

import hashlib

import dagster as dg

from assets.refresh import FLOW, next_plan
from ecom_pipeline import ledger
from resources.home import Home
from resources.warehouse import Warehouse

EVERYTHING = dg.AssetSelection.all() - dg.AssetSelection.groups("benchmark")  # made when asked for

ci = dg.define_asset_job(
    "ci",
    selection=dg.AssetSelection.assets("importance_weights").upstream(),
    description="Everything up to the weights, with all gates, without training: for a pull request.",
)
refresh = dg.define_asset_job("refresh", selection=EVERYTHING, description="What is stale, in parts, and nothing else.")

_UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING]


@dg.schedule(job=refresh, cron_schedule="0 2 * * *", execution_timezone="UTC")
def nightly_refresh(
    context: dg.ScheduleEvaluationContext, warehouse: Warehouse, home: Home
) -> dg.RunRequest | dg.SkipReason:
    """Ask for the first stale part; `refresh_goes_on` asks for the others."""
    return _next(context.instance, warehouse, home)


@dg.sensor(job=refresh, minimum_interval_seconds=60, description="Runs what new or changed files make stale.")
def source_changed(
    context: dg.SensorEvaluationContext, warehouse: Warehouse, home: Home
) -> dg.RunRequest | dg.SkipReason:
    """Ask for the next stale part, once; while a run is under way, wait."""
    return _next(context.instance, warehouse, home)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[refresh],
    request_job=refresh,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="After a part of a refresh, asks for the next one, until nothing is stale.",
)
def refresh_goes_on(
    context: dg.RunStatusSensorContext, warehouse: Warehouse, home: Home
) -> dg.RunRequest | dg.SkipReason:
    """The next stale part after one that is done."""
    return _next(context.instance, warehouse, home)


def made_assets(instance: dg.DagsterInstance) -> list[str]:
    """Assets that Dagster has a record of."""
    keys = [key for asset in FLOW for key in asset.keys]
    events = instance.get_latest_materialization_events(keys)
    return [key.to_user_string() for key, event in events.items() if event]


def _next(instance: dg.DagsterInstance, warehouse: Warehouse, home: Home) -> dg.RunRequest | dg.SkipReason:
    """A run of the next stale part, once for one state of the warehouse: what failed on it is not asked for again."""
    running = instance.get_runs(dg.RunsFilter(job_name=refresh.name, statuses=_UNDER_WAY), limit=1)
    if running:
        return dg.SkipReason(f"run {running[0].run_id} is under way")
    plan = next_plan(warehouse, home, {}, made_assets(instance))
    if not plan.assets:
        return dg.SkipReason("nothing has changed")
    with warehouse.connect() as db:
        state = sorted(ledger.contents(db).items())
    key = hashlib.sha256(repr((plan, state)).encode()).hexdigest()[:16]
    return dg.RunRequest(run_key=key, asset_selection=[dg.AssetKey(a) for a in plan.assets], tags=plan.tags())
