"""The DuckDB file that every asset reads and writes: one writer at a time, short connections."""

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
from resources.private import keep_private
from resources.writer import one_writer

_CORRUPT, _CUT = "Corrupt database file", "Could not read enough bytes"  # how DuckDB tells of them
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
            db.execute(f"attach '{str(target).replace(chr(39), chr(39) * 2)}' as target_of_copy")
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
                return duckdb.connect(self.path, config={"memory_limit": self.memory_limit})
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

    def _damaged(self, error: duckdb.Error) -> WarehouseError:
        return WarehouseError(
            f"warehouse: 1 file cannot be opened or read, {self.path!r}: {error}. It must be a whole DuckDB file that we may "
            "write to: restore it; or move it away with its .wal, and `ecom run` makes all of it anew from the source."
        )
