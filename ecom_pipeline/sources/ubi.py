"""OpenSearch User Behavior Insights (UBI 1.3): queries and events as ndjson, bulk files included.

A UBI log names objects by id alone. Titles come from an `items` file (canonical, Parquet or CSV) beside the log;
where there is none, the id is the title, and a text model can learn no more from it than that.
"""

import json
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.source import Adapter, Tables, matching, quoted

_ACTIONS = {"click_through": "click", "view": "click", "watch": "click", "add_to_cart": "cart"}


def _logs(folder: Path) -> list[Path]:
    return matching(folder, "*ubi*.ndjson", "*ubi*.jsonl")


def _judgments(folder: Path) -> list[Path]:
    return [path for path in matching(folder, "*judgments*.json") if '"judgmentRatings"' in path.read_text()[:2000]]


def _files(folder: Path) -> list[Path]:
    return [*_logs(folder), *_judgments(folder), *canonical.table_files(folder, "items")]


def _recognises(folder: Path) -> bool:
    return bool(_logs(folder))


def _tables(folder: Path, db: DuckDBPyConnection) -> Tables:
    # two lines a document in a bulk file: the first says where to put it and has no application
    logs = f"read_ndjson_objects({quoted(_logs(folder))})"
    ordinal = f"{_field('event_attributes.position.ordinal')}::int"
    (first,) = db.execute(f"select min({ordinal}) from {logs}").fetchall()[0]
    shift = 1 if first == 0 else 0  # ranks are counted from 0 in some logs, from 1 in others
    action = f"case {_field('action_name')} " + " ".join(f"when '{a}' then '{b}'" for a, b in _ACTIONS.items())
    queries = f"""
        select {_field("query_id")} as query_id, any_value({_field("user_query")}) as query
        from {logs} where {_field("action_name")} is null and {_field("query_id")} is not null group by query_id"""
    events = f"""
        select coalesce(make_timestamp(try_cast({_field("timestamp")} as bigint) * 1000)::varchar,
                {_field("timestamp")}) as occurred_at,
            coalesce({_field("user_id")}, {_field("client_id")}) as user_id, {_field("session_id")} as session_id,
            {action} else {_field("action_name")} end as action,
            coalesce({_field("event_attributes.object.object_id")},
                {_field("event_attributes.object.internal_id")}) as item_id,
            coalesce({_field("user_query")}, queries.query) as query, {ordinal} + {shift} as position
        from {logs} left join ({queries}) as queries on queries.query_id = {_field("query_id")}
        where {_field("action_name")} is not null"""
    judgments = _judged(db, _judgments(folder))
    return Tables(_items(folder, events, judgments), events, judgments)


def _field(path: str) -> str:
    return f"json_extract_string(json, '$.{path}')"


def _judged(db: DuckDBPyConnection, paths: list[Path]) -> str | None:
    if not paths:
        return None
    db.execute("create or replace temp table ubi_judgments (query varchar, item_id varchar, relevance varchar)")
    rows = [
        (judged["query"], rating["docId"], rating["rating"])
        for path in paths
        for judged in json.loads(path.read_text())["judgmentRatings"]
        for rating in judged["ratings"]
    ]
    db.executemany("insert into ubi_judgments values (?, ?, ?)", rows)
    return "select * from ubi_judgments"


def _items(folder: Path, events: str, judgments: str | None) -> str:
    if canonical.table_files(folder, "items"):
        return canonical.table_query(folder, "items")
    named = f"select item_id from ({events})" + (f" union select item_id from ({judgments})" if judgments else "")
    return f"select distinct item_id, item_id as title from ({named}) where item_id is not null order by item_id"


ADAPTER = Adapter("ubi", _recognises, _files, _tables)
