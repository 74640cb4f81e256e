"""When things run without being asked: every night, when files change, and on until nothing is stale; a job for CI."""

import hashlib
import json
import os
from pathlib import Path

import dagster as dg

from assets.machines import run_tags
from assets.refresh import FLOW, next_plan
from ecom_pipeline import ledger
from ecom_pipeline.errors import InputError
from ecom_pipeline.watching.drift import alarms
from resources.alerts import Alerts
from resources.home import Home
from resources.run_config import CONFIG, read_config
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


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells receivers, once, what was unusual on the last seven days; who fails is told again later.",
)
def drift_alert(context: dg.SensorEvaluationContext, warehouse: Warehouse, alerts: Alerts) -> dg.SkipReason:
    """Send what a receiver has not been sent; the cursor keeps which alarms that were, by receiver."""
    if not alerts.receivers:
        return dg.SkipReason("no receiver is set: ECOM_ALERT_WEBHOOK, ECOM_ALERT_EMAIL")
    if not warehouse.has("drift"):
        return dg.SkipReason("nothing has been watched yet")
    with warehouse.connect() as db:
        found = {f"{one.day} {one.family} {one.figure} {one.part}": str(one) for one in alarms(db)}
    sent = json.loads(context.cursor or "{}")
    outcome = []
    for name, send in alerts.receivers.items():
        new = {key: told for key, told in found.items() if key not in sent.get(name, [])}
        try:
            if new:
                send(f"ecom: {len(new)} figures are unusual", list(new.values()))
                sent[name] = [key for key in sent.get(name, []) if key in found] + list(new)
                context.update_cursor(json.dumps(sent))
            outcome.append(f"{name}: {len(new)} alarms sent")
        except (OSError, InputError) as error:  # smtplib's errors are OSErrors too
            context.log.warning("%s takes no alarm: %s", name, error)
            outcome.append(f"{name} failed and is tried again: {error}")
    return dg.SkipReason("; ".join(outcome))


def made_assets(instance: dg.DagsterInstance) -> list[str]:
    """Assets that Dagster has a record of."""
    keys = [key for asset in FLOW for key in asset.keys]
    events = instance.get_latest_materialization_events(keys)
    return [key.to_user_string() for key, event in events.items() if event]


def _next(instance: dg.DagsterInstance, warehouse: Warehouse, home: Home) -> dg.RunRequest | dg.SkipReason:
    """A run of the next stale part, once for one state of the warehouse: what failed on it is not asked for again.

    Settings are those of the file that `ECOM_CONFIG` names, as for `ecom run`: the two would else undo each other's work.
    """
    running = instance.get_runs(dg.RunsFilter(job_name=refresh.name, statuses=_UNDER_WAY), limit=1)
    if running:
        return dg.SkipReason(f"run {running[0].run_id} is under way")
    file = os.environ.get(CONFIG)
    config = read_config(Path(file) if file else None)
    plan = next_plan(warehouse, home, config, made_assets(instance))
    if not plan.assets:
        return dg.SkipReason("nothing has changed")
    with warehouse.connect() as db:
        state = sorted(ledger.contents(db).items())
    told = plan.run_config(config)
    key = hashlib.sha256(repr((plan, state, told["ops"])).encode()).hexdigest()[:16]
    tags = plan.tags() | run_tags(os.environ.get("ECOM_PODS") or "", plan.assets)
    keys = [dg.AssetKey(name) for name in plan.assets]
    return dg.RunRequest(run_key=key, asset_selection=keys, run_config=told, tags=tags)
