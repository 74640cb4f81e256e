"""What lies in a home is for its owner's eyes alone, and the key that hashes people stands nowhere in its history."""

import json
import logging
import os
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

from ecom_pipeline.errors import HomeError

log = logging.getLogger(__name__)
_OTHERS = 0o077
_OURS = (
    *("warehouse.duckdb*", "models", "rankers", "encoders", "frozen", "curves", "reports", "dagster"),
    *("published", "journal", "keys.json"),
    *("run.lock", "hash.key*", "source.json*"),
)
_KEY = "asked_key"  # the field of a resource in which it once stood
_CLEAN = ".without_key"


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
    n_records = sum(_forget_in(database) for database in databases)
    if n_records:
        log.warning(
            "the key that hashes people stood in %d records of the run history in %s and is removed; whoever could read "
            "that folder may know it: if that was anybody else, choose another ECOM_HASH_KEY",
            *(n_records, history),
        )
    (history / _CLEAN).touch()


def _forget_in(database: Path) -> int:
    """Records of one of Dagster's databases that held the key; freed pages are written over."""
    try:
        with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as db:
            tables = db.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
            n_records = sum(_forget_in_table(db, table) for (table,) in tables.fetchall())
            if n_records:
                db.execute("vacuum")
                db.execute("pragma wal_checkpoint(truncate)")
            return n_records
    except sqlite3.Error as error:
        raise HomeError(
            f"run history: 1 database cannot be rid of the key that hashes people: {str(database)!r}: {error}. It must "
            "be written to once, as the key stood in it: stop other processes that use this home, and run again."
        ) from error


def _forget_in_table(db: sqlite3.Connection, table: str) -> int:
    name = '"' + table.replace('"', '""') + '"'
    n_records = 0
    for rowid, *cells in db.execute(f"select rowid, * from {name}").fetchall():
        columns = [column[1] for column in db.execute(f"pragma table_info({name})")]
        for column, cell in zip(columns, cells, strict=True):
            cleaned = _without_key(cell)
            if cleaned != cell:
                db.execute(f'update {name} set "{column}" = ? where rowid = ?', [cleaned, rowid])
                n_records += 1
    return n_records


def _without_key(cell: object) -> object:
    """A cell as it would be without the key: text, or text that Dagster has compressed."""
    if isinstance(cell, str):
        return _cut(cell)
    if isinstance(cell, bytes):
        try:
            text = zlib.decompress(cell).decode()
        except (zlib.error, UnicodeDecodeError):
            return cell
        cleaned = _cut(text)
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
