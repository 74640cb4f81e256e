import numpy as np
import pytest
from crowd import N_DAYS, crowd
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, ScoredDoc, calc_aggregate, nDCG
from ir_measures import Qrel as Judged

from ecom_pipeline.recommend.baselines import (
    EASE,
    ITEM_KNN,
    OWN,
    OWN_BY_AGE,
    POPULAR,
    TIFU,
    baseline_scores,
    basket_weights,
    tifu_vectors,
    tuned,
)
from ecom_pipeline.recommend.best import top_items
from ecom_pipeline.recommend.evaluation import Truth, compare, dense_lists, figures_by_visit, split_lists
from ecom_pipeline.recommend.metrics import hits, ndcg, recall
from ecom_pipeline.recommend.periods import rolling_origins

NAMES = (POPULAR, OWN, OWN_BY_AGE, ITEM_KNN, EASE, TIFU)


def test_ndcg_of_a_list_is_that_of_ir_measures():
    draw = np.random.default_rng(0)
    visit, item = np.repeat(np.arange(6), 20), np.tile(np.arange(20), 6)
    score, taken = draw.random(120), draw.random(120) < 0.3
    top = top_items(visit, item, score, n_visits=6, k=10)
    own = ndcg(hits(top, visit[taken], item[taken], 20), np.bincount(visit[taken], minlength=6))
    qrels = [Judged(str(v), str(i), 1) for v, i in zip(visit[taken], item[taken], strict=True)]
    run = [ScoredDoc(str(v), str(i), s) for v, i, s in zip(visit, item, score, strict=True)]
    assert np.nanmean(own) == pytest.approx(calc_aggregate([nDCG @ 10, RR], qrels, run)[nDCG @ 10])


def test_what_was_not_retrieved_counts_as_missed():
    hit = hits(np.array([[1, -1]]), np.array([0, 0]), np.array([1, 2]), 5)
    assert recall(hit, np.array([2])).tolist() == [0.5]


def test_basket_weights_fade_within_and_between_groups():
    weight = basket_weights(5, 0.5, 0.1, 2)  # groups of two and three
    assert weight.tolist() == pytest.approx([0.5 * 0.1 / 4, 0.1 / 4, 0.25 / 6, 0.5 / 6, 1 / 6])


def test_tifu_vectors_add_up_the_weights_of_the_baskets_that_hold_an_item():
    acts, _ = crowd(3, 12)
    vectors = tifu_vectors(acts, 0.9, 0.7, 7).toarray()
    for user in range(3):
        days = np.unique(acts.day[acts.user == user])
        weight = dict(zip(days.tolist(), basket_weights(len(days), 0.9, 0.7, 7), strict=True))
        for item in range(12):
            mine = (acts.user == user) & (acts.item == item)
            assert vectors[user, item] == pytest.approx(sum(weight[day] for day in acts.day[mine].tolist()), abs=1e-6)


def test_every_baseline_beats_chance_and_habit_beats_popularity():
    acts, _ = crowd()
    visits = acts.next_visits(90, N_DAYS)
    truth = Truth.of(acts, visits, 90)
    settings = tuned(acts, acts.next_visits(60, 90), 60)
    found = {name: [] for name in NAMES}
    for rows, scores in baseline_scores(acts, visits, 90, settings=settings, names=NAMES):
        for name, table in scores.items():
            found[name].append(dense_lists(table, truth, rows, acts.n_items).top)
    quality = {}
    for name, parts in found.items():
        top = np.concatenate(parts)
        n_taken = np.bincount(truth.at, minlength=len(visits))
        quality[name] = np.nanmean(ndcg(hits(top[:, :10], truth.at, truth.item, acts.n_items), n_taken))
    assert min(quality.values()) > 0.15  # of forty items in no order: about 0.1
    assert min(quality[name] for name in (OWN, OWN_BY_AGE, TIFU, EASE)) > quality[POPULAR] + 0.1


