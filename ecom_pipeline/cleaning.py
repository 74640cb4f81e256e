"""Rules that keep or reject a row, each with a name; a rejected row is kept too, with the first rule it broke.

On the floor above `schema`. All work is SQL on the connection given, so memory is DuckDB's and so is the limit on it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from duckdb import DuckDBPyConnection

from ecom_pipeline import days, forms, schema
from ecom_pipeline.days import FIRST_DAY
from ecom_pipeline.forms.columns import READ
from ecom_pipeline.schema import ACTIONS, SPLITS, Relation

_WINDOW_EVENTS = 1_500_000  # events cleaned at a time: bounds the memory of the windows


@dataclass(frozen=True, slots=True)
class Rule:
    """A named reason to reject a row."""

    name: str
    broken: str  # SQL condition, true for a row to reject
    must: str  # what must hold, in words
    had: str  # SQL expression: what the row had instead


@dataclass(frozen=True, slots=True)
class Limits:
    """Where behaviour stops being a person's, and two events being two.

    Attributes:
        near_seconds: the same act on the same item again within so many seconds is one act.
        actions_per_minute: clicks, carts and reviews of one person in one minute, at most.
        actions_per_day: the same in one day, at most.
        events_per_day: events of any kind of one person in one day, at most.
    """

    near_seconds: float
    actions_per_minute: int
    actions_per_day: int
    events_per_day: int


_MALFORMED = Rule(
    "line_malformed",
    "malformed is not null",
    "a line must have as many fields as the first, and its quotes closed",
    "malformed",
)


def clean_items(db: DuckDBPyConnection) -> dict[str, int]:
    """Make `items` from `raw_items`; days with events of items that came or went are to be cleaned again.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.

    Cost: a sort of the catalogue; where items came or went, one scan of the events' items.
    """
    forms.make_macros(db, "items")
    schema.ITEMS.create(db)
    days.create(db)
    db.execute("create or replace temp table former_items as select item_id from items")
    prepared = f"""
        select file, row_number, malformed, item_id, clean_text(title) as title,
            filled_text(description) as description, filled_text(brand) as brand,
            filled_text(category) as category, {READ["items"]["price"]} as price,
            {READ["items"]["currency"]} as currency, filled(image_uri) as image_uri, attributes,
            concat_ws('. ', clean_text(title), filled_text(brand), filled_text(category),
                left(filled_text(description), 300)) as item_text,
            row_number() over (partition by trim(item_id::varchar) order by split_part(file, '.', 1) desc, file, row_number) as nth
        from raw_items"""
    rules = [
        _MALFORMED,
        Rule("item_id_missing", "item_id is null", "item_id must be present", "'nothing'"),
        Rule("title_blank", "title is null", "title must have a letter after markup is gone", "'nothing'"),
        Rule(
            "item_id_repeated", "nth > 1", "item_id must be unique; the first row of the last file is kept", "item_id"
        ),
    ]
    counts = _sieve(db, "items", prepared, rules, schema.ITEMS)
    if db.execute("select 1 from event_days limit 1").fetchall():
        days.touch(
            db,
            """select day from raw_events where trim(item_id) in (
                select coalesce(f.item_id, i.item_id) from former_items as f full join items as i using (item_id)
                where f.item_id is null or i.item_id is null)""",
        )
    return counts


def clean_judgments(db: DuckDBPyConnection) -> dict[str, int]:
    """Make `judgments` from `raw_judgments`, for items that `items` has.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.
    """
    forms.make_macros(db, "judgments")
    prepared = f"""
        with typed as (
            select file, row_number, malformed, filled_text(query) as query, item_id,
                coalesce(filled(query_id), md5(lower(filled_text(query)))) as query_id,
                filled(relevance) as relevance_given, read_number(relevance) as relevance,
                {READ["judgments"]["rater_std"]} as rater_std,
                lower(filled(split)) as split
            from raw_judgments)
        select typed.*, items.item_id is not null as known,
            row_number() over pair as nth, first_value(relevance) over pair as first_relevance,
            first_value(split) over (partition by query_id order by typed.file, typed.row_number) as query_split
        from typed left join items using (item_id)
        window pair as (partition by query_id, item_id order by typed.file, typed.row_number)"""
    rules = [
        _MALFORMED,
        Rule("query_blank", "query is null", "query must have a letter after markup is gone", "'nothing'"),
        Rule("item_id_missing", "item_id is null", "item_id must be present", "'nothing'"),
        Rule("item_unknown", "not known", "item_id must be in items", "item_id"),
        Rule("relevance_missing", "relevance_given is null", "relevance must be present", "'nothing'"),
        _number("relevance", "relevance < 0", "relevance must be a number >= 0"),
        Rule("split_unknown", f"split not in {SPLITS}", f"split must be one of {', '.join(SPLITS)}", "split"),
        Rule(
            "query_in_two_splits",
            "split is distinct from query_split",
            "all rows of a query must be in the split of its first row",
            "coalesce(split, 'none')",
        ),
        Rule(
            "exact_duplicate", "nth > 1 and relevance = first_relevance", "a pair is judged once", "relevance::varchar"
        ),
        Rule("grades_conflict", "nth > 1", "a pair has one grade; the first row is kept", "relevance::varchar"),
    ]
    return _sieve(db, "judgments", prepared, rules, schema.JUDGMENTS)


def settle_days(db: DuckDBPyConnection, now: datetime) -> dict[str, int]:
    """Give every raw event its UTC day; an event that cannot have one is rejected here, at the door.

    Days that have gone from the source also go from what was cleaned before.

    Args:
        db: a connection inside the transaction that landed `raw_events`.
        now: UTC, without zone; what happens later is a broken clock.

    Returns:
        Rows with a day under "kept", and rows rejected by the name of the rule.
    """
    for relation in (schema.REJECTED_ROWS, schema.CLEANED_INTERACTIONS):
        relation.create(db)
    come = f"day is null and instant between '{FIRST_DAY}' and '{now}'"
    files = [file for (file,) in db.execute(f"select distinct file from raw_events where {come}").fetchall()]
    if files:
        db.execute(f"update raw_events set day = instant::date where {come}")
        days.record(db, f"select unnest({files})")
    rules = [
        _MALFORMED,
        Rule("time_missing", "occurred_at is null", "occurred_at must be present", "'nothing'"),
        Rule("time_unreadable", "instant is null", "occurred_at must be a time such as 2024-05-31T12:00:00Z", "given"),
        Rule("time_too_early", f"instant < '{FIRST_DAY}'", f"occurred_at must not be before {FIRST_DAY}", "given"),
        Rule("time_in_future", f"instant > '{now}'", "occurred_at must not be after the time of ingestion", "given"),
    ]
    prepared = "select file, row_number, malformed, occurred_at, occurred_at as given, instant from raw_events where day is null"
    counts = _sieve(db, "events", prepared, rules, None, "day is null")
    gone = "day not in (select day from event_days)"
    db.execute(f"delete from cleaned_interactions where {gone}")
    db.execute(f"delete from rejected_rows where source = 'events' and {gone}")
    return counts


def clean_events(db: DuckDBPyConnection, first: date, last: date, limits: Limits) -> dict[str, int]:
    """Make `cleaned_interactions` of some days from `raw_events`, for items that `items` has.

    A return is matched to the latest earlier purchase of the same item by the same user. Where both fall on one day
    and all of it goes back, nothing was bought: both rows are rejected. Otherwise the return stays and names its
    purchase, which stays too: at its own time it was a purchase.

    Args:
        db: a connection inside a transaction.
        first: first UTC day to clean.
        last: last UTC day to clean.
        limits: where behaviour stops being a person's.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.

    Cost: a few scans and sorts of the days' rows; and one scan of `raw_events` for repeated ids and for purchases
    that were returned.
    """
    forms.make_macros(db, "events")
    db.execute(f"create or replace temp table repeated as {_REPEATED}")
    counts: Counter[str] = Counter(kept=0)
    for start, stop in _windows(db, first, last):
        db.execute(f"create or replace temp table typed as {_typed(start, stop, limits)}")
        db.execute(f"create or replace temp table returned as {_returned(start, stop)}")
        rules = [*_row_rules(), *_behaviour_rules(limits)]
        days = f"day between '{start}' and '{stop}'"
        counts.update(_sieve(db, "events", _BEHAVIOUR, rules, schema.CLEANED_INTERACTIONS, days))
        db.execute("drop table typed; drop table returned")
    db.execute("drop table repeated")
    return dict(counts)


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


def _row_rules() -> list[Rule]:
    return [
        Rule("user_and_session_missing", "actor is null", "user_id or session_id must be present", "'neither'"),
        Rule("action_unknown", f"action not in {ACTIONS}", f"action must be one of {', '.join(ACTIONS)}", "action"),
        Rule("action_missing", "action is null", f"action must be one of {', '.join(ACTIONS)}", "'nothing'"),
        Rule("item_id_missing", "item_id is null", "item_id must be present", "'nothing'"),
        Rule("item_unknown", "not known", "item_id must be in items", "item_id"),
        _number("position", "position < 1", "position must be a whole number >= 1"),
        _number("propensity", "propensity <= 0 or propensity > 1", "propensity must be in (0, 1]"),
        _number("rating", "rating < 1 or rating > 5", "rating must be in [1, 5]"),
        Rule("quantity_out_of_range", "quantity < 0", "quantity must be a number >= 0", "quantity::varchar"),
    ]


def _behaviour_rules(limits: Limits) -> list[Rule]:
    return [
        Rule("event_id_repeated", "id_repeated", "event_id must be unique; the first row is kept", "event_id"),
        Rule("exact_duplicate", "nth > 1", "an event is logged once", "'the same row ' || nth || ' times'"),
        Rule(
            "bot_like",
            f"n_minute > {limits.actions_per_minute} or n_day > {limits.actions_per_day} "
            f"or n_events > {limits.events_per_day}",
            f"a person has at most {limits.actions_per_minute} actions a minute, {limits.actions_per_day} a day and "
            f"{limits.events_per_day} events a day",
            "n_minute || ', ' || n_day || ' and ' || n_events",
        ),
        Rule(
            "near_duplicate",
            f"seconds_before <= {limits.near_seconds}",
            f"the same act on the same item is one act within {limits.near_seconds:g} s",
            "round(seconds_before, 3) || ' s'",
        ),
        Rule(
            "cancelled_same_day",
            "cancelled",
            "a purchase must not be undone on its day",
            "'a ' || action || ' whose counterpart is of the same day'",
        ),
        Rule(
            "return_without_purchase",
            "action = 'return' and return_of is null",
            "a return must have an earlier purchase of the same item by the same user",
            "'none'",
        ),
    ]


def _number(column: str, outside: str, must: str) -> Rule:
    broken = f"({column}_given is not null and {column} is null) or {outside} or not isfinite({column}::double)"
    return Rule(f"{column}_out_of_range", broken, must, f"{column}_given::varchar")


def _first_broken(rules: Sequence[Rule]) -> str:
    """An SQL expression: the name of the first rule that a row breaks, or null."""
    return "case " + " ".join(f"when coalesce({rule.broken}, false) then '{rule.name}'" for rule in rules) + " end"


# the source's id of an event `r`, or a hash of its content: a return names its purchase by the same
_EVENT_ID = """coalesce(nullif(trim(r.event_id::varchar), ''), md5(concat_ws('|', r.user_id, r.session_id, r.action,
                    r.item_id, r.query, r.instant, r.position, r.rating, r.quantity, r.price)))"""


def _typed(first: date, last: date, limits: Limits) -> str:
    """Events of the days, and those just before midnight that a near duplicate may repeat; cast, with their row rule."""
    numbers = {"position": "whole(read_number(position))"} | {
        column: f"read_number({column})" for column in ("propensity", "rating")
    }
    casts = ", ".join(
        f"case when {reading} is null then filled({name}) else {name} end as {name}_given, {reading} as {name}"
        for name, reading in numbers.items()
    )
    casts += f", {READ['events']['quantity']} as quantity, {READ['events']['price']} as price"
    content = "hash(r.user_id, r.session_id, action, r.item_id, query, instant, position, rating, quantity, r.price)"
    return f"""
        with given as (
            select file, row_number, instant, r.day, event_id::varchar as given_id, {content} as content,
                {_EVENT_ID} as event_id,
                r.user_id, r.session_id, coalesce(r.user_id, r.session_id) as actor,
                nullif(lower(trim(action::varchar)), '') as action,
                r.item_id, i.item_id is not null as known,
                filled_text(query) as query, {casts}, r.attributes
            from raw_events as r left join (select item_id from items) as i using (item_id)
            where instant between '{first}'::timestamp - to_microseconds({round(limits.near_seconds * 1e6)})
                and '{last}'::timestamp + interval 1 day - interval 1 microsecond and r.day is not null)
        select *, day between '{first}' and '{last}' as inside, {_first_broken(_row_rules())} as row_rule from given"""


def _returned(first: date, last: date) -> str:
    """Returns of the days with the purchase that each undoes, where there is one; no quantity is one piece."""
    return f"""
        with purchases as (
            select r.user_id, trim(r.item_id::varchar) as item_id, instant,
                coalesce({READ["events"]["quantity"]}, 1) as pieces,
                {_EVENT_ID} as event_id
            from raw_events as r
            where lower(trim(action::varchar)) = 'purchase' and day <= '{last}' and pieces >= 0
                and (r.user_id, trim(r.item_id::varchar)) in (
                    select (user_id, item_id) from typed where action = 'return')
            -- of several at one instant always the same one
            qualify row_number() over (
                partition by r.user_id, trim(r.item_id::varchar), instant order by pieces desc, event_id) = 1)
        select typed.file, typed.row_number, purchases.event_id as return_of,
            purchases.instant::date = typed.day and coalesce(typed.quantity, 1) >= purchases.pieces as cancelled
        from typed asof join purchases on typed.user_id = purchases.user_id and typed.item_id = purchases.item_id
            and typed.instant >= purchases.instant
        where typed.action = 'return' and typed.row_rule is null"""


# the second and later rows of an id, over all days
_REPEATED = """
    select file, row_number from raw_events
    where day is not null and event_id in (
        select event_id from raw_events where trim(event_id::varchar) <> '' group by 1 having count(*) > 1)
    qualify row_number() over (partition by event_id order by instant, file, row_number) > 1"""

_COUNTED = "action in ('click', 'cart', 'review')"
_ACT = "actor, action, item_id, query, case when action in ('purchase', 'return') then content end"

# what the rules on behaviour need to know of an event: it costs windows, so only sound rows are asked
_BEHAVIOUR = f"""
    with sound as (
        select file, row_number, row_number() over (partition by content order by file, row_number) as nth,
            count(*) filter (where {_COUNTED}) over (partition by actor, date_trunc('minute', instant)) as n_minute,
            count(*) filter (where {_COUNTED}) over (partition by actor, day) as n_day,
            count(*) over (partition by actor, day) as n_events,
            epoch(instant) - epoch(lag(instant) over (partition by {_ACT} order by instant, file, row_number))
                as seconds_before
        from typed where row_rule is null)
    select typed.*, nth, n_minute, n_day, n_events, seconds_before, return_of,
        repeated.file is not null as id_repeated,
        coalesce(returned.cancelled, event_id in (select return_of from returned where cancelled)) as cancelled
    from typed left join sound using (file, row_number) left join returned using (file, row_number)
        left join repeated using (file, row_number)
    where inside"""


def _sieve(
    db: DuckDBPyConnection,
    source: str,
    prepared: str,
    rules: Sequence[Rule],
    kept: Relation | None,
    slice_: str = "true",
) -> dict[str, int]:
    """Put each prepared row into `kept`, or into `rejected_rows` with the first rule that it breaks."""
    reason = " ".join(f"when '{rule.name}' then '{rule.must}; it is ' || {rule.had}" for rule in rules)
    db.execute(
        f"create or replace temp table sieved as "
        f"select *, case rule {reason} end as reason from (select *, {_first_broken(rules)} as rule from ({prepared}))"
    )
    schema.REJECTED_ROWS.create(db)
    db.execute(f"delete from rejected_rows where source = '{source}' and {slice_}")
    dated = source == "events" and kept is not None
    as_it_came = "* exclude (instant, day)" if source == "events" else "*"
    db.execute(
        f"insert into rejected_rows select '{source}', file, row_number, rule, coalesce(reason, rule), to_json(r)::varchar, "
        f"{'day' if dated else 'null::date'} from (select * from sieved where rule is not null) join "
        f"(select {as_it_came} from raw_{source} where {slice_ if dated else 'true'}) as r using (file, row_number)"
    )
    if kept:
        kept.create(db)
        db.execute(f"delete from {kept.name} where {slice_}")
        columns = ", ".join("instant as occurred_at" if name == "occurred_at" else name for name in kept.column_names)
        db.execute(f"insert into {kept.name} select {columns} from sieved where rule is null")
    counts = db.execute("select coalesce(rule, 'kept'), count(*) from sieved group by all order by all").fetchall()
    db.execute("drop table sieved")
    return {"kept": 0, **dict(counts)} if kept else dict(counts)
