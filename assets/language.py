"""Stage 3: the language model is chosen and learns the shop, and then reads every text once."""

from pathlib import Path

import dagster as dg
from duckdb import DuckDBPyConnection
from pydantic import Field

from assets.prepare import items, training_samples
from assets.publish import column_schema, recipe, remember, told
from ecom_pipeline import ledger, schema
from ecom_pipeline.language import adapted
from ecom_pipeline.language import embeddings as store
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse


class EncoderConfig(dg.Config):
    """Which language model reads, and how it learns the shop."""

    model: str = Field(
        default="all-MiniLM-L6-v2",
        description="The packaged model, a folder with safetensors, or an id in the local Hugging Face cache.",
    )
    max_tokens: int = Field(default=96, ge=8, le=8192, description="A longer text is cut.")
    remote_code: str = Field(default="", description="Name of the model whose own Python code may run.")


@dg.asset(
    deps=[training_samples, items, "cleaned_interactions"],
    code_version="1",
    group_name="language",
    kinds={"pytorch", "safetensors"},
    pool="gpu",
)
def adapted_encoder(
    context: dg.AssetExecutionContext, config: EncoderConfig, warehouse: Warehouse, home: Home
) -> dg.MaterializeResult:
    """One encoder: the language model that everything below reads with."""
    made = recipe(context, config, warehouse)
    folder = adapted.as_named(adapted.Named(config.model, config.max_tokens, config.remote_code), home.encoders)
    with warehouse.transaction() as db:
        ledger.record(db, "adapted_encoder", ledger.Entry(made, folder.name, 1))
    return told(warehouse, "adapted_encoder", {"encoder_id": adapted.encoder_id(folder)})


def encoder_folder(db: DuckDBPyConnection, home: Home) -> Path:
    """Where the encoder in use lies."""
    return home.encoders / ledger.entries(db, "adapted_encoder")[ledger.WHOLE].content


class ReadingConfig(dg.Config):
    """How texts are read."""

    token_budget: int = Field(default=2048, ge=8, description="Tokens of a batch, padding included.")


@dg.asset(
    deps=[training_samples, adapted_encoder],
    code_version="1",
    group_name="language",
    kinds={"pytorch", "huggingface"},
    pool="gpu",
    metadata={"dagster/column_schema": column_schema(schema.EMBEDDINGS)},
)
def embeddings(
    context: dg.AssetExecutionContext, config: ReadingConfig, warehouse: Warehouse, compute: Compute, home: Home
) -> dg.MaterializeResult:
    """One row per distinct text under the encoder; texts that have a row are not read again."""
    made = recipe(context, config, warehouse)
    with warehouse.connect() as db:
        folder = encoder_folder(db, home)
        texts = store.missing_texts(db, adapted.encoder_id(folder))
    context.log.info("%d texts are not embedded yet", len(texts))
    found = store.embed(texts, folder, config.token_budget, compute.torch_device())
    with warehouse.transaction() as db:
        store.add(db, found)
        remember(db, "embeddings", made, store.IN_USE)  # texts of old samples change nothing below
    return told(
        warehouse, "embeddings", {"n_new_texts": len(texts), **found.throughput, "encoder_id": found.encoder_id}
    )
