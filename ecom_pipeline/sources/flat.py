"""Flat files in a foreign layout: CSV with quotes, and lines whose fields are parted by a mark and never quoted.

An adapter gets all fields as text under the names in the first line, or under names of its own.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import literal, name
from ecom_pipeline.sources.reading import delimited
from ecom_pipeline.sources.source import matching, quoted

_ENDINGS = (".csv", ".csv.gz")


def with_header(folder: Path, *names: str, delimiter: str = ",") -> list[Path]:
    """The CSV files of a folder whose first line has all of some names, in order."""
    files = matching(folder, *(f"*{ending}" for ending in _ENDINGS))
    return [path for path in files if set(names) <= set(header(path, delimiter))]


def header(path: Path, delimiter: str = ",") -> list[str]:
    """The names in the first line of a CSV file, zipped or not; empty where there is none."""
    try:
        return [column.strip() for column in next(csv.reader([first_line(path)], delimiter=delimiter), [])]
    except csv.Error:
        return []


def first_line(path: Path) -> str:
    """The first line of a file, zipped or not, without its end; a mebibyte of it at most, empty where there is none."""
    return _opening(path, lambda file: file.readline(2**20)).rstrip("\r\n")


def head(path: Path, n_characters: int) -> str:
    """The beginning of a file's text, zipped or not, without a mark; empty where there is no such file."""
    return _opening(path, lambda file: file.read(n_characters))


def _opening(path: Path, read: Callable[[TextIO], str]) -> str:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            return read(file)
    except (OSError, EOFError, zlib.error):
        return ""


def quoted_table(db: DuckDBPyConnection, path: Path, delimiter: str = ",") -> str:
    """An SQL query: the rows of a CSV file with a header, all columns as text, `row_number` and `malformed` beside."""
    table = name(f"{path.name} by {delimiter}")
    # a query of an adapter may ask for the rows twice, and they can be read once
    db.execute(f"create or replace temp table {table} as {delimited.query(db, path, delimiter)}")
    return f"select * from temp.{table}"


def plain_table(path: Path, names: Sequence[str], mark: str, *, skip: int = 0) -> str:
    """An SQL query: the lines of a file whose fields are parted by a mark; a quote is a letter as any other.

    Args:
        path: the file, zipped or not.
        names: of the fields, in order.
        mark: regular expression for what parts them.
        skip: lines before the first row.

    Returns:
        SQL with the names as columns, `row_number` (from 1, after the skipped lines) and `malformed` (why a line has
        not these fields, else null; its fields are null then). Empty lines yield no row.
    """
    lines = (
        f"read_csv({quoted(path)}, columns = {{line: 'VARCHAR'}}, header = false, auto_detect = false, delim = '\x01', "
        "quote = '', escape = '', comment = '', strict_mode = false)"
    )
    fields = ", ".join(f"case when sound then fields[{n}] end as {name(column)}" for n, column in enumerate(names, 1))
    return f"""
        with lines as (
            select row_number() over () - {skip} as row_number, rtrim(line, chr(13)) as line from {lines}),
            parted as (
            select row_number, string_split_regex(line, {literal(mark)}) as fields, len(fields) = {len(names)} as sound
            from lines where row_number > 0 and trim(line) <> '')
        select {fields}, row_number,
            case when not sound then 'it has ' || len(fields) || ' fields and must have {len(names)}' end as malformed
        from parted"""


def first_of(present: Sequence[str], *names: str) -> str:
    """An SQL expression: the first of some columns that a file has, null where it has none; blank is null."""
    found = next((column for column in names if column in present), None)
    return f"nullif(trim({name(found)}::varchar), '')" if found else "null::varchar"
