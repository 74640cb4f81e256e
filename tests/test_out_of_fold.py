import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.out_of_fold import (
    ClassAdjustedConfidence,
    CrossValidatedLoss,
    EntropyAdjustedConfidence,
    ExpectedGradeDistance,
    NormalisedMargin,
    OutOfFoldConfidence,
    RankedProbabilityScore,
)

ALL = [
    OutOfFoldConfidence(),
    NormalisedMargin(),
    EntropyAdjustedConfidence(),
    CrossValidatedLoss(),
    ClassAdjustedConfidence(),
    RankedProbabilityScore(),
    ExpectedGradeDistance(),
]
SIZES = st.tuples(st.integers(1, 30), st.integers(1, 3), st.integers(2, 5), st.integers(0, 2**32 - 1))


def drawn(n: int, r: int, c: int, seed: int, soft: bool = False) -> Evidence:
    rng = np.random.default_rng(seed)
    label = rng.dirichlet(np.full(c, 0.7), n) if soft else np.eye(c)[rng.integers(0, c, n)]
    return Evidence(label=label, oof_score=rng.dirichlet(np.ones(c), (n, r)))


def every_class(n: int, c: int, seed: int) -> tuple[np.ndarray, np.ndarray, Evidence]:
    """Labels with every class among them, probabilities of one repeat, and both as evidence."""
    rng = np.random.default_rng(seed)
    observed = rng.permutation(np.concatenate([np.arange(c), rng.integers(0, c, n - c)]))
    score = rng.dirichlet(np.ones(c), n)
    return observed, score, Evidence(label=np.eye(c)[observed], oof_score=score[:, None])


@pytest.mark.parametrize("c", [2, 3, 7])
@pytest.mark.parametrize(
    ("estimator", "method", "options", "slope", "shift"),
    [
        (OutOfFoldConfidence(), "self_confidence", {}, 1, 0),
        (NormalisedMargin(), "normalized_margin", {}, 0.5, 0.5),  # theirs is (1 + margin) / 2
        (EntropyAdjustedConfidence(), "confidence_weighted_entropy", {}, 1, 0),
        (ClassAdjustedConfidence(), "self_confidence", {"adjust_pred_probs": True}, 1, 0),
    ],
)
def test_values_are_those_of_cleanlab_up_to_a_stated_straight_line(estimator, method, options, slope, shift, c):
    rank = pytest.importorskip("cleanlab.rank")
    observed, score, evidence = every_class(200, c, c)
    theirs = rank.get_label_quality_scores(observed, score, method=method, **options)
    assert_allclose(slope * estimator.fit(evidence).value + shift, theirs, rtol=0, atol=1e-12)


def test_ranked_probability_score_of_a_forecast_worked_by_hand():
    # cumulated from above: 0.9, 0.6, 0.2 against 1, 0, 0 for the second of four grades
    evidence = Evidence(label=np.eye(4)[[1]], oof_score=np.array([[[0.1, 0.3, 0.4, 0.2]]]))
    assert RankedProbabilityScore().fit(evidence).value == pytest.approx([-(0.01 + 0.36 + 0.04) / 3])
    assert ExpectedGradeDistance().fit(evidence).value == pytest.approx([-(0.1 + 0.4 + 2 * 0.2)])


def test_a_soft_label_moves_to_the_prediction_by_the_shortest_way():
    # half of the label's 0.5 at grade 0 moves one grade up, and its other half stays
    evidence = Evidence(label=np.array([[0.5, 0.5, 0.0]]), oof_score=np.array([[[0.25, 0.75, 0.0]]]))
    assert ExpectedGradeDistance().fit(evidence).value == pytest.approx([-0.25])
    assert RankedProbabilityScore().fit(evidence).value == pytest.approx([-(0.25**2) / 2])


@given(SIZES)
def test_values_agree_with_their_definitions(sizes):
    evidence = drawn(*sizes)
    n, r, c, _ = sizes
    for estimator, definition in (
        (NormalisedMargin(), lambda p, y: p[y] - max(p[k] for k in range(c) if k != y)),
        (CrossValidatedLoss(), lambda p, y: np.log(max(p[y], 1e-7))),
        (ExpectedGradeDistance(), lambda p, y: -sum(p[k] * abs(k - y) for k in range(c))),
        (
            RankedProbabilityScore(),
            lambda p, y: -sum((p[: k + 1].sum() - (y <= k)) ** 2 for k in range(c - 1)) / (c - 1),
        ),
    ):
        by_hand = [
            np.mean([definition(evidence.oof_score[i, j], evidence.observed[i]) for j in range(r)]) for i in range(n)
        ]
        assert_allclose(estimator.fit(evidence).value, by_hand, atol=1e-12)


@given(SIZES, st.booleans())
def test_the_order_of_rows_does_not_matter_and_values_are_finite(sizes, soft):
    evidence = drawn(*sizes, soft=soft)
    order = np.random.default_rng(0).permutation(len(evidence))
    turned = Evidence(label=evidence.label[order], oof_score=evidence.oof_score[order])
    for estimator in ALL:
        values = estimator.fit(evidence)
        assert np.isfinite(values.value).all()
        assert_allclose(estimator.fit(turned).value, values.value[order], atol=1e-12)
        assert (values.stderr is None) == (sizes[1] == 1)


@given(SIZES)
def test_mixing_two_labels_mixes_the_values_of_what_is_linear_in_the_label(sizes):
    evidence = drawn(*sizes)
    share = np.random.default_rng(1).random(len(evidence))[:, None]
    other = Evidence(label=np.roll(evidence.label, 1, axis=1), oof_score=evidence.oof_score)
    mixed = Evidence(label=share * evidence.label + (1 - share) * other.label, oof_score=evidence.oof_score)
    for estimator in (OutOfFoldConfidence(), NormalisedMargin(), CrossValidatedLoss()):
        expected = share[:, 0] * estimator.fit(evidence).value + (1 - share[:, 0]) * estimator.fit(other).value
        assert_allclose(estimator.fit(mixed).value, expected, atol=1e-9)


@given(SIZES)
def test_predicting_a_soft_label_exactly_costs_nothing_in_grades(sizes):
    label = drawn(*sizes, soft=True).label
    evidence = Evidence(label=label, oof_score=np.repeat(label[:, None], sizes[1], axis=1))
    for estimator in (RankedProbabilityScore(), ExpectedGradeDistance()):
        assert_allclose(estimator.fit(evidence).value, 0, atol=1e-12)


@pytest.mark.parametrize("estimator", ALL, ids=lambda one: one.name)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_samples_of_one_class_and_certain_predictions_give_finite_values(estimator, n):
    for score in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
        evidence = Evidence(label=one_hot(np.ones(n)), oof_score=np.tile(score, (n, 2, 1)))
        assert np.isfinite(estimator.fit(evidence).value).all()


@pytest.mark.parametrize("estimator", ALL, ids=lambda one: one.name)
def test_a_wrong_label_comes_out_lowest(estimator):
    believed = np.repeat(np.arange(3), 4)
    observed = np.where(np.arange(12) == 0, 2, believed)
    score = np.repeat(0.1 + 0.7 * np.eye(3)[believed][:, None], 2, axis=1)
    value = estimator.fit(Evidence(label=np.eye(3)[observed], oof_score=score)).value
    assert value[0] < value[1:].min() - 0.01


@pytest.mark.parametrize("estimator", ALL, ids=lambda one: one.name)
def test_without_scores_the_error_names_them(estimator):
    with pytest.raises(SampleError, match="'oof_score'"):
        estimator.fit(Evidence(label=one_hot(np.ones(2))))
