import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import roc_auc_score

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Dynamics, Evidence, one_hot
from ecom_pipeline.importance.estimators.dynamics import (
    AreaUnderMargin,
    EarlyError,
    Forgetting,
    ReducibleLoss,
    ReweightedLoss,
    SmallLoss,
    ThresholdedAreaUnderMargin,
)
from ecom_pipeline.importance.networks import DynamicsRecorder, NetworkSettings, out_of_fold_network_scores

FROM_DYNAMICS = [AreaUnderMargin(), EarlyError(), Forgetting(), SmallLoss(), ReweightedLoss(), ReducibleLoss()]


def evidence(label, margin=None, loss=None, error=None, forgotten=None, score=None):
    shape = next(np.shape(part) for part in (margin, loss, error, np.zeros((len(label), 1))) if part is not None)
    parts = [np.zeros(shape) if part is None else np.array(part, float) for part in (margin, loss, error)]
    n_forgotten = np.zeros(len(label)) if forgotten is None else np.array(forgotten, float)
    return Evidence(label=label, dynamics=Dynamics(*parts, n_forgotten), oof_score=score)


def test_aum_is_that_of_the_authors_own_test():
    # asappresearch/aum, test/test_aum.py: sample b has logits (6, 5, 4), label 0, then (7, 8, 9), label 2; a has
    # (1, 2, 3), label 1; c has (12, 11, 10), label 1. Here b's label is 0 in both: margins 1 and 7 - 9 = -2.
    import torch

    label = np.eye(3)[[1, 0, 1]]
    recorder = DynamicsRecorder(label, 2)
    for step, logits in enumerate(([[1, 2, 3], [6, 5, 4], [12, 11, 10]], [[1, 2, 3], [7, 8, 9], [12, 11, 10]]), 1):
        shown = torch.tensor(logits, dtype=torch.float32)[:, :, None, None]
        recorder.watch(step, slice(0, 3), shown, torch.ones(3, 1, dtype=torch.bool))
    value = AreaUnderMargin().fit(Evidence(label=label, dynamics=recorder.dynamics())).value
    assert value.tolist() == [-1.0, -0.5, -1.0]


def test_el2n_looks_after_a_tenth_of_the_epochs_and_turns_the_sign():
    error = np.tile(np.arange(20) / 20, (2, 1))
    found = EarlyError().fit(evidence(np.eye(2), error=error))
    assert found.value.tolist() == [-0.05, -0.05]
    assert found.notes["epoch"] == 2
    assert EarlyError(share=1.0).fit(evidence(np.eye(2), error=error)).value.tolist() == [-0.95, -0.95]


def test_el2n_by_hand():
    import torch

    label = np.array([[1.0, 0.0], [0.0, 1.0]])
    recorder = DynamicsRecorder(label, 1)
    logits = torch.tensor([np.log(3.0), np.log(3.0)], dtype=torch.float32)[:, None, None, None]  # probability 3/4
    recorder.watch(1, slice(0, 2), logits, torch.ones(2, 1, dtype=torch.bool))
    found = EarlyError().fit(Evidence(label=label, dynamics=recorder.dynamics())).value
    np.testing.assert_allclose(found, [-0.75 * np.sqrt(2), -0.25 * np.sqrt(2)], rtol=1e-6)


def test_what_was_never_right_counts_as_forgotten_every_epoch():
    margin = [[-1.0, -1.0, 0.0], [-1.0, 1.0, -1.0], [1.0, 1.0, 1.0]]
    found = Forgetting().fit(evidence(np.eye(3), margin=margin, forgotten=[0, 1, 0]))
    assert found.value.tolist() == [-3.0, -1.0, 0.0]
    assert found.notes["n_never_right"] == 1


