"""What cleaning reads of each day: the day's own events, and what lies elsewhere but matters to them.

On the lowest floor. The record is small, one row a day and file, so that a plan never looks at the events themselves:
a new day costs a day, however many there are.
"""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import pairwise

from duckdb import DuckDBPyConnection

from ecom_pipeline.schema.inputs import COLUMNS
from ecom_pipeline.schema.relation import tables

FIRST_DAY = date(1990, 1, 1)  # what claims to be older than the first web shops is a broken clock
NEAR_SECONDS = 60  # cleaning looks back over midnight no further than this

# what an event is, wherever it lies: its place in a file is not part of it
CONTENT = f"hash({', '.join((*COLUMNS['events'], 'attributes', 'malformed'))})"


def create(db: DuckDBPyConnection) -> None:
    """Make the empty record where there is none."""
    db.execute("create table if not exists event_days (day date, file varchar, n_rows bigint, content decimal(38, 0))")
    db.execute("create table if not exists touched_days (day date, n_times bigint)")


def record(db: DuckDBPyConnection, files: str) -> None:
    """Note anew what each day has of some files.

    Args:
        db: a connection inside the transaction that wrote `raw_events`.
        files: a query that yields their names.

    Cost: one scan of these files' rows.
    """
    db.execute(f"delete from event_days where file in ({files})")
    db.execute(
        f"insert into event_days select day, file, count(*), sum({CONTENT}::hugeint)::decimal(38, 0) from raw_events "
        f"where day is not null and file in ({files}) group by day, file"
    )


def touch(db: DuckDBPyConnection, days: str) -> None:
    """Note that something elsewhere, which these days read, has changed: they are to be cleaned again.

    Args:
        db: a connection inside a transaction.
        days: a query that yields days; one without events counts too, for they may come back.
    """
    create(db)
    db.execute(
        f"merge into touched_days using (select distinct day::date as day from ({days}) as t(day) where day is not null) "
        "as reached using (day) when matched then update set n_times = n_times + 1 "
        "when not matched then insert (day, n_times) values (reached.day, 1)"
    )


def touch_readers(db: DuckDBPyConnection, events: str) -> None:
    """Touch the days that read some events by themselves or by their ids, also from over midnight.

    An event may take its id from one of another day, or give it back, and both may stand before a near duplicate.

    Args:
        db: a connection inside a transaction.
        events: a query that yields, among others, day, instant and event_id.

    Cost: one scan of the ids in `raw_events`.
    """
    late = f"instant >= day + interval 1 day - interval {NEAR_SECONDS} second"
    touch(
        db,
        f"""with events as ({events}), reached as (
            select day, instant from events
            union all select day, instant from raw_events where event_id in (select event_id from events))
        select day from reached union all select day + 1 from reached where {late}""",
    )


def inputs(first: date, last: date) -> str:
    """A query: what cleaning reads of each day that has events, as (day, content, n_rows)."""
    return f"""
        select day, sum(content)::varchar || '/' || coalesce(any_value(n_times), 0) as content,
            sum(n_rows)::bigint as n_rows
        from event_days left join touched_days using (day)
        where day between '{first}' and '{last}' group by day"""


def stretches(wanted: Sequence[date], every: Sequence[date], at_most: int = 10) -> list[tuple[date, date]]:
    """First and last days of few spans that hold all of some days, and as few others as possible.

    Args:
        wanted: days in order.
        every: all days that have events, in order: a day without any parts nothing.
        at_most: spans: each costs a scan, so many far days share one.

    >>> days = [date(2024, 5, day) for day in (1, 2, 4, 5, 9)]
    >>> [(first.day, last.day) for first, last in stretches([days[0], days[1], days[2], days[4]], days)]
    [(1, 4), (9, 9)]
    """
    place = {day: n for n, day in enumerate(every)}
    gaps = {n: place[wanted[n]] - place[wanted[n - 1]] for n in range(1, len(wanted))}
    widest = sorted((n for n, gap in gaps.items() if gap > 1), key=lambda n: -gaps[n])[: at_most - 1]
    return [(wanted[a], wanted[b - 1]) for a, b in pairwise([0, *sorted(widest), len(wanted)])] if wanted else []


def due(db: DuckDBPyConnection, now: datetime) -> bool:
    """Whether an event that lay in the future when it landed has come to pass.

    Args:
        db: a connection.
        now: UTC, without zone.

    Cost: one scan of a column.
    """
    if "raw_events" not in tables(db):
        return False
    query = "select 1 from raw_events where day is null and instant between ? and ? limit 1"
    return bool(db.execute(query, [FIRST_DAY, now]).fetchall())
