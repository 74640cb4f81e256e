import json

import duckdb
import pytest

from ecom_pipeline import ledger
from ecom_pipeline.errors import InputError
from ecom_pipeline.export import weights_in_use, weights_of, weights_told


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
