import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.examination import AllPairs, ClickCounts, PositionBasedModel

RETROTECH = Path(__file__).parents[2] / "shared/data/retrotech/sessions.parquet"
BOTH = [AllPairs, PositionBasedModel]
# query, pair, position, shown, clicked
SMALL = [
    (0, 0, 1, 40, 20),
    (0, 0, 2, 60, 15),
    (0, 1, 1, 50, 10),
    (0, 1, 3, 30, 2),
    (1, 2, 2, 80, 24),
    (1, 2, 3, 20, 4),
    (1, 3, 1, 25, 5),
    (1, 3, 2, 25, 4),
    (1, 3, 3, 50, 3),
]


def counts(rows) -> ClickCounts:
    query, pair, position, shown, clicked = np.array(rows, float).T
    whole = [values.astype(np.int64) for values in (query, pair, position)]
    return ClickCounts(*whole, shown, clicked)


def simulated(curve, n_pairs, n_shown, seed) -> ClickCounts:
    """Each pair at two positions of its own, a few times each, with attractions of its own."""
    generator = np.random.default_rng(seed)
    place = np.array([generator.choice(len(curve), 2, replace=False) for _ in range(n_pairs)])
    attraction = generator.uniform(0.02, 0.5, n_pairs)
    pair = np.repeat(np.arange(n_pairs), 2)
    clicked = generator.binomial(n_shown, np.asarray(curve)[place.ravel()] * attraction[pair])
    query = pair // 5
    return ClickCounts(query, pair, place.ravel() + 1, np.full(len(pair), float(n_shown)), clicked.astype(float))


def test_all_pairs_gives_what_the_published_tool_gives():
    """ultr-bias-toolkit 0.0.5, AllPairsEstimator(epochs=20000), run on the impressions of SMALL."""
    found = AllPairs(smoothing=1e-9, n_bootstrap=0).fit(counts(SMALL)).examination
    np.testing.assert_allclose(found, [1.0, 0.581390917301178, 0.32437431812286377], atol=1e-6)


def test_the_position_based_model_is_where_expectation_maximisation_ends():
    """The update of Wang et al. 2018, to the letter, many thousand times."""
    _, pair, position, shown, clicked = np.array(SMALL, float).T
    pair, place = pair.astype(int), position.astype(int) - 1
    examined, attractive = np.full(3, 0.9), np.full(4, 0.5)
    for _ in range(20_000):
        p, r = examined[place], attractive[pair]
        skipped = shown - clicked
        looked = clicked + skipped * p * (1 - r) / (1 - p * r)
        liked = clicked + skipped * r * (1 - p) / (1 - p * r)
        examined = np.bincount(place, looked) / np.bincount(place, shown)
        attractive = np.bincount(pair, liked) / np.bincount(pair, shown)
    found = PositionBasedModel(smoothing=1e-9, n_bootstrap=0).fit(counts(SMALL)).examination
    np.testing.assert_allclose(found, examined / examined[0], atol=1e-5)


@given(
    st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5),
    st.lists(st.floats(0.05, 0.95), min_size=1, max_size=6),
    st.sampled_from(BOTH),
)
def test_clicks_in_exact_proportion_give_the_curve_back(later, attraction, kind):
    curve = np.array([1.0, *later])
    pair, place = (grid.ravel() for grid in np.meshgrid(np.arange(len(attraction)), np.arange(len(curve))))
    shown = np.full(len(pair), 1000.0)
    exact = ClickCounts(pair, pair, place + 1, shown, shown * curve[place] * np.array(attraction)[pair])
    found = kind(smoothing=1e-9, n_bootstrap=0).fit(exact).examination
    np.testing.assert_allclose(found, curve, rtol=1e-4)


@pytest.mark.parametrize("kind", BOTH)
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(len(SMALL))))
def test_the_order_of_the_counts_is_no_matter(kind, order):
    found = kind(n_bootstrap=0).fit(counts([SMALL[i] for i in order])).examination
    np.testing.assert_allclose(found, kind(n_bootstrap=0).fit(counts(SMALL)).examination, rtol=1e-6)


