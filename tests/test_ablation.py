import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.language.embeddings import Items
from ecom_pipeline.language.features import MATCH_NAMES, PairFeatures
from ecom_pipeline.ranking.ablation import Part, Parts, ablate, score_steps, steps
from ecom_pipeline.ranking.cold import CUTS, cold_slices, look_at_cold, nearest_known
from ecom_pipeline.ranking.learning_curve import N_DRAWS, draw_groups, learning_curve


def some_part(n_groups: int, seed: int) -> Part:
    """Groups of ten; the label hangs on the meeting of the texts and on popularity, not on price."""
    draw = np.random.default_rng(seed)
    n = 10 * n_groups
    meeting = draw.normal(size=(n, 40)).astype(np.float32)
    match = np.column_stack([meeting[:, 0], draw.normal(size=(n, 6))]).astype(np.float32)
    chance = meeting[:, :20].sum(1) / 4 + 1.5 * match[:, 5] + draw.normal(size=n) / 2
    label = (chance > 1).astype(float)
    samples = pd.DataFrame({"group_id": [f"g{row // 10:04}" for row in range(n)], "label": label, "relevance": label})
    return Part(samples, PairFeatures(meeting, match, (*MATCH_NAMES, "popularity", "price")))


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts(some_part(120, 0), some_part(40, 1), some_part(100, 2))


def test_steps_add_one_mode_at_a_time_and_leave_out_what_is_not_known(parts):
    found = steps(parts.train.features.names)
    assert list(found) == ["linear: text", "linear: + words in common", "linear: + popularity", "linear: + price"]
    assert [len(columns) for columns in found.values()] == [1, 5, 6, 7]


def test_a_mode_that_tells_of_the_label_adds_and_one_that_does_not_adds_nothing(parts):
    table = ablate(parts, score_steps(parts, 30, "cpu"), 0)
    gain = table[table.metric == "ndcg_at_10"].set_index("model")
    assert gain.ci_low["linear: + popularity - linear: + words in common"] > 0.02
    row = gain.loc["linear: + price - linear: + popularity"]
    assert row.ci_low < 0.005
    assert row.ci_high > -0.005


def test_more_labels_rank_better_and_sizes_without_labels_are_left_out(parts):
    curve = learning_curve(parts, 30, "cpu", np.random.default_rng(0))
    assert curve.model.tolist() == ["linear: 50 labels", "linear: 500 labels", "linear: 1200 labels"]
    assert curve.value.is_monotonic_increasing
    assert curve.n_seeds.tolist() == [N_DRAWS, N_DRAWS, 1]
    assert ((curve.ci_low < curve.value) & (curve.value < curve.ci_high)).all()
    pd.testing.assert_frame_equal(curve, learning_curve(parts, 30, "cpu", np.random.default_rng(0)))


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20), asked=st.integers(1, 300), seed=st.integers(0, 99))
def test_labels_are_drawn_by_whole_groups_and_as_many_as_near_as_can_be(sizes, asked, seed):
    group = np.repeat(np.arange(len(sizes)), sizes)
    drawn = draw_groups(group, asked, np.random.default_rng(seed))
    for one in range(len(sizes)):
        assert len(set(drawn[group == one])) == 1
    assert drawn.sum() >= 1
    assert abs(drawn.sum() - min(asked, len(group))) <= max(sizes)


def unit(seed: int, n: int, d: int = 16) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_neighbours_are_those_of_the_whole_product_and_never_the_item_itself():
    known, item = unit(0, 50), np.vstack([unit(1, 1500), unit(0, 50)])  # the last items are the known ones
    own = np.r_[np.full(1500, -1), np.arange(50)]
    found = nearest_known(item, known, own, 5)
    like = item @ known.T
    like[np.arange(1500, 1550), np.arange(50)] = -2
    np.testing.assert_allclose(found.cosine, -np.sort(-like, 1)[:, :5], atol=1e-6)
    assert (found.place[1500:] != np.arange(50)[:, None]).all()


def test_what_is_borrowed_is_a_mean_of_what_the_like_items_have():
    known = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    found = nearest_known(np.array([[0.6, 0.8]], np.float32), known, np.array([-1]), 2)
    assert found.borrowed(np.array([7.0, 0.0, 99.0])) == pytest.approx([7 * 0.6 / 1.4])


def test_cold_items_fall_into_three_parts_of_one_size_and_known_ones_into_none():
    cold = np.arange(400) % 4 > 0
    slices = cold_slices(cold, np.random.default_rng(0).uniform(size=400).astype(np.float32))
    assert tuple(slices) == CUTS
    assert [mask.sum() for mask in slices.values()] == [100, 100, 100]
    np.testing.assert_array_equal(np.logical_or.reduce(list(slices.values())), cold)


def test_an_item_lends_its_popularity_to_the_new_items_like_it():
    axes = np.eye(4, dtype=np.float32)
    known = Items(np.array(["k1", "k2", "k3"]), axes[:3])
    test = Items(np.array(["a", "b", "k3"]), axes[:3])
    found = look_at_cold(["k3", "a", "b", "b"], test, known, {"k1": 1000, "k2": 5})
    assert found.borrowed[1:] == pytest.approx([np.log(1001), np.log(6), np.log(6)], abs=1e-4)
    assert sum(mask.sum() for mask in found.slices.values()) == 3
    assert not any(mask[0] for mask in found.slices.values())


def test_where_one_item_alone_is_known_none_is_like_another():
    one = Items(np.array(["k"]), unit(0, 1))
    assert look_at_cold(["k"], one, one, {}) is None
