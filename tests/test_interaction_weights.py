import numpy as np
import pytest
from acts_store import FIRST, store
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline import schema
from ecom_pipeline.recommend.interaction_weights import build_interaction_weights, opinions_of
from ecom_pipeline.recommend.interactions import day_number, read_interactions
from ecom_pipeline.recommend.retrieval import UNKNOWN, Index
from ecom_pipeline.recommend.weighting import AGE_FORMS, UNWEIGHTED, Weighting
from ecom_pipeline.samples import TAKEN

DAY = day_number(FIRST) + 30
weightings = st.builds(
    Weighting,
    age_form=st.sampled_from(AGE_FORMS),
    half_life=st.floats(2, 100),
    light_act=st.floats(0, 1),
    quantity=st.floats(0, 1),
    returned=st.sampled_from([0.0, 0.5, 1.0]),
    evidence=st.sampled_from(["none", "behaviour"]),
    evidence_strength=st.floats(0.1, 2),
)


@pytest.fixture(scope="module")
def db():
    with store() as connection:
        yield connection


@given(weighting=weightings)
@settings(max_examples=25, deadline=None)
def test_weights_of_a_days_acts_add_up_to_what_histories_are_read_with(db, weighting):
    acts = read_interactions(db, 100)
    index = Index.fit(acts, DAY, weighting=weighting)
    build_interaction_weights(db, weighting, DAY, opinions_of(acts, index))
    told = db.execute(
        """select sum(interaction_value) from cleaned_interactions join interaction_weights using (event_id)
        where day < ?::date group by user_id, item_id, day order by user_id, item_id, day""",
        [FIRST.replace(month=2)],
    ).fetchnumpy()
    known = acts.before(DAY)
    expected = index.weights(known, np.full(len(known), DAY))
    np.testing.assert_allclose(next(iter(told.values())), expected, rtol=1e-4, atol=1e-6)


def test_every_act_that_was_kept_has_one_weight_and_the_mean_is_1(db):
    build_interaction_weights(db, Weighting("hyperbolic", 10.0, light_act=0.3, quantity=0.5, returned=0.0), DAY, None)
    assert [str(v) for v in schema.violations(db, schema.INTERACTION_WEIGHTS) if v.n_rows] == []
    (n_acts,) = db.execute(f"select count(*) from cleaned_interactions where {TAKEN} and day < '2024-01-31'").fetchone()
    n, mean = db.execute("select count(*), avg(interaction_weight) from interaction_weights").fetchone()
    assert n == n_acts > 300
    assert mean == pytest.approx(1)


def test_without_a_weighting_every_act_counts_one(db):
    counts = build_interaction_weights(db, UNWEIGHTED, DAY, None)
    assert db.execute(
        "select min(interaction_weight), max(interaction_weight) from interaction_weights"
    ).fetchone() == (1, 1)
    assert counts["effective_share"] == pytest.approx(1)


def test_what_went_back_weighs_less_once_it_is_known(db):
    weighting = Weighting(returned=0.25)
    build_interaction_weights(db, weighting, DAY, None)
    query = """select return_factor from interaction_weights
        where event_id in (select return_of from cleaned_interactions where action = 'return')"""
    found = [factor for (factor,) in db.execute(query).fetchall()]
    assert found.count(0.25) > 10  # the rest was taken twice that day, and one was kept
    build_interaction_weights(db, weighting, day_number(FIRST) + 2, None)
    assert {factor for (factor,) in db.execute(query).fetchall()} <= {1.0}


def test_a_pair_of_which_nothing_is_known_has_the_mean_opinion(db):
    weighting = Weighting(evidence="behaviour", evidence_strength=1.0)
    few = read_interactions(db, 3)  # the other items are not ranked
    index = Index.fit(few, DAY, weighting=weighting)
    build_interaction_weights(db, weighting, DAY, opinions_of(few, index))
    rows = db.execute(
        """select item_id, evidence_factor from interaction_weights join cleaned_interactions using (event_id)"""
    ).fetchall()
    ranked = set(few.item_ids.tolist())
    assert {factor for item, factor in rows if item not in ranked} == {UNKNOWN}
    assert len({factor for item, factor in rows if item in ranked}) > 5