@pytest.mark.parametrize("kind", BOTH)
def test_a_known_curve_is_within_three_standard_errors(kind):
    curve = 1 / np.arange(1, 7)
    found = kind(n_bootstrap=50).fit(simulated(curve, 600, 200, 0))
    assert (np.abs(found.examination - curve)[1:] < 3 * found.stderr[1:]).all()
    assert found.stderr[1:].max() < 0.05


def test_harvesting_holds_where_each_pair_is_shown_once_at_a_position():
    """So many attractions from so few impressions bias the position-based model; harvesting needs none of them."""
    curve = 1 / np.arange(1, 5)
    sparse = simulated(curve, 40_000, 1, 1)
    harvested, tabled = (kind(n_bootstrap=0).fit(sparse).examination for kind in BOTH)
    assert np.abs(harvested - curve).max() < 0.03
    assert np.abs(tabled - curve).max() > 2 * np.abs(harvested - curve).max()


def test_a_position_that_no_pair_links_to_the_first_is_told_apart():
    rows = [(0, 0, 1, 50, 20), (0, 0, 2, 50, 10), (0, 1, 3, 50, 9), (0, 1, 4, 50, 6)]
    found = AllPairs().fit(counts(rows))
    assert found.linked.tolist() == [True, True, False, False]
    assert np.isfinite(found.examination).all()
    assert found.stderr is None  # one query alone cannot be drawn anew


def test_a_position_without_a_click_keeps_an_examination_above_0():
    rows = [(0, 0, 1, 50, 20), (0, 0, 2, 50, 0), (1, 1, 1, 20, 20), (1, 1, 3, 5, 5)]
    for kind in BOTH:
        found = kind().fit(counts(rows)).examination
        assert (found > 0).all()
        assert np.isfinite(found).all()


def test_items_that_never_move_are_an_error_that_says_what_to_bring():
    with pytest.raises(SampleError, match=r"0 of 2 pairs .* shown at position 1\. .*ranking changed"):
        PositionBasedModel().fit(counts([(0, 0, 1, 9, 3), (0, 1, 2, 9, 1)]))


def test_one_position_alone_is_examined_as_itself():
    assert AllPairs().fit(counts([(0, 0, 1, 9, 3)])).examination.tolist() == [1.0]


def test_positions_are_counted_from_1():
    with pytest.raises(SampleError, match=r"1 of 2 impressions are above the first position; first: 0.*add 1"):
        ClickCounts.of(["a", "a"], [1, 2], [0, 1], [True, False])


def test_a_position_off_the_curve_has_no_examination():
    curve = AllPairs(n_bootstrap=0).fit(counts(SMALL))
    assert curve.at(np.array([1, 1])).tolist() == [1.0, 1.0]
    with pytest.raises(SampleError, match=r"1 of 2 are not on the curve; first: 4\. They must be in 1\.\.3"):
        curve.at(np.array([1, 4]))


def test_impressions_are_counted_by_pair_and_position():
    found = ClickCounts.of(["x", "x", "y", "x"], ["a", "a", "a", "b"], [2, 2, 2, 1], [1, 0, 1, 0])
    cells = sorted(zip(found.query, found.position, found.n_shown, found.n_clicked, strict=True))
    assert cells == [(0, 1, 1, 0), (0, 2, 2, 1), (1, 2, 1, 1)]
    assert len(set(found.pair)) == 3


@pytest.mark.skipif(not RETROTECH.exists(), reason="the RetroTech log is not there")
def test_both_fits_agree_on_the_retrotech_log_within_seconds():
    log = pd.read_parquet(RETROTECH)
    started = time.process_time()
    found = ClickCounts.of(log["query"], log.doc_id, log["rank"] + 1, log.clicked)
    harvested, tabled = (kind(n_bootstrap=20).fit(found) for kind in BOTH)
    assert time.process_time() - started < 20
    assert found.n_shown.sum() == 1_775_000
    assert harvested.linked.all()
    np.testing.assert_allclose(harvested.examination, tabled.examination, atol=0.03)
