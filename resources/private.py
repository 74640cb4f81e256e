"""What lies in a home is for its owner's eyes alone, and the key that hashes people stands nowhere in its history."""

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ecom_pipeline.errors import HomeError, InputError

log = logging.getLogger(__name__)
_OTHERS = 0o077
_OURS = (
    *("warehouse.duckdb*", "lake", "models", "rankers", "encoders", "frozen", "curves", "reports", "dagster"),
    *("published", "journal", "keys.json"),
    *("run.lock", "hash.key*", "source.json*"),
    *("receipts", "forgotten.json*", "hash.chain", "serve.lock", "exchange.*"),
)
_KEY = "asked_key"  # the field of a resource in which it once stood
_CLEAN = ".without_key"


def secret(name: str) -> str:
    """A secret of the environment, or nothing; a field of a resource would stand in Dagster's history.

    Args:
        name: of the variable.

    Raises:
        InputError: if it is blank, as a deployment whose secret is missing may make it.
    """
    asked = os.environ.get(name, "")
    if asked and not asked.strip():
        raise InputError(
            f"{name}: 1 key is blank: {len(asked)} characters, all of them spaces. A key must be a secret that nobody can guess: set "
            "it, or leave the variable unset."
        )
    return asked


def keep_private(folder: Path) -> None:
    """Make a home, or close an old one to everybody but its owner; what this process writes from now on is closed too.

    Args:
        folder: the home; what a user has put beside ours in it is left as it is.

    Raises:
        HomeError: if the history of an old home holds the key, and cannot be written to.

    Cost: one look at each file's mode; of an old home, once, one reading of Dagster's history.
    """
    os.umask(_OTHERS)
    folder.mkdir(parents=True, exist_ok=True)
    _close(folder)
    for pattern in _OURS:
        for entry in folder.glob(pattern):
            _close(entry)
            for parent, folders, files in os.walk(entry):
                for name in (*folders, *files):
                    _close(Path(parent, name))
    _forget_key(folder / "dagster")


def _close(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
        if mode & _OTHERS and not path.is_symlink():
            path.chmod(mode & 0o777 & ~_OTHERS)
    except FileNotFoundError:
        pass  # databases come and go beside their journals


def _forget_key(history: Path) -> None:
    if not history.is_dir() or (history / _CLEAN).exists():
        return
    databases = sorted(history.rglob("*.db"))
    n_records = sum(change_cells(database, _cut) for database in databases)
    if n_records:
        log.warning(
            "the key that hashes people stood in %d records of the run history in %s and is removed; whoever could read "
            "that folder may know it: if that was anybody else, choose another ECOM_HASH_KEY",
            *(n_records, history),
        )
    (history / _CLEAN).touch()


def change_history(folder: Path, change: Callable[[str], str]) -> int:
    """Write every text of Dagster's history otherwise: cells of its databases, those opened that are compressed, and logs.

    Args:
        folder: of the history; nothing is done where there is none.
        change: gives a text as it is to be; the same one where nothing is to be changed.

    Returns:
        Records and files that were changed.

    Raises:
        HomeError: if a database cannot be written to.

    Cost: one reading of the folder.
    """
    n_records = sum(change_cells(database, change) for database in sorted(folder.rglob("*.db")))
    for file in (one for one in folder.rglob("*") if one.is_file() and one.suffix in (".err", ".out", ".log", ".yaml")):
        text = file.read_text(errors="surrogateescape")
        if change(text) != text:
            file.write_text(change(text), errors="surrogateescape")
            n_records += 1
    return n_records


def change_cells(database: Path, change: Callable[[str], str]) -> int:
    """Write every text of an SQLite database otherwise, and return the records that were changed; no freed page keeps one.

    Raises:
        HomeError: if it cannot be written to.
    """
    try:
        with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as db:
            tables = db.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
            n_records = sum(_change_table(db, table, change) for (table,) in tables.fetchall())
            if n_records:
                db.execute("vacuum")
                db.execute("pragma wal_checkpoint(truncate)")
            return n_records
    except sqlite3.Error as error:
        raise HomeError(
            f"run history: 1 database cannot be rid of what must not stand in it: {str(database)!r}: {error}. It must "
            "be written to once: stop other processes that use this home, and run again."
        ) from error


def _change_table(db: sqlite3.Connection, table: str, change: Callable[[str], str]) -> int:
    name = '"' + table.replace('"', '""') + '"'
    n_records = 0
    for rowid, *cells in db.execute(f"select rowid, * from {name}").fetchall():
        columns = [column[1] for column in db.execute(f"pragma table_info({name})")]
        for column, cell in zip(columns, cells, strict=True):
            cleaned = _changed(cell, change)
            if cleaned != cell:
                db.execute(f'update {name} set "{column}" = ? where rowid = ?', [cleaned, rowid])
                n_records += 1
    return n_records


def _changed(cell: object, change: Callable[[str], str]) -> object:
    """A cell as it is to be: text, or text that Dagster has compressed."""
    if isinstance(cell, str):
        return change(cell)
    if isinstance(cell, bytes):
        try:
            text = zlib.decompress(cell).decode()
        except (zlib.error, UnicodeDecodeError):
            return cell
        cleaned = change(text)
        return cell if cleaned == text else zlib.compress(cleaned.encode())
    return cell


def _cut(text: str) -> str:
    """JSON without the field, however deep, in strings that are JSON themselves too; any other text as it is."""
    if _KEY not in text:
        return text
    try:
        told = json.loads(text)
    except ValueError:
        return text
    cleaned = _walk(told)
    return text if cleaned == told else json.dumps(cleaned)


def _walk(told: object) -> object:
    if isinstance(told, dict):
        return {name: _walk(value) for name, value in told.items() if name != _KEY}
    if isinstance(told, list):
        return [_walk(value) for value in told]
    return _cut(told) if isinstance(told, str) else told