def test_truncation_drops_the_largest_losses_of_positives_and_no_negative():
    label = one_hot(np.array([1.0, 1.0, 1.0, 0.0]))
    loss = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 5.0], [9.0, 9.0]])
    value = SmallLoss().fit(evidence(label, loss=loss)).value
    np.testing.assert_allclose(value, [(0 + 0.75) / 2, (0.5 + 0.75) / 2, (1 + 0) / 2, 1])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_truncation_keeps_what_a_sort_at_that_rate_keeps(n_positives, seed):
    generator = np.random.default_rng(seed)
    loss = generator.permutation(n_positives + 2)[:, None] + 1.0
    label = one_hot(np.array([1.0] * n_positives + [0.0, 0.0]))
    value = SmallLoss().fit(evidence(label, loss=loss)).value
    for n_dropped in range(1, n_positives):
        dropped = np.argsort(-loss[:n_positives, 0])[:n_dropped]
        below = np.flatnonzero(value < (n_dropped - 0.5) / (n_positives - 1))
        assert set(below) == set(dropped)


def test_reweighting_is_a_power_of_the_probability_of_the_label():
    # R_CE/loss.py of WenjieWWJ/DenoisingRec: sigmoid(logit)^beta for positives, (1 - sigmoid(logit))^beta for negatives
    label, p = one_hot(np.array([1.0, 0.0])), 0.81
    seen = evidence(label, loss=-np.log([[p], [1 - p]]))
    np.testing.assert_allclose(ReweightedLoss(power=0.5).fit(seen).value, [0.9, 0.19**0.5])
    np.testing.assert_allclose(ReweightedLoss(power=0.5, positives_only=True).fit(seen).value, [0.9, 1.0])


def test_reducible_loss_looks_after_a_share_of_the_epochs():
    seen = evidence(np.eye(2), loss=np.tile(np.arange(20.0), (2, 1)), score=np.full((2, 1, 2), 0.5))
    assert ReducibleLoss(share=0.5).fit(seen).value == pytest.approx(9 - np.log(2))


def test_reducible_loss_prefers_what_is_learnable_and_not_yet_learned():
    label = one_hot(np.array([1.0, 1.0, 1.0]))
    score = one_hot(np.array([[0.9, 0.9], [0.9, 0.9], [0.1, 0.1]]))
    loss = np.array([[np.log(2)], [0.1], [np.log(2)]])  # not learned, learned, wrong
    found = ReducibleLoss().fit(evidence(label, loss=loss, score=score))
    np.testing.assert_allclose(found.value, loss[:, 0] + np.log([0.9, 0.9, 0.1]))
    assert found.value[0] > found.value[1] > found.value[2]
    np.testing.assert_allclose(found.stderr, 0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, (6, 3), elements=st.floats(0.125, 3, width=16)), st.permutations(range(6)))
def test_values_follow_the_samples_when_rows_change_places(table, order):
    label = one_hot(np.array([1, 0, 1, 1, 0, 1.0]))
    score = one_hot(table[:, :2] / 4)
    before, after = (
        evidence(label[o], table[o] - 1, table[o], table[o] / 3, table[o, 0], score[o])
        for o in (list(range(6)), list(order))
    )
    for estimator in FROM_DYNAMICS:
        np.testing.assert_allclose(estimator.fit(before).value[list(order)], estimator.fit(after).value, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, (5, 2), elements=st.floats(0.125, 3, width=16)), st.floats(0.1, 10))
def test_the_scale_of_logits_scales_areas_and_leaves_ranks_alone(table, scale):
    label = one_hot(np.ones(5))
    one, other = (evidence(label, factor * (table - 1), factor * table) for factor in (1, scale))
    area = AreaUnderMargin()
    np.testing.assert_allclose(scale * area.fit(one).value, area.fit(other).value, atol=1e-9)
    if len(np.unique((scale * table).round(9))) == len(np.unique(table)):
        np.testing.assert_allclose(SmallLoss().fit(one).value, SmallLoss().fit(other).value)


