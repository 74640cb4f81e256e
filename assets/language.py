"""Stage 3: the language model reads every text once."""

import dagster as dg
from pydantic import Field

from assets.prepare import training_samples
from assets.publish import column_schema, recipe, remember, told
from ecom_pipeline import schema
from ecom_pipeline.language import embeddings as store
from resources.compute import Compute
from resources.warehouse import Warehouse


class EncoderConfig(dg.Config):
    """Which language model reads, and how."""

    model: str = Field(default="all-MiniLM-L6-v2", description="The packaged model, or a folder with safetensors.")
    max_tokens: int = Field(default=96, ge=8, le=8192, description="A longer text is cut.")
    token_budget: int = Field(default=2048, ge=8, description="Tokens of a batch, padding included.")


@dg.asset(
    deps=[training_samples],
    code_version="1",
    group_name="language",
    kinds={"pytorch", "huggingface"},
    pool="gpu",
    metadata={"dagster/column_schema": column_schema(schema.EMBEDDINGS)},
)
def embeddings(
    context: dg.AssetExecutionContext, config: EncoderConfig, warehouse: Warehouse, compute: Compute
) -> dg.MaterializeResult:
    """One row per distinct text under the encoder; texts that have a row are not read again."""
    made = recipe(context, config, warehouse)
    with warehouse.connect() as db:
        texts = store.missing_texts(db, config.model, config.max_tokens)
    context.log.info("%d texts are not embedded yet", len(texts))
    found = store.embed(texts, config.model, config.max_tokens, config.token_budget, compute.torch_device())
    with warehouse.transaction() as db:
        store.add(db, found)
        remember(db, "embeddings", made, store.IN_USE)  # texts of old samples change nothing below
    return told(
        warehouse, "embeddings", {"n_new_texts": len(texts), **found.throughput, "encoder_id": found.encoder_id}
    )
