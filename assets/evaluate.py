"""Stage 8: whether it helped, with intervals: the relation for search, and one page for search and lists."""

import dagster as dg
from pydantic import Field

from assets.demand import demand_evaluation, demand_forecast
from assets.experiments import experiment_readout
from assets.importance import TRAIN, VALIDATION, importance_weights, label_suspicions
from assets.ingest import raw_exposures, raw_items, raw_judgments, raw_offers
from assets.language import adapted_encoder, encoder_folder
from assets.model import fine_tuned_model
from assets.prepare import training_samples
from assets.publish import column_schema, nothing_to_learn, publish, recipe, told
from assets.recommend import interaction_trials, interaction_weights, item_index, recommendations
from assets.watch import costs, drift
from ecom_pipeline import ledger, report, schema
from ecom_pipeline.language.adapted import open_encoder
from ecom_pipeline.language.embeddings import item_embeddings, sample_features
from ecom_pipeline.report.search import popularity
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse

TEST = "select * from training_samples where split = 'test' order by sample_id"


class EvaluationConfig(dg.Config):
    """How figures and their intervals are made."""

    seed: int = Field(default=0, ge=0, description="Of the bootstrap.")


@dg.asset(
    deps=[fine_tuned_model, training_samples, adapted_encoder, "embeddings", "sample_attributes"],
    group_name="evaluate",
    kinds={"pytorch"},
    metadata={"dagster/column_schema": column_schema(schema.EVALUATION)},
)
def evaluation(
    context: dg.AssetExecutionContext, config: EvaluationConfig, warehouse: Warehouse, compute: Compute, home: Home
) -> dg.MaterializeResult:
    """One row per figure of both rankers of search, and of simple ones, on the test split."""
    made = recipe(context, config, warehouse)
    if empty := nothing_to_learn(context, warehouse, made, schema.EVALUATION):
        return empty
    from ecom_pipeline.ranking.ablation import Part, Parts
    from ecom_pipeline.ranking.figures import figures

    with warehouse.connect() as db:
        folder = home.models / ledger.entries(db, "fine_tuned_model")[ledger.WHOLE].content
        reads_with = encoder_folder(db, home)
        splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
        samples = {name: db.sql(query).df() for name, query in splits.items()}
        parts = Parts(**{name: Part(frame, sample_features(db, frame)) for name, frame in samples.items()})
        test_items, known, taken = item_embeddings(db, "test"), item_embeddings(db, "train"), popularity(db)
    context.log.info("judging %d test samples", len(parts.test.samples))
    with compute.step(context.log) as step:
        encoder = open_encoder(reads_with, step.device)
        rows = figures(
            parts,
            test_items=test_items,
            known=known,
            popularity=taken,
            encoder=encoder,
            folder=folder,
            store=home.frozen,
            device=step.device,
            seed=config.seed,
        )
    return publish(context, warehouse, schema.EVALUATION, rows, made, step.figures)


@dg.asset(
    deps=[
        *(evaluation, importance_weights, label_suspicions),
        # what is rejected depends on these
        *("rejected_rows", "cleaned_interactions", raw_items, raw_judgments, raw_offers, raw_exposures),
        *(interaction_trials, interaction_weights, item_index, recommendations),
        *("sample_choice", "next_visit_evaluation", experiment_readout, "audiences", "audience_evaluation"),
        *(demand_forecast, demand_evaluation, drift, costs),
    ],
    group_name="evaluate",
    kinds={"html"},
)
def evaluation_report(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One page that tells both halves: lists, and search."""
    made = recipe(context, None, warehouse)
    with warehouse.connect() as db:
        page = report.gather(db, home.models)
    report.write(page, home.report)
    with warehouse.transaction() as db:
        ledger.record(db, "evaluation_report", ledger.Entry(made, made, 1))
    figures = {
        "report": dg.MetadataValue.path(home.report),
        "results": dg.MetadataValue.md(report.markdown(page)),
        **report.headline(page),
    }
    return told(warehouse, "evaluation_report", figures)
