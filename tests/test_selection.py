import duckdb
import numpy as np
import pytest

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.selection import NONE, Search, choose

GOOD = np.r_[np.ones(30), np.zeros(30)]
LABEL, GROUP = np.arange(60) % 2, np.arange(60) // 6


def utility_of(gain, noise, seed=0):
    """A validation figure that grows with the weight that the first half of the samples carries."""
    draw = np.random.default_rng(seed)
    level = draw.normal(0.6, 0.1, 40)

    def utility(weights):
        share = weights[:30].sum(0) / weights.sum(0) - 0.5  # (t,)
        own = noise * draw.normal(size=(weights.shape[1], 2, 40))
        return np.clip(level + gain * share[:, None, None] + own, 0, 1)

    return utility


def values():
    return {"good": GOOD + 0.01 * np.arange(60), "bad": 1 - GOOD + 0.01 * np.arange(60)}


def test_weights_that_help_are_chosen_and_their_gain_is_told():
    choice = choose(values(), LABEL, GROUP, utility_of(0.3, 0.02), Search(n_trials=24))
    assert choice.estimator == "good"
    assert choice.gain_low > 0
    assert choice.trials.chosen.sum() == 1


@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_many_that_only_differ_by_chance_is_not_chosen(seed):
    choice = choose(
        values(), LABEL, GROUP, utility_of(0.0, 0.05, seed), Search(n_trials=24, confidence=0.99, seed=seed)
    )
    assert (choice.estimator, choice.weight_map) == (NONE, None)


def test_no_more_trials_than_the_budget_are_made():
    tried = []

    def counting(weights):
        tried.append(weights.shape[1])
        return utility_of(0.1, 0.01)(weights)

    choice = choose(values(), LABEL, GROUP, counting, Search(n_trials=17))
    assert sum(tried) == 18
    assert len(choice.trials) == 18


def test_the_same_seed_makes_the_same_choice():
    first, second = (choose(values(), LABEL, GROUP, utility_of(0.1, 0.03), Search(n_trials=20)) for _ in range(2))
    assert first.trials.equals(second.trials)


def test_values_that_do_not_differ_leave_nothing_to_choose():
    choice = choose({"flat": np.ones(60)}, LABEL, GROUP, utility_of(0.5, 0.0), Search(n_trials=12))
    assert choice.estimator == NONE
    assert len(choice.trials) == 1


def test_one_validation_group_is_too_few_to_choose_by():
    with pytest.raises(SampleError, match=r"1 of 1 groups have a figure.*name an estimator instead"):
        choose(values(), LABEL, GROUP, lambda weights: np.full((weights.shape[1], 1, 1), 0.5), Search(n_trials=12))


def test_the_literal_formula_takes_no_part_in_the_choice(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as db:
        tried = {name for (name,) in db.execute("select distinct estimator from weighting_trials").fetchall()}
        valued = {name for (name,) in db.execute("select distinct estimator from sample_values").fetchall()}
    assert "literal_prediction_gap" in valued
    assert tried <= valued - {"literal_prediction_gap"} | {NONE}
