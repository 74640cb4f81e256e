"""Dagster's history in SQLite, at which somebody stays while a command works.

Dagster opens and closes a file for every event. Whenever the last one leaves, SQLite writes its log back into the file and
waits for the disk, which takes several times as long as to keep the event.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage  # as Dagster's own settings name it


@contextmanager
def held_open(files: Iterable[Path]) -> Iterator[None]:
    """Stay at each file that is there; whoever else opens them is not hindered."""
    with ExitStack() as stack:
        for file in files:
            if file.is_file():
                db = stack.enter_context(closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)))
                db.execute("select count(*) from sqlite_master").fetchone()  # who has read nothing is not there yet
        yield


def files_of(instance: dg.DagsterInstance, run_id: str | None = None) -> list[Path]:
    """Files that every run writes to, or that of one run, which is made; none where the history lies in a server."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return []
    if run_id is None:
        index = Path(storage.path_for_shard("index"))
        return [index, index.parents[1] / "runs.db"]
    with storage.run_connection(run_id):
        return [Path(storage.path_for_shard(run_id))]
