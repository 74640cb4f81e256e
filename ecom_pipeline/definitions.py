"""The code location: assembles assets, checks, jobs, schedules, sensors and resources; opens nothing."""

import logging
import os
from datetime import timedelta
from pathlib import Path

import dagster as dg

from assets.automation import (
    ci,
    drift_alert,
    made_assets,  # noqa: F401 - the command line plans with it
    nightly_refresh,
    refresh,
    refresh_goes_on,
    source_changed,
)
from assets.benchmark import importance_benchmark
from assets.checks import CHECKS
from assets.ingest import hash_key_of, journal_of  # noqa: F401 - the command line finds a user with it, and serves
from assets.machines import executor_of
from assets.refresh import FLOW, next_plan, up_to_embeddings  # noqa: F401
from resources.alerts import Alerts
from resources.cluster import Cluster
from resources.compute import Compute
from resources.home import Home
from resources.lake import CATALOGUE, FOLDER
from resources.tracking import Tracking
from resources.warehouse import Warehouse

_home = Path(os.environ.get("ECOM_HOME") or ".ecom").expanduser().absolute()
_lake = Path(os.environ.get(FOLDER) or _home / "lake").expanduser().absolute()

HOME = Home(path=str(_home), asked_source=os.environ.get("ECOM_SOURCE", ""))
WAREHOUSE = Warehouse(
    path=str(_home / "warehouse.duckdb"),
    lake_folder=str(_lake) if os.environ.get(CATALOGUE) else "",
)
RESOURCES = {
    "home": HOME,
    "alerts": Alerts(),
    "warehouse": WAREHOUSE,
    "compute": Compute(
        device=os.environ.get("ECOM_DEVICE") or "auto",
        memory_share=os.environ.get("ECOM_MEMORY_SHARE") or None,  # type: ignore[arg-type]
    ),
    "cluster": Cluster(address=os.environ.get("ECOM_CLUSTER") or ""),
    "tracking": Tracking(
        path=str(_home / "curves"),
        backend=os.environ.get("ECOM_TRACKING") or "tensorboard",
        wandb_mode=os.environ.get("WANDB_MODE") or "offline",
    ),
}


@dg.logger(
    config_schema=None,
    description="One line a message that a person may want to read; Dagster's own events stay in its log.",
)
def terminal(context: dg.InitLoggerContext) -> logging.Logger:
    """Plain lines on standard error."""
    logger = logging.Logger("ecom", logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_short)
    logger.addHandler(handler)
    return logger


def _short(record: logging.LogRecord) -> bool:
    meta = getattr(record, "dagster_meta", None) or {}
    record.msg = f"{meta.get('step_key') or 'run'}: {meta.get('orig_message', record.getMessage())}"
    record.args = record.exc_info = record.exc_text = None
    return True


# the schedule starts at 2:00; what it makes must be there before the day's work
_fresh = dg.FreshnessPolicy.cron(deadline_cron="0 6 * * *", lower_bound_delta=timedelta(hours=4))

defs = dg.Definitions(
    assets=[*dg.map_asset_specs(lambda spec: dg.apply_freshness_policy(spec, _fresh), FLOW), importance_benchmark],
    asset_checks=CHECKS,
    jobs=[ci, refresh],
    schedules=[nightly_refresh],
    sensors=[source_changed, refresh_goes_on, drift_alert],
    resources=RESOURCES,
    loggers={"console": terminal},
    executor=executor_of(os.environ.get("ECOM_PODS") or ""),
)
