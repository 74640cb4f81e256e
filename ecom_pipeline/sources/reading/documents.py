"""Documents of a JSON file: one a line, or all in one array; as search engines dump them or as they are."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
from duckdb import DuckDBPyConnection

from ecom_pipeline.sources.reading import letters

_SCHEMA = pa.schema([("line", pa.string()), ("row_number", pa.int64())])
_numbers = count()


def table(db: DuckDBPyConnection, file: Path) -> str:
    """Make a temporary table of a file's documents, and return its name.

    Columns: `json`, what lies under `_source` where there is such a thing; `row_number`, its line, or its place in the array;
    `malformed`, why it is no document, null for a sound one. Blank lines are none.

    Args:
        db: a connection.
        file: JSON or one JSON a line; its name ends with .gz where it is zipped.

    Raises:
        SourceError: if a byte is not of the file's encoding.

    Cost: one pass; an array is held in memory whole.
    """
    number = next(_numbers)
    named = letters.encoding(file)
    is_array = next((text.lstrip()[:1] for text in letters.blocks(file, named) if text.strip()), b"") == b"["
    db.register(f"lines_{number}", pa.RecordBatchReader.from_batches(_SCHEMA, _lines(file, named, whole=is_array)))
    rows = f"select line, row_number from lines_{number}"
    if is_array:
        rows = f"""select unnest(if(json_valid(line), from_json(line, '["json"]'), [null]))::varchar as line,
            generate_subscripts(if(json_valid(line), from_json(line, '["json"]'), [null]), 1) as row_number from ({rows})"""
    db.execute(
        f"""create or replace temp table documents_{number} as
        select case when sound then coalesce(json_extract(line, '$._source'), line::json) end as json, row_number,
            case when not sound then 'line ' || row_number || ' holds no object of JSON' end as malformed
        from (select *, case when json_valid(line) then json_type(line) = 'OBJECT' else false end as sound from ({rows}))"""
    )
    db.unregister(f"lines_{number}")
    return f"documents_{number}"


def _lines(file: Path, named: str, *, whole: bool) -> Iterator[pa.RecordBatch]:
    rest, first = b"", 1
    for text in letters.blocks(file, named):
        rest += text
        if whole:
            continue
        *lines, rest = rest.split(b"\n")
        yield _batch(lines, first)
        first += len(lines)
    yield _batch([rest], first)


def _batch(lines: list[bytes], first: int) -> pa.RecordBatch:
    numbered = [(line.decode(), number) for number, line in enumerate(lines, first) if line.strip()]
    arrays = [pa.array([line for line, _ in numbered], pa.string()), pa.array([n for _, n in numbered], pa.int64())]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)
