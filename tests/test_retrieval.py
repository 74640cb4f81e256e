import numpy as np
import pytest
import scipy.sparse as sparse
from crowd import crowd, interactions
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.recommend.interactions import Visits
from ecom_pipeline.recommend.item_item import FEW, Neighbours, RidgeByItems, RidgeByUsers, history_value
from ecom_pipeline.recommend.retrieval import Index, Lately, popularity
from ecom_pipeline.recommend.weighting import Weighting, rank_share


def matrix(seed=0, shape=(12, 9)):
    draw = np.random.default_rng(seed)
    return sparse.csr_matrix(draw.random(shape) * (draw.random(shape) < 0.4), dtype=np.float32)


def test_the_ridge_model_is_the_same_from_users_and_from_items():
    seen, asked = matrix(), matrix(1)
    by_users, by_items = (kind.fit(seen, 2.0).scores(asked) for kind in (RidgeByUsers, RidgeByItems))
    np.testing.assert_allclose(by_users, by_items, atol=1e-5)


@pytest.mark.parametrize("kind", [RidgeByUsers, RidgeByItems])
def test_what_is_held_out_of_a_history_is_foretold_by_a_model_that_never_saw_it(kind):
    seen, ridge = matrix(), 2.0
    model, x = kind.fit(seen, ridge), seen.toarray().astype(float)
    user, item = (array[:40] for array in seen.nonzero())
    expected = []
    for u, i in zip(user, item, strict=True):
        others, users = np.arange(x.shape[1]) != i, np.arange(x.shape[0]) != u
        rest = x[:, others]
        solved = np.linalg.solve(
            rest[users].T @ rest[users] + ridge * np.eye(others.sum()), rest[users].T @ x[users, i]
        )
        expected.append(rest[u] @ solved)
    np.testing.assert_allclose(model.held_out(seen, user, item), expected, rtol=1e-3, atol=1e-4)


def test_what_neighbours_foretell_of_a_pair_has_not_seen_its_user():
    seen = matrix(3)
    user, item = seen.nonzero()
    expected = []
    for u, i in zip(user, item, strict=True):
        without, history = seen.toarray(), seen.toarray()[[u]]
        without[u], history[0, i] = 0, 0
        cut = sparse.csr_matrix(without)
        cut.eliminate_zeros()
        expected.append(Neighbours.fit(cut, 9).scores(sparse.csr_matrix(history))[0, i])
    model = Neighbours.fit(seen, 9)  # all neighbours are kept, so who is among them has seen nobody
    np.testing.assert_allclose(model.held_out(seen, user, item), expected, rtol=1e-3, atol=1e-5)


def test_the_ridge_model_regresses_each_item_on_the_others():  # Steck 2019: minimise |X - XB|² + r |B|² with diag(B) = 0
    seen, ridge = matrix().toarray().astype(float), 2.0
    between = RidgeByItems.fit(sparse.csr_matrix(seen), ridge).between
    for item in range(seen.shape[1]):
        others = np.delete(np.arange(seen.shape[1]), item)
        x = seen[:, others]
        solved = np.linalg.solve(x.T @ x + ridge * np.eye(len(others)), x.T @ seen[:, item])
        np.testing.assert_allclose(between[others, item], solved, atol=1e-5)
        assert between[item, item] == 0


def test_neighbours_are_the_shrunk_cosine():
    seen = sparse.csr_matrix(np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1]], np.float32))
    found = Neighbours.fit(seen, 1).between.toarray()
    assert found[1, 0] == pytest.approx(2 / np.sqrt(6) * 2 / 12)
    assert (found > 0).sum(1).tolist() == [1, 1, 1]


