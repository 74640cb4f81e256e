"""OpenSearch User Behavior Insights (UBI 1.3): queries and events as ndjson or an array, bulk files and dumps too.

A UBI log names objects by id alone. Titles come from an `items` file (canonical, Parquet or CSV) beside the log;
where there is none, the id is the title, and a text model can learn no more from it than that.
"""

from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.reading import documents
from ecom_pipeline.sources.source import Adapter, Part, matching, quoted

_ACTIONS = {"click_through": "click", "view": "click", "watch": "click", "add_to_cart": "cart"}


def _logs(folder: Path) -> list[Path]:
    judged = set(_judgments(folder))
    return [path for path in matching(folder, "*ubi*.ndjson", "*ubi*.jsonl", "*ubi*.json") if path not in judged]


def _judgments(folder: Path) -> list[Path]:
    return [path for path in matching(folder, "*judgments*.json") if b'"judgmentRatings"' in _opening(path)]


def _opening(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2000)


def _recognises(folder: Path) -> bool:
    return bool(_logs(folder))


def _parts(folder: Path) -> list[Part]:
    logs, judged, items = _logs(folder), _judgments(folder), canonical.table_parts(folder, "items")
    events = [Part("events", path, partial(_events, path)) for path in logs]
    judgments = [Part("judgments", path, partial(_ratings, path)) for path in judged]
    named = [Part("items", part.file, partial(_named, part)) for part in (*events, *judgments)]
    return [*(items or named), *events, *judgments]


def _events(path: Path, db: DuckDBPyConnection) -> str:
    logs = documents.table(db, path)
    ordinal = f"try_cast({_field('event_attributes.position.ordinal')} as integer)"
    (first,) = db.execute(f"select min({ordinal}) from {logs}").fetchall()[0]
    shift = 1 if first == 0 else 0  # ranks are counted from 0 in some logs, from 1 in others
    action = f"case {_field('action_name')} " + " ".join(f"when '{a}' then '{b}'" for a, b in _ACTIONS.items())
    queries = f"""
        select {_field("query_id")} as query_id, any_value({_field("user_query")}) as query
        from {logs} where {_field("action_name")} is null and {_field("query_id")} is not null group by query_id"""
    # two lines a document in a bulk file: the first says where to put it, under one of these keys
    bulk = "json_keys(json)[1] in ('index', 'create', 'update', 'delete')"
    foreign = f"{_field('query_id')} is null and {_field('user_query')} is null and not coalesce({bulk}, false)"
    return f"""
        select {_field("timestamp")} as occurred_at,
            coalesce({_field("user_id")}, {_field("client_id")}) as user_id, {_field("session_id")} as session_id,
            {action} else {_field("action_name")} end as action,
            coalesce({_field("event_attributes.object.object_id")},
                {_field("event_attributes.object.internal_id")}) as item_id,
            coalesce({_field("user_query")}, queries.query) as query, {ordinal} + {shift} as position, row_number,
            coalesce(malformed, case when {_field("action_name")} is null
                then 'line ' || row_number || ' holds no event, no query and no bulk action' end) as malformed
        from {logs} left join ({queries}) as queries on queries.query_id = {_field("query_id")}
        where malformed is not null or {_field("action_name")} is not null or {foreign}"""


def _field(path: str) -> str:
    return f"json_extract_string(json, '$.{path}')"


def _ratings(path: Path, db: DuckDBPyConnection) -> str:
    return f"""
        select judged.query as query, rating ->> 'docId' as item_id, rating ->> 'rating' as relevance
        from (select judged ->> 'query' as query, unnest(from_json(judged -> 'ratings', '["json"]')) as rating
            from (select unnest(from_json(json -> 'judgmentRatings', '["json"]')) as judged
                from read_json_objects({quoted(path)}))) as judged"""


def _named(part: Part, db: DuckDBPyConnection) -> str:
    """The items that a log or a file of judgments names."""
    return (
        f"select distinct item_id, item_id as title from ({part.query(db)}) where item_id is not null order by item_id"
    )


ADAPTER = Adapter("ubi", _recognises, _parts)
