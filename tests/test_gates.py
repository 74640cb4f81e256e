"""All gates of an asset are one step, in which each is told by itself."""

import dagster as dg
import pytest

from assets.checks import CHECKS
from ecom_pipeline import schema
from resources.warehouse import Warehouse

GATES = {next(iter(step.check_specs)).asset_key.to_user_string(): step for step in CHECKS}


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse(path=str(tmp_path / "w.duckdb"))
    with made.connect() as db:
        schema.TRAINING_SAMPLES.create(db)
        db.execute(f"insert into training_samples select {', '.join(['null'] * len(schema.TRAINING_SAMPLES.columns))}")
    return made


def names(asset):
    return [spec.name for spec in GATES[asset].check_specs]


def asked(warehouse, asset, **more):
    @dg.asset(name=asset)
    def above():
        pass

    @dg.asset(deps=[above])
    def below():
        pass

    steps = [above, below, GATES[asset]]
    result = dg.materialize(steps, resources={"warehouse": warehouse}, raise_on_error=False, **more)
    made = [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()]
    return made, {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


def test_one_gate_that_is_shut_hides_no_other_and_nothing_below_is_made(warehouse):
    shut, *others = names("training_samples")
    made, told = asked(warehouse, "training_samples")
    assert made == ["training_samples"]
    assert told == {shut: False, **dict.fromkeys(others, True)}


def test_where_all_are_open_what_lies_below_is_made(warehouse):
    with warehouse.connect() as db:
        db.execute("delete from training_samples")
        schema.SAMPLE_ATTRIBUTES.create(db)
    made, told = asked(warehouse, "sample_attributes")
    assert made == ["sample_attributes", "below"]
    assert told == dict.fromkeys(names("sample_attributes"), True)


def test_a_gate_can_be_asked_alone(warehouse):
    _, name, *_ = names("training_samples")
    (key,) = (key for key in GATES["training_samples"].check_keys if key.name == name)
    assert asked(warehouse, "training_samples", selection=dg.AssetSelection.checks(key)) == ([], {name: True})


def test_what_was_told_stays_told_where_the_next_gate_cannot_be_asked(warehouse):
    with warehouse.connect() as db:
        db.execute("drop table training_samples")
        schema.SAMPLE_ATTRIBUTES.create(db)
    first, _ = names("sample_attributes")
    assert asked(warehouse, "sample_attributes") == (["sample_attributes"], {first: True})
