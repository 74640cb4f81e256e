"""Lists made of two: nobody is favoured, a better ranker is found, and visitors are what is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.experiments.interleaving import (
    Interleaved,
    preference,
    probabilistic,
    probabilistic_credit,
    team_credit,
    team_draft,
)

rankings = st.permutations(list("abcdefgh")).map(lambda items: items[:6])


@given(rankings, rankings, st.integers(0, 99), st.integers(1, 10))
def test_a_list_holds_each_item_once_and_teams_are_even(first, second, seed, n):
    for make in (team_draft, probabilistic):
        shown = make(first, second, n, np.random.default_rng(seed))
        assert len(shown.items) == len(set(shown.items)) == len(shown.first_team) == min(n, len({*first, *second}))
        assert set(shown.items) <= {*first, *second}
    drafted = team_draft(first, second, n, np.random.default_rng(seed))
    told = drafted.first_team[drafted.contested]
    if n <= 6:  # while both have items left, no team has two more than the other
        assert abs(int(told.sum()) - int((~told).sum())) <= 1


@settings(max_examples=15)
@given(rankings, rankings)
def test_clicks_that_know_nothing_favour_nobody(first, second):
    draw = np.random.default_rng(0)
    credits = []
    for _ in range(400):
        shown = team_draft(first, second, 6, draw)
        credits.append(team_credit(shown, draw.random(len(shown.items)) < 0.3))
    assert abs(np.mean(credits)) < 4.5 * np.std(credits) / 20 + 1e-9


def test_credit_of_all_draws_is_as_defined():
    # of two items left the first ranker gives b 1/9 of 8/9: softmax of ranks to the power of -3
    first, second = ["a", "b"], ["b", "a"]
    chance_first, chance_second = 0.125 / 1.125, 1 / 1.125
    expected = (chance_second - chance_first) / (chance_second + chance_first)
    assert probabilistic_credit(first, second, ["b", "a"], np.array([True, False])) == pytest.approx(expected)
    assert probabilistic_credit(first, first, ["b", "a"], np.array([True, True])) == 0


def test_a_ranker_that_knows_what_is_wanted_wins_by_either_way():
    draw = np.random.default_rng(0)
    items = [str(n) for n in range(30)]
    teams, expected, visitor = [], [], []
    for number in range(300):
        wanted = set(draw.choice(items, 5, replace=False))
        good = sorted(items, key=lambda item: (item not in wanted) + draw.normal(0, 0.8))
        bad = list(draw.permutation(items))
        for make, credits in ((team_draft, teams), (probabilistic, expected)):
            shown = make(bad, good, 10, draw)
            clicked = np.array([item in wanted and draw.random() < 0.5 for item in shown.items])
            credits.append(
                team_credit(shown, clicked)
                if make is team_draft
                else probabilistic_credit(bad, good, shown.items, clicked)
            )
        visitor.append(str(number // 2))
    for credits in (teams, expected):
        found = preference(np.array(credits), visitor)
        assert found.ci_low > 0
        assert found.n_visitors <= 150


def test_sessions_of_a_visitor_count_once_and_nothing_is_known_of_one():
    one = preference(np.array([1.0, 1.0, 0.0]), ["a", "a", "b"])
    assert (one.value, one.ci_low, one.ci_high, one.n_visitors) == (1.0, -1.0, 1.0, 1)
    none = preference(np.zeros(3), ["a", "b", "c"])
    assert (none.value, none.n_visitors) == (0.0, 0)
    assert team_credit(Interleaved((), np.empty(0, bool), np.empty(0, bool)), np.empty(0, bool)) == 0


def test_what_both_would_show_speaks_for_neither():
    shown = team_draft(["a", "b", "c"], ["a", "c", "b"], 3, np.random.default_rng(0))
    assert shown.items[0] == "a"
    assert shown.contested.tolist() == [False, True, True]
    assert team_credit(shown, np.array([True, False, False])) == 0
