from hashlib import md5

import duckdb
import joblib
import numpy as np
import pandas as pd
import pytest

from ecom_pipeline import schema
from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.language import embeddings
from ecom_pipeline.language.adapted import Named, as_named
from ecom_pipeline.language.embeddings import Embedded, add, embed, sample_features
from ecom_pipeline.language.encoder import PACKAGED

TEXTS = ["red mug", "lamp", "mug, red", "never asked for"]
SAMPLES = pd.DataFrame(
    {
        "sample_id": ["1", "2", "3"],
        "context_text": ["red mug", "lamp", "red mug"],
        "title": ["mug", "mug", "lamp"],
        "item_text": ["mug, red", "mug, red", "lamp"],
    }
)


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        schema.EMBEDDINGS.create(connection)
        schema.SAMPLE_ATTRIBUTES.create(connection)
        vectors = np.eye(4, dtype=np.float32)
        add(connection, Embedded("reader", TEXTS, vectors, {}))
        yield connection


def test_each_text_of_a_sample_meets_its_own_embedding(db):
    meeting = sample_features(db, SAMPLES).meeting
    pairs = [(TEXTS.index(row.context_text), TEXTS.index(row.item_text)) for row in SAMPLES.itertuples()]
    expected = [np.hstack([np.eye(4)[a] * np.eye(4)[b], np.abs(np.eye(4)[a] - np.eye(4)[b])]) for a, b in pairs]
    np.testing.assert_array_equal(meeting, expected)


def test_embeddings_of_other_texts_are_not_read(db):
    hashed = md5(TEXTS[3].encode()).hexdigest()
    db.execute(
        "update embeddings set embedding = [1, 2] where text_hash = ?", [hashed]
    )  # cannot be stacked with others
    assert sample_features(db, SAMPLES).meeting.shape == (3, 8)


def test_a_text_without_an_embedding_is_named(db):
    lost = pd.concat([SAMPLES, SAMPLES.assign(item_text="no such text")])
    with pytest.raises(WarehouseError, match="1 of 4 texts have no row; first: 'no such text'"):
        sample_features(db, lost)


def test_no_sample_is_no_row(db):
    assert sample_features(db, SAMPLES[:0]).match.shape[0] == 0


def test_side_by_side_texts_get_the_embeddings_that_they_get_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "_TEXTS_OF_A_PART", 5)
    texts = [f"{'red ' * (number % 7)}mug {number}" for number in range(31)]
    asked = (texts, as_named(Named(PACKAGED, 8), tmp_path), 2048, "cpu", "fp32")
    alone = embed(*asked)
    with joblib.parallel_config("threading", n_jobs=2):
        together = embed(*asked)
    np.testing.assert_allclose(together.embedding, alone.embedding, atol=1e-6)
    assert together.texts == alone.texts
    assert set(together.throughput) == set(alone.throughput)
