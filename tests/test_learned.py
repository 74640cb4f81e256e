from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import roc_auc_score

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, Holdout, one_hot
from ecom_pipeline.importance.estimators.learned import LearningToReweight, MetaWeightNet, ReinforcedSelection
from ecom_pipeline.importance.heads import Weighted, fit_heads

QUICK = ReinforcedSelection(n_steps=250, batch_size=300, n_restarts=2)
ALL = [QUICK, LearningToReweight(), MetaWeightNet()]


def flipped_set(load, share, seed, n=350, n_held=200):
    features, truth = load(return_X_y=True)
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(truth))[: n + n_held]
    spread = features[rows].std(0)
    x = (features[rows] - features[rows].mean(0)) / np.where(spread > 1e-6, spread, 1)
    x = np.hstack([x, np.ones((len(x), 1))]).astype(np.float32)
    truth = truth[rows] >= (5 if load is load_digits else 1)
    flipped = generator.random(n) < share
    label = one_hot((truth[:n] ^ flipped).astype(float))
    return Evidence(label=label, features=x[:n], holdout=Holdout(x[n:], one_hot(truth[n:].astype(float)))), flipped


def small(n=40, n_classes=2, seed=0):
    generator = np.random.default_rng(seed)
    x = np.hstack([generator.normal(size=(2 * n, 3)), np.ones((2 * n, 1))]).astype(np.float32)
    label = one_hot(np.digitize(x[:, 0], np.linspace(-1, 1, n_classes + 1)[1:-1]), n_classes)
    return Evidence(label=label[:n], features=x[:n], holdout=Holdout(x[n:], label[n:]))


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: estimator.name)
def test_planted_wrong_labels_come_out_below_right_ones(estimator, load):
    evidence, flipped = flipped_set(load, 0.2, 0)
    assert roc_auc_score(flipped, -estimator.fit(evidence).value) > 0.8


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: estimator.name)
def test_a_holdout_with_all_labels_turned_around_turns_the_order_around(estimator):
    evidence, flipped = flipped_set(load_breast_cancer, 0.3, 1)
    turned = Holdout(evidence.holdout.features, evidence.holdout.label[:, ::-1].copy())
    found = estimator.fit(Evidence(label=evidence.label, features=evidence.features, holdout=turned)).value
    assert roc_auc_score(flipped, -found) < 0.5


def test_the_first_step_of_learning_to_reweight_is_the_product_of_gradients():
    evidence = small()
    found = LearningToReweight(width=0, n_epochs=1, n_batches=1, n_restarts=1).fit(evidence).value
    own = (0.5 - evidence.label[:, 1:]) * evidence.features  # gradients of an untrained logistic head, by hand
    wanted = ((0.5 - evidence.holdout.label[:, 1:]) * evidence.holdout.features).mean(0)
    weight = np.maximum(own @ wanted, 0)
    np.testing.assert_allclose(found, len(found) * weight / weight.sum(), atol=1e-5)


def test_learning_to_reweight_is_the_derivative_of_the_holdout_loss_after_a_step():
    # the definition: weights are how much the holdout's loss falls a step later, by finite differences at weight 0
    evidence = small(12)
    x, y = torch.tensor(evidence.features).double(), torch.tensor(evidence.label[:, 1])
    held_x, held_y = torch.tensor(evidence.holdout.features).double(), torch.tensor(evidence.holdout.label[:, 1])
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def held_loss(weight):
        head = torch.zeros(4, dtype=torch.double, requires_grad=True)
        (step,) = torch.autograd.grad((weight * cross_entropy(x @ head, y, reduction="none")).sum(), head)
        return cross_entropy(held_x @ (head - 0.1 * step), held_y)

    bumps = 1e-5 * torch.eye(12, dtype=torch.double)
    falls = np.array([(held_loss(-bump) - held_loss(bump)).item() for bump in bumps]).clip(0)
    found = LearningToReweight(width=0, n_epochs=1, n_batches=1, n_restarts=1).fit(evidence).value
    np.testing.assert_allclose(found, 12 * falls / falls.sum(), atol=1e-4)


def test_weights_of_learning_to_reweight_are_one_on_average():
    found = LearningToReweight(n_epochs=4).fit(small())
    assert (found.value >= 0).all()
    assert found.value.mean() == pytest.approx(1, abs=1e-5)


