import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ecom_pipeline.importance.asking import worth_of_asking, wrong_in_query


def drawn(n_groups: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that tell nothing, and queries whose items are all relevant or all not."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), size)
    x = np.hstack([draw.normal(size=(len(group), 4)), np.ones((len(group), 1))]).astype(np.float32)
    return x, (group % 2).astype(float), group


def test_a_label_that_differs_from_all_others_of_its_query_is_the_most_likely_wrong():
    x, label, group = drawn(20, 10, seed=0)
    wrong = [3, 77, 125]
    label[wrong] = 1 - label[wrong]
    chance = wrong_in_query(x, label, group, "cpu")
    assert set(np.argsort(-chance)[:3]) == set(wrong)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_few_samples_and_samples_of_one_label_have_a_chance_too(n, label):
    chance = wrong_in_query(np.ones((n, 3), np.float32), np.full(n, label), np.arange(n), "cpu")
    assert ((chance >= 0) & (chance <= (1 if n == 1 else 0.5))).all()  # of one sample nothing is known


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_order_of_samples_and_what_groups_are_called_do_not_matter(seed):
    x, label, group = drawn(8, 6, seed)
    draw = np.random.default_rng(seed)
    label = np.where(draw.random(len(label)) < 0.1, 1 - label, label)
    rows = draw.permutation(len(label))
    again = wrong_in_query(x[rows], label[rows], 7 - group[rows], "cpu")
    assert_allclose(again, wrong_in_query(x, label, group, "cpu")[rows], atol=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_worth_is_a_chance_and_no_larger_than_either(pairs):
    wrong, in_query = np.array(pairs).T
    worth = worth_of_asking(wrong, in_query)
    assert ((worth >= 0) & (worth <= np.minimum(wrong, in_query))).all()
