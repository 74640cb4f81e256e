import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import ScoredSamples
from ecom_pipeline.importance.folds import fit_heads, out_of_fold_scores
from ecom_pipeline.importance.out_of_fold import OutOfFoldConfidence
from ecom_pipeline.importance.prediction_gap import LiteralPredictionGap, StabilisedPredictionGap
from ecom_pipeline.importance.weights import WeightMap, ess_share

finite = st.floats(-1e6, 1e6, allow_nan=False)
probability = st.floats(0.001, 0.999)


@st.composite
def scored(draw):
    n, r = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    grid = st.lists(st.lists(probability, min_size=r, max_size=r), min_size=n, max_size=n)
    fold = st.lists(st.lists(st.integers(0, 2), min_size=r, max_size=r), min_size=n, max_size=n)
    label = st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)
    return ScoredSamples(np.array(draw(label)), np.array(draw(grid)), np.array(draw(fold)))


def data(n=240, d=6, seed=0):
    generator = np.random.default_rng(seed)
    x = np.hstack([generator.normal(size=(n, d)), np.ones((n, 1))]).astype(np.float32)
    y = (x[:, 0] + generator.normal(size=n) > 0.3).astype(float)
    return x, y, generator


@pytest.mark.parametrize("penalty", [0.01, 0.3, 3.0])
def test_heads_are_the_optimum_that_scikit_learn_finds(penalty):
    x, y, generator = data()
    weight = generator.uniform(0.2, 2.0, len(y))
    ours = fit_heads(
        torch.tensor(x), torch.tensor(y, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32), [penalty]
    )
    peer = LogisticRegression(C=1 / (penalty * weight.sum()), tol=1e-10, max_iter=10_000).fit(
        x[:, :-1].astype(float), y, weight
    )
    np.testing.assert_allclose(ours[:-1, 0, 0, 0], peer.coef_[0], atol=2e-4)
    np.testing.assert_allclose(ours[-1, 0, 0, 0], peer.intercept_[0], atol=2e-4)


def test_out_of_fold_scores_are_those_of_models_fitted_fold_by_fold():
    x, y, generator = data()
    fold = np.stack([generator.permutation(len(y)) % 4, generator.permutation(len(y)) % 4], 1)
    found = out_of_fold_scores(x, y, fold, 4, "cpu", [0.1])
    for repeat in range(2):
        for k in range(4):
            held = fold[:, repeat] == k
            peer = LogisticRegression(C=1 / (0.1 * (~held).sum()), tol=1e-10, max_iter=10_000).fit(
                x[~held, :-1].astype(float), y[~held]
            )
            np.testing.assert_allclose(
                found.score[held, repeat], peer.predict_proba(x[held, :-1].astype(float))[:, 1], atol=1e-4
            )


def test_no_label_of_a_fold_reaches_the_scores_of_that_fold():
    x, y, generator = data()
    fold = (generator.permutation(len(y)) % 5)[:, None]
    changed = np.where(fold[:, 0] == 2, 1 - y, y)
    before, after = (out_of_fold_scores(x, labels, fold, 5, "cpu", [0.1]).score for labels in (y, changed))
    held = fold[:, 0] == 2
    np.testing.assert_allclose(before[held], after[held], atol=1e-6)
    assert np.abs(before[~held] - after[~held]).max() > 0.01


def test_a_fold_without_samples_and_a_training_set_of_one_label_are_no_obstacle():
    x, _, _ = data(12)
    found = out_of_fold_scores(x, np.ones(12), np.zeros((12, 1), np.int64), 3, "cpu")
    assert np.isfinite(found.score).all()


@given(scored())
def test_every_value_is_finite_whatever_the_scores(samples):
    for estimator in (OutOfFoldConfidence(), LiteralPredictionGap(), StabilisedPredictionGap(0.05)):
        assert np.isfinite(estimator.fit(samples).value).all()


@given(scored(), st.randoms())
def test_values_do_not_depend_on_the_order_of_the_rows(samples, random):
    order = np.array(random.sample(range(len(samples.label)), len(samples.label)))
    moved = ScoredSamples(samples.label[order], samples.oof_score[order], samples.fold[order])
    for estimator in (OutOfFoldConfidence(), StabilisedPredictionGap(0.05)):
        np.testing.assert_allclose(estimator.fit(moved).value, estimator.fit(samples).value[order], rtol=1e-9)


@given(scored())
def test_gaps_within_a_fold_add_up_to_nothing(samples):
    """The law that makes the literal weight explode: the average sample's gap is 0."""
    one = ScoredSamples(samples.label, samples.oof_score[:, :1], samples.fold[:, :1])
    value = LiteralPredictionGap().fit(one).value
    gap = np.divide(1.0, value, out=np.zeros_like(value), where=value != 0)
    for fold in np.unique(one.fold):
        assert gap[one.fold[:, 0] == fold].sum() == pytest.approx(0, abs=1e-6)


def test_the_literal_gap_agrees_with_the_formula_by_hand():
    samples = ScoredSamples(
        np.array([1.0, 0.0, 1.0]), np.array([[0.9, 0.8], [0.5, 0.6], [0.4, 0.4]]), np.array([[0, 0], [0, 1], [0, 1]])
    )
    # confidences by repeat: (.9, .5, .4) in one fold of mean .6; (.8) alone, and (.4, .4) of mean .4
    assert LiteralPredictionGap().fit(samples).value == pytest.approx([1 / -0.3, 1 / 0.1, 1 / 0.2])


def test_a_gap_of_exactly_nothing_has_value_0_and_is_counted():
    samples = ScoredSamples(np.array([1.0, 1.0]), np.array([[0.5], [0.5]]), np.array([[0], [0]]))
    found = LiteralPredictionGap().fit(samples)
    assert found.value.tolist() == [0, 0]
    assert found.notes["n_undefined"] == 2


@given(st.lists(finite, min_size=1, max_size=40), st.floats(0, 5), st.floats(0.01, 1), st.booleans(), st.data())
def test_weights_are_not_negative_and_have_mean_1(values, power, quantile, within, draw):
    value = np.array([*values, 1.0])
    label = np.array(draw.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(value), max_size=len(value))))
    weight = WeightMap(power, quantile, within).weights(value, label)
    assert weight.min() >= 0
    assert weight.mean() == pytest.approx(1)
    assert 0 < ess_share(weight) <= 1 + 1e-12


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=30))
def test_a_higher_value_never_has_a_lower_weight_within_a_label(values):
    value = np.array(values)
    weight = WeightMap(1.5, 0.9, True).weights(value, np.ones(len(value)))
    order = value.argsort()
    assert (np.diff(weight[order]) >= -1e-12).all()


def test_no_value_above_0_is_an_error_that_says_what_to_do():
    with pytest.raises(
        SampleError, match=r"2 of 2 values are not above 0; the first is -1\.0.*choose another estimator"
    ):
        WeightMap(1, 1, True).weights(np.array([-1.0, 0.0]), np.array([0.0, 1.0]))


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_repeats_give_a_standard_error_that_shrinks_to_0_when_they_agree(seed):
    score = np.random.default_rng(seed).uniform(0.1, 0.9, (5, 1)).repeat(3, axis=1)
    found = OutOfFoldConfidence().fit(ScoredSamples(np.ones(5), score, np.zeros((5, 3), np.int64)))
    np.testing.assert_allclose(found.stderr, 0, atol=1e-12)
