"""Shoppers whose taste is known walk through a shop that answers them, so that the true effect of an arm is known too.

A shopper looks at a list from the top, ever less likely, and buys what he looks at with the probability of his taste. What he
would have bought of the other arm's list is computed, not drawn: the truth has no noise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Bools, Floats

Answer = Callable[[str], tuple[Sequence[str], str]]
"""Takes a shopper, and returns the items that he is shown, the best first, and the arm that he is in ('' for none)."""
Lists = Callable[[str, str], Sequence[str]]
"""Takes a shopper and an arm, and returns what that arm shows him; asking changes nothing."""
Tell = Callable[[Sequence[Mapping[str, object]]], None]
"""Takes what was done: action, item_id, position, and of a purchase price and quantity."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How shoppers behave.

    Attributes:
        attention: probability of looking at the n-th item is n to the power of minus this: 0 is no position bias.
        novelty: share by which looking is likelier at first in an arm that is not the control; halves with every visit.
        bots: share of the shoppers that click on everything that is shown, and buy nothing.
    """

    attention: float = 0.7
    novelty: float = 0.0
    bots: float = 0.0


@dataclass(frozen=True, slots=True)
class Walk:
    """What became of it.

    Attributes:
        shoppers: a row each: user_id, arm, is_bot, revenue (as drawn), expected_control and expected_arm (by arm, as each
            would have spent in it).
        n_events: that were told.
    """

    shoppers: pd.DataFrame
    n_events: int

    def effect(self, arm: str, control: str) -> float:
        """True mean effect of an arm on the revenue of a shopper, over all shoppers."""
        return float((self.shoppers[f"expected_{arm}"] - self.shoppers[f"expected_{control}"]).mean())


def walk(
    shoppers: Sequence[str],
    taste: Callable[[str, Sequence[str]], Floats],
    prices: Mapping[str, float],
    *,
    answer: Answer,
    lists: Lists,
    tell: Tell,
    arms: Sequence[str],
    n_visits: int,
    habits: Habits | None = None,
    seed: int = 0,
) -> Walk:
    """Let each shopper come some times, one after the other.

    Args:
        shoppers: ids.
        taste: (k,) probability that a shopper buys each of some items that he looks at.
        prices: of a piece.
        answer: shows a list, and exposes.
        lists: what each arm would show.
        tell: takes events.
        arms: the control first.
        n_visits: of each shopper.
        habits: how they behave.
        seed: of everything that is drawn.

    Cost: for each visit one answer and one list an arm.
    """
    habits, draw = habits or Habits(), np.random.default_rng(seed)
    is_bot = draw.random(len(shoppers)) < habits.bots
    rows: list[dict[str, object]] = []
    n_events = 0
    for shopper, bot in zip(shoppers, is_bot.tolist(), strict=True):
        given, revenue = "", 0.0
        expected = dict.fromkeys(arms, 0.0)
        for visit in range(n_visits):
            each = {arm: lists(shopper, arm) for arm in arms}
            shown, arm = answer(shopper)
            for name, items in each.items():
                looked = looking(len(items), habits, visit=visit, novel=name != arms[0])
                spent = np.array([prices.get(item, 0.0) for item in items])
                expected[name] += 0.0 if bot else float(looked @ (taste(shopper, items) * spent))
            looked = looking(len(shown), habits, visit=visit, novel=arm != arms[0])
            seen = np.ones(len(shown), bool) if bot else draw.random(len(shown)) < looked
            bought = seen & (draw.random(len(shown)) < taste(shopper, shown)) & (not bot)
            events = _events(shown, seen, bought, prices)
            tell(events)
            n_events += len(events)
            given = arm
            revenue += sum(prices.get(shown[n], 0.0) for n in np.flatnonzero(bought).tolist())
        told = {f"expected_{name}": value for name, value in expected.items()}
        rows.append({"user_id": shopper, "arm": given, "is_bot": bot, "revenue": revenue, **told})
    return Walk(pd.DataFrame(rows), n_events)


def looking(n: int, habits: Habits, *, visit: int, novel: bool) -> Floats:
    """(n,) probability that each place of a list is looked at.

    >>> looking(2, Habits(attention=1.0), visit=0, novel=False).tolist()
    [1.0, 0.5]
    """
    base = np.power(np.arange(1, n + 1, dtype=float), -habits.attention)
    return np.minimum(base * (1 + habits.novelty * 0.5**visit), 1.0) if novel else base


def _events(shown: Sequence[str], seen: Bools, bought: Bools, prices: Mapping[str, float]) -> list[dict[str, object]]:
    impressions: list[dict[str, object]] = [
        {"action": "impression", "item_id": item, "position": place} for place, item in enumerate(shown, 1)
    ]
    clicks: list[dict[str, object]] = [
        {"action": "click", "item_id": shown[place]} for place in np.flatnonzero(seen).tolist()
    ]
    purchases: list[dict[str, object]] = [
        {"action": "purchase", "item_id": shown[n], "quantity": 1.0, "price": prices.get(shown[n], 0.0)}
        for n in np.flatnonzero(bought).tolist()
    ]
    return [*impressions, *clicks, *purchases]