def test_meta_weight_net_knows_a_sample_by_its_loss_alone():
    evidence, _ = flipped_set(load_breast_cancer, 0.2, 0)
    rows = np.r_[np.arange(100), np.arange(100)]  # every sample twice: twins have the same loss at every step
    doubled = Evidence(label=evidence.label[rows], features=evidence.features[rows], holdout=evidence.holdout)
    found = MetaWeightNet(n_batches=1, n_restarts=1).fit(doubled).value
    np.testing.assert_allclose(found[:100], found[100:], atol=1e-6)
    assert (found > 0).all()
    assert (found < 1).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_heads_of_selections_are_those_that_fit_heads_finds(n_classes):
    evidence = small(60, n_classes)
    x, y = (torch.as_tensor(v, dtype=torch.float32) for v in (evidence.features, evidence.label))
    picked = (torch.rand(60, 3, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    start = torch.zeros(4, 1 if n_classes == 2 else n_classes)
    ours = ReinforcedSelection(n_inner=500)._heads(x, y, picked, start)
    torch.testing.assert_close(ours, fit_heads(x, y, Weighted(picked), [0.1])[:, :, 0], atol=2e-3, rtol=0)


def test_the_gradient_of_a_selector_is_that_of_the_expected_reward():
    # two samples, four selections: the mean over many draws against the sum over all selections, by REINFORCE
    generator = torch.Generator().manual_seed(0)
    logit = torch.tensor([[0.3, -0.8]], requires_grad=True)
    worth = torch.tensor([[0.0, 1.0], [3.0, 2.0]])  # reward of picking (first, second)

    def reward_of(picked):
        return worth[picked[..., 0].long(), picked[..., 1].long()]

    picked = (torch.rand(40_000, 1, 2, generator=generator) < torch.sigmoid(logit)).float()
    loss = ReinforcedSelection()._loss(logit, picked, reward_of(picked))
    (found,) = torch.autograd.grad(loss, logit)
    p = torch.sigmoid(logit[0])
    chances = torch.stack([1 - p, p])  # (picked or not, sample)
    expected = sum(worth[i, j] * chances[i, 0] * chances[j, 1] for i in (0, 1) for j in (0, 1))
    (exact,) = torch.autograd.grad(expected, logit)
    spread = reward_of(picked).std()
    torch.testing.assert_close(-2 * found * spread, exact, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: estimator.name)
def test_the_same_seed_gives_the_same_values_and_restarts_their_error(estimator):
    evidence, small_one = small(), replace(estimator, n_restarts=2)
    if isinstance(estimator, ReinforcedSelection):
        small_one = replace(small_one, n_steps=20)
    first, second = small_one.fit(evidence), small_one.fit(evidence)
    assert (first.value == second.value).all()
    assert first.stderr.shape == first.value.shape


@settings(max_examples=4, deadline=None)
@given(st.permutations(range(3)), st.integers(0, 100))
def test_renaming_classes_changes_nothing(order, seed):
    evidence = small(30, 3, seed)
    renamed = Evidence(
        label=evidence.label[:, order],
        features=evidence.features,
        holdout=Holdout(evidence.holdout.features, evidence.holdout.label[:, order]),
    )
    estimator = LearningToReweight(width=0, n_epochs=3, n_restarts=1)
    np.testing.assert_allclose(estimator.fit(evidence).value, estimator.fit(renamed).value, atol=1e-4)


@settings(max_examples=4, deadline=None)
@given(st.floats(0.1, 10))
def test_the_scale_of_features_does_not_matter_to_a_straight_head(scale):
    evidence = small()
    scaled = Evidence(
        label=evidence.label,
        features=np.float32(scale) * evidence.features,
        holdout=Holdout(np.float32(scale) * evidence.holdout.features, evidence.holdout.label),
    )
    straight = {"width": 0, "penalty": 0.0, "n_epochs": 4, "n_restarts": 1}
    for estimator in (LearningToReweight(**straight), MetaWeightNet(**straight)):
        np.testing.assert_allclose(estimator.fit(evidence).value, estimator.fit(scaled).value, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_few_samples_of_one_class_and_constant_features_are_no_obstacle(n, n_classes):
    label, x = np.eye(n_classes)[np.zeros(n, int)], np.ones((n, 2), np.float32)
    evidence = Evidence(label=label, features=x, holdout=Holdout(x, label))
    for estimator in (ReinforcedSelection(n_steps=5), LearningToReweight(n_epochs=2), MetaWeightNet(n_epochs=2)):
        found = estimator.fit(evidence)
        assert np.isfinite(found.value).all()
        assert np.isfinite(found.stderr).all()


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: estimator.name)
def test_without_a_holdout_an_estimator_says_what_it_lacks(estimator):
    with pytest.raises(SampleError, match=f"{estimator.name}: .*'holdout'"):
        estimator.fit(Evidence(label=np.eye(2), features=np.ones((2, 2), np.float32)))
