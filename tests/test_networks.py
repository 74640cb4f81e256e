from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.importance.estimator import one_hot
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.heads import Folds, Weighted, fit_heads
from ecom_pipeline.importance.networks import (
    DynamicsRecorder,
    NetworkSettings,
    fit_networks,
    out_of_fold_network_scores,
)

QUICK = NetworkSettings(width=8, n_epochs=4, batch_size=32, learning_rate=0.02, weight_decay=0.1)


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


def data(n=90, d=4, n_classes=2, seed=0):
    generator = np.random.default_rng(seed)
    x = np.hstack([generator.normal(size=(n, d)), np.ones((n, 1))]).astype(np.float32)
    label = np.digitize(x[:, 0] + 0.3 * generator.normal(size=n), np.linspace(-1, 1, n_classes + 1)[1:-1])
    return x, one_hot(label, n_classes), generator


@pytest.mark.parametrize(
    "changes", [{}, {"dropout": 0.3}, {"activation": "relu"}, {"weight_decay": (0.0, 1.0, 5.0), "start": (0, 7, 7)}]
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_networks_trained_together_are_those_trained_one_by_one(changes, n_classes):
    x, y, generator = data(n_classes=n_classes)
    weights = tensor(generator.uniform(0, 2, (len(x), 3)) * (generator.random((len(x), 3)) < 0.7))
    chosen = replace(QUICK, **changes)
    together = fit_networks(tensor(x), tensor(y), Weighted(weights), chosen).scores(tensor(x))
    assert together.shape == (len(x), n_classes, 3)
    for member in range(3):
        own = {name: values[member] for name, values in changes.items() if isinstance(values, tuple)}
        members = Weighted(weights[:, member : member + 1])
        alone = fit_networks(tensor(x), tensor(y), members, replace(chosen, **own)).scores(tensor(x))
        torch.testing.assert_close(together[:, :, member], alone[:, :, 0], atol=1e-4, rtol=1e-4)


def test_a_network_is_what_plain_adamw_over_the_same_batches_makes_of_it():
    x, y, _ = data()
    found = fit_networks(tensor(x), tensor(y), Weighted(torch.ones(len(x), 1)), QUICK)
    first = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) / 5**0.5
    inward, constant = (part.clone().requires_grad_() for part in (first[:-1], first[-1]))
    outward, bias = torch.zeros(8, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    decayed, spared = {"params": [inward, outward]}, {"params": [constant, bias], "weight_decay": 0.0}
    adam = torch.optim.AdamW([decayed, spared], weight_decay=0.1, eps=1e-6)
    generator, step = torch.Generator().manual_seed(0), 0
    for _ in range(4):
        for rows in torch.randperm(90, generator=generator).tensor_split(3):
            for group in adam.param_groups:
                group["lr"] = 0.02 * (1 + np.cos(np.pi * step / 12)) / 2
            hidden = torch.nn.functional.gelu(tensor(x[rows, :-1]) @ inward + constant)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                (hidden @ outward + bias)[:, 0], tensor(y[rows, 1])
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
            step += 1
    torch.testing.assert_close(found.outward[0], outward, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.inward[:-1, 0], inward, atol=1e-5, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_member_learns_nothing_from_samples_of_weight_zero(seed):
    x, y, generator = data(seed=seed)
    weights = (generator.random((len(x), 2)) < 0.5).astype(float)
    unseen = weights[:, 0] == 0
    members = Weighted(tensor(weights))
    changed = np.where(unseen[:, None], 1 - y, y)
    before, after = (fit_networks(tensor(x), tensor(label), members, QUICK) for label in (y, changed))
    assert torch.equal(before.outward[0], after.outward[0])
    assert not torch.equal(before.outward[1], after.outward[1])


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100))
def test_a_weighting_times_a_constant_is_the_same_weighting(factor):
    x, y, generator = data()
    weights = tensor(generator.uniform(0.1, 1, (len(x), 1)))
    one, other = (fit_networks(tensor(x), tensor(y), Weighted(w), QUICK) for w in (weights, factor * weights))
    torch.testing.assert_close(one.scores(tensor(x)), other.scores(tensor(x)), atol=2e-3, rtol=0)


def test_no_label_of_a_fold_reaches_the_scores_of_that_fold():
    x, y, generator = data()
    fold = (generator.permutation(len(y)) % 3)[:, None]
    held = fold[:, 0] == 1
    changed = np.where(held[:, None], 1 - y, y)
    scores = [
        out_of_fold_network_scores(x, labels, fold, 3, "cpu", replace(QUICK, n_epochs=1), [1.0]).score
        for labels in (y, changed)
    ]
    np.testing.assert_allclose(scores[0][held], scores[1][held], atol=1e-6)
    assert np.abs(scores[0][~held] - scores[1][~held]).max() > 0.01


