from dataclasses import replace
from itertools import combinations
from math import comb, factorial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import beta as beta_function
from sklearn.ensemble import BaggingClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, Holdout, one_hot
from ecom_pipeline.importance.estimators.closed_form import LeaveOneOutCredibility, LeaveOneOutInfluence
from ecom_pipeline.importance.estimators.games import (
    BetaShapley,
    DataBanzhaf,
    DataOOB,
    DataShapley,
    _bootstraps,
    banzhaf_sizes,
    beta_sizes,
    semivalues,
)
from ecom_pipeline.importance.heads import Weighted, fit_heads, probabilities

GAMES = [DataShapley(), BetaShapley(), DataBanzhaf()]
EVERY = [*GAMES, DataOOB(n_heads=40), LeaveOneOutCredibility(), LeaveOneOutInfluence()]


def features(values):
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    return np.hstack([values, np.ones((len(values), 1))]).astype(np.float32)


def clouds(n=60, n_classes=3, seed=0, n_held=40):
    """Classes around corners, the first tenth of the training labels wrong."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, n_classes, n + n_held)
    x = features(3 * np.eye(n_classes)[truth] + generator.normal(size=(n + n_held, n_classes)))
    seen = truth.copy()
    seen[: n // 10] = (seen[: n // 10] + 1) % n_classes
    label = one_hot(seen, n_classes)
    return Evidence(label=label[:n], features=x[:n], holdout=Holdout(x[n:], label[n:]))


def tiny(n=5, n_classes=2, seed=0):
    return clouds(n, n_classes, seed, 7)


def by_definition(worth, n, weight):
    """Sum over coalitions of others of weight(size) times the gain when the player joins; one call a coalition."""
    known = {code: worth((code >> np.arange(n) & 1).astype(bool)[:, None])[0] for code in range(2**n)}
    value = np.zeros(n)
    for player in range(n):
        others = [other for other in range(n) if other != player]
        for k in range(n):
            for company in combinations(others, k):
                without = sum(1 << other for other in company)
                value[player] += weight(k) * (known[without | 1 << player] - known[without])
    return value


def random_game(n, seed):
    table = np.random.default_rng(seed).normal(size=2**n)
    return lambda member: table[(member * 2 ** np.arange(n)[:, None]).sum(0)]


def shapley_weight(n):
    return lambda k: factorial(k) * factorial(n - 1 - k) / factorial(n)


# Games of which the values are known


def test_shapley_of_the_airport_game_is_that_of_littlechild_and_owen():
    """Runways of length 1, 2, 4: each section is shared by those who need it (Littlechild and Owen 1973)."""
    needs = np.array([1.0, 2.0, 4.0])
    found = semivalues(lambda member: (member * needs[:, None]).max(0), beta_sizes(3, 1, 1), 8, 0)
    np.testing.assert_allclose(found.value, [1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 2])


def test_banzhaf_of_a_weighted_vote_is_that_of_the_textbook():
    """Quota 6 of votes 4, 3, 2, 1: pivotal in 5, 3, 3 and 1 of 8 coalitions (Wikipedia, Banzhaf power index)."""
    votes = np.array([4, 3, 2, 1])
    found = semivalues(lambda member: (votes @ member >= 6).astype(float), banzhaf_sizes(4), 16, 0)
    np.testing.assert_allclose(found.value, np.array([5, 3, 3, 1]) / 8)


def test_beta_shapley_weights_are_those_of_the_paper():
    """Kwon and Zou 2022, equation 3 and theorem 2: n Beta(j + b - 1, n - j + a) / Beta(a, b) over subsets of j - 1."""
    n, a, b = 9, 4.0, 1.0
    for j in range(1, n + 1):
        weight = n * beta_function(j + b - 1, n - j + a) / beta_function(a, b)
        assert beta_sizes(n, a, b)[j - 1] == pytest.approx(weight * comb(n - 1, j - 1) / n)


# Definitions, at n <= 6


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 999), st.sampled_from([1, 7, 250]))
def test_enumerated_values_agree_with_the_definitions(n, seed, chunk):
    game = random_game(n, seed)
    for joins in (beta_sizes(n, 1, 1), beta_sizes(n, 4, 1), banzhaf_sizes(n)):
        expected = by_definition(game, n, lambda k, joins=joins: joins[k] / comb(n - 1, k))
        np.testing.assert_allclose(semivalues(game, joins, 64, 0, chunk).value, expected, atol=1e-9)
    shapley = by_definition(game, n, shapley_weight(n))
    np.testing.assert_allclose(semivalues(game, beta_sizes(n, 1, 1), 64, 0).value, shapley, atol=1e-9)


@pytest.mark.parametrize("joins", [beta_sizes(6, 1, 1), beta_sizes(6, 4, 1), banzhaf_sizes(6)])
def test_sampled_values_scatter_around_the_exact_ones_as_their_standard_errors_say(joins):
    game = random_game(6, 1)
    exact = semivalues(game, joins, 64, 0).value
    runs = [semivalues(game, joins, 60, seed) for seed in range(200)]
    z = np.array([(run.value - exact) / run.stderr for run in runs])
    assert np.abs(np.mean([run.value for run in runs], 0) - exact).max() < 4 * runs[0].stderr.max() / np.sqrt(200)
    assert 0.8 < z.std() < 1.25


@pytest.mark.parametrize("utility", ["probability", "accuracy"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_data_shapley_is_the_definition_with_a_head_fitted_to_each_coalition(utility, n_classes):
    evidence = tiny(4, n_classes)
    x, y = torch.tensor(evidence.features), torch.tensor(evidence.label, dtype=torch.float32)

    def worth(member):
        rows = torch.tensor(member[:, 0])
        if not rows.any():
            return [1 / n_classes]
        heads = fit_heads(x[rows], y[rows], Weighted(torch.ones(int(rows.sum()), 1)), [0.1])
        logit = torch.tensor(evidence.holdout.features) @ heads.flatten(1)
        score = probabilities(logit.unflatten(1, heads.shape[1:]))[:, :, 0, 0].double().numpy()
        if utility == "accuracy":
            score = np.eye(n_classes)[score.argmax(1)]
        return [(score * evidence.holdout.label).sum(1).mean()]

    expected = by_definition(worth, 4, shapley_weight(4))
    found = DataShapley(utility=utility, penalties=(0.1,)).fit(evidence)
    np.testing.assert_allclose(found.value, expected, atol=1e-4)
    assert (found.stderr == 0).all()


def test_data_oob_in_hard_form_counts_the_votes_of_heads_that_did_not_see_the_sample():
    evidence = clouds(40)
    drawn = _bootstraps(40, 8, torch.Generator().manual_seed(3)).numpy()
    right = np.full((40, 8), np.nan)
    for head in range(8):
        seen = drawn[:, head] > 0
        peer = LogisticRegression(C=1 / (0.1 * 40), tol=1e-10, max_iter=10_000)
        peer.fit(evidence.features[seen, :-1].astype(float), evidence.observed[seen], drawn[seen, head])
        right[~seen, head] = peer.predict(evidence.features[~seen, :-1].astype(float)) == evidence.observed[~seen]
    judged = ~np.isnan(right).all(1)
    found = DataOOB(8, soft=False, penalties=(0.1,), seed=3).fit(evidence)
    np.testing.assert_allclose(found.value[judged], np.nanmean(right[judged], 1), atol=1e-6)
    assert found.notes["n_never_out_of_bag"] == (~judged).sum()


def test_data_oob_in_soft_form_agrees_with_the_bagging_of_scikit_learn():
    evidence = clouds(60)
    base = LogisticRegression(C=1 / (0.1 * 60), max_iter=10_000)
    peer = BaggingClassifier(base, 150, oob_score=True, random_state=0)
    peer.fit(evidence.features[:, :-1].astype(float), evidence.observed)
    expected = peer.oob_decision_function_[np.arange(60), evidence.observed]
    found = DataOOB(150, penalties=(0.1,)).fit(evidence)
    assert (np.abs(found.value - expected) < 6 * found.stderr + 1e-3).all()


def kernel_of(x, landmarks, width):
    return 1 + np.exp(-((x[:, None] - landmarks[None]) ** 2).sum(2) / (2 * width**2))


def median_distance(x):
    apart = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    return np.sort(apart[apart > 0])[((apart > 0).sum() - 1) // 2]


def credibility(predicted, label, temperature):
    rival = np.array([[np.delete(row, c).max() for c in range(len(row))] for row in predicted])
    return (label / (1 + np.exp(-temperature * (predicted - rival)))).sum(1)


def test_leaving_one_out_is_fitting_scikit_learns_kernel_ridge_without_it():
    evidence = clouds(30)
    x = evidence.features.astype(float)
    kernel = kernel_of(x, x, median_distance(x))
    predicted = cross_val_predict(
        KernelRidge(alpha=0.3, kernel="precomputed"), kernel, evidence.label, cv=LeaveOneOut()
    )
    found = LeaveOneOutCredibility(bandwidths=(1.0,), ridges=(0.3,)).fit(evidence)
    expected = credibility(predicted, evidence.label, found.notes["temperature"])
    np.testing.assert_allclose(found.value, expected, atol=1e-5)


@pytest.mark.parametrize("n_landmarks", [6, 30])
def test_leaving_a_group_out_is_fitting_without_it(n_landmarks):
    """With 6 landmarks the group of 9 is taken out of the equations, the others out of the hat matrix."""
    evidence = clouds(30)
    group = np.repeat([5, 3, 8, 1, 7], [9, 1, 6, 6, 8])
    x = evidence.features.astype(float)
    landmarks = x[np.random.default_rng(0).permutation(30)[:n_landmarks]]
    width = median_distance(landmarks)
    factor = np.linalg.cholesky(kernel_of(landmarks, landmarks, width) + 1e-6 * np.eye(n_landmarks))
    z = np.linalg.solve(factor, kernel_of(x, landmarks, width).T).T
    predicted = np.empty_like(evidence.label)
    for left in np.unique(group):
        own = group == left
        gram = z[~own].T @ z[~own] + 0.3 * np.eye(n_landmarks)
        predicted[own] = z[own] @ np.linalg.solve(gram, z[~own].T @ evidence.label[~own])
    grouped = replace(evidence, group=group)
    found = LeaveOneOutCredibility(n_landmarks, bandwidths=(1.0,), ridges=(0.3,)).fit(grouped)
    expected = credibility(predicted, evidence.label, found.notes["temperature"])
    np.testing.assert_allclose(found.value, expected, atol=1e-6)


def test_influence_is_the_change_of_the_holdout_error_when_the_sample_is_left_out():
    evidence = clouds(25)
    x, held = evidence.features.astype(float), evidence.holdout.features.astype(float)
    width = median_distance(x)

    def worth(rows):
        kernel = kernel_of(x[rows], x[rows], width) + 0.3 * np.eye(rows.sum())
        predicted = kernel_of(held, x[rows], width) @ np.linalg.solve(kernel, evidence.label[rows])
        return -((evidence.holdout.label - predicted) ** 2).sum(1).mean()

    everybody = np.ones(25, bool)
    expected = [worth(everybody) - worth(np.arange(25) != left) for left in range(25)]
    found = LeaveOneOutInfluence(bandwidths=(1.0,), ridges=(0.3,)).fit(evidence)
    np.testing.assert_allclose(found.value, expected, atol=1e-5)


# Laws


@pytest.mark.parametrize("n_subsets", [40, 1000])
def test_sampled_shapley_values_add_up_to_the_worth_of_all(n_subsets):
    def worth(member):
        return np.sqrt(member.sum(0)) + member[3] - 0.5

    values = semivalues(worth, beta_sizes(30, 1, 1), n_subsets, 0).value
    assert values.sum() == pytest.approx(np.sqrt(30) + 1, abs=1e-9)


def test_a_game_without_interaction_is_sampled_nearly_without_error():
    own = np.random.default_rng(0).normal(size=12)
    found = semivalues(lambda member: own @ member, beta_sizes(12, 1, 1), 3000, 0)
    assert (np.abs(found.value - own) < 5 * found.stderr).all()
    assert np.corrcoef(found.value, own)[0, 1] > 0.98


@pytest.mark.parametrize("game", GAMES)
def test_equal_samples_are_worth_the_same(game):
    evidence = tiny(4)
    twice = np.array([0, 1, 2, 3, 1])
    values = game.fit(replace(evidence, label=evidence.label[twice], features=evidence.features[twice])).value
    assert values[1] == pytest.approx(values[4], abs=1e-5)


EXACT = [
    DataShapley(penalties=(0.1,)),
    BetaShapley(penalties=(0.1,)),
    DataBanzhaf(penalties=(0.1,)),
    LeaveOneOutCredibility(),
    LeaveOneOutInfluence(),
]


@pytest.mark.parametrize("estimator", EXACT, ids=lambda e: e.name)
def test_the_order_of_samples_does_not_matter(estimator):
    evidence = tiny(6, 3)
    order = np.random.default_rng(1).permutation(6)
    turned = replace(evidence, label=evidence.label[order], features=evidence.features[order])
    np.testing.assert_allclose(estimator.fit(turned).value, estimator.fit(evidence).value[order], atol=1e-4)


def test_the_order_of_samples_moves_bootstrapped_values_within_their_error():
    evidence = clouds(40)
    order = np.random.default_rng(1).permutation(40)
    turned = replace(evidence, label=evidence.label[order], features=evidence.features[order])
    one, other = DataOOB(penalties=(0.1,)).fit(evidence), DataOOB(penalties=(0.1,)).fit(turned)
    error = np.hypot(one.stderr[order], other.stderr)
    assert (np.abs(one.value[order] - other.value) < 5 * error + 1e-3).all()


@pytest.mark.parametrize("estimator", [DataOOB(20, penalties=(0.1,)), LeaveOneOutCredibility(ridges=(0.3,))])
def test_values_lie_between_0_and_1_and_a_soft_label_lies_between_its_classes(estimator):
    evidence = clouds(40, 2)
    soft = evidence.label.copy()
    soft[5] = [0.3, 0.7]
    values = estimator.fit(replace(evidence, label=soft)).value
    assert ((values >= 0) & (values <= 1)).all()


# Behaviour


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("estimator", [DataOOB(60), DataOOB(60, soft=False), LeaveOneOutCredibility()], ids=str)
def test_wrong_labels_come_out_low(estimator, n_classes):
    evidence = clouds(120, n_classes)
    wrong = np.arange(120) < 12
    assert roc_auc_score(~wrong, estimator.fit(evidence).value) > 0.95


@pytest.mark.parametrize("game", [type(game)(n_subsets=400, penalties=(0.03,)) for game in GAMES], ids=lambda g: g.name)
def test_wrong_labels_are_worth_less_to_the_holdout(game):
    evidence = clouds(40, 2, n_held=200)
    found = game.fit(evidence)
    wrong = np.arange(40) < 4
    assert found.value[wrong].mean() < found.value[~wrong].mean() - 3 * found.stderr.mean() / 2
    assert (found.stderr > 0).all()


def test_near_copies_in_a_group_do_not_vouch_for_each_other():
    evidence = clouds(60, 2)
    copied = np.concatenate([np.arange(60), np.zeros(9, np.int64)])  # a wrong label, ten times
    copies = replace(evidence, label=evidence.label[copied], features=evidence.features[copied])
    group = np.where(copied == 0, 0, np.arange(len(copied)))
    estimator = LeaveOneOutCredibility(bandwidths=(0.5,), ridges=(0.1,))
    alone, together = estimator.fit(copies).value[0], estimator.fit(replace(copies, group=group)).value[0]
    assert together < 0.5 < alone


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: e.name)
def test_a_handful_of_samples_has_finite_values(estimator, n):
    generator = np.random.default_rng(0)
    for x in (np.zeros((n, 2)), generator.normal(size=(n, 2))):
        for classes in (np.zeros(n), np.arange(n) % 2):
            label = one_hot(classes)
            held = Holdout(features(x[:1]), label[:1])
            found = estimator.fit(
                Evidence(label=label, features=features(x), holdout=held, group=np.zeros(n, np.int64))
            )
            assert np.isfinite(found.value).all()
            assert found.stderr is None or np.isfinite(found.stderr).all()


@pytest.mark.parametrize("joins", [beta_sizes(5000, 1, 1), beta_sizes(5000, 4, 1), banzhaf_sizes(5000)])
def test_thousands_of_samples_are_no_obstacle_to_the_weights_of_sizes(joins):
    found = semivalues(lambda member: member.mean(0), joins, 50, 0)
    assert joins.sum() == pytest.approx(1)
    assert np.isfinite(found.value).all()


@pytest.mark.parametrize("estimator", [*GAMES, LeaveOneOutInfluence()], ids=lambda e: e.name)
def test_an_empty_holdout_is_refused(estimator):
    evidence = clouds(10)
    empty = replace(evidence, holdout=Holdout(evidence.features[:0], evidence.label[:0]))
    with pytest.raises(SampleError, match=r"the holdout has 0 samples for 10 training samples"):
        estimator.fit(empty)
