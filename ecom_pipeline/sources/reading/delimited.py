"""Rows of a CSV file: one for each of its records, sound or not.

Quotes are checked by `records`; sound records are parted and counted by Arrow, which reports those that have more or
fewer fields than the header. No word of a broken record is kept: it could be somebody's name in the wrong column.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection
from pyarrow import csv

from ecom_pipeline.sources.reading import dialect
from ecom_pipeline.sources.reading.dialect import Dialect
from ecom_pipeline.sources.reading.records import MARK, Records, split
from ecom_pipeline.sources.source import MALFORMED, ROW_NUMBER, own_name

_AHEAD = 2  # blocks that are parted while DuckDB takes another
_numbers = count()


def query(db: DuckDBPyConnection, file: Path, delimiter: str = "") -> str:
    """An SQL query that yields a file's records, once, as text; empty fields are null.

    Args:
        db: a connection.
        file: CSV; its name ends with .gz where it is zipped.
        delimiter: between fields; empty: that which the first line shows.

    Returns:
        A query with the columns of the file, `row_number` (1 for the record below the header) and `malformed`.

    Raises:
        SourceError: as `dialect.find`.

    Cost: two passes over the file; memory of a few blocks.
    """
    found = dialect.find(file, delimiter)
    names = [own_name(column) for column in found.names]
    schema = pa.schema(
        [*((column, pa.string()) for column in names), (ROW_NUMBER, pa.int64()), (MALFORMED, pa.string())]
    )
    view = f"delimited_{next(_numbers)}"
    db.register(view, pa.RecordBatchReader.from_batches(schema, _batches(file, found, schema)))
    return f"select * from {view}"


def _batches(file: Path, found: Dialect, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The records of a file; some blocks are parted in threads before they are asked for."""
    n_before = 0
    waiting: deque[Future[list[pa.RecordBatch]]] = deque()
    with ThreadPoolExecutor(_AHEAD) as pool:
        for records in split(dialect.texts(file, found), found.grammar):
            waiting.append(pool.submit(_part, records, n_before, found, schema))
            n_before += len(records.lines)
            if len(waiting) > _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _part(records: Records, n_before: int, found: Dialect, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Sound rows in order, then those that could not be read."""
    broken: list[tuple[int, str]] = []

    def note(row: csv.InvalidRow) -> str:
        line = int(records.lines[row.number - 1]) + found.n_above
        fault = "a quote inside a field or text beside one"
        why = (
            fault
            if row.text == MARK.decode()
            else f"{row.actual_columns} fields, where the first has {row.expected_columns}"
        )
        broken.append((row.number, f"line {line} has {why}"))
        return "skip"

    if not len(records.lines):
        return []
    columns = schema.names[:-2]
    table = csv.read_csv(
        pa.BufferReader(records.text),
        read_options=csv.ReadOptions(use_threads=False, block_size=len(records.text) + 1, column_names=columns),
        parse_options=csv.ParseOptions(delimiter=found.delimiter, newlines_in_values=True, invalid_row_handler=note),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )
    places = np.array([place for place, _ in broken], dtype=np.int64)
    sound = np.delete(np.arange(1, len(records.lines) + 1), places - 1)
    table = table.append_column(ROW_NUMBER, pa.array(sound + n_before))
    table = table.append_column(MALFORMED, pa.nulls(len(sound), pa.string()))
    faulty = [pa.nulls(len(broken), pa.string())] * len(columns)
    faulty += [pa.array(places + n_before), pa.array([why for _, why in broken], pa.string())]
    return [*table.cast(schema).to_batches(), pa.RecordBatch.from_arrays(faulty, schema=schema)]
