"""What landing changed among the events, and the days that read it: their own, and others that cleaning looks over to."""

from duckdb import DuckDBPyConnection

from ecom_pipeline import days, identity
from ecom_pipeline.schema.relation import tables

# an event and its place, and of it what other days may read
_COLUMNS = {
    "file": "file",
    "row_number": "row_number",
    "day": "day",
    "instant": "instant",
    "event_id": "event_id",
    "actor": identity.actor("raw_events"),
    "item_id": "item_id",
    "action": "lower(trim(action))",
    "content": days.CONTENT,
}
_EVENT = ", ".join(f"{value} as {column}" for column, value in _COLUMNS.items())


def begin(db: DuckDBPyConnection) -> None:
    """Make the empty record of one landing: a row of `raw_events` that went has side -1, one that came 1."""
    db.execute(f"create or replace temp table changed_rows as select {_EVENT}, 0 as side from raw_events limit 0")


def note(db: DuckDBPyConnection, rows: str, *, came: bool) -> None:
    """Note some rows, by an SQL condition on `raw_events`: after they came, or before they go."""
    side = 1 if came else -1
    db.execute(f"insert into changed_rows select {_EVENT}, {side} from raw_events where {rows}")


def touch(db: DuckDBPyConnection) -> None:
    """Touch the days that read what was noted and is not as it was. `event_days` must be up to date.

    Cost: one scan of the ids in `raw_events`, and one of the returns in it.
    """
    # what went and came again in its place is as it was; what came elsewhere has only moved
    db.execute("""
        create or replace temp table moved_rows as
        select day from changed_rows group by file, row_number, content, instant, day having sum(side) <> 0""")
    db.execute("""
        create or replace temp table changed_events as
        select any_value(day) as day, instant, any_value(event_id) as event_id, any_value(actor) as actor,
            any_value(item_id) as item_id, any_value(action) as action
        from changed_rows group by content, instant having sum(side) <> 0""")
    days.touch_readers(db, "from changed_events")
    days.touch(
        db,
        f"""select r.day from raw_events as r join (
            select actor, item_id, min(instant) as since from changed_events where action in ('purchase', 'return')
            group by actor, item_id) as c
        on {identity.actor("r")} = c.actor and r.item_id = c.item_id and r.instant >= since
        where lower(trim(r.action)) = 'return'""",
    )
    if "rejected_rows" in tables(db):
        # what is rejected names its place, and of rows that are alike the place decides
        days.touch(db, "select day from moved_rows semi join (from rejected_rows where source = 'events') using (day)")
    db.execute("drop table moved_rows; drop table changed_events; drop table changed_rows")
