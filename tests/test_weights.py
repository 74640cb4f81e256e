import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.weights import KINDS, WeightMap, ess_share

finite = st.floats(-1e6, 1e6, allow_nan=False)
kinds = st.sampled_from(KINDS)


@st.composite
def weightings(draw):
    kind = draw(kinds)
    strength = draw(st.floats(0, 0.95 if kind == "drop" else 5))
    return WeightMap(kind, strength, draw(st.floats(0.01, 1)), draw(st.sampled_from(["all", "label", "group"])))


@given(st.lists(finite, min_size=1, max_size=40), weightings(), st.randoms(use_true_random=False))
def test_weights_are_not_negative_and_have_mean_1(values, weight_map, random):
    value = np.array([*values, 1.0])
    label, group = (np.array([random.randrange(3) for _ in value]) for _ in range(2))
    weight = weight_map.weights(value, label, group)
    assert weight.min() >= 0
    assert weight.mean() == pytest.approx(1)
    assert 0 < ess_share(weight) <= 1 + 1e-12


@given(st.lists(finite, min_size=2, max_size=30), weightings())
def test_a_higher_value_never_has_a_lower_weight_within_its_part(values, weight_map):
    value = np.array([*values, 1.0])
    same = np.zeros(len(value), np.int64)
    weight = weight_map.weights(value, same, same)
    assert (np.diff(weight[np.lexsort((weight, value))]) >= -1e-12).all()


@given(st.lists(finite, min_size=2, max_size=30), kinds, st.sampled_from(["all", "label", "group"]))
def test_strength_0_makes_all_weights_equal(values, kind, within):
    value = np.abs(values) + 1.0
    label = np.arange(len(value)) % 2
    weight = WeightMap(kind, 0.0, 1.0, within).weights(value, label, label)
    np.testing.assert_allclose(weight, 1.0)


@given(st.lists(finite, min_size=4, max_size=30), st.sampled_from(["temperature", "rank", "drop"]))
def test_weights_do_not_depend_on_the_unit_of_the_values(values, kind):
    value, label = np.array(values), np.arange(len(values)) % 2
    weight_map = WeightMap(kind, 0.5, 1.0, "label")
    np.testing.assert_allclose(weight_map.weights(value, label), weight_map.weights(value * 4, label), rtol=1e-6)


def test_each_group_has_mean_1_of_its_own():
    weight = WeightMap("rank", 1.0, 1.0, "group").weights(np.arange(6.0), np.ones(6), np.array([0, 0, 0, 1, 1, 1]))
    assert weight.tolist() == [0.5, 1.0, 1.5, 0.5, 1.0, 1.5]


def test_the_tenth_that_is_worth_least_is_dropped():
    weight = WeightMap("drop", 0.1, 1.0, "all").weights(np.r_[np.arange(1.0, 10.0), -5.0], np.ones(10))
    np.testing.assert_allclose(weight, [10 / 9] * 9 + [0])


def test_equal_values_have_equal_ranks():
    weight = WeightMap("rank", 1.0, 1.0, "all").weights(np.array([2.0, 1.0, 2.0]), np.ones(3))
    np.testing.assert_allclose(weight, [1.25, 0.5, 1.25])


def test_no_value_above_0_is_an_error_that_says_what_to_do():
    with pytest.raises(
        SampleError, match=r"2 of 2 values are not above 0; the first is -1\.0.*choose another estimator"
    ):
        WeightMap("power", 1, 1, "label").weights(np.array([-1.0, 0.0]), np.array([0.0, 1.0]))


def test_weights_within_the_group_need_groups():
    with pytest.raises(SampleError, match=r"group: 1 thing .* not known of these 2 samples"):
        WeightMap("power", 1.0, 1.0, "group").weights(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
