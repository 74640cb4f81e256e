import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG
from sklearn.metrics import roc_auc_score

from ecom_pipeline.ranking import metrics
from ecom_pipeline.ranking.evaluation import Rows, evaluate


@st.composite
def runs(draw):
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=5))
    group = np.repeat(np.arange(len(sizes)), sizes)
    relevance = np.array(draw(st.lists(st.integers(0, 3), min_size=len(group), max_size=len(group))), float)
    score = np.array(draw(st.permutations(range(len(group)))), float)
    return group, relevance, score


@given(runs())
def test_metrics_agree_with_ir_measures(run):
    group, relevance, score = run
    qrels = [ir_measures.Qrel(str(g), str(i), int(r)) for i, (g, r) in enumerate(zip(group, relevance, strict=True))]
    scored = [ir_measures.ScoredDoc(str(g), str(i), s) for i, (g, s) in enumerate(zip(group, score, strict=True))]
    peer = {(m.measure, int(m.query_id)): m.value for m in ir_measures.iter_calc([nDCG @ 10, RR, R @ 5], qrels, scored)}
    relevant = relevance > 0
    ours = {
        nDCG @ 10: metrics.ndcg_at_k(group, relevance, score, 10),
        RR: metrics.mrr(group, relevant, score),
        R @ 5: metrics.recall_at_k(group, relevant, score, 5),
    }
    for measure, by_group in ours.items():
        for g, value in enumerate(by_group):
            if relevant[group == g].any():
                assert value == pytest.approx(peer[measure, g])
            else:
                assert np.isnan(value)


def test_ndcg_matches_the_published_ir_measures_example():  # README of terrierteam/ir_measures, query Q0
    assert metrics.ndcg_at_k(np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.2, 1.0]), 10) == pytest.approx(
        [0.6309297535714575]
    )


@given(runs(), st.integers(1, 3))
def test_auc_agrees_with_scikit_learn_ties_included(run, step):
    group, relevance, score = run
    tied = score // step
    for g, value in enumerate(metrics.auc(group, relevance > 0, tied)):
        relevant = relevance[group == g] > 0
        if relevant.any() and not relevant.all():
            assert value == pytest.approx(roc_auc_score(relevant, tied[group == g]))
        else:
            assert np.isnan(value)


def test_calibration_error_is_0_for_probabilities_that_hold():
    group, label = np.repeat([0, 1], 10), np.tile([1.0] * 3 + [0.0] * 7, 2)
    bins = metrics.calibration_bins(group, label, np.full(20, 0.3))
    assert np.abs(bins.sum(0)).sum() / 20 == pytest.approx(0)


def rows_and_scores(n_groups=200, gain=0.0):
    generator = np.random.default_rng(1)
    group = np.repeat(np.arange(n_groups), 6)
    label = np.tile([1.0, 0, 0, 1.0, 0, 0], n_groups)
    base = generator.normal(size=len(group))
    better = base + gain * label
    squash = lambda score: 1 / (1 + np.exp(-score))  # noqa: E731
    return Rows(group, label, label), {"weighted": squash(better)[None], "unweighted": squash(base)[None]}


def figure(table, model, metric="ndcg_at_10"):
    return table[(table.model == model) & (table.metric == metric)].iloc[0]


def test_the_interval_of_a_planted_gain_excludes_0_and_that_of_equal_models_is_0():
    for gain, helps in ((1.0, True), (0.0, False)):
        rows, scores = rows_and_scores(gain=gain)
        table = evaluate(
            rows, scores, {"all": np.ones(len(rows.group), bool)}, list(scores), [("weighted", "unweighted")], "test", 0
        )
        difference = figure(table, "weighted - unweighted")
        assert (difference.ci_low > 0) == helps
        assert difference.value == pytest.approx(figure(table, "weighted").value - figure(table, "unweighted").value)
        if not helps:
            assert difference.ci_low == difference.value == difference.ci_high == 0


def test_the_interval_of_a_mean_has_the_width_of_its_standard_error():
    rows, scores = rows_and_scores()
    table = evaluate(rows, scores, {"all": np.ones(len(rows.group), bool)}, [], [], "test", 0)
    by_group = metrics.ndcg_at_k(rows.group, rows.relevance, scores["weighted"][0], 10)
    found = figure(table, "weighted")
    assert (found.ci_high - found.ci_low) / 2 == pytest.approx(1.96 * by_group.std() / np.sqrt(200), rel=0.1)


def test_the_interval_over_users_is_as_wide_as_that_of_their_means():
    rows, _ = rows_and_scores()
    draw = np.random.default_rng(2)
    score = draw.normal(size=1200) + np.repeat(draw.normal(size=20), 60) * rows.label
    everything, user = {"all": np.ones(1200, bool)}, np.repeat(np.arange(20), 10)
    wide, narrow = (
        figure(evaluate(rows, {"ranker": score[None]}, everything, [], [], "test", 0, cluster=cluster), "ranker")
        for cluster in (user, None)
    )
    by_user = metrics.ndcg_at_k(rows.group, rows.relevance, score, 10).reshape(20, 10).mean(1)
    assert wide.value == pytest.approx(narrow.value)
    assert (wide.ci_high - wide.ci_low) / 2 == pytest.approx(1.96 * by_user.std() / np.sqrt(20), rel=0.15)
    assert wide.ci_high - wide.ci_low > 1.2 * (narrow.ci_high - narrow.ci_low)


def test_users_are_those_of_the_groups_that_a_slice_holds():
    rows, scores = rows_and_scores()
    half = {"half": rows.group >= 100}
    user = np.r_[np.zeros(100, int), np.arange(100)]
    with_users, without = (evaluate(rows, scores, half, [], [], "test", 0, cluster=cluster) for cluster in (user, None))
    assert with_users.equals(without)


def test_seeds_that_differ_widen_the_interval_and_seeds_that_do_not_leave_it():
    rows, scores = rows_and_scores()
    (one,) = scores["weighted"]
    worse = np.random.default_rng(3).random(len(one))
    everything = {"all": np.ones(len(one), bool)}
    models = {"alone": one[None], "thrice the same": np.stack([one] * 3), "two differ": np.stack([one, one, worse])}
    table = evaluate(rows, models, everything, [], [], "test", 0)
    alone, same, differ = (figure(table, name) for name in models)
    assert [same[end] for end in ("value", "ci_low", "ci_high")] == pytest.approx(
        [alone[end] for end in ("value", "ci_low", "ci_high")]
    )
    assert [row.n_seeds for row in (alone, same, differ)] == [1, 1, 2]
    by_seed = [metrics.ndcg_at_k(rows.group, rows.relevance, score, 10).mean() for score in (one, worse)]
    assert differ.value == pytest.approx((2 * by_seed[0] + by_seed[1]) / 3)


def test_the_interval_of_a_difference_covers_seeds_drawn_from_the_same_trainings():
    """Two models whose seeds differ by one and the same shift differ by it whatever the seeds that are drawn."""
    rows, _ = rows_and_scores()
    draw = np.random.default_rng(4)
    gains = draw.normal(0, 1, 3)
    base = draw.normal(size=len(rows.group))
    scores = {name: np.stack([base + gain * rows.label for gain in gains]) for name in ("a", "b")}
    everything = {"all": np.ones(len(base), bool)}
    table = evaluate(rows, scores, everything, [], [("a", "b")], "test", 0)
    difference = figure(table, "a - b")
    assert difference.ci_low == difference.value == difference.ci_high == 0
    assert difference.n_seeds == 3
