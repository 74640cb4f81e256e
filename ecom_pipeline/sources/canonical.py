"""The canonical folder: `items`, and `events` or `judgments` or both, as Parquet or CSV, in folders of any depth."""

from functools import partial
from pathlib import Path
from urllib.parse import unquote

from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import SourceError
from ecom_pipeline.quoting import literal, name
from ecom_pipeline.schema.inputs import COLUMNS
from ecom_pipeline.sources.reading import delimited, dialect, nested
from ecom_pipeline.sources.source import Adapter, Part, matching, own_name

_ENDINGS = {"Parquet": (".parquet",), "CSV": (".csv", ".csv.gz")}


def table_files(folder: Path, table: str) -> list[Path]:
    """The files of one table: `events.csv`, `events-2024-05.parquet`, or all in and below `events/`."""
    patterns = [
        pattern
        for endings in _ENDINGS.values()
        for ending in endings
        for pattern in (f"{table}{ending}", f"{table}-*{ending}", f"{table}/**/*{ending}")
    ]
    return matching(folder, *patterns)


def table_parts(folder: Path, table: str) -> list[Part]:
    """What the files of one table hold; empty where the folder has none."""
    return [Part(table, path, partial(_query, folder, path)) for path in table_files(folder, table)]


def _recognises(folder: Path) -> bool:
    return bool(table_files(folder, "items"))


def _parts(folder: Path) -> list[Part]:
    parts = {table: table_parts(folder, table) for table in COLUMNS}
    if not parts["items"] or not (parts["events"] or parts["judgments"]):
        found = ", ".join(table for table, of_table in parts.items() if of_table) or "none of them"
        raise SourceError(
            f"source: {str(folder)!r} has {found} of items, events, judgments. There must be items, and events or "
            "judgments or both, as Parquet or CSV: add the missing file."
        )
    return [part for of_table in parts.values() for part in of_table]


def rows(db: DuckDBPyConnection, path: Path) -> str:
    """A query for the rows of a Parquet or CSV file, with their number and what is wrong with them.

    Raises:
        SourceError: if the file is not what its ending says.
    """
    reader = nested if path.name.endswith(_ENDINGS["Parquet"]) else delimited
    return reader.query(db, path)


def names(path: Path) -> list[str]:
    """The names of the columns of a Parquet or CSV file; reads no rows."""
    return nested.names(path) if path.name.endswith(_ENDINGS["Parquet"]) else list(dialect.names(path))


def _query(folder: Path, path: Path, db: DuckDBPyConnection) -> str:
    """The rows of a file, with a column for each `name=value` among its folders."""
    parts = dict(part.split("=", 1) for part in path.relative_to(folder).parts[:-1] if "=" in part)
    own = {column.lower() for column in names(path)}
    added = [
        f"{literal(unquote(value))} as {name(own_name(column))}"
        for column, value in parts.items()
        if column.lower() not in own
    ]
    return f"select {', '.join(['*', *added])} from ({rows(db, path)})"


ADAPTER = Adapter("canonical", _recognises, _parts)
