"""OpenSearch User Behavior Insights (UBI 1.3): queries and events, as lines, arrays, dumps, bulk files or Parquet.

`impression` and `purchase` stay; `click`, `click_through`, `item_click`, `view` and `watch` are clicks, `add_to_cart` is
a cart. Other actions of a log name no act on an item and are rejected by name. An event that names its query by id alone
has the words of the query document with that id in its own file, the queries' file that goes with it, or the files before
it.

A UBI log names objects by id. Titles come from an `items` file (canonical, Parquet or CSV) beside the log; where there
is none, the id is the title.
"""

import re
from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.documents import document_files, documents, elements, field, first_fields
from ecom_pipeline.sources.flat import head
from ecom_pipeline.sources.ids_alone import named_items
from ecom_pipeline.sources.source import Adapter, Part, matching, quoted
from ecom_pipeline.sources.words import recoded

_FIELDS = {"action_name", "query_id", "index", "create"}  # one of them is in the first line
_ACTIONS = {"click_through": "click", "item_click": "click", "view": "click", "watch": "click", "add_to_cart": "cart"}


def _logs(folder: Path) -> list[Path]:
    return [path for path in document_files(folder, "*ubi*") if _is_log(path)]


def _is_log(path: Path) -> bool:
    # files of lines are logs by their names, however many of the lines are broken
    return bool(set(path.suffixes) & {".ndjson", ".jsonl"}) or bool(first_fields(path) & _FIELDS)


def _judgments(folder: Path) -> list[Path]:
    return [path for path in matching(folder, "*judgments*.json") if '"judgmentRatings"' in head(path, 2000)]


def _recognises(folder: Path) -> bool:
    return bool(_logs(folder))


def _parts(folder: Path) -> list[Part]:
    logs, judged, items = _logs(folder), _judgments(folder), canonical.table_parts(folder, "items")
    events = [_log(path, _queries_for(path, logs)) for path in logs]
    judgments = [Part("judgments", path, partial(_ratings, path)) for path in judged]
    return [*(items or [named_items(part) for part in (*events, *judgments)]), *events, *judgments]


def _log(path: Path, also: tuple[Path, ...]) -> Part:
    return Part("events", path, partial(_events, path, also), also)


def _queries_for(path: Path, logs: list[Path]) -> tuple[Path, ...]:
    """Other files that may hold the queries of a log's events.

    Logs of one time differ by the words `queries` and `events` alone; those of the time before it hold queries whose
    clicks came later; and queries without events of their time are of all times.
    """
    times: dict[str, list[Path]] = {}
    for log in logs:
        times.setdefault(_time(log), []).append(log)
    order = sorted(times)
    place = order.index(_time(path))
    near = times[order[place]] + (times[order[place - 1]] if place else [])
    always = [log for of_time in times.values() if all("queries" in log.name for log in of_time) for log in of_time]
    return tuple(log for log in dict.fromkeys([*near, *always]) if log != path)


def _time(log: Path) -> str:
    return re.sub("queries|events", "", log.name.split(".")[0])


def _events(path: Path, also: tuple[Path, ...], db: DuckDBPyConnection) -> str:
    log, given = documents(path), f"nullif(trim({field('event_attributes.position.ordinal')}), '')"
    ordinal = f"try_cast({given} as integer)"
    (first,) = db.execute(f"select min({ordinal}) from ({log})").fetchall()[0]
    shift = 1 if first == 0 else 0  # ranks are counted from 0 in some logs, from 1 in others
    is_query = f"{field('action_name')} is null and {field('query_id')} is not null"
    every = " union all ".join(f"(select document from ({documents(one)}))" for one in (path, *also))
    milliseconds = f"try_cast({field('timestamp')} as bigint)"
    return f"""
        with queries as (
            select {field("query_id")} as query_id, min({field("user_query")}) as query from ({every})
            where {is_query} group by all)
        select row_number, coalesce(malformed, case when {field("action_name")} is null
                then 'it is neither an event with action_name nor a query with query_id' end) as malformed,
            coalesce(make_timestamp({milliseconds} * 1000)::varchar, {field("timestamp")}) as occurred_at,
            coalesce({field("user_id")}, {field("client_id")}) as user_id, {field("session_id")} as session_id,
            {recoded(field("action_name"), _ACTIONS)} as action,
            coalesce({field("event_attributes.object.object_id")},
                {field("event_attributes.object.internal_id")}) as item_id,
            coalesce({field("user_query")}, queries.query) as query,
            coalesce(({ordinal} + {shift})::varchar, {given}) as position
        from ({log}) left join queries on queries.query_id = {field("query_id")}
        where document is null or not ({is_query})"""


def _ratings(path: Path, db: DuckDBPyConnection) -> str:
    judged = f"read_json_objects({quoted(path)}, maximum_object_size = {path.stat().st_size + 1})"
    return f"""
        select {field("query", "judged")} as query, {field("docId", "rating")} as item_id,
            {field("rating", "rating")} as relevance
        from (select judged, unnest({elements("judged -> '$.ratings'")}) as rating
            from (select unnest({elements("json -> '$.judgmentRatings'")}) as judged from {judged}))"""


ADAPTER = Adapter("ubi", _recognises, _parts)
