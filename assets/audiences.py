"""Stage 8: whom to ask, for campaigns, and how good such orders of users were."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import dagster as dg
import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from assets.code import function_of, version
from assets.prepare import items, offers
from assets.publish import WRITTEN, column_schema, made_from, publish, told
from ecom_pipeline import ledger, schema
from ecom_pipeline.audiences.evaluation import COLUMNS as FIGURES
from ecom_pipeline.audiences.evaluation import evaluate
from ecom_pipeline.audiences.lists import COLUMNS, aimed_offers, campaign_lists
from ecom_pipeline.audiences.offers import last_day_of, read_audience, read_campaigns
from resources.compute import Compute
from resources.warehouse import Warehouse

_LEARNT_FROM = "people of {}"  # in the ledger: what a relation was learnt from
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
            with warehouse.transaction() as db:
                ledger.forget(db, _LEARNT_FROM.format(name))
            yield publish(context, warehouse, relation, frames[name], made[name], {"without": "campaigns"})
        return
    with warehouse.connect() as db:
        found, end = read_campaigns(db), last_day_of(db)
        people = read_audience(db, found)
    ended = people.only(np.isfinite(people.bought))
    work = {
        "audiences": (f"{people.content} {aimed_offers(found, end)}", partial(campaign_lists, people, found, end)),
        "audience_evaluation": (ended.content, partial(evaluate, people, found)),
    }
    code = version(function_of(context.assets_def))
    for name, (content, make) in work.items():
        learnt_from = ledger.fingerprint(code, {}, {"people": content, "offers": str(found)})
        if _stays(warehouse, name, learnt_from, made[name]):
            context.log.info("%s: what it learns from is as it was, nothing is learnt anew", name)
            yield told(warehouse, name, {WRITTEN: 0, "learnt": "nothing: campaigns are as they were"})
            continue
        with compute.step(context.log) as step:
            rows, sentences = make()
        for part, sentence in sentences.items():
            context.log.info("%s: %s", part, sentence)
        yield publish(context, warehouse, _RELATIONS[name], rows, made[name], {**sentences, **step.figures})
        with warehouse.transaction() as db:
            ledger.record(db, _LEARNT_FROM.format(name), ledger.Entry(made[name], learnt_from, len(people)))


def _stays(warehouse: Warehouse, name: str, learnt_from: str, made: str) -> bool:
    """Whether a relation was learnt from what it would be now; then it is noted as made of it."""
    with warehouse.transaction() as db:
        learnt, kept = (ledger.entries(db, one).get(ledger.WHOLE) for one in (_LEARNT_FROM.format(name), name))
        if learnt is None or kept is None or learnt.content != learnt_from:
            ledger.forget(db, _LEARNT_FROM.format(name))  # until it is written
            return False
        ledger.record(db, name, replace(kept, made_from=made))
    return True


def _has_campaigns(db: DuckDBPyConnection) -> bool:
    bought = "select 1 from cleaned_interactions where action = 'purchase' limit 1"
    return all(db.execute(query).fetchall() for query in ("select 1 from campaign_items limit 1", bought))
