"""What an adapter is: how one format is recognised, and which rows of which table each of its files holds.

An adapter is a file in this folder with an `ADAPTER`; nothing else has to change to add one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import literal

ROW_NUMBER, MALFORMED = "row_number", "malformed"  # columns of a part's query that are not the source's
PLACE = f"file_row_number + 1 as {ROW_NUMBER}"  # of a row of Parquet: cores share a file where none has to count


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one canonical table that one file holds.

    Attributes:
        table: one of `schema.inputs.COLUMNS`.
        file: which. Its path below the source's folder and a row's place in it are the identity of the row.
        query: given a connection, an SQL query that yields the rows. Columns that are not of the table are kept as
            attributes, but for two: `row_number`, the place in the file from 1 (without it: the place in the result),
            and `malformed`, why the row could not be read, null for a sound one.
        also: other files that the query reads; when one of them changes, the part is read again.
        name: what the file is called in the warehouse where it does not lie below the source's folder.
        hashed: whether ids of people are keyed hashes already.
    """

    table: str
    file: Path
    query: Callable[[DuckDBPyConnection], str]
    also: tuple[Path, ...] = ()
    name: str = ""
    hashed: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """How one format is recognised and turned into the canonical tables.

    Attributes:
        name: what a user types to ask for it.
        recognises: whether a folder holds this format.
        parts: what the files of a folder hold; reads no more of them than names and headers.
        folder: where the data lies when the format is a package and not a folder of the user's.
    """

    name: str
    recognises: Callable[[Path], bool]
    parts: Callable[[Path], list[Part]]
    folder: Callable[[], Path] | None = None


def matching(folder: Path, *patterns: str) -> list[Path]:
    """The files of a folder that match any of some patterns, in order of their names without endings; no hidden ones.

    So `events-2026-05-01.csv` comes after `events.csv`: where files contradict each other, the last one holds.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    shown = [path for path in found if not any(part[0] in "._" for part in path.relative_to(folder).parts)]
    return sorted(shown, key=lambda path: (path.parent, path.name.split(".")[0], path.name))


def quoted(path: Path) -> str:
    """A path as an SQL string."""
    return literal(str(path))


def own_name(column: str) -> str:
    """What a source's own column is called in a part's query, so that it never passes for one of ours."""
    return f"own_{column}" if column.lower() in (ROW_NUMBER, MALFORMED) else column
