"""What users did: events that passed the rules, day by day, and what became of the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from duckdb import DuckDBPyConnection

from ecom_pipeline import days, forms, identity, schema
from ecom_pipeline.cleaning import returns
from ecom_pipeline.cleaning.rules import MALFORMED, Rule, first_broken, sieve
from ecom_pipeline.cleaning.typed_events import ROW_RULES, repeated_ids, typed
from ecom_pipeline.days import FIRST_DAY

_WINDOW_EVENTS = 1_500_000  # events cleaned at a time: bounds the memory of the windows


@dataclass(frozen=True, slots=True)
class Limits:
    """Where behaviour stops being a person's, and two events being two.

    Attributes:
        near_seconds: the same act on the same item again within so many seconds is one act.
        actions_per_minute: clicks, carts and reviews of one person in one minute, at most. None: any number.
        actions_per_day: the same in one day, at most. None: any number.
        events_per_day: events of any kind of one person in one day, at most. None: any number.
    """

    near_seconds: float
    actions_per_minute: int | None
    actions_per_day: int | None
    events_per_day: int | None

    @property
    def of_a_person(self) -> dict[str, tuple[int, str]]:
        """By the column that counts: how many at most, and in words; those that are limited."""
        limits = {
            "n_minute": (self.actions_per_minute, "actions a minute"),
            "n_day": (self.actions_per_day, "actions a day"),
            "n_events": (self.events_per_day, "events a day"),
        }
        return {column: (limit, words) for column, (limit, words) in limits.items() if limit is not None}


def settle_days(db: DuckDBPyConnection, now: datetime) -> dict[str, int]:
    """Reject the raw events that have no UTC day; one that lay in the future gets its day when it has come.

    Days that have gone from the source also go from what was cleaned before.

    Args:
        db: a connection inside the transaction that landed `raw_events`.
        now: UTC, without zone; what happens later is a broken clock.

    Returns:
        Rows rejected, by the name of the rule.
    """
    for relation in (schema.REJECTED_ROWS, schema.CLEANED_INTERACTIONS):
        relation.create(db)
    come = f"day is null and instant between '{FIRST_DAY}' and '{now}'"
    files = [file for (file,) in db.execute(f"select distinct file from raw_events where {come}").fetchall()]
    if files:
        db.execute(f"update raw_events set day = instant::date where {come}")
        days.record(db, f"select unnest({files})")
    rules = [
        MALFORMED,
        Rule("time_missing", "occurred_at is null", "occurred_at must be present", "'nothing'"),
        Rule("time_unreadable", "instant is null", "occurred_at must be a time such as 2024-05-31T12:00:00Z", "given"),
        Rule("time_too_early", f"instant < '{FIRST_DAY}'", f"occurred_at must not be before {FIRST_DAY}", "given"),
        Rule("time_in_future", f"instant > '{now}'", "occurred_at must not be after the time of ingestion", "given"),
    ]
    prepared = "select file, row_number, malformed, occurred_at, occurred_at as given, instant from raw_events where day is null"
    counts = sieve(db, "events", prepared=prepared, rules=rules, kept=None, slice_="day is null")
    gone = "day is not null and day not in (select day from event_days)"  # without a day: rejected just now
    db.execute(f"delete from cleaned_interactions where {gone}")
    db.execute(f"delete from rejected_rows where source = 'events' and {gone}")
    return counts


def clean_events(db: DuckDBPyConnection, first: date, last: date, limits: Limits) -> dict[str, int]:
    """Make `cleaned_interactions` of some days from `raw_events`, for items that `items` has.

    An id that comes again belongs to the first row that breaks no rule of its own. A return is matched to the latest
    earlier purchase, among those that are kept, of the same item by the same user that has as much left. Several share a
    purchase until it is used up. Where all of it goes back on its day, nothing was bought: the purchase and its returns
    are rejected. Otherwise returns stay and name their purchase, which stays too: at its own time it was a purchase.

    Later days whose returns read what has changed here are to be cleaned again.

    Args:
        db: a connection inside a transaction.
        first: first UTC day to clean.
        last: last UTC day to clean.
        limits: where behaviour stops being a person's.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.

    Cost: a few scans and sorts of the days' rows; one scan of the ids in `raw_events`; and one of the purchases and
    returns kept before.
    """
    forms.make_macros(db, "events")
    schema.CLEANED_INTERACTIONS.create(db)
    # a near duplicate looks back over midnight
    known = f"day between '{first - timedelta(days=1)}' and '{last}'"
    db.execute(f"create or replace temp table repeated as {repeated_ids(known)}")
    counts: Counter[str] = Counter(kept=0)
    for start, stop in _windows(db, first, last):
        counts.update(_clean_window(db, start, stop, limits))
    db.execute("drop table repeated")
    return dict(counts)


def _clean_window(db: DuckDBPyConnection, first: date, last: date, limits: Limits) -> dict[str, int]:
    window = f"day between '{first}' and '{last}'"
    near = f"to_microseconds({round(limits.near_seconds * 1e6)})"
    reach = f"""r.day is not null and r.instant between '{first}'::timestamp - {near}
        and '{last}'::timestamp + interval 1 day - interval 1 microsecond"""
    db.execute(f"""
        create or replace temp table typed as
        select t.* exclude (row_rule), {window} as inside,
            coalesce(row_rule, case when repeated.file is not null then '{_ID_REPEATED.name}' end) as row_rule
        from ({typed(reach)}) as t left join repeated using (file, row_number)""")
    behaviour = _behaviour_rules(limits)
    db.execute(f"create or replace temp table misbehaved as {_misbehaved(limits, behaviour)}")
    db.execute("""
        create or replace temp view behaved as
        select typed.*, misbehaved.* exclude (place, broken), coalesce(row_rule, broken) as broken
        from typed left join misbehaved on place = typed.rowid where inside""")
    returns.trace_returns(db, first)
    prepared = """
        select behaved.*, return_of, most_left, cancelled
        from behaved left join fates on broken is null and fates.event_id = behaved.event_id"""
    db.execute(f"create or replace temp table former_trades as {_trades(window)}")
    counts = sieve(
        db,
        "events",
        prepared=prepared,
        rules=[*ROW_RULES, _ID_REPEATED, *behaviour, *returns.RULES],
        broken=f"coalesce(broken, {first_broken(returns.RULES)})",
        kept=schema.CLEANED_INTERACTIONS,
        slice_=window,
    )
    _touch_later_returns(db, window, last)
    db.execute("drop view behaved; drop table typed; drop table misbehaved; drop table fates; drop table former_trades")
    return counts


def _trades(window: str) -> str:
    return f"""
        select {identity.actor("e")} as actor, item_id, event_id, occurred_at, action, quantity, return_of
        from cleaned_interactions as e where {window} and action in ('purchase', 'return')"""


def _touch_later_returns(db: DuckDBPyConnection, window: str, last: date) -> None:
    """Days after a window whose returns may find another purchase than they did."""
    db.execute(f"create or replace temp table trades as {_trades(window)}")
    db.execute("""
        create or replace temp table changed_pairs as
        select distinct actor, item_id from (
            (from former_trades except all from trades) union all (from trades except all from former_trades))""")
    if db.execute("select 1 from changed_pairs limit 1").fetchall():
        days.touch(
            db,
            f"""select day from raw_events as r where day > '{last}' and lower(trim(action)) = 'return'
                and ({identity.actor("r")}, item_id) in (select (actor, item_id) from changed_pairs)""",
        )
    db.execute("drop table trades; drop table changed_pairs")


def _windows(db: DuckDBPyConnection, first: date, last: date) -> list[tuple[date, date]]:
    """Consecutive days, together the whole, with some `_WINDOW_EVENTS` events each."""
    days = db.execute(
        "select day, count(*) from raw_events where day between ? and ? group by day order by day", [first, last]
    ).fetchall()
    starts, n = [first], 0
    for day, n_events in days:
        if n and n + n_events > _WINDOW_EVENTS:
            starts.append(day)
            n = 0
        n += n_events
    return list(zip(starts, [*(start - timedelta(days=1) for start in starts[1:]), last], strict=True))


_ID_REPEATED = Rule("event_id_repeated", "false", "event_id must be unique; the first sound row is kept", "event_id")


def _behaviour_rules(limits: Limits) -> list[Rule]:
    most = limits.of_a_person
    return [
        Rule("exact_duplicate", "nth > 1", "an event is logged once", "'the same row ' || nth || ' times'"),
        Rule(
            "bot_like",
            " or ".join(f"{column} > {limit}" for column, (limit, _) in most.items()) or "false",
            f"a person has at most {' and '.join(f'{limit} {words}' for limit, words in most.values())}",
            " || ' and ' || ".join(most) or "''",
        ),
        Rule(
            "near_duplicate",
            f"seconds_before <= {limits.near_seconds}",
            f"the same act on the same item is one act within {limits.near_seconds:g} s",
            "round(seconds_before, 3) || ' s'",
        ),
    ]


_SOUND = "(select rowid as place, * from typed where row_rule is null)"
_COUNTED = "action in ('click', 'cart', 'review')"
_ACT = "actor, action, item_id, query, case when action in ('purchase', 'return') then content end"


def _misbehaved(limits: Limits, rules: Sequence[Rule]) -> str:
    """A query: the place in `typed` of each sound row that breaks a rule on behaviour, which one, and what that one asks.

    Windows are dear, so only rows that can break a rule are sorted: copies, those of busy people, and acts done again.
    """
    fewest = min((limit for limit, _ in limits.of_a_person.values()), default=None)
    return f"""
        with copies as (
            select place, row_number() over (partition by content order by event_id, file, row_number) as nth
            from {_SOUND} where content in (select content from {_SOUND} group by content having count(*) > 1)),
        busy as (
            select place, count(*) over (partition by actor, day) as n_events,
                count(*) filter (where {_COUNTED}) over (partition by actor, date_trunc('minute', instant)) as n_minute,
                count(*) filter (where {_COUNTED}) over (partition by actor, day) as n_day
            from {_SOUND} semi join (
                select actor, day from {_SOUND} group by actor, day having count(*) > {"null" if fewest is None else fewest})
            using (actor, day)),
        again as (
            select place, epoch(instant) - epoch(lag(instant) over (
                partition by {_ACT} order by instant, event_id, file, row_number)) as seconds_before
            from {_SOUND} where hash({_ACT}) in (
                select hash({_ACT}) from {_SOUND} group by hash({_ACT}) having count(*) > 1))
        select *, {first_broken(rules)} as broken
        from copies full join busy using (place) full join again using (place) where broken is not null"""
