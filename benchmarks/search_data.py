"""What the benchmarks of search data begin with: samples as the pipeline makes them, with their frozen features."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from assets.prepare import SamplesConfig
from assets.publish import settings_of
from ecom_pipeline import cleaning, sources
from ecom_pipeline.language import embeddings
from ecom_pipeline.language.adapted import Named, as_named, encoder_id
from ecom_pipeline.language.models import PACKAGED
from ecom_pipeline.samples import SampleRules, build_samples
from ecom_pipeline.schema.inputs import COLUMNS
from resources.warehouse import Warehouse

N_COMPONENTS = 100


def load(folder: str, max_tokens: int = 96, **rules: int) -> tuple[pd.DataFrame, object]:
    """All samples of the set as the pipeline makes them, with their frozen features.

    Args:
        folder: of the source.
        max_tokens: read of each text.
        rules: fields of `SamplesConfig`.
    """
    source = sources.find(folder)
    with tempfile.TemporaryDirectory() as home, Warehouse(path=str(Path(home) / "w.duckdb")).connect() as db:
        for table in COLUMNS:
            source.land(db, table, hash_key=b"benchmark")
        cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
        cleaning.clean_items(db)
        cleaning.clean_judgments(db)
        build_samples(db, SampleRules(**settings_of(SamplesConfig(**rules))))
        encoder = as_named(Named(PACKAGED, max_tokens), Path(home))
        texts = embeddings.missing_texts(db, encoder_id(encoder), 0)
        embeddings.add(db, embeddings.embed(texts, encoder, 2048, "cpu", "fp32"))
        samples = db.sql("from training_samples order by sample_id").df()
        return samples, embeddings.sample_features(db, samples)
