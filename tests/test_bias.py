import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.bias import (
    ClassBalance,
    DensityRatio,
    InverseExamination,
    InversePropensity,
    Recency,
    SegmentBalance,
)

chances = st.lists(st.floats(0.01, 1), min_size=1, max_size=30)


def clicks(clicked, **known) -> Evidence:
    return Evidence(label=one_hot(np.array(clicked, float)), **known)


def shifted(n=600, t=400, shift=1.0, seed=0) -> Evidence:
    """Normal training samples, and target samples moved along the first feature."""
    generator = np.random.default_rng(seed)
    x = np.hstack([generator.normal(size=(n, 3)), np.ones((n, 1))]).astype(np.float32)
    target = np.hstack([generator.normal(size=(t, 3)) + np.array([shift, 0, 0]), np.ones((t, 1))]).astype(np.float32)
    return clicks(np.zeros(n), features=x, target=target)


def test_a_policy_is_valued_as_worked_by_hand():
    """Mean reward under a policy that always draws A, from a log that draws it 1 in 4; A gives 1, B gives 0.

    Log of 4: A once (chance 1/4), B three times (3/4). A's row weighs 4, and 4 · 1 / 4 rows = 1, what A gives; the
    weights of both actions add up to twice the rows, once an action.
    """
    evidence = clicks([1, 0, 0, 0], propensity=np.array([0.25, 0.75, 0.75, 0.75]))
    value = InversePropensity("bandit", clip=np.inf, self_normalised=False).fit(evidence).value
    assert (value * evidence.label[:, 1]).sum() / 4 == pytest.approx(1.0)
    assert value.sum() / 4 == pytest.approx(2.0)


def test_weighted_clicks_give_the_relevance_back_whatever_the_ranking():
    """Joachims, Swaminathan, Schnabel 2017: the mean of a weighted click is the relevance, not what was seen of it."""
    generator = np.random.default_rng(0)
    position = np.repeat([1, 2, 5, 10], 200_000)
    clicked = generator.random(len(position)) < 0.4 / position
    value = InverseExamination(self_normalised=False, clip=np.inf).fit(clicks(clicked, position=position)).value
    estimate = [(value * clicked)[position == k].mean() for k in (1, 2, 5, 10)]
    np.testing.assert_allclose(estimate, 0.4, atol=0.015)


@given(chances, st.data())
def test_unclipped_weights_are_one_over_the_propensity_of_what_was_clicked(propensity, draw):
    clicked = draw.draw(st.lists(st.booleans(), min_size=len(propensity), max_size=len(propensity)))
    found = InversePropensity(clip=np.inf, self_normalised=False).fit(clicks(clicked, propensity=np.array(propensity)))
    expected = [1 / p if took else 1.0 for p, took in zip(propensity, clicked, strict=True)]
    np.testing.assert_allclose(found.value, expected)


@given(chances, st.floats(0.1, 10))
def test_the_scale_of_the_curve_is_no_matter_once_normalised(curve, scale):
    position = np.arange(1, len(curve) + 1)
    first, second = (
        InverseExamination(tuple(values)).fit(clicks(np.ones(len(curve)), position=position)).value
        for values in (np.array(curve), np.array(curve) * scale)
    )
    np.testing.assert_allclose(first, second, rtol=1e-9)
    assert first.mean() == pytest.approx(1)


@given(chances)
def test_no_weight_passes_the_clip_and_the_clipped_are_counted(propensity):
    found = InversePropensity("bandit", clip=0.5, self_normalised=False).fit(
        clicks(np.ones(len(propensity)), propensity=np.array(propensity))
    )
    raw = 1 / np.array(propensity)
    limit = 0.5 * np.sqrt(len(raw)) * raw.mean()
    assert found.value.max() <= limit * (1 + 1e-12)
    assert found.notes["n_clipped"] == (raw > limit).sum()
    assert 0 < found.notes["ess_share"] <= 1 + 1e-12


def test_a_share_of_clicks_has_its_share_of_the_weight():
    found = InversePropensity(clip=np.inf, self_normalised=False).fit(clicks([0.25], propensity=np.array([0.1])))
    assert found.value.tolist() == pytest.approx([0.25 * 10 + 0.75])


def test_a_propensity_of_0_is_an_error_that_says_where():
    with pytest.raises(SampleError, match=r"propensity: 1 of 2 values are not in \(0, 1\]; first: 0\.0 in row 1"):
        InversePropensity().fit(clicks([1, 0], propensity=np.array([0.5, 0.0])))


def test_positions_below_the_curve_are_examined_as_its_last():
    evidence = clicks([1, 1, 1], position=np.array([1, 2, 9]))
    found = InverseExamination((1.0, 0.5), clip=np.inf, self_normalised=False).fit(evidence)
    assert found.value.tolist() == [1.0, 2.0, 2.0]


