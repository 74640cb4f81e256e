"""Which days are learnt from, chosen on and tested on: a grid of periods that a new day does not move.

On the floor above `interactions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.arrays import Ints
from ecom_pipeline.recommend.interactions import EPOCH, day_number, day_of
from ecom_pipeline.samples import TAKEN

LENGTHS = (28, 14, 7, 4, 2, 1)  # days: few steps, so that a growing history seldom moves the grid; 28 once it is long


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """Days from `first` to before `end`, as days since 1970."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Origin:
    """A point in time from which one looks back to learn and ahead to test.

    Attributes:
        train: periods whose visits are learnt from, the earliest first.
        validation: the period after them, on which everything is chosen.
        test: the period after that; None for the origin that serves, whose future is not known.
    """

    train: tuple[Period, ...]
    validation: Period
    test: Period | None

    @property
    def tested_on(self) -> Period:
        """The test period of an origin that does not serve."""
        assert self.test is not None, "the future of the origin that serves is not known"
        return self.test


def rolling_origins(days: Ints, *, n_train: int, n_test: int, length: int | None = None) -> list[Origin]:
    """The latest origins, the one that serves last; none where there are not enough days.

    Periods lie on a grid that does not depend on the data, so everything but the last origin stays as it is until a
    whole period has passed.

    Args:
        days: on which anything was taken.
        n_train: periods to learn from.
        n_test: test periods.
        length: days of a period; None: the longest of `LENGTHS` for which there are days enough.

    >>> import numpy as np
    >>> [o.test for o in rolling_origins(np.arange(10, 20), n_train=1, n_test=2, length=2)]
    [Period(first=16, end=18), Period(first=18, end=20), None]
    """
    if not len(days):
        return []
    first, last = int(days.min()), int(days.max())
    needed = n_train + n_test + 2  # one for validation, one for histories to begin in
    length = length or next((one for one in LENGTHS if one * needed <= last + 1 - first), None)
    if length is None:
        return []
    end = (last + 1) // length  # of the last whole period
    found = []
    for back in range(n_test - 1, -2, -1):
        of_test = end - 1 - back
        train = tuple(_period(of_test - 1 - n, length) for n in range(n_train, 0, -1))
        test = None if back < 0 else _period(of_test, length)
        if train[0].first > first:
            found.append(Origin(train, _period(of_test - 1, length), test))
    return found if len(found) > 1 else []


def _period(number: int, length: int) -> Period:
    return Period(number * length, (number + 1) * length)


def plan_periods(
    db: DuckDBPyConnection, *, n_train: int, n_test: int, length: int | None, n_items: int
) -> pd.DataFrame:
    """Rows of `learning_periods`: those of `rolling_origins`, with fewer periods where there are too few days.

    Args:
        db: a connection to the warehouse.
        n_train: periods to learn from.
        n_test: test periods.
        length: days of a period; None: as `rolling_origins` chooses.
        n_items: of the ranked catalogue, noted in every row.

    Returns:
        None where even one period of each kind would leave one without a visit.

    Cost: one scan of `cleaned_interactions`, joined with `items`.
    """
    days = db.execute(
        f"select distinct day - date '{EPOCH}' as day from cleaned_interactions where {TAKEN} order by day"
    ).fetchnumpy()["day"]
    rows: list[dict[str, object]] = []
    while not rows and n_train > 0:
        origins = rolling_origins(days.astype(np.int64), n_train=n_train, n_test=n_test, length=length)
        if origins:
            _count_days(db, day_of(origins[-1].validation.end), n_items)
        rows = [row for number, origin in enumerate(origins) for row in _rows(db, number, origin)]
        if any(row["n_visits"] == 0 for row in rows):
            rows = []
        n_train, n_test = max(n_train - 1, 1 if n_test > 1 else 0), max(n_test - 1, 1)
    db.execute("drop table if exists actor_days")
    hashes = _contents(db, [row["last_day"] for row in rows], n_items)
    columns = ["origin", "role", "first_day", "last_day", "n_visits"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(n_items=n_items, content=[hashes[day] for day in frame.last_day])


def _count_days(db: DuckDBPyConnection, until: date, n_items: int) -> None:
    """A table of who took something ranked on which day; what comes after the periods changes nothing of it."""
    db.execute(f"""
        create or replace temp table actor_days as
        with known as (
            select {identity.actor("e")} as actor, day - date '{EPOCH}' as day, item_id
            from cleaned_interactions as e where {TAKEN} and day < '{until}')
        select distinct actor, day from known semi join (
            select item_id from known group by item_id order by count(*) desc, item_id limit {n_items}) using (item_id)""")


def origins_of(periods: pd.DataFrame) -> list[Origin]:
    """The origins that rows of `learning_periods` tell of, the one that serves last."""
    found = []
    for _, rows in periods.sort_values("first_day").groupby("origin"):
        by_role = {
            role: [
                Period(day_number(first.date()), day_number(last.date()) + 1)
                for first, last in zip(part.first_day, part.last_day, strict=True)
            ]
            for role, part in rows.groupby("role")
        }
        test = by_role.get("test")
        found.append(Origin(tuple(by_role["train"]), by_role["validation"][0], test[0] if test else None))
    return found


def _rows(db: DuckDBPyConnection, number: int, origin: Origin) -> list[dict[str, object]]:
    """The periods of an origin; a visit needs a user with a history, and asked is the first one of each user."""
    roles = [("train", period) for period in origin.train] + [("validation", origin.validation)]
    if origin.test:
        roles.append(("test", origin.test))
    found = []
    for role, period in roles:
        visits = "count(*)" if role == "train" else "count(distinct actor)"
        known = "day" if role == "train" else str(period.first)
        (n_visits,) = db.execute(
            f"""select {visits} from actor_days join (select actor, min(day) as begun from actor_days group by actor)
            using (actor) where day >= {period.first} and day < {period.end} and begun < {known}"""
        ).fetchall()[0]
        days = {"first_day": day_of(period.first), "last_day": day_of(period.end - 1)}
        found.append({"origin": number, "role": role, **days, "n_visits": n_visits})
    return found


def _contents(db: DuckDBPyConnection, last_days: list, n_items: int) -> Mapping[object, str]:
    """A hash for each day of all that was taken or went back until then, of the items' words, of which were read, by whom.

    Whether its words were read counts of an item that is ranked when the last period has ended; of others it may change
    any day, and says nothing.
    """
    last = max(last_days, default=EPOCH)
    rows = db.execute(f"""
        with ranked as (
            select item_id from cleaned_interactions where {TAKEN} and day <= '{last}' group by item_id
            order by count(*) desc, item_id limit {n_items}),
        known as (
            select item_id, hash(category, brand, item_text, ranked.item_id is not null and text_hash is not null) as words
            from items left join ranked using (item_id)
                left join (select distinct text_hash from embeddings) on text_hash = md5(item_text)),
        told as (
            select day, sum(hash(event_id, user_id, session_id, item_id, action, quantity, price, return_of, words)::hugeint)
                as of_day
            from cleaned_interactions join known using (item_id) where {TAKEN} or action = 'return' group by day)
        select day, md5(sum(of_day) over (order by day)::varchar || (
            select coalesce(string_agg(distinct encoder_id, ',' order by encoder_id), '') from embeddings))
        from told order by day""").fetchall()
    days = [day for day, _ in rows]
    return {day: rows[int(np.searchsorted(days, day, side="right")) - 1][1] for day in last_days}
