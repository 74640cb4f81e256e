import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ecom_pipeline.importance.asking import worth_of_asking


def drawn(n_groups: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that tell nothing, and queries whose items are all relevant or all not."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), size)
    x = np.hstack([draw.normal(size=(len(group), 4)), np.ones((len(group), 1))]).astype(np.float32)
    return x, (group % 2).astype(float), group


def test_a_label_that_differs_from_all_others_of_its_query_is_worth_asking_about_first():
    x, label, group = drawn(20, 10, seed=0)
    wrong = [3, 77, 125]
    label[wrong] = 1 - label[wrong]
    worth = worth_of_asking(x, label, group, "cpu")
    assert set(np.argsort(-worth)[:3]) == set(wrong)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_few_samples_and_samples_of_one_label_have_a_chance_too(n, label):
    worth = worth_of_asking(np.ones((n, 3), np.float32), np.full(n, label), np.arange(n), "cpu")
    assert ((worth >= 0) & (worth <= (1 if n == 1 else 0.5))).all()  # of one sample nothing is known


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_order_of_samples_and_what_groups_are_called_do_not_matter(seed):
    x, label, group = drawn(8, 6, seed)
    draw = np.random.default_rng(seed)
    label = np.where(draw.random(len(label)) < 0.1, 1 - label, label)
    rows = draw.permutation(len(label))
    again = worth_of_asking(x[rows], label[rows], 7 - group[rows], "cpu")
    assert_allclose(again, worth_of_asking(x, label, group, "cpu")[rows], atol=1e-3)
