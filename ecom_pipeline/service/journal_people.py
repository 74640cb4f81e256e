"""People in the journal: who is taken out of it, and out of the files that were sealed of it.

On the floor of `service`. A service may go on writing meanwhile.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal import FILE, TABLES, alone, drop_unfinished

_OF_PERSONS = ("user_id", "session_id", "rater")
_NAMED = "exposure_id"  # ends with the actor


def own_sessions(folder: Path, actor: str) -> set[str]:
    """Sessions in which a user was known and nobody else, in the journal and its sealed files.

    Raises:
        JournalError: if the journal cannot be read.
    """
    if not (folder / FILE).is_file():
        return set()
    rows: list[tuple[str, str]] = []
    with alone(folder / FILE) as db:
        for table in ("events", "exposures"):
            rows += db.execute(f"select session_id, user_id from {table} where user_id is not null").fetchall()
    for file in _sealed(folder):
        table = _read(file)
        if "user_id" in table.column_names:
            rows += [
                (session, user)
                for session, user in zip(*(table[name].to_pylist() for name in ("session_id", "user_id")), strict=True)
                if user is not None
            ]
    own = {session for session, user in rows if user == actor}
    return {session for session in own - {session for session, user in rows if user != actor} if session}


def n_named(folder: Path, actor: str) -> dict[str, int]:
    """Rows of the journal that are of a user, by table; nothing where there is no journal."""
    if not (folder / FILE).is_file():
        return {}
    with alone(folder / FILE) as db:
        counts = {
            table: db.execute(f"select count(*) from {table} where {_is_of(kind)}", {"actor": actor}).fetchone()[0]
            for table, kind in TABLES.items()
        }
    return {f"{FILE}: {table}": n for table, n in counts.items() if n}


def _is_of(kind: type) -> str:
    """An SQL condition: whether a row names :actor."""
    names = [field.name for field in fields(kind)]
    tests = [f"{column} = :actor" for column in _OF_PERSONS if column in names]
    return " or ".join([*tests, *([f"instr({_NAMED}, :actor) > 0"] if _NAMED in names else [])])


def forget(folder: Path, actor: str, sessions: Collection[str]) -> dict[str, int]:
    """Take the rows of a user, and those of sessions without a user, out of a journal and its sealed files.

    What is left of the database is written anew, so that nothing of the rows stays in free pages; a sealed file keeps its
    name, also where no row of it is left.

    Args:
        folder: of the journal; nothing is done where there is none.
        actor: pseudonym.
        sessions: pseudonyms; rows in which somebody else is known stay.

    Returns:
        Rows that went, by table of the database and by file.

    Raises:
        JournalError: if the journal cannot be written.

    Cost: one writing of the database, and of the files that had rows of his.
    """
    if not (folder / FILE).is_file():
        return {}
    counts = {}
    with alone(folder / FILE) as db:
        db.execute("create temp table own_sessions (session text)")
        db.executemany("insert into own_sessions values (?)", [(one,) for one in sessions])
        for table, kind in TABLES.items():
            test = _is_of(kind)
            if "session_id" in {field.name for field in fields(kind)}:
                test += " or user_id is null and session_id in (select session from own_sessions)"
            found = db.execute(f"delete from {table} where {test}", {"actor": actor})
            counts[f"{FILE}: {table}"] = found.rowcount
        drop_unfinished(folder)
    compact(folder)
    for file in _sealed(folder):
        counts[file.name] = _without(file, actor, sessions)
    return {name: n for name, n in counts.items() if n}


def compact(folder: Path) -> None:
    """Write the journal's database anew, and empty the log beside it: what was deleted is nowhere in its bytes.

    Raises:
        JournalError: if somebody reads it for longer than it is waited for.
    """
    try:
        with closing(sqlite3.connect(folder / FILE, timeout=10, isolation_level=None)) as db:
            db.execute("vacuum")
            (busy, *_) = db.execute("pragma wal_checkpoint(truncate)").fetchone()
    except sqlite3.Error as error:
        busy, why = 1, str(error)
    else:
        why = "its log is being read"
    if busy:
        raise JournalError(
            f"journal: 1 file cannot be written anew: {str(folder / FILE)!r}: {why}. Nobody may read it for 10 s, or bytes "
            "of deleted rows stay in it: stop `ecom serve` for a moment, and try again."
        )


def rewritten(file: Path, change: Callable[[pa.Table], pa.Table]) -> int:
    """Write a sealed file with a change, all or nothing, if there is one; rows that went."""
    before = _read(file)
    after = change(before)
    if after.equals(before):
        return 0
    part = file.with_suffix(".part")
    pq.write_table(after, part)
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    part.replace(file)
    return before.num_rows - after.num_rows


def _without(file: Path, actor: str, sessions: Collection[str]) -> int:
    def change(table: pa.Table) -> pa.Table:
        gone = pa.array([False] * table.num_rows)
        for column in (column for column in _OF_PERSONS if column in table.column_names):
            gone = pc.or_(gone, pc.fill_null(pc.equal(table[column], actor), False))
        if _NAMED in table.column_names:
            gone = pc.or_(gone, pc.match_substring(table[_NAMED], actor))
        if "session_id" in table.column_names:
            own = pc.is_in(table["session_id"], pa.array([*sessions], pa.string()))
            gone = pc.or_(gone, pc.and_(pc.is_null(table["user_id"]), own))
        return table.filter(pc.invert(gone))

    return rewritten(file, change)


def _read(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise JournalError(
            f"journal: 1 sealed file cannot be read: {str(file)!r}: {error}. It must be as it was written: put it back from a copy, or "
            "delete it, and start the command again."
        ) from error


def _sealed(folder: Path) -> Iterator[Path]:
    for table in TABLES:
        yield from sorted(folder.glob(f"{table}-*-*.parquet"))


def rehash(folder: Path, target: Path, change: Callable[[str], str]) -> int:
    """Write a journal and its sealed files into another folder, with another pseudonym for everybody.

    Args:
        folder: of the journal; nothing is done where there is none.
        target: empty; made.
        change: the new pseudonym of one, or of a text that ends with one.

    Returns:
        Rows that were changed.

    Raises:
        JournalError: if the journal cannot be read.

    Cost: one reading and writing of all of it.
    """
    if not (folder / FILE).is_file():
        return 0
    target.mkdir(parents=True)
    n_rows = 0
    was, fresh = folder / FILE, target / FILE
    # nobody writes until all is copied
    with alone(was), closing(sqlite3.connect(was)) as db, closing(sqlite3.connect(fresh)) as copy:
        db.backup(copy)
    with closing(sqlite3.connect(target / FILE, isolation_level=None)) as copy:
        copy.create_function("rehashed", 1, lambda text: None if text is None else change(text), deterministic=True)
        for table, kind in TABLES.items():
            columns = [field.name for field in fields(kind) if field.name in (*_OF_PERSONS, _NAMED)]
            n_rows += copy.execute(
                f"update {table} set {', '.join(f'{one} = rehashed({one})' for one in columns)}"
            ).rowcount
        copy.execute("vacuum")
        copy.execute("pragma wal_checkpoint(truncate)")
    for file in _sealed(folder):
        table = _read(file)
        for place, name in enumerate(table.column_names):
            if name in (*_OF_PERSONS, _NAMED):
                texts = [None if one is None else change(one) for one in table[name].to_pylist()]
                table = table.set_column(
                    place, table.schema.field(place), pa.array(texts, table.schema.field(place).type)
                )
        pq.write_table(table, target / file.name)
        n_rows += table.num_rows
    return n_rows
