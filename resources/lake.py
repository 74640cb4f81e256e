"""A warehouse that several machines may write to: its catalogue is a Postgres database, its rows are Parquet files.

What is written is DuckLake; here is how one is opened, what its errors mean, and when what of it is deleted.
"""

import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import duckdb

from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.quoting import literal, name
from resources import extensions
from resources.private import secret

CATALOGUE, FOLDER = "ECOM_LAKE", "ECOM_LAKE_FOLDER"
_NAME = "warehouse"
_METADATA = f"__ducklake_metadata_{_NAME}"
# what does not contradict what another process has written meanwhile is tried again so often, for a minute or so
_SETTINGS: dict[str, object] = {
    "ducklake_max_retry_count": 30,
    "ducklake_retry_wait_ms": 50,
    "ducklake_retry_backoff": 1.2,
}
_SETTINGS |= {"enable_external_file_cache": "false"}  # between two connections a process holds no rows in memory
_ELSEWHERE = "does not match existing data path"  # how DuckDB, DuckLake and Postgres tell of it, here and below
_VERSION = ("DuckLake catalog version", "DuckLake version")
_CONFLICT = ("ransaction conflict", "maximum retry count", "could not serialize", "deadlock detected")
_FORM = ("connection info string", "connection option", " URI", "percent-encoded", "invalid integer value")
_AWAY = (
    *("connect to Postgres", "connection to server", "no connection to the server", "server closed the connection"),
    *("terminating connection", "SSL connection has been closed", 'Failed to execute query "ROLLBACK"'),
)
_URL = ("postgres://", "postgresql://")
_OF_URL = re.compile(r"(?<=://)[^:@/?]*(?P<all>:(?P<password>[^/?]*))@")
_OF_QUERY = re.compile(r"(?<=[?&])(?P<all>password=(?P<password>[^&]*)&?)")
_OF_WORDS = re.compile(r"(?P<all>\bpassword\s*=\s*(?P<password>'(?:[^'\\]|\\.)*'|\S+))")


