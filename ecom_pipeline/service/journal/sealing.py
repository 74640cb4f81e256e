"""Sealed files of the journal: what was kept since the last sealing, in files that never change, each row in one of them.

On the floor of `service`. Which places are together in a file is decided in the database, once for all machines; a file is then
made of what is decided, again if need be, so a kill at any place loses nothing and doubles nothing.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecom_pipeline.service.journal.database import Database, Session
from ecom_pipeline.service.journal.rows import TABLES, TIMES, names_of, type_of


def seal(database: Database) -> list[Path]:
    """Write what was kept since the last sealing to files: a source's files.

    Returns:
        The new files, each `<table>-<first>-<last>.parquet`.

    Raises:
        JournalError: if the journal cannot be read.
    """
    if not database.exists:
        return []
    # decided for certain before there is a file: what another machine sees as open is in none
    with database.alone() as db:
        for table in TABLES:
            _decide(db, database.folder, table)
    with database.alone() as db:
        drop_unfinished(database.folder)
        missing = [(table, *places) for table in TABLES for places in _without_file(db, database.folder, table)]
        return [file for one in missing if (file := _written(db, database.folder, *one))]


def sealed_files(folder: Path, table: str) -> list[Path]:
    """Files of a table, in the order of what they hold."""
    return sorted(folder.glob(f"{table}-*-*.parquet"))


def places_of(file: Path) -> tuple[int, int]:
    """The first place that a sealed file holds, and the last."""
    _, first, last = file.stem.split("-")
    return int(first), int(last)


def last_in_files(folder: Path, table: str) -> int:
    """The last place of a table that a file holds: known also where the database was lost, or is of an older copy."""
    return max((places_of(file)[1] for file in sealed_files(folder, table)), default=0)


def sealed_until(db: Session, folder: Path, table: str) -> int:
    """The last place of a table that is in a file, or was decided to be."""
    ((last,),) = db.execute("select coalesce(max(last), 0) from seals where name = ?", [table]).fetchall()
    return max(last, last_in_files(folder, table))


def n_unsealed(database: Database, table: str) -> int:
    """Rows that no file holds yet; asks nothing of a journal that was never begun.

    Raises:
        JournalError: if the journal cannot be read.
    """
    if not database.exists:
        return 0

    def count(db: Session) -> int:
        spans = [(sealed_until(db, database.folder, table) + 1, None), *_without_file(db, database.folder, table)]
        within = f"select count(*) from {table} where seq >= ? and seq <= coalesce(?, seq)"
        return sum(db.execute(within, span).fetchall()[0][0] for span in spans)

    return database.working(count)


def drop_unfinished(folder: Path) -> None:
    """Delete what a kill left of files that were being written; call it `alone`, as then nobody writes any."""
    for part in folder.glob("*.part"):
        part.unlink()


def _decide(db: Session, folder: Path, table: str) -> None:
    until = sealed_until(db, folder, table)
    ((first, last),) = db.execute(f"select min(seq), max(seq) from {table} where seq > ?", [until]).fetchall()
    if last:
        db.execute("insert into seals values (?, ?, ?)", [table, first, last])


def _without_file(db: Session, folder: Path, table: str) -> list[tuple[int, int]]:
    decided = db.execute("select first, last from seals where name = ? order by last", [table]).fetchall()
    return sorted(
        {(first, last) for first, last in decided} - {places_of(file) for file in sealed_files(folder, table)}
    )


def _written(db: Session, folder: Path, table: str, first: int, last: int) -> Path | None:
    """A file of places from the first to the last; none where everybody in it was forgotten before there was one."""
    names = names_of(table)
    query = f"select {', '.join(names)} from {table} where seq between ? and ? order by seq"
    rows = db.execute(query, [first, last]).fetchall()
    if not rows:
        return None
    file = folder / f"{table}-{first:012}-{last:012}.parquet"
    part = file.with_suffix(f".{time.time_ns()}.part")
    pq.write_table(_arrow(names, rows), part)
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    part.replace(file)
    return file


def _arrow(names: Sequence[str], rows: Sequence[tuple]) -> pa.Table:
    arrays = [pa.array(values, type_of(name)) for name, values in zip(names, zip(*rows, strict=True), strict=True)]
    for place in [names.index(name) for name in TIMES if name in names]:
        arrays[place] = arrays[place].cast(pa.timestamp("us", "UTC"))
    return pa.table(arrays, names=names)
