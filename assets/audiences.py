"""Stage 8: whom to ask, for campaigns, and how good such orders of users were."""

from collections.abc import Iterator

import dagster as dg
import pandas as pd
from duckdb import DuckDBPyConnection

from assets.prepare import items, offers
from assets.publish import column_schema, made_from, publish
from ecom_pipeline import ledger, schema
from ecom_pipeline.audiences.evaluation import COLUMNS as FIGURES
from ecom_pipeline.audiences.evaluation import evaluate
from ecom_pipeline.audiences.lists import COLUMNS, campaign_lists
from ecom_pipeline.audiences.offers import last_day_of, read_audience, read_campaigns
from resources.compute import Compute
from resources.warehouse import Warehouse

_RELATIONS = {"audiences": schema.AUDIENCES, "audience_evaluation": schema.AUDIENCE_EVALUATION}


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=["cleaned_interactions", *offers.keys, items],
            description=f"One row per {relation.row}.",
            metadata={"dagster/column_schema": column_schema(relation)},
            group_name="recommend",
            kinds={"lightgbm"},
        )
        for name, relation in _RELATIONS.items()
    ],
    name="audiences",
)
def audiences(
    context: dg.AssetExecutionContext, warehouse: Warehouse, compute: Compute
) -> Iterator[dg.MaterializeResult]:
    """Learn who responds from campaigns that have ended, test it on the later ones, and order users for those to come."""
    with warehouse.connect() as db:
        contents = ledger.contents(db)
        made = {name: made_from(context.assets_def, name, None, contents) for name in _RELATIONS}
        known = _has_campaigns(db)
    if not known:
        context.log.info("there are no campaigns with items: nobody is to be asked")
        frames = {"audiences": pd.DataFrame(columns=COLUMNS), "audience_evaluation": pd.DataFrame(columns=FIGURES)}
        for name, relation in _RELATIONS.items():
            yield publish(context, warehouse, relation, frames[name], made[name], {"without": "campaigns"})
        return
    with compute.step(context.log) as step, warehouse.connect() as db:
        found, end = read_campaigns(db), last_day_of(db)
        people = read_audience(db, found)
    figures, told = evaluate(people, found)
    rows, why = campaign_lists(people, found, end)
    for name, sentence in {**told, **why}.items():
        context.log.info("%s: %s", name, sentence)
    yield publish(context, warehouse, schema.AUDIENCES, rows, made["audiences"], {**why, **step.figures})
    yield publish(context, warehouse, schema.AUDIENCE_EVALUATION, figures, made["audience_evaluation"], told)


def _has_campaigns(db: DuckDBPyConnection) -> bool:
    bought = "select 1 from cleaned_interactions where action = 'purchase' limit 1"
    return all(db.execute(query).fetchall() for query in ("select 1 from campaign_items limit 1", bought))
