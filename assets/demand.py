"""Stage 8: what will be bought in the weeks to come, and how good such forecasts were."""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from assets.code import function_of, version
from assets.language import embeddings
from assets.prepare import items
from assets.publish import column_schema, publish, recipe, settings_of, told
from ecom_pipeline import ledger, schema
from ecom_pipeline.demand.evaluation import COLUMNS as FIGURES
from ecom_pipeline.demand.evaluation import N_TESTED, evaluate
from ecom_pipeline.demand.forecast import Settings, forecast
from ecom_pipeline.demand.tables import COLUMNS, rows_of
from ecom_pipeline.demand.weekly import Weekly, content, read_weekly
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.recommend.catalogue import read_text
from resources.cluster import Cluster
from resources.compute import Compute
from resources.warehouse import Warehouse


class DemandConfig(dg.Config):
    """How much is foretold."""

    n_items: int = Field(default=10_000, ge=1, description="Items that are foretold, at most: those sold most.")
    n_rows: int = Field(default=Settings().n_rows, ge=1000, description="That a model of all items learns from, about.")
    n_sample: int = Field(
        default=Settings().n_sample,
        ge=50,
        description="Items on which is chosen and whose errors make intervals, at most.",
    )
    seed: int = Field(default=0, ge=0, description="Of all that is drawn.")
    n_processes: int = Field(default=2, ge=1, description="In which weeks as of which is foretold are looked at.")

    def settings(self) -> Settings:
        """For the domain."""
        return Settings(self.n_rows, self.n_sample, self.seed, self.n_processes)


class DemandTestConfig(DemandConfig):
    """How much is tested."""

    n_tested: int = Field(
        default=4_000, ge=50, description="Items that are foretold as of past weeks, drawn by chance."
    )


def _read(warehouse: Warehouse, config: DemandConfig, n_tested: int) -> Weekly:
    with warehouse.connect() as db:
        weekly = read_weekly(db, n_items=config.n_items, n_tested=n_tested)
        text = read_text(db, weekly.item_ids)
    return replace(weekly, text=text)


def _once_a_week(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    compute: Compute,
    relation: schema.Relation,
    *,
    config: DemandConfig,
    empty: tuple[str, ...],
    make: Callable[[Weekly], tuple[pd.DataFrame, dict[str, object]]],
    n_tested: int = 0,
) -> dg.MaterializeResult:
    """Make a relation anew only where whole weeks have changed: most days bring none."""
    made = recipe(context, config, warehouse)
    try:
        weekly = _read(warehouse, config, n_tested)
    except ExperimentError as error:
        context.log.info("%s", error)
        return publish(context, warehouse, relation, pd.DataFrame(columns=empty), made, {"without": str(error)})
    weeks = ledger.fingerprint(
        version(function_of(context.assets_def)), settings_of(config), {"weeks": content(weekly)}
    )
    kept = f"weeks of {relation.name}"
    with warehouse.transaction() as db:
        was, own = (ledger.entries(db, name).get(ledger.WHOLE) for name in (kept, relation.name))
        if was and own and was.content == weeks:
            ledger.record(db, relation.name, ledger.Entry(made, own.content, own.n_rows))
            context.log.info("no whole week has come since: %s stays", relation.name)
            return told(warehouse, relation.name, {"made": "nothing: the weeks are as they were"})
    with compute.step(context.log) as step:
        rows, figures = make(weekly)
    for name, sentence in figures.items():
        context.log.info("%s: %s", name, sentence)
    result = publish(context, warehouse, relation, rows, made, {**figures, **step.figures})
    with warehouse.transaction() as db:
        ledger.record(db, kept, ledger.Entry(made, weeks, weekly.n_weeks))
    return result


@dg.asset(
    deps=["cleaned_interactions", items, "promotions", embeddings],
    group_name="recommend",
    kinds={"lightgbm"},
    metadata={"dagster/column_schema": column_schema(schema.DEMAND_FORECAST)},
)
def demand_forecast(
    context: dg.AssetExecutionContext,
    config: DemandConfig,
    warehouse: Warehouse,
    compute: Compute,
    cluster: Cluster,
) -> dg.MaterializeResult:
    """One row per item or category and week to come: units, intervals, and how many are enough in 95 of 100 weeks."""

    def make(weekly: Weekly) -> tuple[pd.DataFrame, dict[str, object]]:
        with cluster.joined(context.log) as nodes:
            found = forecast(weekly, config.settings())
        return rows_of(weekly, found), {"chosen": str(found.choice), "n_young": int(found.young.sum()), **nodes}

    return _once_a_week(context, warehouse, compute, schema.DEMAND_FORECAST, config=config, empty=COLUMNS, make=make)


@dg.asset(
    deps=["cleaned_interactions", items, "promotions", embeddings],
    group_name="evaluate",
    kinds={"lightgbm"},
    metadata={"dagster/column_schema": column_schema(schema.DEMAND_EVALUATION)},
)
def demand_evaluation(
    context: dg.AssetExecutionContext,
    config: DemandTestConfig,
    warehouse: Warehouse,
    compute: Compute,
    cluster: Cluster,
) -> dg.MaterializeResult:
    """One row per figure of forecasts as of past weeks, beside classical methods and the twin without weights."""

    def make(weekly: Weekly) -> tuple[pd.DataFrame, dict[str, object]]:
        n = len(weekly.item_ids)
        draw = np.random.default_rng(config.seed)
        some = weekly if n <= config.n_tested else weekly.only(np.sort(draw.choice(n, config.n_tested, replace=False)))
        with cluster.joined(context.log) as nodes:
            figures, chosen = evaluate(some, config.settings())
        return figures, {**chosen, **nodes}

    return _once_a_week(
        context,
        warehouse,
        compute,
        schema.DEMAND_EVALUATION,
        config=config,
        empty=FIGURES,
        make=make,
        n_tested=N_TESTED,
    )
