import json

import duckdb
import numpy as np
import pandas as pd
import pytest

from ecom_pipeline import export, ledger, schema
from ecom_pipeline.errors import InputError
from ecom_pipeline.export import weights_in_use, weights_of, weights_told
from ecom_pipeline.schema.samples import EMBEDDINGS, IMPORTANCE_WEIGHTS, SAMPLE_ATTRIBUTES, TRAINING_SAMPLES


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("create table weighting_trials as select 'none' as estimator, true as chosen")
        connection.execute(
            "create table importance_weights as select * from (values ('automatic', 's', 1.0), ('aum', 's', 1.0)) "
            "as t(estimator, sample_id, sample_weight)"
        )
        yield connection


def model_trained_with(db, models, estimator):
    (models / "m").mkdir(parents=True)
    (models / "m" / "manifest.json").write_text(json.dumps({"inputs": {"estimator": estimator}}))
    ledger.record(db, "fine_tuned_model", ledger.Entry("m", "m", 2))


def test_the_weights_in_use_are_those_that_the_model_was_trained_with(db, tmp_path):
    model_trained_with(db, tmp_path, "aum")
    assert weights_in_use(db, tmp_path) == "aum"
    assert weights_told(db, "aum") == "of aum"


def test_without_a_model_the_weights_are_those_of_the_automatic_choice(db, tmp_path):
    assert weights_in_use(db, tmp_path) == "automatic"


def test_a_choice_of_none_is_said_to_be_one(db):
    assert weights_told(db, "automatic").startswith("that are all 1, as the automatic choice is none")


def test_what_was_chosen_is_named(db):
    db.execute("update weighting_trials set estimator = 'group_kernel'")
    assert weights_told(db, "automatic") == "of the automatic choice, group_kernel"


def test_an_estimator_without_weights_is_refused_by_name(db):
    with pytest.raises(InputError, match=r"1 name is unknown: 'magic'. It must be one of aum, automatic: choose one"):
        weights_of(db, "magic")


@pytest.fixture
def pairs(db):
    """Two queries a split, whose pairs are stored in a muddle; texts with embeddings, and how popular an item is."""
    db.execute("drop table importance_weights")
    for relation in (TRAINING_SAMPLES, EMBEDDINGS, SAMPLE_ATTRIBUTES, IMPORTANCE_WEIGHTS):
        relation.create(db)
    splits = np.repeat(schema.SPLITS, 6)
    made = pd.DataFrame(
        {
            "sample_id": [f"s{place * 7 % 18:02}" for place in range(18)],
            "split": splits,
            "group_id": [f"{split}-{place % 2}" for place, split in enumerate(splits)],
            "fold": np.arange(18) % 2,
            "context_text": "red mug",
            "item_id": [f"i{place}" for place in range(18)],
            "title": [f"mug {place}" for place in range(18)],
            "item_text": [f"mug {place}" for place in range(18)],
            "origin": "judgment",
            "label": np.arange(18) % 3 == 0,
            "relevance": np.arange(18) % 4,
        }
    ).sample(frac=1, random_state=0)
    db.execute("insert into training_samples by name from made")
    db.execute("insert into sample_attributes by name select sample_id, -item_id[2:]::double as popularity from made")
    db.execute(
        "insert into embeddings by name select md5(t) as text_hash, 'e' as encoder_id, [length(t), 1]::float[] as embedding "
        "from (select context_text as t from made union select item_text from made)"
    )
    db.execute(
        "insert into importance_weights select 'aum', sample_id, length(title) / 5 from made where split = 'train'"
    )
    return made.set_index("sample_id")


def test_pairs_of_all_splits_go_out_with_what_is_known_of_each(db, pairs):
    found = weights_of(db, "aum")
    told = pairs.loc[found.sample_id]
    for column in ("split", "group_id", "fold", "item_id", "label", "relevance"):
        assert found[column].tolist() == told[column].tolist()
    assert found.feature_popularity.tolist() == (-told.item_id.str[1:].astype(float)).tolist()
    assert found.feature_context_words_in_title.eq(0.5).all()
    assert found.sample_weight.notna().tolist() == (found.split == "train").tolist()


def test_rows_of_a_group_are_neighbours_however_they_are_stored(db, pairs):
    found = weights_of(db, "aum")
    assert found.group_id.drop_duplicates().tolist() == [f"{split}-{n}" for split in schema.SPLITS for n in (0, 1)]
    assert (found.group_id != found.group_id.shift()).sum() == 6


def test_features_do_not_depend_on_how_many_pairs_are_looked_at_together(db, pairs, monkeypatch):
    whole = weights_of(db, "aum")
    monkeypatch.setattr(export, "_BLOCK", 5)
    pd.testing.assert_frame_equal(weights_of(db, "aum"), whole)
