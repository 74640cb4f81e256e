"""The canonical folder: `items`, and `events` or `judgments` or both, as Parquet or CSV."""

import csv
import gzip
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import SourceError
from ecom_pipeline.sources.source import COLUMNS, Adapter, Tables, matching, quoted

_ENDINGS = {"Parquet": (".parquet",), "CSV": (".csv", ".csv.gz")}


def table_files(folder: Path, table: str) -> list[Path]:
    """The files of one table: `events.csv`, `events-2024-05.parquet` or all in `events/`."""
    patterns = [
        pattern
        for endings in _ENDINGS.values()
        for ending in endings
        for pattern in (f"{table}{ending}", f"{table}-*{ending}", f"{table}/*{ending}")
    ]
    return matching(folder, *patterns)


def table_query(folder: Path, table: str) -> str | None:
    """A query that yields one table, or None where the folder has no file of it."""
    return _query(table_files(folder, table))


def _files(folder: Path) -> list[Path]:
    return [path for table in COLUMNS for path in table_files(folder, table)]


def _recognises(folder: Path) -> bool:
    return bool(table_files(folder, "items"))


def _tables(folder: Path, db: DuckDBPyConnection) -> Tables:
    queries = {table: table_query(folder, table) for table in COLUMNS}
    if queries["items"] is None or (queries["events"] is None and queries["judgments"] is None):
        found = ", ".join(table for table, query in queries.items() if query) or "none of them"
        raise SourceError(
            f"source: {str(folder)!r} has {found} of items, events, judgments. There must be items, and events or "
            "judgments or both, as Parquet or CSV: add the missing file."
        )
    return Tables(queries["items"], queries["events"], queries["judgments"])


def _query(paths: list[Path]) -> str | None:
    parquet = [path for path in paths if path.name.endswith(_ENDINGS["Parquet"])]
    tables = [f"select * from read_parquet({quoted(parquet)}, union_by_name = true)"] if parquet else []
    tables += [_csv(path) for path in paths if path not in parquet]
    return " union all by name ".join(tables) or None


def _csv(path: Path) -> str:
    """All columns as text; a short line is padded with nulls, so that a rule and not the reader rejects it."""
    names = header(path)
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
    return (
        f"select * from read_csv({quoted([path])}, header = true, delim = ',', quote = '\"', escape = '\"', "
        f"auto_detect = false, columns = {{{columns}}}, null_padding = true, strict_mode = false)"
    )


def header(path: Path) -> list[str]:
    """The names in the first line of a CSV file, zipped or not.

    Raises:
        SourceError: if the line is empty or names a column twice.
    """
    opening = gzip.open if path.suffix == ".gz" else open
    with opening(path, "rt", encoding="utf-8-sig") as file:
        names = [name.strip().replace("'", "").replace('"', "") for name in next(csv.reader(file), [])]
    if not names:
        raise SourceError(f"source: 1 file is empty: {path.name!r}. Its first line must name the columns: add it.")
    if len(names) == 1 and (separator := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise SourceError(
            f"source: {path.name!r} has 1 column in its first line, {names[0][:60]!r}, with {separator!r} inside. "
            "Columns must be separated by commas: write the file again with commas."
        )
    if len(set(names)) < len(names):
        raise SourceError(
            f"source: {path.name!r} has {len(names)} columns in its first line, of which {len(set(names))} differ. "
            "The first line must name every column once, separated by commas: add or mend it."
        )
    return names


ADAPTER = Adapter("canonical", _recognises, _files, _tables)
