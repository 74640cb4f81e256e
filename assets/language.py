"""Stage 3: the language model is chosen and learns the shop, and then reads every text once."""

from dataclasses import fields
from pathlib import Path

import dagster as dg
from duckdb import DuckDBPyConnection
from pydantic import Field

from assets.prepare import items, training_samples
from assets.publish import column_schema, recipe, remember, told
from ecom_pipeline import ledger, schema
from ecom_pipeline.language import adapted
from ecom_pipeline.language import embeddings as store
from ecom_pipeline.language.adaptation.choice import Rules, choose, last_adapted
from ecom_pipeline.language.adaptation.corpus import read_corpus
from ecom_pipeline.language.adaptation.retrieval import read_retrieval
from ecom_pipeline.language.adaptation.settings import Adaptation
from ecom_pipeline.language.models import named_digest
from resources.cluster import Cluster
from resources.compute import Compute
from resources.home import Home
from resources.tracking import Tracking
from resources.warehouse import Warehouse


class EncoderConfig(dg.Config):
    """Which language model reads, and how it learns the shop."""

    model: str = Field(
        default="all-MiniLM-L6-v2",
        description="The packaged model, a folder with safetensors, or an id in the local Hugging Face cache.",
    )
    max_tokens: int = Field(default=96, ge=8, le=8192, description="A longer text is cut.")
    remote_code: str = Field(default="", description="Name of the model whose own Python code may run.")
    n_steps: int = Field(default=0, ge=0, description="Steps of adaptation; 0: the model as it was published.")
    language: float = Field(default=0, ge=0, description="Share of the steps that guess hidden or next words.")
    query: float = Field(default=1, ge=0, description="Share that brings queries near to clicked or relevant items.")
    history: float = Field(default=1, ge=0, description="Share that brings histories near to what was taken next.")
    attribute: float = Field(default=0, ge=0, description="Share that brings titles near to brand and category.")
    from_samples: bool = Field(
        default=False,
        description="Whether training samples are learnt from too; their out-of-fold scores have then seen their labels.",
    )
    history_items: int = Field(default=8, ge=1, description="Earlier items that a history tells of.")
    n_top: int = Field(default=6, ge=1, description="Layers that are adapted, from the top; more than there are: all.")
    learning_rate: float = Field(default=5e-5, gt=0, description="Peak of the schedule.")
    batch_pairs: int = Field(default=64, ge=2, description="Pairs of a step; each is a negative for the others.")
    batch_texts: int = Field(default=64, ge=1, description="Texts of a step that guesses words.")
    mask_share: float = Field(default=0.15, gt=0, lt=1, description="Of the tokens, to be guessed.")
    temperature: float = Field(default=0.05, gt=0, description="Cosines are divided by it.")
    correct_popularity: bool = Field(
        default=True, description="Whether what is often taken is pushed away less, as it is in more batches."
    )
    hard_negatives: int = Field(default=0, ge=0, description="Near or refused items, for each pair.")
    pool_items: int = Field(default=5000, ge=0, description="Items that near ones are looked for among, at most.")
    skipped: int = Field(default=5, ge=0, description="Nearest items that are not taken, as they may be right.")
    warmup_share: float = Field(default=0.1, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    seed: int = Field(default=0, ge=0, description="Order, masks and hard negatives.")
    min_new_share: float = Field(
        default=0.1, ge=0, le=1, description="Of what is learnt from, that must be new for adapting anew."
    )
    only_if_better: bool = Field(
        default=True, description="Whether it must find more on validation for certain to be taken."
    )
    measured_items: int = Field(
        default=5000, ge=0, description="Texts of items that validation searches among; 0: the whole catalogue."
    )


def encoder_files(config: EncoderConfig) -> dict[str, str]:
    """What `adapted_encoder` depends on besides code and relations: the content of the named model's files."""
    return {"files": named_digest(config.model)}


@dg.asset(
    deps=[training_samples, items, "cleaned_interactions"],
    group_name="language",
    kinds={"pytorch", "safetensors"},
    pool="gpu",
)
def adapted_encoder(
    context: dg.AssetExecutionContext,
    config: EncoderConfig,
    warehouse: Warehouse,
    compute: Compute,
    home: Home,
    tracking: Tracking,
) -> dg.MaterializeResult:
    """One encoder: the language model that everything below reads with, as it was published or as it learnt the shop."""
    made = recipe(context, config, warehouse, encoder_files(config))
    settings = Adaptation(**{field.name: getattr(config, field.name) for field in fields(Adaptation)})
    with warehouse.connect() as db:
        corpus, asked = read_corpus(db, settings), read_retrieval(db, "validation", config.measured_items)
    curves = tracking.curves("adapted_encoder", made)
    named = adapted.Named(config.model, config.max_tokens, config.remote_code)
    rules = Rules(config.min_new_share, config.only_if_better)
    with compute.step(context.log) as step:
        chosen = choose(named, settings, rules, corpus, asked, home.encoders, step.device, curves.run)
    context.log.info("the encoder is %s: %s", chosen.outcome, adapted.encoder_id(chosen.folder))
    with warehouse.transaction() as db:
        ledger.record(db, "adapted_encoder", ledger.Entry(made, chosen.folder.name, 1))
    home.prune(home.encoders, {chosen.folder.name, last_adapted(home.encoders)})
    figures = {"outcome": chosen.outcome, "encoder_id": adapted.encoder_id(chosen.folder), **chosen.figures}
    return told(warehouse, "adapted_encoder", {**figures, **step.figures, **curves.link()})


def encoder_folder(db: DuckDBPyConnection, home: Home) -> Path:
    """Where the encoder in use lies."""
    return home.encoders / ledger.entries(db, "adapted_encoder")[ledger.WHOLE].content


class ReadingConfig(dg.Config):
    """How texts are read."""

    token_budget: int = Field(default=2048, ge=8, description="Tokens of a batch, padding included.")
    n_items: int = Field(
        default=25_000,
        ge=0,
        description="Items of the catalogue whose texts are read, at most, those taken most: more than are ranked.",
    )
    precision: store.Precision = Field(
        default="fp32",
        description="bf16: on CPUs with such products, by OpenVINO (extra `fast`); nearly twice as fast, not quite the same.",
    )


@dg.asset(
    deps=[training_samples, adapted_encoder, items, "cleaned_interactions"],
    group_name="language",
    kinds={"pytorch", "huggingface"},
    pool="gpu",
    metadata={"dagster/column_schema": column_schema(schema.EMBEDDINGS)},
)
def embeddings(
    context: dg.AssetExecutionContext,
    config: ReadingConfig,
    warehouse: Warehouse,
    compute: Compute,
    cluster: Cluster,
    home: Home,
) -> dg.MaterializeResult:
    """One row per distinct text of samples and catalogue under the encoder; texts that have one are not read again."""
    made = recipe(context, config, warehouse)
    with warehouse.connect() as db:
        folder = encoder_folder(db, home)
        texts = store.missing_texts(db, store.reader_id(folder, config.precision), config.n_items)
    context.log.info("%d texts are not embedded yet", len(texts))
    with compute.step(context.log) as step, cluster.joined(context.log) as nodes:
        found = store.embed(texts, folder, config.token_budget, step.device, config.precision)
    with warehouse.transaction() as db:
        store.add(db, found)
        remember(db, "embeddings", made, store.IN_USE)  # old texts change nothing below
    figures = {"n_new_texts": len(texts), **found.throughput, "encoder_id": found.encoder_id, **nodes, **step.figures}
    return told(warehouse, "embeddings", figures)
