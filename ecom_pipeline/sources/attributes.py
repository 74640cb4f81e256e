"""Columns that we do not know, kept as JSON; but for items, those that tell who somebody is only hashed or masked."""

import logging
from collections.abc import Sequence

from duckdb import DuckDBPyRelation
from duckdb.sqltypes import DuckDBPyType

from ecom_pipeline.quoting import literal, name
from ecom_pipeline.schema.inputs import COLUMNS
from ecom_pipeline.sources import people
from ecom_pipeline.sources.source import MALFORMED, ROW_NUMBER

log = logging.getLogger(__name__)


def expression(table: str, file: str, rows: DuckDBPyRelation) -> str:
    """An SQL expression for all unknown columns of some rows, as JSON text; null where there are none.

    But for items, a column with a person's name is hashed with the key; other texts lose addresses of mail and network, and
    numbers of telephones and cards, wherever they stand in them.

    Args:
        table: one of `schema.inputs.COLUMNS`.
        file: for the log.
        rows: as they are read.
    """
    known = {*COLUMNS[table], ROW_NUMBER, MALFORMED}
    unknown = [column for column in rows.columns if column.lower() not in known]
    if not unknown:
        return "null"
    persons = of_persons(table, unknown)
    if persons:
        log.info("%s: %d columns tell who somebody is and are hashed; first: %s", file, len(persons), persons[0])
    kinds = dict(zip(rows.columns, rows.types, strict=True))
    pairs = ", ".join(
        f"{literal(column)}: {_hashed(column) if column in persons else _kept(table, column, kinds[column])}"
        for column in unknown
    )
    return f"to_json({{{pairs}}})::varchar"


def of_persons(table: str, columns: Sequence[str]) -> list[str]:
    """The columns that we do not know and that are hashed, as they tell who somebody is; of items none."""
    known = {*COLUMNS[table], ROW_NUMBER, MALFORMED}
    return [
        column
        for column in columns
        if table != "items" and column.lower() not in known and people.are_of_persons(column)
    ]


def _hashed(column: str) -> str:
    return f"keyed_hash({name(column)}::varchar)"


def _kept(table: str, column: str, kind: DuckDBPyType) -> str:
    text = kind.id == "varchar"
    value = f"{name(column)}" if text else f"to_json({name(column)})::varchar"
    if table != "items" and (text or kind.id in ("list", "array", "struct", "map")):
        value = f"masked({value})"
    # a source's own attributes are JSON, and stay it
    if column.lower() == "attributes" and text:
        return f"case when json_valid({value}) then {value}::json else to_json({value}) end"
    return value if text else f"{value}::json"
