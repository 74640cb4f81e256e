"""Which of two lists wins when one list is made of both: far fewer users than an experiment between users.

Team draft: Radlinski, Kurup and Joachims 2008. Probabilistic: Hofmann, Whiteson and de Rijke 2011, with credit over all
assignments that could have led to the list.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Bools, Floats

_TAU = 3.0  # how fast the softmax over ranks falls


@dataclass(frozen=True, slots=True)
class Interleaved:
    """One list made of two.

    Attributes:
        items: shown, the first on top.
        first_team: (n,) whether the first ranker brought each.
        contested: (n,) whether the rankers wanted different items when its round began.
    """

    items: tuple[str, ...]
    first_team: Bools
    contested: Bools


@dataclass(frozen=True, slots=True)
class Preference:
    """Which ranker wins.

    Attributes:
        value: mean credit of the second ranker less the first, a visitor, in [-1, 1].
        ci_low: of 95 %, over visitors.
        ci_high: likewise.
        n_visitors: with any credit.
    """

    value: float
    ci_low: float
    ci_high: float
    n_visitors: int


def team_draft(first: Sequence[str], second: Sequence[str], n: int, draw: np.random.Generator) -> Interleaved:
    """Two captains choose in turn; who begins a round is drawn. Where both want the same, it is nobody's.

    >>> team_draft(["a", "b"], ["a", "b"], 2, np.random.default_rng(0)).items
    ('a', 'b')
    """
    lists, taken, contested = (first, second), dict[str, bool](), []

    def wanted(team: int) -> str | None:
        return next((item for item in lists[team] if item not in taken), None)

    while len(taken) < n and (both := {item for item in (wanted(0), wanted(1)) if item is not None}):
        teams = (0, 1) if draw.random() < 0.5 else (1, 0)
        for team in teams if len(both) > 1 else teams[:1]:
            item = wanted(team) if len(both) > 1 else min(both)
            if item is not None and len(taken) < n:
                taken[item] = team == 0
                contested.append(len(both) > 1)
    return Interleaved(tuple(taken), np.array(list(taken.values()), bool), np.array(contested, bool))


def team_credit(shown: Interleaved, clicked: Bools) -> float:
    """Share of the clicks that the second ranker's items got, less that of the first; 0 without a click.

    What both would have shown in the same place speaks for neither: a click on it would be noise.

    >>> team_credit(Interleaved(("a", "b"), np.array([True, False]), np.array([True, True])), np.array([False, True]))
    1.0
    """
    told = clicked & shown.contested
    n_first, n_second = int((shown.first_team & told).sum()), int((~shown.first_team & told).sum())
    return (n_second - n_first) / (n_first + n_second) if n_first + n_second else 0.0


def probabilistic(first: Sequence[str], second: Sequence[str], n: int, draw: np.random.Generator) -> Interleaved:
    """Each place is filled by a ranker that is drawn, with an item drawn from it, the likelier the higher it stands."""
    items: list[str] = []
    teams: list[bool] = []
    everything = list(dict.fromkeys([*first, *second]))
    while len(items) < min(n, len(everything)):
        is_first = bool(draw.random() < 0.5)
        left, chance = _softmax(first if is_first else second, items)
        if not left:
            is_first = not is_first
            left, chance = _softmax(first if is_first else second, items)
        items.append(left[draw.choice(len(left), p=chance)])
        teams.append(is_first)
    return Interleaved(tuple(items), np.array(teams, bool), np.ones(len(items), bool))


def probabilistic_credit(first: Sequence[str], second: Sequence[str], shown: Sequence[str], clicked: Bools) -> float:
    """Expected credit of the second ranker less the first, over all draws that could have led to the list shown."""
    total = 0.0
    for place in np.flatnonzero(clicked).tolist():
        chances = []
        for ranking in (first, second):
            left, chance = _softmax(ranking, shown[:place])
            chances.append(float(chance[left.index(shown[place])]) if shown[place] in left else 0.0)
        total += (chances[1] - chances[0]) / sum(chances) if sum(chances) else 0.0
    return total / max(int(np.sum(clicked)), 1)


def _softmax(ranking: Sequence[str], gone: Sequence[str]) -> tuple[list[str], Floats]:
    """What is left of a ranking, and the chance of each: falls with its rank in the whole."""
    kept = [(place, item) for place, item in enumerate(ranking, 1) if item not in set(gone)]
    weight = np.array([place**-_TAU for place, _ in kept])
    return [item for _, item in kept], weight / weight.sum() if len(kept) else weight


def preference(credit: Floats, visitor: Sequence[str]) -> Preference:
    """Which ranker wins, over visitors: sessions of one are averaged, as they are not independent.

    Args:
        credit: (n,) of each list, of the second ranker less the first; 0 where nothing was clicked.
        visitor: (n,) whose list it was.

    Returns:
        The mean over visitors with any credit, with a t interval; of fewer than 2 visitors the interval is [-1, 1].
    """
    from scipy import stats

    _, place = np.unique(np.asarray(visitor, str), return_inverse=True)
    value = np.asarray(credit, float)
    n_told = np.bincount(place, value != 0)
    each = (np.bincount(place, value) / np.maximum(n_told, 1))[n_told > 0]
    if len(each) < 2:
        return Preference(float(each.mean()) if len(each) else 0.0, -1.0, 1.0, len(each))
    half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
    mean = float(each.mean())
    return Preference(mean, float(max(mean - half, -1)), float(min(mean + half, 1)), len(each))
