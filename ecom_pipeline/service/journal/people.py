"""People in the journal: who is taken out of it, and out of the files that were sealed of it.

On the floor of `service`. A service may go on writing meanwhile.
"""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal.database import Database
from ecom_pipeline.service.journal.rows import ENDS_WITH_ONE, PERSONS, TABLES, names_of, of_persons
from ecom_pipeline.service.journal.sealing import drop_unfinished, sealed_files


def own_sessions(database: Database, actor: str) -> set[str]:
    """Sessions in which a user was known and nobody else, in the journal and its sealed files.

    Raises:
        JournalError: if the journal cannot be read.
    """
    if not database.exists:
        return set()
    rows: list[tuple] = []
    for table in ("events", "exposures"):
        rows += database.read(f"select session_id, user_id from {table} where user_id is not null")
    for file in _sealed(database.folder):
        sealed = _read(file)
        if "user_id" in sealed.column_names:
            rows += [
                (session, user)
                for session, user in zip(*(sealed[name].to_pylist() for name in ("session_id", "user_id")), strict=True)
                if user is not None
            ]
    own = {session for session, user in rows if user == actor}
    return {session for session in own - {session for session, user in rows if user != actor} if session}


def n_named(database: Database, actor: str) -> dict[str, int]:
    """Rows of the journal that are of a user, by table; nothing where there is no journal."""
    if not database.exists:
        return {}
    counts = {}
    for table in TABLES:
        test, n_values = _is_of(table)
        ((n_rows,),) = database.read(f"select count(*) from {table} where {test}", *[actor] * n_values)
        counts[f"{database.name}: {table}"] = n_rows
    return {name: n for name, n in counts.items() if n}


def _is_of(table: str) -> tuple[str, int]:
    """An SQL condition, whether a row names somebody, and how often he stands in it."""
    tests = [f"{column} = ?" for column in of_persons(table) if column != ENDS_WITH_ONE]
    if ENDS_WITH_ONE in names_of(table):
        tests.append(f"replace({ENDS_WITH_ONE}, ?, '') <> {ENDS_WITH_ONE}")
    return " or ".join(tests), len(tests)


def forget(database: Database, actor: str, sessions: Collection[str]) -> dict[str, int]:
    """Take the rows of a user, and those of sessions without a user, out of a journal and its sealed files.

    What is left of the database is written anew, so that nothing of the rows stays in free pages; a sealed file keeps its
    name, also where no row of it is left.

    Args:
        database: nothing is done where it was never begun.
        actor: pseudonym.
        sessions: pseudonyms; rows in which somebody else is known stay.

    Returns:
        Rows that went, by table of the database and by file.

    Raises:
        JournalError: if the journal cannot be written.

    Cost: one writing of the database, and of the files that had rows of his.
    """
    if not database.exists:
        return {}
    counts = {}
    with database.alone() as db:
        db.execute("create temp table own_sessions (session text)")
        db.executemany("insert into own_sessions values (?)", [(one,) for one in sessions])
        for table in TABLES:
            test, n_values = _is_of(table)
            if "session_id" in names_of(table):
                test += " or user_id is null and session_id in (select session from own_sessions)"
            found = db.execute(f"delete from {table} where {test}", [actor] * n_values)
            counts[f"{database.name}: {table}"] = found.rowcount
        drop_unfinished(database.folder)
    database.compact()
    for file in _sealed(database.folder):
        counts[file.name] = _without(file, actor, sessions)
    return {name: n for name, n in counts.items() if n}


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
        for column in (column for column in PERSONS if column in table.column_names):
            gone = pc.or_(gone, pc.fill_null(pc.equal(table[column], actor), False))
        if ENDS_WITH_ONE in table.column_names:
            gone = pc.or_(gone, pc.match_substring(table[ENDS_WITH_ONE], actor))
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
        yield from sealed_files(folder, table)


def rehash(database: Database, target: Path, change: Callable[[str], str]) -> int:
    """Write a journal and its sealed files into another folder, with another pseudonym for everybody.

    Rows of a database on a server stay as they are until it is begun under the new key.

    Args:
        database: nothing is done where it was never begun.
        target: empty; made.
        change: the new pseudonym of one, or of a text that ends with one.

    Returns:
        Rows that were changed.

    Raises:
        JournalError: if the journal cannot be read.

    Cost: one reading and writing of all of it.
    """
    if not database.exists:
        return 0
    target.mkdir(parents=True)
    n_rows = database.rehash(target, change)
    for file in _sealed(database.folder):
        table = _read(file)
        for place, name in enumerate(table.column_names):
            if name in (*PERSONS, ENDS_WITH_ONE):
                texts = [None if one is None else change(one) for one in table[name].to_pylist()]
                table = table.set_column(
                    place, table.schema.field(place), pa.array(texts, table.schema.field(place).type)
                )
        pq.write_table(table, target / file.name)
        n_rows += table.num_rows
    return n_rows