def test_a_position_0_is_an_error_that_says_what_to_do():
    with pytest.raises(SampleError, match=r"position: 1 of 1 values are not >= 1; first: 0 in row 0.*add 1"):
        InverseExamination().fit(clicks([1], position=np.array([0])))


def test_class_weights_are_those_that_scikit_learn_calls_balanced():
    from sklearn.utils.class_weight import compute_sample_weight

    label = np.array([0, 0, 0, 1, 2, 2])
    found = ClassBalance().fit(Evidence(label=one_hot(label, 3))).value
    np.testing.assert_allclose(found, compute_sample_weight("balanced", label))


def test_effective_numbers_are_those_of_the_published_formula():
    """Cui et al. 2019, Proposition 1, by hand: beta 0.9, 1 and 3 samples: E = 1 and (1 - 0.729) / 0.1 = 2.71."""
    found = ClassBalance(overlap=0.9).fit(clicks([1, 0, 0, 0])).value
    assert found[0] / found[1] == pytest.approx(2.71)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0, 1))
def test_balance_has_mean_1_and_favours_the_rare(groups, overlap):
    group = np.array(groups)
    value = SegmentBalance(overlap=overlap).fit(clicks(np.ones(len(group)), group=group)).value
    assert value.mean() == pytest.approx(1)
    size = np.bincount(group)[group]
    assert (np.diff(value[np.argsort(size, kind="stable")]) <= 1e-9).all()


def test_each_segment_counts_the_same_in_sum():
    user = np.array([4, 4, 4, 9, 9, 1])
    value = SegmentBalance("user").fit(clicks(np.ones(6), user=user)).value
    np.testing.assert_allclose([value[user == one].sum() for one in (4, 9, 1)], 2.0)


def test_a_segment_that_is_not_known_is_asked_for_by_name():
    with pytest.raises(SampleError, match=r"first: 'item'"):
        SegmentBalance("item").fit(clicks([1, 0]))


def test_a_half_life_halves():
    found = Recency(30.0).fit(clicks(np.ones(4), age_days=np.array([0.0, 30.0, 60.0, 1e6])))
    assert found.value[:3].tolist() == [1.0, 0.5, 0.25]
    assert found.value[3] > 0


def test_an_age_below_0_is_an_error():
    with pytest.raises(SampleError, match=r"age_days: 1 of 2 values are not >= 0; first: -1\.0 in row 1"):
        Recency().fit(clicks([1, 1], age_days=np.array([0.0, -1.0])))


def test_density_ratios_are_those_of_the_two_normal_distributions():
    """N(1, 1) over N(0, 1) along the first feature is exp(x - 1/2), which a logistic classifier can represent."""
    evidence = shifted(2000, 2000)
    found = DensityRatio(clip=np.inf).fit(evidence)
    exact = np.exp(evidence.features[:, 0] - 0.5)
    assert np.corrcoef(np.log(found.value), np.log(exact))[0, 1] > 0.99
    np.testing.assert_allclose(np.average(evidence.features[:, 0], weights=found.value), 1.0, atol=0.15)
    assert found.notes["auc"] == pytest.approx(0.76, abs=0.03)  # Phi(1 / sqrt 2)


def test_without_a_shift_ratios_are_near_1():
    found = DensityRatio().fit(shifted(shift=0.0))
    assert found.notes["auc"] == pytest.approx(0.5, abs=0.06)
    assert found.notes["ess_share"] > 0.95


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100))
def test_a_larger_target_sample_of_the_same_kind_leaves_the_ratios(seed):
    evidence = shifted(seed=seed)
    twice = Evidence(
        label=evidence.label, features=evidence.features, target=np.vstack([evidence.target, evidence.target])
    )
    first, second = (np.log(DensityRatio(penalties=(0.01,)).fit(one).value) for one in (evidence, twice))
    assert np.corrcoef(first, second)[0, 1] > 0.97


def test_a_target_of_other_features_is_an_error():
    evidence = Evidence(label=one_hot(np.ones(2)), features=np.ones((2, 3), np.float32), target=np.ones((2, 4)))
    with pytest.raises(SampleError, match=r"target: 1 of 1 shapes .* first: \(2, 4\) beside \(2, 3\)"):
        DensityRatio().fit(evidence)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "estimator",
    [InversePropensity(), InverseExamination(), ClassBalance(), SegmentBalance(), Recency(), DensityRatio()],
    ids=lambda estimator: estimator.name,
)
def test_few_samples_of_one_class_without_variation_are_no_obstacle(estimator, n):
    ones = np.ones(n)
    evidence = clicks(
        ones,
        propensity=ones,
        position=ones.astype(int),
        group=np.zeros(n, int),
        age_days=ones,
        features=np.ones((n, 2), np.float32),
        target=np.ones((2, 2), np.float32),
    )
    value = estimator.fit(evidence).value
    assert value.shape == (n,)
    assert np.isfinite(value).all()
    assert (value > 0).all()
