"""What an adapter is, and how its tables land in the warehouse as they came.

An adapter is a file in this folder with an `ADAPTER`; nothing else has to change to add one.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection, Error

from ecom_pipeline.errors import SourceError

ITEMS = ("item_id", "title", "description", "brand", "category", "price", "currency", "image_uri")
EVENTS = (
    "event_id",
    "occurred_at",
    "user_id",
    "session_id",
    "action",
    "item_id",
    "query",
    "position",
    "propensity",
    "rating",
    "quantity",
    "price",
)
JUDGMENTS = ("query_id", "query", "item_id", "relevance", "rater_std", "split")
COLUMNS = {"items": ITEMS, "events": EVENTS, "judgments": JUDGMENTS}
REQUIRED = {
    "items": (("item_id",), ("title",)),
    "events": (("occurred_at",), ("action",), ("item_id",), ("user_id", "session_id")),
    "judgments": (("query",), ("item_id",), ("relevance",)),
}
PERSONAL = ("user_id", "session_id")


@dataclass(frozen=True, slots=True)
class Tables:
    """Queries that yield the canonical tables of a source; None where it has none."""

    items: str
    events: str | None = None
    judgments: str | None = None

    def query(self, table: str) -> str:
        """The query of a table; of an absent one, a query without rows."""
        empty = ", ".join(f"null::varchar as {column}" for column in COLUMNS[table])
        return getattr(self, table) or f"select {empty} where false"


@dataclass(frozen=True, slots=True)
class Adapter:
    """How one format is recognised and turned into the canonical tables.

    Attributes:
        name: what a user types to ask for it.
        recognises: whether a folder holds this format.
        files: the files of a folder that matter; when they change, the source has changed.
        tables: the canonical tables of a folder, as queries on the connection given.
        folder: where the data lies when the format is a package and not a folder of the user's.
    """

    name: str
    recognises: Callable[[Path], bool]
    files: Callable[[Path], list[Path]]
    tables: Callable[[Path, DuckDBPyConnection], Tables]
    folder: Callable[[], Path] | None = None


def matching(folder: Path, *patterns: str) -> list[Path]:
    """The files of a folder that match any of some patterns, in order of their names without endings.

    So `events-2026-05-01.csv` comes after `events.csv`, and the rows of a new file get the last numbers.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(found, key=lambda path: (path.parent, path.name.split(".")[0], path.name))


def quoted(paths: list[Path]) -> str:
    """Paths as an SQL list of strings."""
    return "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths) + "]"


def land(db: DuckDBPyConnection, table: str, query: str, hash_key: bytes) -> int:
    """Keep a source's table as `raw_<table>`: values as they came, people only as keyed hashes.

    Missing columns become null, unknown ones are kept as JSON under `attributes`, and every row gets its number.
    Events also get `instant` and `day`: the instant in UTC, null where it cannot be read.

    Args:
        db: a connection inside a transaction.
        table: items, events or judgments.
        query: yields the source's rows.
        hash_key: secret for `user_id` and `session_id`, at most 64 bytes.

    Returns:
        Rows landed.

    Raises:
        SourceError: if a file cannot be read, or a required column is missing.

    Cost: one scan.
    """
    try:
        db.execute(f"create or replace temp view landing as {query}")
    except Error as error:
        raise SourceError(
            f"{table}: 1 file cannot be read: {str(error).splitlines()[0]}. Each must be what its ending says, Parquet or "
            "CSV in UTF-8: write it again, or give it its true ending."
        ) from error
    present = {row[0].lower(): row[0] for row in db.execute("describe landing").fetchall()}
    _require(table, set(present))
    known = [_known(column, present.get(column)) for column in COLUMNS[table]]
    unknown = [name for lower, name in present.items() if lower not in {*COLUMNS[table], "attributes"}]
    others = ", ".join(f"'{name}': \"{name}\"" for name in unknown)
    attributes = f"to_json({{{others}}})::varchar" if others else f"{present.get('attributes', 'null')}::varchar"
    instant = "try_cast(occurred_at as timestamptz)::timestamp"
    instants = f", {instant} as instant, {instant}::date as day" if table == "events" else ""
    inner, outer = (bytes(byte ^ pad for byte in hash_key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    db.execute(_HMAC)
    db.execute("set variable inner_key = ?", [inner])
    db.execute("set variable outer_key = ?", [outer])
    db.execute(
        f"create or replace table raw_{table} as select row_number() over () as row_number, {', '.join(known)}, "
        f"{attributes} as attributes{instants} from landing"
    )
    (n_rows,) = db.execute(f"select count(*) from raw_{table}").fetchall()[0]
    return n_rows


def keyed_hash(person: str, hash_key: bytes) -> str:
    """What `land` keeps of an id of a user or a session: HMAC-SHA256, cut to 128 bits, as 32 hexadecimal digits."""
    return hmac.new(hash_key, person.encode(), hashlib.sha256).hexdigest()[:32]


def _require(table: str, present: set[str]) -> None:
    missing = [" or ".join(names) for names in REQUIRED[table] if not present & set(names)]
    if missing:
        raise SourceError(
            f"{table}: {len(missing)} required columns are missing; first: {missing[0]!r}. "
            f"The table has {', '.join(sorted(present))}; it must have "
            f"{', '.join(' or '.join(names) for names in REQUIRED[table])}. Rename or add the columns."
        )


def _known(column: str, name: str | None) -> str:
    if name is None:
        return f"null::varchar as {column}"
    if column in PERSONAL:
        return f'keyed_hash("{name}"::varchar) as {column}'
    return f'"{name}" as {column}'


# HMAC-SHA256 (RFC 2104) of a text, cut to 128 bits; a blank id stays null
_HMAC = """
create or replace temp macro keyed_hash(id) as case when trim(id) <> '' then left(
    sha256(getvariable('outer_key') || unhex(sha256(getvariable('inner_key') || encode(id)))), 32) end
"""
