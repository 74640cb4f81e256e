"""What every asset reads and writes: one DuckDB file, encrypted where a key is set, or a lake that several machines share."""

import fcntl
import logging
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
from pydantic import Field

from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.quoting import literal
from resources import checkpoint, extensions
from resources.lake import CATALOGUE, Lake
from resources.private import keep_private, secret
from resources.writer import one_writer

_CUT = "Could not read enough bytes"  # how DuckDB tells of it
_KEY = "ECOM_WAREHOUSE_KEY"
_NOWHERE = ":memory:"
_KEYS = ("encryption key", "encrypted")  # how DuckDB tells of them
_FULL = ("No space left on device", "disk is full")
# to load a lake's extensions and to reach its server takes half a second, once a process: open, it is in nobody's way
_KEPT: dict[str, duckdb.DuckDBPyConnection] = {}


class Warehouse(dg.ConfigurableResource):
    """Whole relations in, whole relations out; no reader ever sees half of one."""

    path: str = Field(description="DuckDB file. Not ':memory:': each step may be its own process.")
    lake_folder: str = Field(
        default="", description="Folder of the rows of the lake that ECOM_LAKE names; nothing: all is in the file."
    )
    snapshot_hours: float = Field(
        default=24, ge=0, description="How long a lake keeps what was replaced in it, for those that read it still."
    )
    patience_seconds: float = Field(default=60, ge=0, description="How long to wait for another process to let go.")
    run_patience_seconds: float = Field(
        default=600, ge=0, description="How long a run of Dagster waits for another process to leave the home."
    )
    memory_limit: str = Field(default="3GB", description="What DuckDB may hold before it spills to disk.")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Warehouse"]:
        """Hold the home for a run of Dagster, however it was launched; sensors and schedules read, and hold nothing.

        Raises:
            HomeError: if another process works in the home for longer than `run_patience_seconds`.
        """
        folder = Path(self.path).parent
        if context.run is None:
            keep_private(folder)
            yield self
            return
        name = f"run {context.run.run_id[:8]} of Dagster"
        log = context.log or logging.getLogger(__name__)
        with one_writer(folder, name, patience_seconds=self.run_patience_seconds, log=log):
            yield self
            self._prune(log)

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for a short while; always read-write, as DuckDB refuses to mix kinds in one process.

        Raises:
            WarehouseError: if another process holds the file for longer than is waited for, if it is damaged, also where
                that is seen only when a relation is read, or if the disk is full; of a lake, if its server does not let us
                in, or another process has changed the same relation meanwhile.
        """
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._opened() as db:
                db.execute("set timezone = 'UTC'; set enable_progress_bar = false")
                yield db
        except duckdb.Error as error:
            if meaning := self._meaning(error):
                raise meaning from None  # what DuckDB says may hold the password
            if _is_full(error):
                raise WarehouseError(
                    f"warehouse: 1 write was refused, as the disk is full: {self.path!r}. There must be room for what a run "
                    "makes: free some, and start it again; what was finished stays."
                ) from error
            if checkpoint.is_damage(error) or (_CUT in str(error) and f'"{self.path}"' in str(error)):
                raise self._damaged(error) from error
            raise

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection whose changes appear all at once, or after an error not at all."""
        with self.connect() as db:
            db.begin()
            try:
                yield db
            except BaseException:
                with suppress(duckdb.Error):  # what a full disk has ended already
                    db.rollback()
                raise
            db.commit()

    def compact(self) -> None:
        """Write all of it anew, and put that in its place at once: what was deleted is nowhere in its bytes.

        Call it as the home's one writer: what another process changes meanwhile is lost.

        Raises:
            WarehouseError: if another process holds the file for longer than is waited for, or is connected to the lake.

        Cost: one reading and one writing of the whole, and as much room on the disk again.
        """
        if lake := self._lake():
            with self.connect() as db:
                lake.rewrite(db)
            return
        fresh = Path(f"{self.path}.compact")
        self.write_to(fresh)
        assert not checkpoint.has_log(self.path)  # of the former file
        os.replace(fresh, self.path)
        shutil.rmtree(f"{self.path}.tmp", ignore_errors=True)

    def write_to(self, target: Path) -> None:
        """Write all relations to another file, on the disk for certain; one that is there is replaced.

        Raises:
            WarehouseError: as `compact`; of a lake, which is not one home's alone.

        Cost: one reading and one writing of the whole.
        """
        if self.lake_folder:
            raise WarehouseError(
                "warehouse: 1 lake cannot change its key: other homes read it under the one that it has. What changes it must be one "
                f"file: leave this lake, name an empty database in {CATALOGUE}, and `ecom run` lands all of it from the source "
                "under the new ECOM_HASH_KEY."
            )
        target.unlink(missing_ok=True)
        with self.connect() as db:
            (name,) = db.execute("select current_database()").fetchall()[0]
            db.execute(f"attach {literal(str(target))} as target_of_copy{_encrypted(secret(_KEY))}")
            db.execute(f'copy from database "{name}" to target_of_copy')
            db.execute("checkpoint target_of_copy; detach target_of_copy")
        with target.open("rb+") as written:
            os.fsync(written.fileno())

    def read(self, query: str) -> pd.DataFrame:
        """The rows of a query, or of a relation named alone."""
        with self.connect() as db:
            return db.sql(query if " " in query else f"from {query}").df()

    def has(self, relation: str) -> bool:
        """Whether the warehouse holds a relation."""
        with self.connect() as db:
            query = "from duckdb_tables() where database_name = current_database() and table_name = ?"
            return bool(db.execute(query, [relation]).fetchall())

    @property
    def is_there(self) -> bool:
        """Whether anything was ever written: a lake is made when it is first opened."""
        return bool(self.lake_folder) or Path(self.path).is_file()

    @property
    def elsewhere(self) -> list[Path]:
        """Folders that hold its rows and do not lie in the home."""
        folder = Path(self.lake_folder)
        return [folder] if self.lake_folder and not folder.is_relative_to(Path(self.path).parent) else []

    def catalogue(self) -> Iterator[tuple[str, str]]:
        """What stands in the catalogue of a lake, as (table, row as a text); a file has none.

        Cost: one reading of it; a row a column and file.
        """
        if lake := self._lake():
            with self.connect() as db:
                yield from lake.catalogue(db)

    def _lake(self) -> Lake | None:
        return Lake.of(self.lake_folder) if self.lake_folder else None

    def _meaning(self, error: duckdb.Error) -> WarehouseError | None:
        lake = self._lake()
        return lake.meaning(error) if lake else None

    def _prune(self, log: logging.Logger) -> None:
        """At the end of a run; where that cannot be, the next one does it."""
        if lake := self._lake():
            try:
                with self.connect() as db:
                    lake.prune(db, self.snapshot_hours)
            except WarehouseError as error:
                log.warning("what was replaced in the lake stays for now: %s", error)

    @contextmanager
    def _opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        if lake := self._lake():
            with closing(self._opened_lake(lake)) as db:
                yield db
            return
        with checkpoint.opened(self.path, self._open) as db:
            yield db

    def _open(self) -> duckdb.DuckDBPyConnection:
        until = time.monotonic() + self.patience_seconds
        while True:
            try:
                return checkpoint.attempt(self.path, lambda: self._opened_file(self.path, secret(_KEY)))
            except (duckdb.CatalogException, duckdb.InvalidInputException) as error:
                if any(sign in str(error) for sign in _KEYS):
                    raise self._of_another_key(error) from error
                raise
            except duckdb.IOException as error:
                holder = re.search(r"held in ((?:.+? \()?PID \d+\)?)", str(error))
                if _is_full(error):
                    raise
                if holder is None:
                    raise self._damaged(error) from error
                if time.monotonic() > until:
                    raise WarehouseError(
                        f"warehouse: {self.path!r} is held by 1 process, {holder[1]}, for longer "
                        f"than {self.patience_seconds:g} s. Only one process may hold it: wait for that one, or end it."
                    ) from error
                time.sleep(random.uniform(0.1, 0.5))

    def _opened_lake(self, lake: Lake) -> duckdb.DuckDBPyConnection:
        if secret(_KEY):
            raise WarehouseError(
                f"{_KEY}: 1 key is of no use beside {CATALOGUE}: a lake's files are not written with it. It must be unset where a "
                "lake is: encrypt the disks of the folder and of the server instead."
            )
        name = f"{self.path} {os.getpid()} {hash(lake)}"
        try:
            if name not in _KEPT:
                first = self._attached(name, lake.attach)
                lake.require_own_folder(first)
                _KEPT[name] = first
            return self._attached(name, lake.attach)
        except duckdb.Error as error:
            if meaning := lake.meaning(error):
                raise meaning from None
            raise

    def _opened_file(self, path: str, key: str) -> duckdb.DuckDBPyConnection:
        if path != _NOWHERE and path == self.path and not Path(path).exists():
            self._make(key)
        if not key:
            return duckdb.connect(path, config={"memory_limit": self.memory_limit, **checkpoint.BY_US_ALONE})

        def attach(db: duckdb.DuckDBPyConnection) -> None:
            extensions.load(db, "httpfs", setting=_KEY, extra="encryption")  # what DuckDB itself holds is for reading
            db.execute(f"attach if not exists {literal(path)} as warehouse{_encrypted(key)}; use warehouse")

        return self._attached(path, attach, temp_file_encryption="true", **checkpoint.BY_US_ALONE)

    def _make(self, key: str) -> None:
        """Make an empty file aside: one that DuckDB was killed in making cannot be opened."""
        file, fresh = Path(self.path), Path(f"{self.path}.new")
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # of two processes the second one finds it made
            if not file.exists():
                fresh.unlink(missing_ok=True)
                self._opened_file(str(fresh), key).close()
                for log in file.parent.glob(f"{file.name}*.wal"):
                    log.unlink()  # of a file that was moved away
                os.replace(fresh, file)
        finally:
            os.close(folder)

    def _attached(
        self, name: str, attach: Callable[[duckdb.DuckDBPyConnection], None], **more: str
    ) -> duckdb.DuckDBPyConnection:
        """A connection to what is attached, which spills where it is told to, and not beside itself.

        Under one name, connections of this process share it, as those to a file do.
        """
        config: dict[str, str | bool | int | float | list[str]] = {"memory_limit": self.memory_limit, **more}
        config["temp_directory"] = f"{self.path}.tmp"
        db = duckdb.connect(f":memory:{name}", config=config)
        try:
            db.execute("set enable_progress_bar = false")  # attaching draws one too, where a server is slow
            attach(db)
        except BaseException:
            db.close()
            raise
        return db

    def _of_another_key(self, error: duckdb.Error) -> WarehouseError:
        return WarehouseError(
            f"warehouse: 1 file cannot be opened with {_KEY} as it is, {self.path!r}: {str(error).split(chr(10))[0]}. It must be "
            "the key that the file was made with, and none where it was made without: set it so; or move the file away, and "
            "`ecom run` makes all of it anew from the source."
        )

    def _damaged(self, error: duckdb.Error) -> WarehouseError:
        return WarehouseError(
            f"warehouse: 1 file cannot be opened or read, {self.path!r}: {error}. It must be a whole DuckDB file that we may "
            "write to: restore it; or move it away with its .wal, and `ecom run` makes all of it anew from the source."
        )


def _is_full(error: duckdb.Error) -> bool:
    return any(sign in str(error) for sign in _FULL)


def _encrypted(key: str) -> str:
    """What follows the name of a file that is attached."""
    return f" (encryption_key {literal(key)})" if key else ""