def test_an_index_does_not_see_what_came_later():
    acts, catalogue = crowd(20, 20)
    early = acts.before(60)
    history = sparse.csr_matrix(np.eye(20, dtype=np.float32))
    for kind in ("none", "behaviour"):
        weighting = Weighting("exponential", 30.0, evidence=kind, evidence_strength=1.0)
        one, other = (Index.fit(a, 60, weighting=weighting, text=catalogue.text) for a in (acts, early))
        np.testing.assert_array_equal(one.together.scores(history), other.together.scores(history))
        np.testing.assert_array_equal(one.usual_gap, other.usual_gap)
        np.testing.assert_array_equal(one.repeat_share, other.repeat_share)


def test_the_opinion_of_a_pair_does_not_hear_the_pair_itself():
    acts, _ = crowd(15, 12)
    index = Index.fit(acts, 120, weighting=Weighting(evidence="behaviour", evidence_strength=1.0))
    counts = np.zeros((15, 12))
    np.add.at(counts, (acts.user, acts.item), 1)
    value = history_value(counts)
    user, item = np.divmod(index.pairs, 12)
    alone = []
    for u, i in zip(user, item, strict=True):
        others = RidgeByItems.fit(sparse.csr_matrix(np.delete(value, u, 0)), 300.0)
        alone.append(value[u] @ others.between[:, i])
    assert np.abs(rank_share(np.array(alone)) - index.opinion).max() < 0.02


def test_gaps_and_repeats_are_counted_by_pair():
    acts = interactions([(0, 0, 0), (0, 0, 10), (0, 0, 30), (1, 0, 5), (1, 1, 5)], 2, 2)
    index = Index.fit(acts, 40, weighting=Weighting())
    assert index.n_users.tolist() == [2, 1]
    assert index.usual_gap[0] == pytest.approx(15)  # the only gap there is, so the shop's mean is the same
    assert index.repeat_share[0] == pytest.approx((1 + 5 / 3) / 7)


def test_popularity_is_of_the_days_before():
    acts = interactions([(0, 0, 3), (0, 1, 4), (0, 1, 5)], 1, 2)
    found = popularity(acts, Visits(np.array([0]), np.array([5])), days=1)
    assert found[5].tolist() == [0, 1]


def test_what_was_taken_lately_is_counted_by_window_and_day():
    acts = interactions([(0, 0, 3), (0, 1, 4), (1, 1, 4), (0, 1, 5)], 2, 2)
    visits = Visits(np.array([0, 1, 0]), np.array([6, 5, 5]))
    lately = Lately.of(acts, visits, windows=(1, 2))
    assert lately.days[lately.row(visits)].tolist() == [6, 5, 5]
    assert lately.takings[1].tolist() == [[0, 2], [0, 1]]
    assert lately.takings[2].tolist() == [[1, 2], [0, 3]]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_history_that_the_model_was_fitted_on_has_the_scores_of_any_other(seed):
    draw = np.random.default_rng(seed)
    matrix = sparse.csr_matrix(np.where(draw.random((7, 12)) < 0.4, draw.random((7, 12)), 0).astype(np.float32))
    model = RidgeByUsers.fit(matrix, 3.0)
    users = np.array([6, 0, 3])
    np.testing.assert_allclose(model.own_scores(matrix, users), model.scores(matrix[users]), atol=2e-5)


def test_a_history_of_little_is_scored_as_among_many():
    draw = np.random.default_rng(0)
    seen = sparse.csr_matrix((draw.random((400, 500)) * (draw.random((400, 500)) < 0.01)).astype(np.float32))
    model = RidgeByUsers.fit(seen, 3.0)
    few = sparse.csr_matrix(([1.0], ([0], [7])), shape=(1, 500), dtype=np.float32)
    assert (few @ model.back).nnz < FEW * 400  # so few users that the product is a sparse one
    many = sparse.vstack([few, sparse.csr_matrix(np.ones((9, 500), np.float32))], "csr")
    assert (many @ model.back).nnz > FEW * 4000
    np.testing.assert_allclose(model.scores(few)[0], model.scores(many)[0], rtol=1e-4, atol=1e-5)
