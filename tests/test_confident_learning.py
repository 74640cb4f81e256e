import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.confident_learning import (
    ConfidentLearning,
    PruneByBoth,
    PruneByClass,
    PruneByNoiseRate,
    calibrated_joint,
    confident_joint,
    likely_class,
    thresholds,
    whole,
)

FILTERS = {
    "confident_learning": ConfidentLearning(),
    "prune_by_class": PruneByClass(),
    "prune_by_noise_rate": PruneByNoiseRate(),
    "both": PruneByBoth(),
}
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, n_classes: int | None = None) -> tuple[np.ndarray, np.ndarray, Evidence]:
    """Labels of which some are flipped, with every class among them, and the probabilities of a model of some skill."""
    rng = np.random.default_rng(seed)
    c = n_classes or int(rng.integers(2, 7))
    n = int(rng.integers(5 * c, 300))
    truth = np.concatenate([np.arange(c), rng.integers(0, c, n - c)])
    observed = np.where(rng.random(n) < 0.3, rng.integers(0, c, n), truth)
    observed[:c] = np.arange(c)
    logit = rng.normal(size=(n, c)) + rng.uniform(0, 4) * np.eye(c)[truth]
    score = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
    return observed, score, Evidence(label=np.eye(c)[observed], oof_score=score[:, None])


def rounds_alike(evidence: Evidence) -> bool:
    """No count is half-way between whole numbers, and no two compete to be moved: else the last bit would decide."""
    for row in calibrated_joint(evidence.label, evidence.oof_score[:, 0]):
        moved = np.sort(row - np.round(row))
        apart = np.diff(moved).min() > 1e-9 or np.round(row).sum() == np.round(row.sum())
        if not apart or (np.abs(np.abs(moved) - 0.5) < 1e-9).any():
            return False
    return True


def test_the_joint_of_a_case_worked_by_hand():
    # thresholds: (0.9 + 0.6) / 2 = 0.75 and (0.7 + 0.1) / 2 = 0.4; the second sample reaches 0.4 of class 1 alone
    score = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    label = np.eye(2)[[0, 0, 1, 1]]
    assert thresholds(label, score).tolist() == pytest.approx([0.75, 0.4])
    assert likely_class(score, thresholds(label, score)).tolist() == [0, 1, 1, 0]
    assert confident_joint(label, score).tolist() == [[1, 1], [1, 1]]
    assert calibrated_joint(label, score).tolist() == [[1, 1], [1, 1]]


@given(SEEDS)
def test_joints_are_those_of_cleanlab(seed):
    count = pytest.importorskip("cleanlab.count")
    observed, score, evidence = drawn(seed)
    assert_allclose(thresholds(evidence.label, score), count.get_confident_thresholds(observed, score), rtol=1e-12)
    ours = confident_joint(evidence.label, score)
    assert ours.tolist() == count.compute_confident_joint(observed, score, calibrate=False).tolist()
    ours = calibrated_joint(evidence.label, score) / len(observed)
    assert np.abs(ours - count.estimate_joint(observed, score)).max() <= (score.shape[1] + 1) / 2 / len(observed)
    assume(rounds_alike(evidence))
    ours = whole(calibrated_joint(evidence.label, score)) / len(observed)
    assert_allclose(ours, count.estimate_joint(observed, score), atol=1e-12)


@pytest.mark.parametrize("filter_by", FILTERS)
@given(seed=SEEDS)
def test_what_is_below_zero_is_what_cleanlab_prunes(filter_by, seed):
    filters = pytest.importorskip("cleanlab.filter")
    observed, score, evidence = drawn(seed)
    assume(rounds_alike(evidence))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says so where a class has few samples
        theirs = filters.find_label_issues(observed, score, filter_by=filter_by, n_jobs=1)
    assert ((FILTERS[filter_by].fit(evidence).value < 0) == theirs).all()


@given(SEEDS)
def test_rows_of_the_calibrated_joint_add_up_to_the_labels_soft_ones_too(seed):
    _, score, evidence = drawn(seed)
    for label in (evidence.label, 0.7 * evidence.label + 0.3 * np.roll(evidence.label, 1, axis=1)):
        assert_allclose(calibrated_joint(label, score).sum(1), label.sum(0))


@given(SEEDS)
def test_rounding_keeps_the_total_of_a_row_and_moves_no_entry_by_more_than_one(seed):
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(5), 4)
    counts = share * rng.integers(1, 50, (4, 1))
    assert (whole(counts).sum(1) == np.round(counts.sum(1))).all()
    assert np.abs(whole(counts) - counts).max() <= 1 + 1e-9


@pytest.mark.parametrize("estimator", FILTERS.values(), ids=lambda one: one.name)
@given(seed=SEEDS)
def test_the_order_of_rows_and_the_names_of_classes_do_not_matter(estimator, seed):
    _, score, evidence = drawn(seed)
    assume(rounds_alike(evidence))
    rng = np.random.default_rng(seed)
    rows, classes = rng.permutation(len(score)), rng.permutation(score.shape[1])
    turned = Evidence(label=evidence.label[rows][:, classes], oof_score=score[rows][:, None, classes])
    assert_allclose(estimator.fit(turned).value, estimator.fit(evidence).value[rows], atol=1e-12)


@pytest.mark.parametrize("estimator", FILTERS.values(), ids=lambda one: one.name)
@given(seed=SEEDS)
def test_what_the_model_itself_predicts_is_never_pruned(estimator, seed):
    observed, score, evidence = drawn(seed)
    pruned = estimator.fit(evidence).value < 0
    assert not (pruned & (score.argmax(1) == observed)).any()
    assert estimator.fit(evidence).notes["pruned_share"] == pruned.mean()


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@given(seed=SEEDS)
def test_prune_by_both_is_the_intersection_and_values_are_finite_at_any_size(n, seed):
    rng = np.random.default_rng(seed)
    evidence = Evidence(label=rng.dirichlet(np.full(3, 0.5), n), oof_score=rng.dirichlet(np.ones(3), (n, 2)))
    pruned = {name: estimator.fit(evidence).value < 0 for name, estimator in FILTERS.items()}
    assert (pruned["both"] == (pruned["prune_by_class"] & pruned["prune_by_noise_rate"])).all()
    assert all(np.isfinite(estimator.fit(evidence).value).all() for estimator in FILTERS.values())


@pytest.mark.parametrize("estimator", FILTERS.values(), ids=lambda one: one.name)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_samples_of_one_class_alone_are_not_pruned(estimator, n):
    evidence = Evidence(label=one_hot(np.ones(n)), oof_score=np.tile([0.7, 0.3], (n, 1, 1)))
    assert (estimator.fit(evidence).value >= 0).all()


@pytest.mark.parametrize("estimator", FILTERS.values(), ids=lambda one: one.name)
def test_without_scores_the_error_names_them(estimator):
    with pytest.raises(SampleError, match="'oof_score'"):
        estimator.fit(Evidence(label=one_hot(np.ones(2))))
