import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ecom_pipeline.importance.estimator import one_hot
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.heads import Folds, Weighted, fit_heads


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def data(n=240, d=6, seed=0):
    generator = np.random.default_rng(seed)
    x = np.hstack([generator.normal(size=(n, d)), np.ones((n, 1))]).astype(np.float32)
    y = (x[:, 0] + generator.normal(size=n) > 0.3).astype(float)
    return x, y, generator


@pytest.mark.parametrize("penalty", [0.01, 0.3, 3.0])
def test_heads_are_the_optimum_that_scikit_learn_finds(penalty):
    x, y, generator = data()
    weight = generator.uniform(0.2, 2.0, len(y))
    ours = fit_heads(tensor(x), tensor(one_hot(y)), Weighted(tensor(weight[:, None])), [penalty])
    peer = LogisticRegression(C=1 / (penalty * weight.sum()), tol=1e-10, max_iter=10_000).fit(
        x[:, :-1].astype(float), y, weight
    )
    np.testing.assert_allclose(ours[:-1, 0, 0, 0], peer.coef_[0], atol=2e-4)
    np.testing.assert_allclose(ours[-1, 0, 0, 0], peer.intercept_[0], atol=2e-4)


def test_out_of_fold_scores_are_those_of_models_fitted_fold_by_fold():
    x, y, generator = data()
    fold = np.stack([generator.permutation(len(y)) % 4, generator.permutation(len(y)) % 4], 1)
    found = out_of_fold_scores(x, one_hot(y), fold, 4, "cpu", [0.1])
    for repeat in range(2):
        for k in range(4):
            held = fold[:, repeat] == k
            peer = LogisticRegression(C=1 / (0.1 * (~held).sum()), tol=1e-10, max_iter=10_000).fit(
                x[~held, :-1].astype(float), y[~held]
            )
            np.testing.assert_allclose(
                found.score[held, repeat, 1], peer.predict_proba(x[held, :-1].astype(float))[:, 1], atol=1e-4
            )


def test_no_label_of_a_fold_reaches_the_scores_of_that_fold():
    x, y, generator = data()
    fold = (generator.permutation(len(y)) % 5)[:, None]
    changed = np.where(fold[:, 0] == 2, 1 - y, y)
    before, after = (out_of_fold_scores(x, one_hot(labels), fold, 5, "cpu", [0.1]).score for labels in (y, changed))
    held = fold[:, 0] == 2
    np.testing.assert_allclose(before[held], after[held], atol=1e-6)
    assert np.abs(before[~held] - after[~held]).max() > 0.01


def test_a_fold_without_samples_and_a_training_set_of_one_label_are_no_obstacle():
    x, _, _ = data(12)
    found = out_of_fold_scores(x, one_hot(np.ones(12)), np.zeros((12, 1), np.int64), 3, "cpu")
    assert np.isfinite(found.score).all()


@pytest.mark.parametrize("penalty", [0.01, 0.3])
def test_heads_of_several_classes_are_the_optimum_that_scikit_learn_finds(penalty):
    x, _, generator = data()
    y = np.digitize(x[:, 0] + generator.normal(size=len(x)), [-1, 0, 1])
    ours = fit_heads(tensor(x), tensor(one_hot(y, 4)), Weighted(torch.ones(len(x), 1)), [penalty])[:, :, 0, 0]
    peer = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000).fit(x[:, :-1].astype(float), y)
    np.testing.assert_allclose(ours[:-1].T, peer.coef_, atol=5e-4)
    intercept = peer.intercept_ - peer.intercept_.mean()
    np.testing.assert_allclose(ours[-1] - ours[-1].mean(), intercept, atol=5e-4)


def test_two_classes_written_as_three_have_the_same_scores():
    """With a class that nobody has, softmax heads must agree with the one logit of two classes."""
    x, y, generator = data()
    fold = (generator.permutation(len(y)) % 4)[:, None]
    two = out_of_fold_scores(x, one_hot(y), fold, 4, "cpu", [0.1]).score
    three = out_of_fold_scores(x, one_hot(y, 3), fold, 4, "cpu", [0.2]).score  # each of two logits bears half
    assert np.corrcoef(two[:, 0, 1], three[:, 0, 1])[0, 1] > 0.999
    assert three[:, 0, 2].max() < 0.05


def test_a_member_that_leaves_out_a_fold_is_one_with_weight_0_there():
    x, y, generator = data()
    fold = np.stack([generator.permutation(len(y)) % 3, generator.permutation(len(y)) % 3], 1)
    weight = generator.uniform(0.5, 1.5, len(y))
    by_fold = fit_heads(tensor(x), tensor(one_hot(y)), Folds(torch.tensor(fold), 3, tensor(weight)), [0.1, 1.0])
    seen = (fold[:, :, None] != np.arange(3)).reshape(len(y), 6) * weight[:, None]
    by_weight = fit_heads(tensor(x), tensor(one_hot(y)), Weighted(tensor(seen)), [0.1, 1.0])
    np.testing.assert_allclose(by_fold, by_weight, atol=1e-4)


def test_who_watches_sees_the_loss_fall():
    x, y, _ = data()
    target, losses = tensor(one_hot(y)), []

    def watch(step, rows, logit, seen):
        losses.append(
            float((torch.nn.functional.softplus(logit[:, 0, 0, 0]) - target[rows, 1] * logit[:, 0, 0, 0]).mean())
        )

    fit_heads(tensor(x), target, Weighted(torch.ones(len(x), 1)), [0.01], watch)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5)
    assert losses[-1] < losses[0] - 0.1
