import numpy as np
import pytest
from crowd import interactions
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.recommend.weighting import AGE_FORMS, UNWEIGHTED, Weighting

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
