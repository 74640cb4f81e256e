"""Stage 3, beside the texts: the other modes of an item: its picture, price, category and popularity."""

import dagster as dg
from pydantic import Field

from assets.prepare import items, training_samples
from assets.publish import column_schema, nothing_to_learn, recipe, remember, settings_of, told
from ecom_pipeline import schema, sources
from ecom_pipeline.language import vision
from ecom_pipeline.language.attributes import build_attributes
from ecom_pipeline.language.models import named_digest
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse


class PicturesConfig(dg.Config):
    """Which vision model looks at the items."""

    model: str = Field(
        default="",
        description="A folder with safetensors, or an id in the local Hugging Face cache; empty: no picture is looked at.",
    )


def picture_files(config: PicturesConfig) -> dict[str, str]:
    """What `image_embeddings` depends on besides code and relations: the content of the vision model's files."""
    return {"files": named_digest(config.model)} if config.model else {}


@dg.asset(
    deps=[training_samples, items],
    group_name="language",
    kinds={"pytorch", "huggingface"},
    pool="gpu",
    metadata={"dagster/column_schema": column_schema(schema.IMAGE_EMBEDDINGS)},
)
def image_embeddings(
    context: dg.AssetExecutionContext, config: PicturesConfig, warehouse: Warehouse, compute: Compute, home: Home
) -> dg.MaterializeResult:
    """One row per item of the samples that names a picture; none where no vision model is configured."""
    made = recipe(context, config, warehouse, picture_files(config))
    with warehouse.connect() as db:
        wanted = vision.wanted_pictures(db)
        known = vision.known_pictures(db, vision.vision_id(config.model)) if config.model else {}
    context.log.info("%d items name a picture; vision model: %s", len(wanted), config.model or "none is configured")
    folder = sources.find(home.source(sources.DEFAULT)).folder
    looked_at = wanted if config.model else {}
    with compute.step(context.log) as step:
        rows = vision.embed_pictures(looked_at, folder, known, config.model, step.device)
    with warehouse.transaction() as db:
        counts = vision.replace_pictures(db, rows)
        remember(db, "image_embeddings", made)
    return told(warehouse, "image_embeddings", {**counts, "n_items_that_name_one": len(wanted), **step.figures})


class AttributesConfig(dg.Config):
    """What a ranker is told of an item beside its text."""

    popularity: bool = Field(default=True, description="How often all users, and this one, took the item before.")
    category: bool = Field(default=True, description="The same for the item's category.")
    price: bool = Field(default=True, description="Against the shop's, the category's and what this user pays.")
    image: bool = Field(default=True, description="What `image_embeddings` has, if a vision model is configured.")


@dg.asset(
    deps=[training_samples, items, "cleaned_interactions", image_embeddings],
    group_name="language",
    kinds={"duckdb"},
    metadata={"dagster/column_schema": column_schema(schema.SAMPLE_ATTRIBUTES)},
)
def sample_attributes(
    context: dg.AssetExecutionContext, config: AttributesConfig, warehouse: Warehouse
) -> dg.MaterializeResult:
    """One row per sample: what was known of its item before its visit, beside the text."""
    made = recipe(context, config, warehouse)
    if empty := nothing_to_learn(context, warehouse, made, schema.SAMPLE_ATTRIBUTES):
        return empty
    with warehouse.transaction() as db:
        counts = build_attributes(db, [mode for mode, on in settings_of(config).items() if on])
        remember(db, "sample_attributes", made)
    context.log.info("attributes: %s", counts)
    return told(warehouse, "sample_attributes", counts)
