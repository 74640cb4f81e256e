"""What another policy would have earned: golden values, the truth of a known policy, and refusals."""

import numpy as np
import pytest

from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments.off_policy import policy_value

METHODS = ("ips", "clipped", "snips", "dr", "switch")


def log(n, seed, sharpness=1.0):
    """Contexts in [0, 1], four actions; the better action depends on the context, the logged policy hardly knows."""
    draw = np.random.default_rng(seed)
    x = draw.random(n)
    chance = 0.1 + 0.5 * np.exp(-8 * (x[:, None] - np.array([0.1, 0.4, 0.6, 0.9])) ** 2)
    logged = np.exp(0.5 * chance) / np.exp(0.5 * chance).sum(1, keepdims=True)
    other = np.exp(6 * sharpness * chance) / np.exp(6 * sharpness * chance).sum(1, keepdims=True)
    action = (draw.random((n, 1)) > logged.cumsum(1)).sum(1).clip(max=3)
    at = (np.arange(n), action)
    reward = (draw.random(n) < chance[at]).astype(float)
    model = chance + 0.05  # a model that is off
    return {
        "reward": reward,
        "logged": logged[at],
        "evaluated": other[at],
        "expected": model[at],
        "expected_of_policy": (model * other).sum(1),
    }, float((chance * other).sum(1).mean())


def value(told, method, **more):
    needs = () if method in ("dr", "switch") else ("expected", "expected_of_policy")
    return policy_value(**{name: column for name, column in told.items() if name not in needs}, method=method, **more)


def test_golden_values():
    reward, logged, evaluated = np.array([1.0, 0.0] * 100), np.array([0.5, 0.5] * 100), np.array([0.25, 0.75] * 100)
    assert policy_value(reward, logged, evaluated, method="ips").value == pytest.approx(0.25)
    assert policy_value(reward, logged, evaluated, method="snips").value == pytest.approx(0.25)
    assert policy_value(reward, logged, evaluated, method="clipped", clip=0.25).value == pytest.approx(0.125)
    assert policy_value(reward, logged, evaluated).effective_size == pytest.approx(200**2 / (100 * 0.25 + 100 * 2.25))


@pytest.mark.parametrize("method", METHODS)
def test_the_interval_holds_the_truth_as_often_as_it_says(method):
    truth = log(200_000, 999)[1]
    found = [value(log(800, seed)[0], method) for seed in range(150)]
    # 95 % of 150, less three standard errors
    assert np.mean([one.ci_low <= truth <= one.ci_high for one in found]) >= 0.90
    assert abs(np.mean([one.value for one in found]) - truth) < 0.01


def test_what_the_logged_policy_never_does_shows_in_the_mean_ratio():
    assert value(log(20_000, 0)[0], "ips").mean_weight == pytest.approx(1, abs=0.03)
    draw = np.random.default_rng(0)
    action = draw.integers(0, 2, 2000)  # the third action, which the other policy prefers, was never taken
    found = policy_value(draw.random(2000), np.full(2000, 0.5), np.array([0.1, 0.2])[action])
    assert found.mean_weight == pytest.approx(0.3, abs=0.02)


def test_a_model_makes_the_interval_narrower():
    told, _ = log(2000, 0)
    width = {method: (one := value(told, method)).ci_high - one.ci_low for method in METHODS}
    assert width["dr"] < width["ips"]
    assert width["snips"] < width["ips"]


def test_rows_of_a_user_are_not_independent():
    told, _ = log(1000, 0)
    twice = {name: np.repeat(column, 2) for name, column in told.items()}
    alone, grouped = value(told, "snips"), value(twice, "snips", group=np.repeat(np.arange(1000), 2))
    assert grouped.ci_high - grouped.ci_low == pytest.approx(alone.ci_high - alone.ci_low)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"logged": 0.0}, "first: row 0 has 0 and"),
        ({"evaluated": 1.5}, "have no probabilities or no reward"),
        ({"reward": np.nan}, "have no probabilities or no reward"),
        ({"logged": 0.5, "evaluated": 0.0}, "only 0 count"),
    ],
)
def test_what_cannot_be_estimated_is_refused(change, told):
    rows, _ = log(500, 0)
    rows |= {name: np.full(500, constant) for name, constant in change.items()}
    with pytest.raises(ExperimentError) as error:
        value(rows, "snips")
    assert told in str(error.value)


def test_policies_that_hardly_overlap_are_refused():
    rows, _ = log(500, 0)
    rows["evaluated"] = np.where(np.arange(500) < 3, 1.0, 1e-4)
    with pytest.raises(ExperimentError, match=r"of 500 rows only \d+ count"):
        value(rows, "ips")


def test_a_model_must_be_there_where_it_is_asked_for():
    rows, _ = log(500, 0)
    with pytest.raises(ExperimentError, match="dr needs a model of rewards"):
        policy_value(rows["reward"], rows["logged"], rows["evaluated"], method="dr")
    with pytest.raises(ExperimentError, match="1 method is unknown: 'magic'"):
        value(rows, "magic")
