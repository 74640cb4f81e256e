"""Stage 6: whether it helped, with intervals, as a relation and as one page."""

import dagster as dg
from pydantic import Field

from assets.importance import TRAIN, VALIDATION
from assets.language import adapted_encoder, encoder_folder
from assets.model import fine_tuned_model
from assets.prepare import training_samples
from assets.publish import column_schema, plain, publish, recipe
from ecom_pipeline import ledger, report, schema
from ecom_pipeline.language.adapted import open_encoder
from ecom_pipeline.language.embeddings import item_embeddings, sample_features
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse

TEST = "select * from training_samples where split = 'test' order by sample_id"


class EvaluationConfig(dg.Config):
    """How figures and their intervals are made."""

    seed: int = Field(default=0, ge=0, description="Of the bootstrap.")


@dg.asset(
    deps=[
        *(fine_tuned_model, training_samples, adapted_encoder, "embeddings", "sample_attributes"),
        *("importance_weights", "label_suspicions", "rejected_rows"),
    ],
    code_version="5",
    group_name="evaluate",
    kinds={"html"},
    metadata={"dagster/column_schema": column_schema(schema.EVALUATION)},
)
def evaluation_report(
    context: dg.AssetExecutionContext, config: EvaluationConfig, warehouse: Warehouse, compute: Compute, home: Home
) -> dg.MaterializeResult:
    """One row per figure of the relation `evaluation`, and the page that tells them."""
    from ecom_pipeline.ranking.ablation import Part, Parts
    from ecom_pipeline.ranking.figures import figures

    made = recipe(context, config, warehouse)
    with warehouse.connect() as db:
        folder = home.models / ledger.entries(db, "fine_tuned_model")[ledger.WHOLE].content
        reads_with = encoder_folder(db, home)
        splits = [db.sql(query).df() for query in (TRAIN, VALIDATION, TEST)]
        parts = Parts(*(Part(samples, sample_features(db, samples)) for samples in splits))
        test_items, known, popularity = item_embeddings(db, "test"), item_embeddings(db, "train"), report.popularity(db)
    context.log.info("judging %d test samples", len(parts.test.samples))
    with compute.step(context.log) as step:
        encoder = open_encoder(reads_with, step.device)
        rows = figures(*(parts, test_items, known, popularity, encoder, folder, home.frozen, step.device, config.seed))
    result = publish(context, warehouse, schema.EVALUATION, rows, made, step.figures)
    with warehouse.connect() as db:
        page = report.gather(db, folder)
    report.write(page, home.report)
    with warehouse.transaction() as db:
        ledger.record(db, "evaluation_report", ledger.entries(db, "evaluation")[ledger.WHOLE])
    return dg.MaterializeResult(
        data_version=result.data_version,
        metadata={
            **result.metadata,
            "report": dg.MetadataValue.path(home.report),
            "results": dg.MetadataValue.md(report.markdown(page)),
            **plain(report.headline(page)),
        },
    )
