"""The canonical folder: `items`, and `events` or `judgments` or both, as Parquet or CSV."""

import csv
import gzip
from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import SourceError
from ecom_pipeline.sources.source import COLUMNS, Adapter, Part, literal, matching, quoted

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


def table_parts(folder: Path, table: str) -> list[Part]:
    """What the files of one table hold; empty where the folder has none."""
    return [Part(table, path, partial(_query, path)) for path in table_files(folder, table)]


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


def _query(path: Path, db: DuckDBPyConnection) -> str:
    return f"select * from read_parquet({quoted(path)})" if path.name.endswith(_ENDINGS["Parquet"]) else _csv(path)


def _csv(path: Path) -> str:
    """All columns as text; a short line is padded with nulls, so that a rule and not the reader rejects it."""
    names = header(path)
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in names)
    return (
        f"select * from read_csv({quoted(path)}, header = true, delim = ',', quote = '\"', escape = '\"', "
        f"auto_detect = false, columns = {{{columns}}}, null_padding = true, strict_mode = false)"
    )


def header(path: Path) -> list[str]:
    """The names in the first line of a CSV file, zipped or not.

    Raises:
        SourceError: if the line is empty or names a column twice.
    """
    opening = gzip.open if path.suffix == ".gz" else open
    with opening(path, "rt", encoding="utf-8-sig") as file:
        names = [column.strip() for column in next(csv.reader(file), [])]
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


ADAPTER = Adapter("canonical", _recognises, _parts)
