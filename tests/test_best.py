import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.recommend.best import best_columns, top_items

SEEDS = st.integers(0, 2**32 - 1)


def table(kind, draw, shape):
    """Scores as they come: all different, a few grades, mostly nothing, and mostly not to be shown."""
    if kind == "grades":
        return draw.integers(0, 5, shape).astype(np.float32)
    absent = {"all": 0.0, "zeros": 0.0, "hidden": -np.inf}[kind]
    return np.where(draw.random(shape) < (1.0 if kind == "all" else 0.02), draw.random(shape), absent).astype(
        np.float32
    )


@given(SEEDS, st.sampled_from(["all", "grades", "zeros", "hidden"]), st.integers(1, 4000), st.integers(1, 300))
def test_the_best_columns_are_those_of_a_stable_sort(seed, kind, width, k):
    draw = np.random.default_rng(seed)
    scores = table(kind, draw, (draw.integers(1, 5), width))
    np.testing.assert_array_equal(best_columns(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k])


@given(SEEDS, st.integers(0, 600), st.integers(1, 40), st.booleans())
def test_the_best_of_a_visit_are_those_of_a_sort_in_whatever_order_rows_come(seed, n, k, in_order):
    draw, n_visits, n_items = np.random.default_rng(seed), 4, 500
    pair = draw.choice(n_visits * n_items, n, replace=False)
    visit, item = np.divmod(np.sort(pair) if in_order else pair, n_items)
    score = table("grades", draw, n)
    score[draw.random(n) < 0.1] = -np.inf
    for one, found in enumerate(top_items(visit, item, score, n_visits=n_visits, k=k).tolist()):
        rows = sorted(
            (-s, i) for v, i, s in zip(visit.tolist(), item.tolist(), score.tolist(), strict=True) if v == one
        )
        listed = [i for _, i in rows[:k]]
        assert found == listed + [-1] * (k - len(listed))


def test_no_visit_and_no_row_have_empty_lists():
    nothing = np.empty(0, np.int64)
    assert top_items(nothing, nothing, np.empty(0), n_visits=2, k=3).tolist() == [[-1] * 3] * 2
    assert best_columns(np.empty((0, 50), np.float32), 3).shape == (0, 3)
