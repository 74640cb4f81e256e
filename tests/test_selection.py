import duckdb
import numpy as np
import pytest

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.selection import NONE, Search, choose, lay_out
from ecom_pipeline.importance.weights import lifted

GOOD = np.r_[np.ones(30), np.zeros(30)]
LABEL, GROUP = np.arange(60) % 2, np.arange(60) // 6


def utility_of(gain, noise, seed=0, n_groups=40, per_user=1):
    """A validation figure that grows with the weight that the first half of the samples carries."""
    draw = np.random.default_rng(seed)
    user = np.arange(n_groups) // per_user
    level = draw.normal(0.6, 0.1, n_groups)

    def utility(weights):
        share = weights[:30].sum(0) / weights.sum(0) - 0.5  # (t,)
        own = noise * draw.normal(size=(weights.shape[1], 1, user.max() + 1))[:, :, user]
        return level + gain * share[:, None, None] + own + noise / 5 * draw.normal(size=(len(share), 2, n_groups))

    return utility


def values():
    return {"good": GOOD + 0.01 * np.arange(60), "bad": 1 - GOOD + 0.01 * np.arange(60)}


def chosen(utility, seed=0, **options):
    return choose(values(), LABEL, GROUP, utility=utility, search=Search(seed=seed, **options))


def share_chosen(n_runs, **world):
    return np.mean([chosen(utility_of(**world, seed=seed), seed).estimator != NONE for seed in range(n_runs)])


def test_weights_that_help_are_chosen_and_their_gain_is_told():
    choice = chosen(utility_of(0.3, 0.02), n_trials=24)
    assert choice.estimator == "good"
    assert 0 < choice.gain_low < choice.gain
    assert choice.trials.chosen.sum() == 1


def test_where_nothing_gains_at_most_a_tenth_of_200_choices_takes_weights():
    assert share_chosen(200, gain=0.0, noise=0.1, n_groups=60) <= 0.1  # 0.03 was measured


def test_a_gain_that_is_clear_is_taken_in_most_choices():
    assert share_chosen(30, gain=0.3, noise=0.1, n_groups=160) >= 0.9  # the best weightings gain 0.15


def test_where_nothing_gains_the_gain_that_is_told_is_0_on_average():
    gains = np.array([chosen(utility_of(0.0, 0.1, seed, 60), seed).gain for seed in range(60)])
    assert abs(gains.mean()) < 3 * gains.std() / np.sqrt(60)


def test_the_lower_end_of_the_gain_is_seldom_above_what_the_chosen_weights_gain():
    above = []
    for seed in range(60):
        choice = chosen(utility_of(0.3, 0.1, seed, 60), seed)
        if choice.estimator != NONE:
            weights = choice.weight_map.weights(lifted(values()[choice.estimator]), LABEL, GROUP)
            above.append(choice.gain_low > 0.3 * (weights[:30].sum() / weights.sum() - 0.5))
    assert len(above) > 40
    assert np.mean(above) <= 0.1


def test_groups_of_one_user_count_as_one_where_users_are_told():
    user = np.arange(160) // 8
    told, untold = (
        np.mean(
            [
                choose(
                    *(values(), LABEL, GROUP),
                    utility=utility_of(0.0, 0.1, seed, 160, per_user=8),
                    search=Search(seed=seed),
                    cluster=cluster,
                ).estimator
                != NONE
                for seed in range(40)
            ]
        )
        for cluster in (user, None)
    )
    assert told <= 0.1 < untold


def test_weights_that_change_only_nine_groups_are_never_certain():
    def utility(weights):
        figures = np.full((weights.shape[1], 1, 100), 0.5)
        figures[np.ptp(weights, 0) > 0, :, :9] += 0.2
        return figures

    assert chosen(utility).estimator == NONE


def test_what_is_tried_does_not_depend_on_what_is_seen():
    first, second = (chosen(utility_of(gain, 0.1)).trials for gain in (0.0, 0.5))
    settings = ["estimator", "kind", "strength", "within"]
    assert first[settings].equals(second[settings])


def test_every_estimator_and_every_map_is_tried_as_often_as_the_others():
    tried = lay_out(["a", "b", "c"], n_trials=48, clip_quantile=0.99, draw=np.random.default_rng(0))
    names, kinds = [name for name, _ in tried], [how.kind for _, how in tried]
    assert {names.count(name) for name in "abc"} == {16}
    assert {kinds.count(kind) for kind in ("power", "temperature", "rank", "drop")} == {12}


def test_no_more_trials_than_the_budget_are_made():
    tried = []

    def counting(weights):
        tried.append(weights.shape[1])
        return utility_of(0.1, 0.01)(weights)

    choice = chosen(counting, n_trials=17)
    assert sum(tried) == 18
    assert len(choice.trials) == 18


def test_the_same_seed_makes_the_same_choice():
    first, second = (chosen(utility_of(0.1, 0.03), n_trials=20) for _ in range(2))
    assert first.trials.equals(second.trials)


def test_values_that_do_not_differ_leave_nothing_to_choose():
    choice = choose({"flat": np.ones(60)}, LABEL, GROUP, utility=utility_of(0.5, 0.0), search=Search(n_trials=12))
    assert choice.estimator == NONE
    assert len(choice.trials) == 1


def test_one_validation_group_is_too_few_to_choose_by():
    with pytest.raises(SampleError, match=r"1 of 1 groups have a figure.*name an estimator instead"):
        chosen(lambda weights: np.full((weights.shape[1], 1, 1), 0.5), n_trials=12)


def test_the_literal_formula_takes_no_part_in_the_choice(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as db:
        tried = {name for (name,) in db.execute("select distinct estimator from weighting_trials").fetchall()}
        valued = {name for (name,) in db.execute("select distinct estimator from sample_values").fetchall()}
    assert "literal_prediction_gap" in valued
    assert tried <= valued - {"literal_prediction_gap"} | {NONE}