def test_out_of_fold_scores_are_those_of_the_best_epoch_and_weight_decay():
    x, y, generator = data()
    fold = np.stack([generator.permutation(len(y)) % 3 for _ in range(2)], 1)
    found = out_of_fold_network_scores(x, y, fold, 3, "cpu", QUICK, [0.1, 30.0])
    losses = {}

    def watch(decay, epoch, rows, logits, seen):
        probability = torch.sigmoid(logits[:, 0, 0]).double()
        own = (probability * ~seen).unflatten(1, (2, 3)).sum(2).numpy()
        losses[decay, epoch] = -np.log(np.where(y[rows, 1:] == 1, own, 1 - own)).mean(), own

    for decay in (0.1, 30.0):
        members = Folds(torch.as_tensor(fold), 3, torch.ones(len(x)))
        chosen = replace(QUICK, weight_decay=decay, start=(0, 0, 0, 1, 1, 1))
        fit_networks(tensor(x), tensor(y), members, chosen, lambda *shown, decay=decay: watch(decay, *shown))
    best = min(losses, key=lambda which: losses[which][0])
    assert found.penalty == best[0]
    np.testing.assert_allclose(found.score[:, :, 1], losses[best][1], atol=1e-4)
    assert found.loss.mean() == pytest.approx(losses[best][0], abs=1e-4)


def test_networks_learn_what_no_straight_line_can():
    generator = np.random.default_rng(0)
    x = np.hstack([generator.normal(size=(600, 2)), np.ones((600, 1))]).astype(np.float32)
    y = one_hot((x[:, 0] * x[:, 1] > 0).astype(float))
    fold = (np.arange(600) % 5)[:, None]
    straight = out_of_fold_scores(x, y, fold, 5, "cpu")
    bent = out_of_fold_network_scores(x, y, fold, 5, "cpu", NetworkSettings(width=32, learning_rate=0.02))
    assert straight.loss.mean() > 0.65
    assert bent.loss.mean() < 0.3


def test_dynamics_are_the_means_over_the_heads_that_saw_a_sample():
    label = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    recorder = DynamicsRecorder(label, 3)
    seen = torch.tensor([[True, False], [True, True]])
    right, wrong = [3.0, 1.0, 0.0], [0.0, 1.0, 0.0]  # logits of sample 0
    recorder.watch(0, slice(0, 2), torch.full((2, 3, 1, 2), 9.0), seen)
    for step, own in enumerate((right, wrong, right), 1):
        logits = torch.tensor([[own, right], [[0.0, 0.0, 2.0], [0.0, 4.0, 0.0]]])  # (b, m, q)
        recorder.watch(step, slice(0, 2), logits.permute(0, 2, 1)[:, :, None], seen)
    recorder.watch(4, slice(0, 2), torch.full((2, 3, 1, 2), 9.0), seen)
    found = recorder.dynamics()
    np.testing.assert_allclose(found.margin, [[2, -1, 2], [-1, -1, -1]], atol=1e-6)  # 1: (2 - 4) / 2
    np.testing.assert_allclose(found.loss[0, 1], np.log(np.e + 2), rtol=1e-5)
    p = np.exp(wrong) / np.exp(wrong).sum()
    np.testing.assert_allclose(found.error_norm[0, 1], np.linalg.norm(p - label[0]), rtol=1e-5)
    assert found.n_forgotten.tolist() == [1.0, 0.0]


def test_steps_after_convergence_repeat_the_last_and_unseen_samples_know_nothing():
    recorder = DynamicsRecorder(one_hot(np.array([1.0, 0.0])), 3)
    recorder.watch(1, slice(0, 2), torch.full((2, 1, 1, 1), 2.0), torch.tensor([[True], [False]]))
    found = recorder.dynamics()
    assert found.margin.tolist() == [[2.0] * 3, [0.0] * 3]
    np.testing.assert_allclose(found.loss[1], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(found.error_norm[1], np.sqrt(0.5), rtol=1e-6)


def test_a_wrong_label_is_fitted_late_by_linear_heads_and_by_networks():
    x, y, _ = data(n=200)
    clear = np.flatnonzero(np.abs(x[:, 0]) > 1.5)
    y[clear[0]] = y[clear[0], ::-1].copy()
    fold = (np.arange(200) % 4)[:, None]
    linear, network = DynamicsRecorder(y, 10), DynamicsRecorder(y, 4)
    fit_heads(tensor(x), tensor(y), Folds(torch.as_tensor(fold), 4, torch.ones(200)), [0.1], linear.watch)
    out_of_fold_network_scores(x, y, fold, 4, "cpu", QUICK, recorder=network)
    for recorder in (linear, network):
        found = recorder.dynamics()
        assert found.margin.mean(1).argmin() == clear[0]
        assert found.loss[:, -1].argmax() == clear[0]
        assert found.error_norm[:, 0].argmax() == clear[0]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_one_sample_one_class_and_constant_features_are_no_obstacle(n, n_classes):
    y, fold = np.eye(n_classes)[np.zeros(n, int)], (np.arange(n) % 2)[:, None]
    recorder = DynamicsRecorder(y, 4)
    found = out_of_fold_network_scores(np.ones((n, 2), np.float32), y, fold, 2, "cpu", QUICK, recorder=recorder)
    assert np.isfinite(found.score).all()
    np.testing.assert_allclose(found.score.sum(2), 1, atol=1e-5)
    assert all(np.isfinite(getattr(recorder.dynamics(), part)).all() for part in ("margin", "loss", "error_norm"))