def flipped_set(load, share, seed):
    features, truth = load(return_X_y=True)
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(truth))[:500]
    spread = features[rows].std(0)
    x = (features[rows] - features[rows].mean(0)) / np.where(spread > 1e-6, spread, 1)
    x = np.hstack([x, np.ones((len(x), 1))]).astype(np.float32)
    truth = truth[rows] >= (5 if load is load_digits else 1)
    flipped = generator.random(len(rows)) < share
    return x, one_hot((truth ^ flipped).astype(float)), flipped, generator


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_planted_wrong_labels_come_out_at_the_bottom(load):
    x, y, flipped, generator = flipped_set(load, 0.2, 0)
    fold = (generator.permutation(len(x)) % 4)[:, None]
    chosen = NetworkSettings(n_epochs=20, batch_size=64)
    recorder = DynamicsRecorder(y, chosen.n_epochs)
    scores = out_of_fold_network_scores(x, y, fold, 4, "cpu", chosen, (1.0,), recorder)
    seen = Evidence(label=y, features=x, oof_score=scores.score, dynamics=recorder.dynamics())
    rest = [e for e in FROM_DYNAMICS if not isinstance(e, SmallLoss | Forgetting)]
    for estimator in [*rest, ThresholdedAreaUnderMargin(settings=chosen)]:
        assert roc_auc_score(flipped, -estimator.fit(seen).value) > 0.8, estimator.name
    positive = seen.observed == 1
    assert roc_auc_score(flipped[positive], -SmallLoss().fit(seen).value[positive]) > 0.8
    assert roc_auc_score(flipped, -Forgetting().fit(seen).value) > 0.7


def test_most_of_what_is_below_the_cut_is_wrong_where_classes_are_many():
    features, truth = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    x = np.hstack([features[:800] / 8 - 1, np.ones((800, 1))]).astype(np.float32)
    flipped = generator.random(800) < 0.2
    label = one_hot(np.where(flipped, (truth[:800] + generator.integers(1, 10, 800)) % 10, truth[:800]), 10)
    found = ThresholdedAreaUnderMargin(settings=NetworkSettings(batch_size=64)).fit(Evidence(label=label, features=x))
    below = found.value < 0
    assert below[flipped].mean() > 0.9
    assert flipped[below].mean() > 0.7
    assert found.notes["share_below_cut"] == pytest.approx(below.mean())


def test_a_lower_quantile_calls_fewer_labels_wrong():
    x, y, _, _ = flipped_set(load_breast_cancer, 0.2, 1)
    seen, chosen = Evidence(label=y[:90], features=x[:90]), NetworkSettings(n_epochs=3)
    strict, mild = (ThresholdedAreaUnderMargin(q, chosen).fit(seen).value for q in (0.99, 0.5))
    assert (mild > strict).all()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_few_samples_of_one_class_and_constant_features_are_no_obstacle(n, n_classes):
    y, x = np.eye(n_classes)[np.zeros(n, int)], np.ones((n, 2), np.float32)
    recorder = DynamicsRecorder(y, 2)
    fold = (np.arange(n) % 2)[:, None]
    chosen = NetworkSettings(n_epochs=2)
    scores = out_of_fold_network_scores(x, y, fold, 2, "cpu", chosen, recorder=recorder)
    seen = Evidence(label=y, features=x, oof_score=scores.score, dynamics=recorder.dynamics())
    for estimator in [*FROM_DYNAMICS, ThresholdedAreaUnderMargin(settings=chosen)]:
        assert np.isfinite(estimator.fit(seen).value).all()


def test_soft_labels_have_values():
    label = np.array([[0.25, 0.75], [0.5, 0.5]])
    seen = evidence(label, [[1.0], [2.0]], [[0.7], [0.6]], [[0.1], [0.2]], score=np.full((2, 1, 2), 0.5))
    for estimator in FROM_DYNAMICS:
        assert np.isfinite(estimator.fit(seen).value).all()


@pytest.mark.parametrize("estimator", FROM_DYNAMICS)
def test_without_dynamics_an_estimator_says_what_it_lacks(estimator):
    with pytest.raises(SampleError, match=f"{estimator.name}: .*'dynamics'"):
        estimator.fit(Evidence(label=np.eye(2), oof_score=np.full((2, 1, 2), 0.5)))
