"""Models of responses: nothing is told beyond what was seen, chances add up, and rows are calibrated by models that saw none of their group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.audiences.gains import calibration_error, calibration_noise
from ecom_pipeline.audiences.response import Settings, choose_settings, fit_responder

EACH = st.sampled_from([Settings("logistic", 0.1), Settings("logistic", 1.0, 60.0), Settings("trees", 4, 60.0)])


def made(n_offers: int, n_users: int, seed: int, levels=None):
    """Responses to the first of three features; an offer's level raises all of them."""
    draw = np.random.default_rng(seed)
    n = n_offers * n_users
    offer, user = (
        np.repeat([f"c{k}" for k in range(n_offers)], n_users),
        np.tile([f"u{k}" for k in range(n_users)], n_offers),
    )
    known = draw.exponential(5.0, (n, 3))
    level = np.repeat(np.zeros(n_offers) if levels is None else levels, n_users)
    chance = 1 / (1 + np.exp(2.5 - 1.2 * np.log1p(known[:, 0]) - level))
    response = (draw.random(n) < chance).astype(float)
    return (
        {
            "known": known,
            "response": response,
            "offer": offer,
            "age": np.repeat(np.arange(n_offers)[::-1] * 28.0, n_users),
        },
        user,
        chance,
    )


@settings(max_examples=8, deadline=None)
@given(EACH, st.integers(0, 99), st.floats(1.0, 1e6))
def test_what_lies_beyond_all_that_was_seen_counts_as_the_furthest_that_was(how, seed, beyond):
    rows, _, _ = made(3, 150, seed)
    model = fit_responder(**rows, settings=how)
    most, least = rows["known"].max(0), rows["known"].min(0)
    for edge, outside in ((most, most * (1 + beyond)), (least, least - beyond)):
        np.testing.assert_allclose(model.probability(outside[None]), model.probability(edge[None]))
    chance = model.probability(rows["known"])
    assert ((chance >= 0) & (chance <= 1)).all()


@pytest.mark.parametrize("how", [Settings("logistic", 0.01), Settings("logistic", 1.0), Settings("trees", 8)])
def test_chances_are_those_of_users_that_were_not_seen(how):
    rows, _, _ = made(4, 1000, 0)
    others, _, chance = made(4, 1000, 1)
    told = fit_responder(**rows, settings=how).probability(others["known"])
    assert told.sum() == pytest.approx(others["response"].sum(), rel=0.1)
    assert calibration_error(told, others["response"], np.ones(4000)) < 0.03
    assert np.corrcoef(told, chance)[0, 1] > 0.9


def test_folds_of_users_hold_where_one_offer_has_all_the_responses():
    rows, user, _ = made(4, 400, 0, levels=np.array([-50.0, -50.0, -50.0, 0.0]))
    assert (np.bincount(np.repeat(range(4), 400), rows["response"])[:3] == 0).all()
    model = fit_responder(**rows, settings=Settings("logistic", 0.1), fold_by=user)
    assert model.probability(rows["known"]).mean() == pytest.approx(rows["response"].mean(), rel=0.1)
    order = np.corrcoef(model.probability(rows["known"]), rows["known"][:, 0])[0, 1]
    assert order > 0.5
    assert np.isfinite(fit_responder(**rows, settings=Settings("logistic", 0.1)).probability(rows["known"])).all()


def test_recent_offers_weigh_more_in_the_level_too():
    rows, user, _ = made(4, 1500, 0, levels=np.array([-1.5, -1.0, -0.5, 0.0]))
    shares = [
        fit_responder(**rows, settings=Settings("logistic", 0.1, half_life), fold_by=user)
        .probability(rows["known"])
        .mean()
        for half_life in (None, 28.0)
    ]
    last = rows["response"][-1500:].mean()
    assert shares[0] < shares[1] < last


def test_the_choice_between_models_is_made_on_later_offers():
    rows, _, _ = made(6, 400, 0)
    step = (rows["known"][:, 1] > 3) != (rows["known"][:, 2] > 3)  # no sum of features tells it
    rows["response"] = (np.random.default_rng(1).random(2400) < np.where(step, 0.8, 0.1)).astype(float)
    assert choose_settings(**rows).name == "trees"
    rows, _, _ = made(6, 400, 0)
    assert choose_settings(**rows).name == "logistic"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.integers(50, 400))
def test_the_calibration_error_of_right_chances_is_what_it_is_said_to_be_by_chance(seed, n):
    draw = np.random.default_rng(seed)
    chance, weight = draw.uniform(0.2, 0.8, n), np.ones(n)
    drawn = [calibration_error(chance, (draw.random(n) < chance).astype(float), weight) for _ in range(200)]
    assert calibration_noise(chance, chance, weight) == pytest.approx(np.mean(drawn), rel=0.12)
