"""Which purchase each return gives back, and of which purchases nothing is left on their own day."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.cleaning.rules import Rule

RULES = [
    Rule(
        "cancelled_same_day",
        "cancelled",
        "a purchase must not be undone on its day",
        "'a ' || action || ' whose counterpart is of the same day'",
    ),
    Rule(
        "return_without_purchase",
        "action = 'return' and return_of is null and most_left is null",
        "a return must have an earlier purchase of the same item by the same user",
        "'none'",
    ),
    Rule(
        "return_of_too_much",
        "action = 'return' and return_of is null",
        "an earlier purchase of the same item by the same user must have as much left as goes back",
        "coalesce(quantity, 1) || ' where at most ' || most_left || ' is left'",
    ),
]


@dataclass(frozen=True, slots=True)
class Trade:
    """A purchase or a return of one item by one actor.

    Attributes:
        event_id: unique.
        instant: UTC.
        is_return: else a purchase.
        pieces: >= 0; where the source says nothing it is one.
        return_of: for a return that was matched before: its purchase.
    """

    event_id: str
    instant: datetime
    is_return: bool
    pieces: Decimal
    return_of: str | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a return, or of a purchase that was undone on its day.

    Attributes:
        event_id: whose fate.
        return_of: for a return: event_id of the purchase; None where none has enough left.
        most_left: for a return without one: pieces left of the earlier purchase that has most; None: there is none.
        cancelled: whether all of the purchase went back on its day.
    """

    event_id: str
    return_of: str | None = None
    most_left: Decimal | None = None
    cancelled: bool = False


@dataclass(slots=True)
class _Purchase:
    event_id: str
    day: date
    left: Decimal
    returns: list[Trade] = field(default_factory=list)

    def give_back(self, trade: Trade) -> None:
        self.left -= trade.pieces
        self.returns.append(trade)

    @property
    def cancelled(self) -> bool:
        """Whether all that was bought went back on the day."""
        return bool(self.returns) and not self.left and all(one.instant.date() == self.day for one in self.returns)


def match_returns(trades: Sequence[Trade]) -> list[Fate]:
    """Give each return the latest purchase, not after it, that has as many pieces left; in order of time.

    Several returns may share a purchase until it is used up. A return that finds none takes nothing. The order of the
    trades given is no matter: at one instant purchases come first, then by event_id.

    Args:
        trades: all that one actor bought and gave back of one item.

    Returns:
        The fates of the returns that had no purchase before, and of purchases undone on their day.

    Cost: O((p + r) p r) for p purchases and r returns of one pair, which are few.

    >>> from datetime import datetime
    >>> bought = Trade("b", datetime(2024, 5, 1), False, Decimal(3))
    >>> [back, more] = [Trade(name, datetime(2024, 5, 2), True, Decimal(2)) for name in ("r1", "r2")]
    >>> [(fate.return_of, fate.most_left) for fate in match_returns([bought, back, more])]
    [('b', None), (None, Decimal('1'))]
    """
    bought: list[_Purchase] = []
    fates: dict[str, Fate] = {}
    for trade in sorted(trades, key=lambda one: (one.instant, one.is_return, one.event_id)):
        kept = [one for one in bought if one.day == trade.instant.date() or not one.cancelled]  # over before this day
        if not trade.is_return:
            bought.append(_Purchase(trade.event_id, trade.instant.date(), trade.pieces))
        elif trade.return_of:
            for purchase in bought:
                if purchase.event_id == trade.return_of:
                    purchase.give_back(trade)
        elif latest := next((one for one in reversed(kept) if one.left >= trade.pieces), None):
            latest.give_back(trade)
            fates[trade.event_id] = Fate(trade.event_id, latest.event_id)
        else:
            fates[trade.event_id] = Fate(trade.event_id, most_left=max((one.left for one in kept), default=None))
    for purchase in bought:
        if purchase.cancelled:
            fates[purchase.event_id] = Fate(purchase.event_id, cancelled=True)
            fates |= {one.event_id: Fate(one.event_id, purchase.event_id, None, True) for one in purchase.returns}
    return list(fates.values())


def trace_returns(db: DuckDBPyConnection, first: date) -> None:
    """Make the temporary table `fates` of the returns and purchases in `behaved` that broke no rule.

    Args:
        db: a connection with the temporary view `behaved`; what was bought and given back before is in
            `cleaned_interactions`.
        first: day from which on `behaved` has the events.

    Cost: a sort of what was ever bought and given back of the pairs of actor and item that something goes back of.
    """
    db.execute(
        "create or replace temp table fates (event_id varchar, return_of varchar, most_left double, cancelled boolean)"
    )
    trade = "event_id, {} as instant, action = 'return' as is_return, coalesce(quantity, 1)::varchar as pieces"
    rows = db.execute(f"""
        with asked as (select distinct actor, item_id from behaved where action = 'return' and broken is null),
        trades as (
            select {identity.actor("e")} as actor, item_id, {trade.format("occurred_at")}, return_of
            from cleaned_interactions as e where action in ('purchase', 'return') and day < '{first}'
            union all
            select actor, item_id, {trade.format("instant")}, null
            from behaved where action in ('purchase', 'return') and broken is null)
        select * from trades semi join asked using (actor, item_id) order by actor, item_id""")
    fates = [fate for pair in _pairs(rows) for fate in match_returns(pair)]
    if fates:
        columns = {name: [getattr(fate, name) for fate in fates] for name in ("event_id", "return_of", "cancelled")}
        left = [None if fate.most_left is None else float(fate.most_left) for fate in fates]
        db.register("found_fates", pd.DataFrame({**columns, "most_left": left}))
        db.execute("insert into fates by name from found_fates")
        db.unregister("found_fates")


def _pairs(rows: DuckDBPyConnection) -> Iterator[list[Trade]]:
    """Trades of one pair of actor and item after the other."""

    def stream() -> Iterable[tuple]:
        while some := rows.fetchmany(10_000):
            yield from some

    for _, pair in groupby(stream(), key=lambda row: row[:2]):
        yield [
            Trade(event_id, instant, is_return, Decimal(pieces), return_of)
            for _, _, event_id, instant, is_return, pieces, return_of in pair
        ]
