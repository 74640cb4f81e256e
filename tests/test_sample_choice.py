import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.sample_choice import Acceptance, LabelNoise, pilot_rows


def shop(n=40_000, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=n)
    p = 1 / (1 + np.exp(-(2 * x - 4)))
    return x, p, (draw.random(n) < p).astype(float), draw


@given(
    p=st.lists(st.floats(0, 1), min_size=2, max_size=50),
    ones=st.lists(st.booleans(), min_size=50, max_size=50),
    share=st.floats(0.05, 0.95),
    method=st.sampled_from(["gap", "random", "balanced"]),
)
def test_the_budget_is_met_on_average_and_chances_are_probabilities(p, ones, share, method):
    probability, label = np.array(p), np.array(ones[: len(p)], float)
    n_rows = max(1, int(share * len(p)))
    chance = Acceptance.fit(method, probability, label, n_rows=n_rows).chance(probability, label)
    assert ((chance > 0) & (chance <= 1)).all()
    if method != "balanced" or 0 < label.sum() < len(label):
        assert chance.sum() == pytest.approx(n_rows, rel=1e-3, abs=1e-3 * len(p))


def test_without_caps_and_noise_the_offset_is_the_pilots_logit():
    p = np.array([0.001, 0.2, 0.5, 0.99])
    assert Acceptance("gap", (0.01, 0.01)).offset(p) == pytest.approx(np.log(p / (1 - p)), abs=1e-9)


@pytest.mark.parametrize("noise", [LabelNoise(), LabelNoise(0.2, 0.001)])
def test_kept_rows_and_the_offset_give_the_odds_of_all_rows(noise):
    x, p, label, draw = shop(200_000)
    pilot = 1 / (1 + np.exp(-(1.5 * x - 3)))  # wrong on purpose: the correction must not need a good pilot
    acceptance = Acceptance.fit("gap", pilot, label, n_rows=60_000, noise=noise)
    kept = acceptance.draw(pilot, label, draw.random(len(label)))
    for low in np.quantile(x, [0.2, 0.5, 0.8, 0.95]):  # in a thin slice the odds are nearly one number
        near = np.abs(x - low) < 0.05
        inside = kept[near[kept]]
        logit = np.log(label[inside].mean() / (1 - label[inside].mean())) + acceptance.offset(pilot[near]).mean()
        assert logit == pytest.approx(np.log(p[near].mean() / (1 - p[near].mean())), abs=0.5)


def test_rows_chosen_by_gap_estimate_the_slope_with_less_error_than_as_many_at_random():
    # Fithian and Hastie 2014, section 4: with a consistent pilot twice the variance of all rows, not 1 / share of it
    errors = {"gap": [], "random": []}
    for seed in range(12):
        x, p, label, draw = shop(20_000, seed)
        for method, found in errors.items():
            acceptance = Acceptance.fit(method, p, label, n_rows=800)
            kept = acceptance.draw(p, label, draw.random(len(label)))
            fitted = LogisticRegression(C=1e4).fit(x[kept, None], label[kept])
            slope = fitted.coef_[0, 0] + (2.0 if method == "gap" else 0.0)  # the pilot's own slope comes back
            found.append((slope - 2.0) ** 2)
    assert np.mean(errors["gap"]) < 0.6 * np.mean(errors["random"])


def test_believed_noise_turns_away_from_the_labels_that_are_most_likely_wrong():
    p, label = np.array([0.01, 0.3]), np.ones(2)
    plain, careful = (
        Acceptance("gap", (1.0, 1.0), noise).chance(p, label) for noise in (LabelNoise(), LabelNoise(0, 0.01))
    )
    assert plain[0] > plain[1]
    assert careful[0] < careful[1]


def test_a_pilot_sees_both_labels():
    label = np.zeros(1000)
    label[7] = 1
    assert label[pilot_rows(label, 20, np.random.default_rng(0).random(1000))].sum() == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"method": "best"}, "method is unknown"),
        ({"n_rows": 0}, "budget"),
        ({"probability": np.array([0.5, 1.5])}, "outside"),
        ({"noise": LabelNoise(0.5, 0.5)}, "below 1"),
    ],
)
def test_what_cannot_be_taken_is_refused(change, told):
    given_ = {"method": "gap", "probability": np.array([0.5, 0.5]), "n_rows": 1, "noise": None, **change}
    method, probability = given_.pop("method"), given_.pop("probability")
    with pytest.raises(SampleError, match=told):
        Acceptance.fit(method, probability, np.array([0.0, 1.0]), **given_)
