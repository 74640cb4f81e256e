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
    by_position=st.sampled_from([0.0, 0.5]),
    usual_position=st.floats(1, 5),
    by_propensity=st.sampled_from([0.0, 1.0]),
    usual_propensity=st.floats(0.1, 0.5),
    promoted_act=st.sampled_from([1.0, 0.25, 1.5]),
)


@pytest.fixture(scope="module")
def db():
    with store() as connection:
        know_circumstances(connection)
        yield connection


def know_circumstances(db):
    """Some acts know their rank and chance; of the days from the fifth on it is known that i1 and i2 were promoted on some."""
    schema.PROMOTIONS.create(db)
    db.execute("""update cleaned_interactions set position = 1 + hash(event_id) % 9, propensity = 0.1 + hash(event_id) % 5 / 10
        where hash(event_id) % 3 > 0""")
    db.execute("""insert into promotions values
        ('i1', 'display', '2024-01-05', '2024-01-11', .5), ('i1', 'mailer', '2024-01-08', '2024-01-20', .8),
        ('i2', 'mailer', '2024-01-15', '2024-01-22', 1)""")


@given(weighting=weightings)
@settings(max_examples=25, deadline=None)
def test_weights_of_a_days_acts_add_up_to_what_histories_are_read_with(db, weighting):
    acts = read_interactions(db, 100, circumstances=True)
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


def test_what_is_known_of_promotions_is_a_share_of_a_day_and_else_nothing(db):
    acts = read_interactions(db, 100, circumstances=True)
    share = {
        (str(acts.item_ids[i]), int(d)): s
        for i, d, s in zip(acts.item, acts.day, acts.circumstances.promotion, strict=True)
    }
    first = day_number(FIRST)
    told = {(item, day - first + 1): float(s) for (item, day), s in share.items()}
    of_one = {day: s for (item, day), s in told.items() if item == "i1"}
    assert {of_one[day] for day in range(8, 20) if day in of_one} == {np.float32(0.8)}
    assert {of_one[day] for day in range(5, 8) if day in of_one} == {0.5}
    assert {s for (item, day), s in told.items() if item == "i3" and 5 <= day <= 22} == {0.0}
    outside = [s for (_, day), s in told.items() if day < 5 or day > 22]
    assert len(outside) > 10
    assert np.isnan(outside).all()
    assert read_interactions(db, 100).circumstances is None


def test_a_factor_is_absent_where_nothing_is_known_and_the_act_weighs_as_without_it(db):
    build_interaction_weights(db, Weighting(by_position=1.0, promoted_act=0.0), DAY, None)
    rows = db.execute("""select position is null, position_factor is null, promotion_factor is null,
        day between '2024-01-05' and '2024-01-22', interaction_value = coalesce(position_factor, 1) * coalesce(promotion_factor, 1)
        from interaction_weights join cleaned_interactions as e using (event_id)
        qualify count(*) over (partition by user_id, item_id, day) = 1""").fetchall()
    assert len(rows) > 100
    assert {row[0] == row[1] and row[2] != row[3] and row[4] for row in rows} == {True}
    build_interaction_weights(db, UNWEIGHTED, DAY, None)
    assert db.execute(
        "select distinct position_factor, propensity_factor, promotion_factor from interaction_weights"
    ).fetchall() == [(1, 1, 1)]
