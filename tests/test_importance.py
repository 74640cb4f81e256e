import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.out_of_fold import OutOfFoldConfidence
from ecom_pipeline.importance.estimators.prediction_gap import LiteralPredictionGap, StabilisedPredictionGap

probability = st.floats(0.001, 0.999)


def evidence(label, score, fold):
    return Evidence(label=one_hot(np.array(label)), oof_score=one_hot(np.array(score)), fold=np.array(fold))


@st.composite
def scored(draw):
    n, r = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    grid = st.lists(st.lists(probability, min_size=r, max_size=r), min_size=n, max_size=n)
    fold = st.lists(st.lists(st.integers(0, 2), min_size=r, max_size=r), min_size=n, max_size=n)
    label = st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)
    return evidence(draw(label), draw(grid), draw(fold))


@given(scored())
def test_every_value_is_finite_whatever_the_scores(samples):
    for estimator in (OutOfFoldConfidence(), LiteralPredictionGap(), StabilisedPredictionGap(0.05)):
        assert np.isfinite(estimator.fit(samples).value).all()


@given(scored(), st.randoms())
def test_values_do_not_depend_on_the_order_of_the_rows(samples, random):
    order = np.array(random.sample(range(len(samples.label)), len(samples.label)))
    moved = Evidence(label=samples.label[order], oof_score=samples.oof_score[order], fold=samples.fold[order])
    for estimator in (OutOfFoldConfidence(), StabilisedPredictionGap(0.05)):
        np.testing.assert_allclose(estimator.fit(moved).value, estimator.fit(samples).value[order], rtol=1e-9)


@given(scored())
def test_gaps_within_a_fold_add_up_to_nothing(samples):
    """The law that makes the literal weight explode: the average sample's gap is 0."""
    one = Evidence(label=samples.label, oof_score=samples.oof_score[:, :1], fold=samples.fold[:, :1])
    value = LiteralPredictionGap().fit(one).value
    gap = np.divide(1.0, value, out=np.zeros_like(value), where=value != 0)
    for fold in np.unique(one.fold):
        assert gap[one.fold[:, 0] == fold].sum() == pytest.approx(0, abs=1e-6)


def test_the_literal_gap_agrees_with_the_formula_by_hand():
    samples = evidence([1.0, 0.0, 1.0], [[0.9, 0.8], [0.5, 0.6], [0.4, 0.4]], [[0, 0], [0, 1], [0, 1]])
    # confidences by repeat: (.9, .5, .4) in one fold of mean .6; (.8) alone, and (.4, .4) of mean .4
    assert LiteralPredictionGap().fit(samples).value == pytest.approx([1 / -0.3, 1 / 0.1, 1 / 0.2])


def test_a_gap_of_exactly_nothing_has_value_0_and_is_counted():
    samples = evidence([1.0, 1.0], [[0.5], [0.5]], [[0], [0]])
    found = LiteralPredictionGap().fit(samples)
    assert found.value.tolist() == [0, 0]
    assert found.notes["n_undefined"] == 2


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_repeats_give_a_standard_error_that_shrinks_to_0_when_they_agree(seed):
    score = np.random.default_rng(seed).uniform(0.1, 0.9, (5, 1)).repeat(3, axis=1)
    found = OutOfFoldConfidence().fit(evidence(np.ones(5), score, np.zeros((5, 3), np.int64)))
    np.testing.assert_allclose(found.stderr, 0, atol=1e-12)
