"""Beside the story: which estimator is best on these data? Made when asked for, never by the daily refresh."""

import dagster as dg
from pydantic import Field

from assets.language import embeddings
from assets.modes import sample_attributes
from assets.prepare import training_samples
from assets.publish import column_schema, publish, recipe
from ecom_pipeline import schema
from ecom_pipeline.importance.catalogue import QUICK
from ecom_pipeline.importance.selection import Search
from ecom_pipeline.language.embeddings import sample_features
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse


class BenchmarkConfig(dg.Config):
    """What is tried."""

    estimators: list[str] = Field(default=list(QUICK), min_length=1, description="Names from the catalogue.")
    noises: list[str] = Field(
        default=["natural", "random:0.2"],
        min_length=1,
        description="How labels are made wrong: random, missing_positives or popular_clicks with a share, or natural.",
    )
    tasks: list[str] = Field(
        default=["find", "linear"],
        min_length=1,
        description="find: wrong labels; curve: remove and add by value; linear, network: train with the weights.",
    )
    cost_sizes: list[int] = Field(default=[], description="Generated samples on which cost is measured.")
    n_seeds: int = Field(default=3, ge=1, description="Runs with labels made wrong anew.")
    n_trials: int = Field(default=24, ge=0, description="Of the automatic choice.")
    n_components: int = Field(default=100, ge=1, description="As for `fold_predictions`.")
    n_repeats: int = Field(default=2, ge=1, description="As for `fold_predictions`.")
    name: str = Field(default="", description="What the data are called; empty: the source's name.")


@dg.asset(
    deps=[training_samples, embeddings, sample_attributes],
    group_name="benchmark",
    kinds={"pytorch", "html"},
    metadata={"dagster/column_schema": column_schema(schema.IMPORTANCE_BENCHMARK)},
)
def importance_benchmark(
    context: dg.AssetExecutionContext, config: BenchmarkConfig, warehouse: Warehouse, compute: Compute, home: Home
) -> dg.MaterializeResult:
    """One row per figure of an estimator on these data, and the page that ranks them."""
    from ecom_pipeline.benchmark import leaderboard, run
    from ecom_pipeline.benchmark.dataset import from_samples, told_samples

    made = recipe(context, config, warehouse)
    plan = run.Plan(
        *(tuple(config.estimators), run.noises(config.noises), run.tasks(config.tasks), config.n_seeds),
        Search(n_trials=config.n_trials),
    )
    with warehouse.connect() as db:
        samples = told_samples(db)
        features = sample_features(db, samples)
    name = config.name or home.source("complete_journey").rsplit("/", 1)[-1]
    dataset = from_samples(name, samples, features, config.n_components, config.n_repeats)
    lacking = run.left_out(dataset, config.estimators)
    context.log.info("%d kinds of noise; left out, for want of what they need: %s", len(plan.noises), lacking or "none")
    figures = run.everything(dataset, plan, config.cost_sizes, compute.torch_device())
    result = publish(context, warehouse, schema.IMPORTANCE_BENCHMARK, figures, made, leaderboard.headline(figures))
    leaderboard.write(figures, home.leaderboard, lacking)  # after the rows: hours of work do not hang on a page
    return dg.MaterializeResult(
        data_version=result.data_version,
        metadata={
            **(result.metadata or {}),
            "left_out": lacking,
            "leaderboard": dg.MetadataValue.path(home.leaderboard),
        },
    )
