"""Stage 8: what experiments showed, as far as their days have come."""

import hashlib

import dagster as dg

from assets.prepare import exposures
from assets.publish import column_schema, publish, recipe
from ecom_pipeline import schema
from ecom_pipeline.experiments.plan import read_experiments
from ecom_pipeline.experiments.readings import every_readout
from resources.home import Home
from resources.warehouse import Warehouse


def experiments_file(home: Home) -> dict[str, str]:
    """What the experiments are, as a hash of the file that says so."""
    there = home.experiments.is_file()
    return {"experiments": hashlib.sha256(home.experiments.read_bytes()).hexdigest()[:16] if there else ""}


@dg.asset(
    deps=[exposures, "cleaned_interactions"],
    group_name="evaluate",
    kinds={"numpy"},
    metadata={"dagster/column_schema": column_schema(schema.EXPERIMENT_READOUT)},
)
def experiment_readout(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per figure of an arm beside its control: sample ratio first, then effects with intervals of both kinds."""
    made = recipe(context, None, warehouse, experiments_file(home))
    found = read_experiments(home.experiments)
    with warehouse.connect() as db:
        rows, verdicts = every_readout(db, found)
    for name, verdict in verdicts.items():
        context.log.info("experiment %s: %s", name, verdict)
    if not found:
        context.log.info("no experiment is defined in %s", home.experiments.name)
    told = {"n_experiments": len(found), **verdicts}
    return publish(context, warehouse, schema.EXPERIMENT_READOUT, rows, made, told)
