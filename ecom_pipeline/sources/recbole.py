"""RecBole's atomic files: `.inter` and `.item`, parted by tabs, each name in the first line with its type.

An interaction with a `rating` is a `review`, one without is a `click`; times are seconds since 1970. The first column
whose name ends in `title` or `name` is the title; `categories`, `category`, `genre` and `class` are the category. Where
there is no `.item` file, the id is the title. All other columns are kept under attributes.
"""

from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import SourceError
from ecom_pipeline.quoting import name
from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.flat import first_line, plain_table
from ecom_pipeline.sources.ids_alone import named_items
from ecom_pipeline.sources.source import Adapter, Part, matching

_TAB = "\t"
_CATEGORY = ("categories", "category", "genre", "genres", "class")


def _recognises(folder: Path) -> bool:
    return any("item_id" in _names(path) for path in matching(folder, "*.inter"))


def _parts(folder: Path) -> list[Part]:
    events = [Part("events", path, partial(_events, path)) for path in matching(folder, "*.inter")]
    described = [Part("items", path, partial(_items, path)) for path in matching(folder, "*.item")]
    items = described or canonical.table_parts(folder, "items") or [named_items(part) for part in events]
    return [*items, *events]


def _names(path: Path) -> list[str]:
    return [field.split(":")[0].strip() for field in first_line(path).split(_TAB)]


def _rest(names: list[str], used: set[str]) -> str:
    return "".join(f", {name(column)}" for column in names if column not in used)


def _events(path: Path, db: DuckDBPyConnection) -> str:
    names = _names(path)
    if "timestamp" not in names:
        raise SourceError(
            f"events: 1 column is missing in {path.name!r}: 'timestamp'. It must say when each interaction was, in seconds "
            "since 1970: export the file with its times."
        )
    person = next((column for column in ("user_id", "session_id") if column in names), "user_id")
    rating = "rating" if "rating" in names else "null"
    return f"""
        select row_number, malformed, coalesce(make_timestamp((try_cast(timestamp as double) * 1e6)::bigint)::varchar,
                timestamp) as occurred_at,
            {person}, case when {rating} is null then 'click' else 'review' end as action, item_id, {rating} as rating
            {_rest(names, {"timestamp", person, "item_id", "rating"})}
        from ({plain_table(path, names, _TAB, skip=1)})"""


def _items(path: Path, db: DuckDBPyConnection) -> str:
    names = _names(path)
    title = next((column for column in names if column.endswith(("title", "name"))), "item_id")
    kept: dict[str, str] = {column: column for column in ("brand", "description", "price") if column in names}
    category = next((column for column in _CATEGORY if column in names), None)
    kept |= {"category": category} if category else {}
    columns = "".join(f", {name(column)} as {known}" for known, column in kept.items())
    return f"""
        select row_number, malformed, item_id, {name(title)} as title{columns}
            {_rest(names, {"item_id", title, *kept.values()})}
        from ({plain_table(path, names, _TAB, skip=1)})"""


ADAPTER = Adapter("recbole", _recognises, _parts)
