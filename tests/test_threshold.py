import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.threshold import LabelPosterior, find_wrong_labels, most_f1

SEEDS = st.integers(0, 2**32 - 1)


def f1(said: np.ndarray, wrong: np.ndarray) -> float:
    return 2 * (said & wrong).sum() / (said.sum() + wrong.sum())


def noisy(n: int, transition: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of observed labels, scores whose logits noise has shrunk to 0.4 of the true ones, and what is wrong."""
    rng = np.random.default_rng(seed)
    c = len(transition)
    logit = 6 * rng.normal(size=(n, c))
    truth = (softmax(logit).cumsum(1) > rng.random((n, 1))).argmax(1)
    observed = (transition[truth].cumsum(1) > rng.random((n, 1))).argmax(1)
    return np.eye(c)[observed], softmax(0.4 * logit)[:, None], truth != observed


def softmax(logit: np.ndarray) -> np.ndarray:
    odds = np.exp(logit - logit.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def even(rate: float, c: int) -> np.ndarray:
    return np.where(np.eye(c, dtype=bool), 1 - rate, rate / (c - 1))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_cut_has_the_largest_expected_f1_of_all_sets_of_samples(probability):
    q = np.array(probability)
    flagged = most_f1(q)
    best = np.prod(1 - q)  # nothing flagged: right if nothing is wrong
    for mask in range(1, 2 ** len(q)):
        chosen = np.array([mask >> i & 1 for i in range(len(q))], bool)
        best = max(best, 2 * q[chosen].sum() / (chosen.sum() + q.sum()))
    reached = 2 * q[flagged].sum() / (flagged.sum() + q.sum()) if flagged.any() else np.prod(1 - q)
    assert reached == pytest.approx(best)


def test_the_cut_of_a_case_worked_by_hand():
    # 2 * 0.9 / (1 + 1.8) = 0.64, 2 * 1.5 / (2 + 1.8) = 0.79, 2 * 1.8 / (3 + 1.8) = 0.75
    assert most_f1(np.array([0.3, 0.9, 0.6])).tolist() == [False, True, True]


@pytest.mark.parametrize(("c", "rate"), [(2, 0.1), (2, 0.3), (5, 0.2), (5, 0.4)])
def test_the_rate_of_noise_and_the_f1_of_the_true_posterior_are_found_again(c, rate):
    label, score, wrong = noisy(4000, even(rate, c), seed=c)
    found = find_wrong_labels(label, score)
    assert_allclose(1 - np.diag(found.transition), rate, atol=0.04)
    assert found.probability.mean() == pytest.approx(wrong.mean(), abs=0.02)
    assert (found.wrong & wrong).sum() / found.wrong.sum() == pytest.approx(found.precision, abs=0.06)
    assert (found.wrong & wrong).sum() / wrong.sum() == pytest.approx(found.recall, abs=0.06)
    assert found.structure[0] > 0.9
    assert found.temperature == pytest.approx(2.5, rel=0.25)


def test_the_probability_of_a_wrong_label_agrees_with_bayes_rule_on_known_noise():
    rng = np.random.default_rng(0)
    logit = 6 * rng.normal(size=8000)
    clean = 1 / (1 + np.exp(-logit))
    observed = (rng.random(8000) < clean) ^ (rng.random(8000) < 0.2)
    by_bayes = np.where(
        observed, 0.2 * (1 - clean) / (0.2 + 0.6 * clean), 0.2 * clean / (0.8 - 0.6 * clean)
    )  # both rates 0.2
    found = find_wrong_labels(one_hot(observed), one_hot(1 / (1 + np.exp(-0.3 * logit)))[:, None])
    assert np.abs(found.probability - by_bayes).mean() < 0.02


def test_scores_that_already_level_off_at_the_noise_are_cut_as_well_as_by_the_best_filter():
    filters = pytest.importorskip("cleanlab.filter")
    rng = np.random.default_rng(5)
    clean = softmax(6 * rng.normal(size=(2000, 5)))
    truth = (clean.cumsum(1) > rng.random((2000, 1))).argmax(1)
    score = clean @ even(0.4, 5)  # the best that any model of the observed labels can say
    observed = (even(0.4, 5)[truth].cumsum(1) > rng.random((2000, 1))).argmax(1)
    theirs = [
        f1(filters.find_label_issues(observed, score, filter_by=one, n_jobs=1), observed != truth)
        for one in ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given")
    ]
    found = find_wrong_labels(np.eye(5)[observed], score[:, None])
    assert f1(found.wrong, observed != truth) > max(theirs) - 0.01
    assert found.probability.mean() < (observed != truth).mean()  # such noise passes for overlap: a lower bound


def test_noise_on_one_side_is_told_from_noise_on_both():
    label, score, wrong = noisy(3000, np.array([[1.0, 0.0], [0.3, 0.7]]), seed=1)
    found = find_wrong_labels(label, score)
    assert found.structure[1] > 0.9
    assert_allclose(found.transition, [[1, 0], [0.3, 0.7]], atol=0.06)
    assert f1(found.wrong, wrong) > 0.8


def test_noise_between_two_classes_that_are_confused_is_told_from_noise_everywhere():
    transition = np.eye(4)
    transition[0, :2] = 0.6, 0.4
    label, score, wrong = noisy(3000, transition, seed=2)
    found = find_wrong_labels(label, score)
    assert found.structure[2] > 0.9
    assert_allclose(found.transition[0], transition[0], atol=0.06)
    assert f1(found.wrong, wrong) > 0.75


@pytest.mark.parametrize("power", [0.3, 3.0])
def test_probabilities_that_are_too_timid_or_too_bold_are_put_right(power):
    label, score, wrong = noisy(4000, even(0.2, 3), seed=3)
    bent = score**power / (score**power).sum(2, keepdims=True)
    straight, mended = find_wrong_labels(label, score), find_wrong_labels(label, bent)
    assert mended.temperature == pytest.approx(straight.temperature / power, rel=0.02)
    assert f1(mended.wrong, wrong) == pytest.approx(f1(straight.wrong, wrong), abs=0.01)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_the_order_of_rows_and_the_names_of_classes_do_not_matter(seed):
    label, score, _ = noisy(150, even(0.2, 3), seed)
    rng = np.random.default_rng(seed)
    rows, classes = rng.permutation(150), rng.permutation(3)
    turned = find_wrong_labels(label[rows][:, classes], score[rows][:, :, classes])
    assert_allclose(turned.probability, find_wrong_labels(label, score).probability[rows], atol=0.01)


def test_the_rule_finds_flipped_digits_better_than_every_filter_of_cleanlab():
    filters = pytest.importorskip("cleanlab.filter")
    digits, ours, theirs = load_digits(), [], []
    x = np.column_stack([digits.data / 16, np.ones(1797)]).astype(np.float32)[:1000]
    truth = digits.target[:1000]
    for seed in range(2):
        rng = np.random.default_rng(seed)
        observed = np.where(rng.random(1000) < 0.2, (truth + rng.integers(1, 10, 1000)) % 10, truth)
        label, fold = np.eye(10)[observed], rng.integers(0, 5, (1000, 1))
        score = out_of_fold_scores(x, label, fold, 5, "cpu", (0.01, 0.1)).score
        ours.append(f1(find_wrong_labels(label, score).wrong, observed != truth))
        theirs.append(
            [
                f1(filters.find_label_issues(observed, score[:, 0], filter_by=one, n_jobs=1), observed != truth)
                for one in ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
            ]
        )
    assert np.mean(ours) > np.mean(theirs, axis=0).max() + 0.01


def test_a_sure_model_and_labels_that_agree_leave_nothing_flagged():
    observed = np.tile([0, 1, 2], 50)
    score = (0.001 + 0.997 * np.eye(3)[observed])[:, None]
    found = find_wrong_labels(np.eye(3)[observed], score)
    assert not found.wrong.any()
    assert found.f1 > 0.5
    assert found.precision == 0


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("shares", [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.3, 0.7]])
def test_few_samples_give_finite_probabilities(n, shares):
    for label in (one_hot(np.ones(n)), np.tile([0.4, 0.6], (n, 1))):
        found = find_wrong_labels(label, np.tile(shares, (n, 2, 1)))
        assert ((found.probability >= 0) & (found.probability <= 1)).all()
        assert_allclose(found.transition.sum(1), 1)
        assert found.structure.sum() == pytest.approx(1)
        assert np.isfinite([found.precision, found.recall, found.f1, found.temperature]).all()


def test_values_are_the_probability_that_the_label_is_right():
    label, score, wrong = noisy(500, even(0.2, 3), seed=4)
    values = LabelPosterior().fit(Evidence(label=label, oof_score=score))
    found = find_wrong_labels(label, score)
    assert_allclose(values.value, 1 - found.probability)
    assert values.notes["flagged_share"] == found.wrong.mean()
    assert values.value[wrong].mean() < values.value[~wrong].mean() - 0.5


def test_scores_of_other_samples_are_refused():
    with pytest.raises(SampleError, match="wrong labels: 3 samples"):
        find_wrong_labels(one_hot(np.ones(3)), np.full((2, 1, 2), 0.5))
    with pytest.raises(SampleError, match="'oof_score'"):
        LabelPosterior().fit(Evidence(label=one_hot(np.ones(2))))


def test_many_samples_tell_the_rate_more_exactly_than_the_first_steps_do():
    label, score, wrong = noisy(100_000, even(0.1, 2), seed=0)
    found = find_wrong_labels(label, score)
    assert_allclose(1 - np.diag(found.transition), 0.1, atol=0.01)
    assert found.structure[0] > 0.9
    assert found.probability.mean() == pytest.approx(wrong.mean(), abs=0.005)


def test_labels_that_nobody_can_predict_are_not_called_wrong():
    """A quarter of positives, and scores without skill: noise of a quarter would explain them as well as taste does."""
    draw = np.random.default_rng(0)
    label = one_hot((draw.random(2500) < 0.25) * 1.0)
    logit = np.log(0.25 / 0.75) + 0.3 * draw.normal(size=(2500, 2))
    found = find_wrong_labels(label, one_hot(1 / (1 + np.exp(-logit))))
    assert not found.told_apart or found.wrong.mean() < 0.02


def test_planted_noise_is_told_apart_from_taste():
    draw = np.random.default_rng(1)
    right = draw.random(2000) < 0.4
    wrong = draw.random(2000) < 0.15
    score = np.where(right, 0.8, 0.2) + 0.05 * draw.normal(size=2000)
    found = find_wrong_labels(one_hot((right ^ wrong) * 1.0), one_hot(score.clip(0.01, 0.99))[:, None])
    assert found.told_apart
    assert (found.wrong == wrong).mean() > 0.99