def test_repeats_and_new_items_are_two_halves_of_a_list():
    acts, _ = crowd()
    visits = acts.next_visits(40, 60)
    truth = Truth.of(acts, visits, 40)
    top = np.tile(np.arange(acts.n_items), (len(visits), 1))
    lists = split_lists(top, truth, acts.n_items, acts.n_items)
    for place, user in enumerate(visits.user):
        had = set(acts.item[(acts.user == user) & (acts.day < 40)].tolist())
        assert {i for i in lists.repeat[place].tolist() if i >= 0} == had
        assert {i for i in lists.explore[place].tolist() if i >= 0} == set(range(acts.n_items)) - had


def test_intervals_draw_users_and_not_their_visits():
    draw = np.random.default_rng(0)
    of_user = draw.normal(size=50)
    user = np.repeat(np.arange(50), 4)
    value = {("all", "ndcg_at_10"): of_user[user]}
    many = compare({"a": value}, user, np.tile(np.arange(4), 50), [], seed=0)
    few = compare({"a": {("all", "ndcg_at_10"): of_user}}, np.arange(50), np.zeros(50, int), [], seed=0)
    width = [(table[table.slice == "all"].ci_high - table[table.slice == "all"].ci_low).item() for table in (many, few)]
    assert width[0] == pytest.approx(width[1], rel=1e-6)
    assert (many.slice == "all, test period 4").sum() == 1


def test_a_gain_that_each_period_tells_otherwise_is_not_certain():
    draw = np.random.default_rng(0)
    user, period = np.repeat(np.arange(500), 3), np.tile(np.arange(3), 500)
    own = 0.01 + 0.02 * draw.normal(size=1500)
    tables = []
    for lucky in (0.0, 0.02):
        value = {("all", "ndcg_at_10"): own + lucky * np.array([-1.0, 0.0, 1.0])[period]}
        table = compare({"a": value}, user, period, [], seed=0)
        tables.append(table[table.slice == "all"].iloc[0])
    assert tables[0].ci_low > 0
    assert tables[1].value == pytest.approx(tables[0].value)
    assert tables[1].ci_low < 0 < tables[1].ci_high


def test_one_user_has_no_interval():
    found = compare({"a": {("all", "ndcg_at_10"): np.array([0.5])}}, np.zeros(1, int), np.zeros(1, int), [], seed=0)
    assert found.value.item() == 0.5
    assert found[["ci_low", "ci_high"]].isna().all(axis=None)


def test_a_model_does_not_differ_from_itself():
    acts, _ = crowd()
    visits = acts.next_visits(90, N_DAYS)
    truth = Truth.of(acts, visits, 90)
    top = np.tile(np.arange(acts.n_items), (len(visits), 1))
    figures = figures_by_visit(split_lists(top, truth, acts.n_items, 10), truth, acts.n_items)
    table = compare({"a": figures, "b": figures}, visits.user, np.zeros(len(visits), int), [("a", "b")], seed=0)
    difference = table[table.model == "a - b"]
    assert len(difference) > 5
    assert (difference[["value", "ci_low", "ci_high"]] == 0).all(axis=None)


@given(first=st.integers(0, 40), n_days=st.integers(60, 200), more=st.integers(0, 6))
def test_a_new_day_moves_no_period_that_was_tested(first, n_days, more):
    days = np.arange(first, first + n_days)
    longer = np.arange(first, first + n_days + more)
    before, after = (rolling_origins(d, n_train=2, n_test=2, length=7) for d in (days, longer))
    tested = {origin.test for origin in before if origin.test}
    assert len(tested & {origin.test for origin in after}) >= len(tested) - 1
    for origin in after:
        assert origin.train[-1].end == origin.validation.first
        assert origin.test is None or origin.test.first == origin.validation.end


def test_too_few_days_have_no_origin():
    assert rolling_origins(np.arange(4), n_train=3, n_test=3) == []