@dataclass(frozen=True, slots=True)
class Lake:
    """One lake.

    Attributes:
        folder: of the Parquet files, under one path on every machine.
        connection: how Postgres is reached, as libpq takes it; a secret.
    """

    folder: str
    connection: str = field(repr=False)

    @classmethod
    def of(cls, folder: str) -> "Lake":
        """The lake whose catalogue the environment names.

        Raises:
            WarehouseError: if it names none.
            InputError: if what it names is blank.
        """
        connection = secret(CATALOGUE)
        if not connection:
            raise WarehouseError(
                f"{CATALOGUE}: 1 connection is missing: rows of a lake are in {folder!r}, and nothing says where its catalogue "
                "is. It must be a connection string of Postgres: set it in the environment."
            )
        return cls(folder, connection)

    def attach(self, db: duckdb.DuckDBPyConnection) -> None:
        """Make a connection read and write the lake; an empty database becomes one.

        No row is ever kept in Postgres, however few there are, so that to forget somebody is to delete files; the least and
        the greatest value of each column of a file are.

        Raises:
            WarehouseError: if an extension is missing.
        """
        extensions.load(db, "ducklake", "postgres_scanner", setting=CATALOGUE, extra="lake")
        for setting, value in _SETTINGS.items():
            db.execute(f"set {setting} = {value}")
        connection, password = without_password(self.connection)
        if password:
            os.environ["PGPASSWORD"] = password  # libpq takes it from there; what DuckDB knows stands in its errors
        where = literal(f"ducklake:postgres:{_signed(connection)}")
        folder = literal(self.folder)
        db.execute(
            f"attach if not exists {where} as {_NAME} (data_path {folder}, data_inlining_row_limit 0); use {_NAME}"
        )

    def require_own_folder(self, db: duckdb.DuckDBPyConnection) -> None:
        """Raises WarehouseError if a lake that is new has a folder in which there are rows: it would delete them as its waste."""
        ((n_changes,),) = _ask(db, "select max(snapshot_id) from ducklake_snapshot")
        first = next(Path(self.folder).rglob("*.parquet"), None) if not n_changes else None
        if first:
            raise WarehouseError(
                f"warehouse: 1 folder holds rows of another lake; first: {str(first)!r}. The folder of a new lake must be empty: "
                f"set {FOLDER} to one that is, or {CATALOGUE} to the database that these rows belong to."
            )

    def rewrite(self, db: duckdb.DuckDBPyConnection) -> None:
        """Write all relations anew and delete everything else: files, the snapshots that had them, and what was kept of
        their columns in the catalogue. Files that somebody has begun to write since stay.

        Raises:
            WarehouseError: if another process of ours is connected to the catalogue.
        """
        # a file is as old as the second in which it was written: what a killed process has left is older after this
        time.sleep(1)
        ((began,),) = db.execute("select date_trunc('second', now())::varchar").fetchall()
        self._require_alone(db)
        names = db.execute("select table_name from duckdb_tables() where database_name = current_database()").fetchall()
        db.begin()
        for (table,) in names:
            db.execute(f"create or replace table {name(table)} as from {name(table)}")
        db.commit()
        db.execute(f"call ducklake_expire_snapshots('{_NAME}', older_than => now())")
        db.execute(f"call ducklake_cleanup_old_files('{_NAME}', cleanup_all => true)")
        before = f"older_than => {literal(began)}::timestamptz"
        db.execute(f"call ducklake_delete_orphaned_files('{_NAME}', {before})")

    def prune(self, db: duckdb.DuckDBPyConnection, hours: float) -> None:
        """Delete what no snapshot of some last hours needs, and write small files together.

        Args:
            db: a connection to the lake, outside of a transaction.
            hours: at least as long as anybody reads or writes at a stretch.
        """
        since = f"older_than => now() - interval {hours * 3600:.0f} second"
        db.execute(f"call ducklake_expire_snapshots('{_NAME}', {since})")
        db.execute(f"call ducklake_merge_adjacent_files('{_NAME}')")
        db.execute(f"call ducklake_rewrite_data_files('{_NAME}')")
        db.execute(f"call ducklake_cleanup_old_files('{_NAME}', {since})")
        db.execute(f"call ducklake_delete_orphaned_files('{_NAME}', {since})")

    def catalogue(self, db: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
        """Every row of the catalogue as a text, beside the name of its table.

        Cost: one reading of it; a row a column and file.
        """
        of_lake = "select table_name from information_schema.tables where starts_with(table_name, 'ducklake_')"
        for (table,) in _ask(db, of_lake):
            for (row,) in _ask(db, f"select t::text from {name(table)} as t"):
                yield table, row

    def meaning(self, error: duckdb.Error) -> WarehouseError | None:
        """An error of DuckDB as one of ours where it is of the lake."""
        for signs, what, then in (*_MEANINGS, ((f'Cannot open file "{self.folder}',), *_MISSING)):
            told = [line for line in str(error).splitlines() if any(sign in line for sign in signs)]
            if told:
                # what stands before it says where that is, thrice; of what is no connection string, any part may be the secret
                cause = (
                    told[0].rsplit('": ', 1)[-1] if signs is _AWAY else told[0] if signs is not _FORM else "unreadable"
                )
                return WarehouseError(f"warehouse: {what}: {cause.strip().rstrip('.')}. {then}")
        return None

    def _require_alone(self, db: duckdb.DuckDBPyConnection) -> None:
        query = f"""select distinct application_name from pg_stat_activity
            where datname = current_database() and application_name like 'ecom-%' and application_name <> {literal(_client())}
                and state <> 'idle' order by application_name"""
        others = _ask(db, query)
        if others:
            raise WarehouseError(
                f"warehouse: {len(others)} other processes work in the lake; first: {others[0][0]!r}, which is its number "
                "and its machine. Nobody else may write while all of it is written anew: stop them, and start the command again."
            )


_MEANINGS = (
    (
        (_ELSEWHERE,),
        "1 folder is not the one that holds the lake's rows",
        f"It must be the same on every machine: set {FOLDER} to what the catalogue says, or name another database in {CATALOGUE}.",
    ),
    (
        _VERSION,
        "1 lake is of another version of DuckLake",
        f"It must be one that duckdb-extension-ducklake {duckdb.__version__} reads: install the same version of ecom-pipeline "
        f"everywhere, or name an empty database in {CATALOGUE}.",
    ),
    (
        _CONFLICT,
        "1 change was refused, as another process has changed the same relation meanwhile",
        "Of two such changes only the first may hold, and nothing of this one is written: start the command again, and it goes "
        "on from what is there.",
    ),
    (
        _FORM,
        f"1 connection string is none that Postgres can read, {CATALOGUE}",
        "It must be as 'host=db.internal user=ecom password=... dbname=ecom' or postgresql://ecom:...@db.internal/ecom, with %40 for "
        "an @ in the password: correct the variable.",
    ),
    (
        _AWAY,
        "1 server does not let us in, the Postgres that keeps the lake's catalogue",
        f"It must run and know us by {CATALOGUE}: start it or correct the variable, and start the command again; what was "
        "finished stays.",
    ),
)
_MISSING = (
    "1 file of a lake's rows cannot be read",
    f"It must lie where the catalogue says: see that {FOLDER} is there and is the folder that all machines share, or restore it.",
)


def _client() -> str:
    """What this process is called in Postgres."""
    return f"ecom-{os.getpid()}-{socket.gethostname()}"[:63]


def _signed(connection: str) -> str:
    """A connection string with the name of this process; of two, libpq takes the last."""
    if connection.startswith(_URL):
        return f"{connection}{'&' if '?' in connection else '?'}application_name={quote(_client())}"
    return f"{connection} application_name={_client()}"


def without_password(connection: str) -> tuple[str, str]:
    """A connection string without its password, and the password; nothing where it has none.

    >>> without_password("host=db password='it\\\\'s' dbname=lake")
    ('host=db  dbname=lake', "it's")
    >>> without_password("postgresql://ecom:a%40b@db:5432/lake?sslmode=require")
    ('postgresql://ecom@db:5432/lake?sslmode=require', 'a@b')
    >>> without_password("postgresql:///lake?password=x&user=ecom")
    ('postgresql:///lake?user=ecom', 'x')
    """
    url = connection.startswith(_URL)
    found = _OF_URL.search(connection) or _OF_QUERY.search(connection) if url else _OF_WORDS.search(connection)
    if not found:
        return connection, ""
    value = found["password"]
    return (
        connection[: found.start("all")] + connection[found.end("all") :],
        unquote(value) if url else re.sub(r"\\(.)", r"\1", value.removeprefix("'").removesuffix("'")),
    )


def _ask(db: duckdb.DuckDBPyConnection, query: str) -> list[tuple]:
    """What Postgres answers."""
    return db.execute(f"from postgres_query('{_METADATA}', {literal(query)})").fetchall()
