"""The DuckDB file that every asset reads and writes: one writer at a time, short connections; encrypted where a key is set."""

import importlib.util
import logging
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
from pydantic import Field

from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.quoting import literal
from resources.private import keep_private, secret
from resources.writer import one_writer

_CORRUPT, _CUT = "Corrupt database file", "Could not read enough bytes"  # how DuckDB tells of them
_KEY = "ECOM_WAREHOUSE_KEY"
_KEYS = ("encryption key", "encrypted")  # how DuckDB tells of them
_FULL = ("No space left on device", "disk is full")


class Warehouse(dg.ConfigurableResource):
    """Whole relations in, whole relations out; no reader ever sees half of one."""

    path: str = Field(description="DuckDB file. Not ':memory:': each step may be its own process.")
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

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for a short while; always read-write, as DuckDB refuses to mix kinds in one process.

        Raises:
            WarehouseError: if another process holds the file for longer than is waited for, if it is damaged, also where
                that is seen only when a relation is read, or if the disk is full.
        """
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        db = self._open()
        try:
            db.execute("set timezone = 'UTC'; set enable_progress_bar = false")
            yield db
        except duckdb.Error as error:
            if any(sign in str(error) for sign in _FULL):
                raise WarehouseError(
                    f"warehouse: 1 write was refused, as the disk is full: {self.path!r}. There must be room for what a run "
                    "makes: free some, and start it again; what was finished stays."
                ) from error
            if _CORRUPT in str(error) or (_CUT in str(error) and f'"{self.path}"' in str(error)):
                raise self._damaged(error) from error
            raise
        finally:
            db.close()

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
        """Write the file anew, and put the new one in its place at once: what was deleted is nowhere in its bytes.

        Call it as the home's one writer: what another process changes meanwhile is lost.

        Raises:
            WarehouseError: if another process holds the file for longer than is waited for.

        Cost: one reading and one writing of the whole, and as much room on the disk again.
        """
        fresh = Path(f"{self.path}.compact")
        self.write_to(fresh)
        os.replace(fresh, self.path)
        shutil.rmtree(f"{self.path}.tmp", ignore_errors=True)

    def write_to(self, target: Path) -> None:
        """Write all relations to another file, on the disk for certain; one that is there is replaced.

        Raises:
            WarehouseError: as `compact`.

        Cost: one reading and one writing of the whole.
        """
        target.unlink(missing_ok=True)
        with self.connect() as db:
            (name,) = db.execute("select current_database()").fetchall()[0]
            db.execute("checkpoint")
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
            return bool(db.execute("from duckdb_tables() where table_name = ?", [relation]).fetchall())

    def _open(self) -> duckdb.DuckDBPyConnection:
        until = time.monotonic() + self.patience_seconds
        while True:
            try:
                return self._opened(secret(_KEY))
            except (duckdb.CatalogException, duckdb.InvalidInputException) as error:
                if any(sign in str(error) for sign in _KEYS):
                    raise self._of_another_key(error) from error
                raise
            except duckdb.IOException as error:
                holder = re.search(r"held in (.+?) \(PID (\d+)\)", str(error))
                if holder is None:
                    raise self._damaged(error) from error
                if time.monotonic() > until:
                    raise WarehouseError(
                        f"warehouse: {self.path!r} is held by 1 process, {holder[1]} (PID {holder[2]}), for longer "
                        f"than {self.patience_seconds:g} s. Only one process may hold it: wait for that one, or end it."
                    ) from error
                time.sleep(random.uniform(0.1, 0.5))

    def _opened(self, key: str) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {"memory_limit": self.memory_limit}
        if not key:
            return duckdb.connect(self.path, config=config)
        # a file that is attached spills where it is told to, and not beside itself; under one name, connections of this
        # process share it, as those to a file do
        config |= {"temp_directory": f"{self.path}.tmp", "temp_file_encryption": "true"}
        db = duckdb.connect(f":memory:{self.path}", config=config)
        try:
            db.execute(f"load {literal(str(_cipher()))}")
            db.execute(f"attach if not exists {literal(self.path)} as warehouse{_encrypted(key)}; use warehouse")
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


def _encrypted(key: str) -> str:
    """What follows the name of a file that is attached."""
    return f" (encryption_key {literal(key)})" if key else ""


def _cipher() -> Path:
    """The extension of DuckDB that encrypts what is written: what DuckDB itself holds is for reading.

    Raises:
        WarehouseError: if the one of this version of DuckDB is not installed.
    """
    found = importlib.util.find_spec("duckdb_extension_httpfs")
    folder = Path((found.submodule_search_locations or [""])[0]) if found else Path()
    file = folder / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    if not file.is_file():
        raise WarehouseError(
            f"{_KEY}: 1 package is missing, duckdb-extension-httpfs {duckdb.__version__}, with which DuckDB encrypts what it "
            "writes. It must be installed where a key is set: pip install 'ecom-pipeline[encryption]', or unset the key."
        )
    return file
