from dataclasses import replace

import numpy as np
import pytest
from crowd import interactions
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.recommend.circumstances import Circumstances
from ecom_pipeline.recommend.weighting import AGE_FORMS, MOST, UNWEIGHTED, Weighting

ACTS = interactions([(0, 0, 0), (0, 1, 10)], 1, 2)


def test_in_the_unweighted_twin_every_act_counts_one():
    assert UNWEIGHTED.plain
    assert UNWEIGHTED.as_of(ACTS, 20).tolist() == [1, 1]


def test_half_a_weight_is_left_after_a_half_life():
    assert Weighting("exponential", half_life=10).as_of(ACTS, 20).tolist() == [0.25, 0.5]
    assert Weighting("hyperbolic", half_life=10).as_of(ACTS, 20).tolist() == pytest.approx([1 / 3, 1 / 2])


@given(form=st.sampled_from(AGE_FORMS), half_life=st.floats(0.5, 1000), age=st.integers(0, 3000))
def test_weights_do_not_rise_with_age(form, half_life, age):
    weight = Weighting(form, half_life=half_life).by_age(np.array([0, age, age + 1]))
    assert weight[0] == 1
    assert weight[1] >= weight[2] >= 0


def test_a_return_counts_once_it_is_known():
    acts = ACTS.only(np.array([True, True]))
    acts.returned[0] = 15
    weighting = Weighting(returned=0.0)
    assert weighting.as_of(acts, 15).tolist() == [1, 1]
    assert weighting.as_of(acts, 16).tolist() == [0, 1]


def test_weights_say_what_makes_them_differ():
    assert Weighting("exponential", light_act=0.5).reasons == ("age", "kind")
    assert UNWEIGHTED.reasons == ("none",)


known = st.floats(0.001, 1) | st.just(np.nan)
manners = st.lists(st.tuples(st.integers(1, 500) | st.just(np.nan), known, known), min_size=1, max_size=20).map(
    lambda rows: Circumstances(*np.array(rows, np.float32).T)
)
powers = st.floats(0, 1)


@given(how=manners, power=powers, usual=st.floats(1, 50), chance=st.floats(0.01, 1), act=st.floats(0, 2))
def test_how_an_act_came_about_weighs_within_bounds_and_1_where_it_is_not_known(how, power, usual, chance, act):
    by_position = Weighting(by_position=power, usual_position=usual).by_circumstances(how)
    by_chance = Weighting(by_propensity=power, usual_propensity=chance).by_circumstances(how)
    promoted = Weighting(promoted_act=act).by_circumstances(how)
    for factor, value in ((by_position, how.position), (by_chance, how.propensity), (promoted, how.promotion)):
        assert (factor[np.isnan(value)] == 1).all()
        assert np.isfinite(factor).all()
    for factor in (by_position, by_chance):
        assert ((factor >= np.float32(1 / MOST)) & (factor <= MOST)).all()
    assert ((promoted >= min(1, act) - 1e-6) & (promoted <= max(1, act) + 1e-6)).all()
    together = Weighting(
        by_position=power, usual_position=usual, by_propensity=power, usual_propensity=chance, promoted_act=act
    )
    np.testing.assert_allclose(together.by_circumstances(how), by_position * by_chance * promoted, rtol=1e-5)


@given(first=st.integers(1, 100), further=st.integers(1, 100), power=st.floats(0.1, 1))
def test_what_was_shown_further_down_or_less_often_and_taken_weighs_no_less(first, further, power):
    nothing = np.full(2, np.nan)
    lower = Circumstances(np.array([first, first + further]), nothing, nothing)
    rarer = Circumstances(nothing, 1 / np.array([first, first + further]), nothing)
    for how in (lower, rarer):
        weight = Weighting(
            by_position=power, usual_position=10, by_propensity=power, usual_propensity=0.1
        ).by_circumstances(how)
        assert weight[0] <= weight[1]


def test_rows_are_weighed_by_how_they_came_about_only_where_that_was_read():
    how = Circumstances(np.array([2.0, 8.0]), np.array([0.1, np.nan]), np.array([1.0, 0.0]))
    read = replace(ACTS, circumstances=how)
    assert Weighting(by_position=1.0, usual_position=4.0).as_of(read, 20).tolist() == [0.5, 2]
    assert Weighting(promoted_act=0.25).as_of(read, 20).tolist() == [0.25, 1]
    assert Weighting(promoted_act=0.25).as_of(ACTS, 20).tolist() == [1, 1]
    assert Weighting(promoted_act=0.25).as_of(read.only(np.array([1])), 20).tolist() == [1]
    assert Weighting(by_position=0.5, promoted_act=0.5).reasons == ("position", "promotion")
    assert Weighting(by_propensity=0.5).asks_circumstances
    assert not Weighting("exponential", 3.0, quantity=1.0).asks_circumstances
