import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ttest_1samp

from ecom_pipeline.ranking.intervals import crossed_interval, discoveries, draws_of


def drawn(figure, seed=0):
    """(seeds, 1 + draws) means of (seeds, groups) figures."""
    n = figure.shape[1]
    return figure @ draws_of(np.arange(n), seed).T / n


def test_one_seed_is_students_t_over_groups():
    figure = np.random.default_rng(1).normal(0.2, 1, 60)
    found = crossed_interval(drawn(figure[None]), 60)
    exact = ttest_1samp(figure, 0)
    low, high = exact.confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found.p_value == pytest.approx(exact.pvalue, abs=0.02)


def test_seeds_alone_are_students_t_over_seeds():
    """Where all groups are alike, all that is drawn are seeds."""
    of_seed = np.random.default_rng(2).normal(0.2, 1, 5)
    found = crossed_interval(drawn(np.repeat(of_seed[:, None], 40, 1)), 40)
    exact = ttest_1samp(of_seed, 0)
    assert (found.low, found.high) == pytest.approx(tuple(exact.confidence_interval()))
    assert found.p_value == pytest.approx(exact.pvalue)


@pytest.mark.parametrize(("n_seeds", "n_groups", "share"), [(3, 30, 1.0), (5, 160, 0.3), (10, 30, 3.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(n_seeds, n_groups, share):
    draw, hit, runs = np.random.default_rng(3), 0, 400
    for _ in range(runs):
        of_seed = draw.normal(size=(n_seeds, 1)) * share / np.sqrt(n_groups)
        figure = draw.normal(size=n_groups) + of_seed + 0.5 * draw.normal(size=(n_seeds, n_groups))
        times = draw.multinomial(n_groups, np.full(n_groups, 1 / n_groups), 300)
        found = crossed_interval(figure @ np.vstack([np.ones(n_groups), times]).T / n_groups, n_groups)
        hit += found.low <= 0 <= found.high
    assert 0.92 <= hit / runs <= 0.98  # three standard errors around 95 %


def test_of_one_group_nothing_is_known():
    found = crossed_interval(np.full((1, 2001), 0.3), 1)
    assert (found.value, found.low, found.high, found.p_value) == (0.3, -np.inf, np.inf, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_discoveries_are_those_of_scipys_adjusted_p_values(p_values):
    p_values = np.array(p_values)
    adjusted = false_discovery_control(p_values)
    clear = np.abs(adjusted - 0.05) > 1e-12
    np.testing.assert_array_equal(discoveries(p_values)[clear], (adjusted <= 0.05)[clear])


def test_of_gains_that_are_all_luck_hardly_any_is_believed():
    draw = np.random.default_rng(4)
    believed = [discoveries(draw.random(30)).any() for _ in range(1000)]
    assert np.mean(believed) <= 0.07
