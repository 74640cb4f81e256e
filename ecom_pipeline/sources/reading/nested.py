"""Rows of a Parquet file, whose columns may hold lists and structures: of ours they become text, the others stay JSON."""

from pathlib import Path

import pyarrow.parquet
from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType
from pyarrow import ArrowException

from ecom_pipeline.errors import SourceError
from ecom_pipeline.quoting import name
from ecom_pipeline.schema.inputs import COLUMNS
from ecom_pipeline.sources.reading.dialect import unique
from ecom_pipeline.sources.source import MALFORMED, PLACE, ROW_NUMBER, own_name, quoted

_KNOWN = {column for columns in COLUMNS.values() for column in columns}


def query(db: DuckDBPyConnection, file: Path) -> str:
    """An SQL query that yields a file's rows; a path of categories is joined by ` > `, what else is nested by blanks.

    As of a CSV, each has its `row_number`, and `malformed`, which is null here.

    Args:
        db: a connection.
        file: Parquet.

    Raises:
        SourceError: if it is no Parquet, or names a column twice.
    """
    unique(file, names(file))
    found = db.sql(f"select * from read_parquet({quoted(file)}, hive_partitioning = false)")
    columns = [
        f"{_flat(name(column), kind, column.lower())} as {name(own_name(column))}"
        for column, kind in zip(found.columns, found.types, strict=True)
    ]
    taken = "file_row_number" in (column.lower() for column in found.columns)
    place = f"row_number() over () as {ROW_NUMBER}" if taken else PLACE
    columns += [place, f"null::varchar as {MALFORMED}"]
    return f"select {', '.join(columns)} from read_parquet({quoted(file)}, hive_partitioning = false)"


def names(file: Path) -> list[str]:
    """The names of a file's columns; reads its footer alone.

    Raises:
        SourceError: if it is no Parquet.
    """
    try:
        return pyarrow.parquet.read_schema(file).names
    except (ArrowException, OSError) as error:
        raise SourceError(
            f"source: 1 file cannot be read, {file.name!r}: {str(error).splitlines()[0]}. It must be what its ending says: "
            "write it again, or give it its true ending."
        ) from error


def _flat(value: str, kind: DuckDBPyType, column: str) -> str:
    """A value as text where it is nested and the column is ours."""
    if column not in _KNOWN or kind.id not in ("list", "array", "struct", "map"):
        return value
    return f"nullif({_text(value, kind, ' > ' if column == 'category' else ' ')}, '')"


def _text(value: str, kind: DuckDBPyType, between: str, depth: int = 0) -> str:
    if kind.id in ("list", "array"):
        inner = _text(f"e{depth}", _kinds(kind)["child"], between, depth + 1)
        return f"array_to_string(list_transform({value}::{_list_of(kind)}, lambda e{depth}: {inner}), '{between}')"
    if kind.id == "map":
        inner = _text(f"e{depth}", _kinds(kind)["value"], between, depth + 1)
        return f"array_to_string(list_transform(map_values({value}), lambda e{depth}: {inner}), '{between}')"
    if kind.id == "struct":
        parts = [_text(f"{value}.{name(key)}", child, between, depth) for key, child in _kinds(kind).items()]
        return f"concat_ws('{between}', {', '.join(f'nullif({part}, {chr(39) * 2})' for part in parts)})"
    return f"{value}::varchar"


def _list_of(kind: DuckDBPyType) -> str:
    return f"{_kinds(kind)['child']}[]"


def _kinds(kind: DuckDBPyType) -> dict[str, DuckDBPyType]:
    """The types inside a nested one; an array also tells its size there."""
    return {key: child for key, child in kind.children if isinstance(child, DuckDBPyType)}
