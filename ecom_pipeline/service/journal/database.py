"""Where the journal's rows are: what a database of them must do, and what SQLite and Postgres say alike.

On the floor of `service`. Places are given in the order of commits: who sees a place has seen, or can see, every one before it.
So whoever reads on from a place, or seals up to one, skips no row that is committed later.
"""

import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal.rows import TABLES, Event, Kept, Row, names_of, table_of, type_of

MARK = "in_postgres"  # a file beside the sealed ones: without the connection nobody begins another journal
PATIENCE = 10.0  # seconds that another writer is waited for
T = TypeVar("T")
_SQL_TYPES = {pa.string(): "text", pa.int64(): "bigint", pa.float64(): "double precision"}


class Answer(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""

    def fetchall(self) -> list[Any]:
        """Rows that were found."""


class Session(Protocol):
    """A connection; a statement is committed at once unless a transaction was begun."""

    def execute(self, query: str, values: Sequence[object] = (), /) -> Answer:
        """Do one statement, in which ? stands for each value."""

    def executemany(self, query: str, rows: Sequence[Sequence[object]], /) -> object:
        """Do it for each of many rows of values."""

    def close(self) -> None:
        """Give it up; of a transaction that was begun nothing is kept."""


class Database(ABC):
    """A journal's database, and the folder of files that are sealed of it; safe for several threads and processes.

    Attributes:
        folder: of the sealed files.
    """

    place: ClassVar[str]  # of the primary key, as a column
    begin_words: ClassVar[str]  # of a transaction that writes
    failures: tuple[type[Exception], ...]  # of the library

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._idle: queue.LifoQueue[Session] = queue.LifoQueue()
        self._beginning, self._begun = Lock(), False
        # of a row that cannot be written, too
        self._refusals: tuple[type[Exception], ...] = (*self.failures, ArithmeticError, ValueError, TypeError)

    @property
    @abstractmethod
    def name(self) -> str:
        """As receipts call it."""

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether it was ever begun; a database on a server is begun when it is first asked."""

    @abstractmethod
    def connect(self) -> Session:
        """Open a connection whose commits are durable, as the library's failures allow."""

    @abstractmethod
    def begin(self) -> int:
        """Make what is missing, and give no place that a sealed file holds, as after the database was lost or restored.

        Returns:
            How many pseudonyms were changed, as an earlier key had made them.

        Raises:
            JournalError: if it cannot be begun.
        """

    @abstractmethod
    def alone(self) -> AbstractContextManager[Session]:
        """A transaction, on a connection of its own, in which nobody else seals, or deletes what may be sealed.

        Raises:
            JournalError: if that cannot be had.
        """

    @abstractmethod
    def go_on_after(self, table: str, seq: int) -> None:
        """Give no row of a table a place up to one that is known to be taken, as by the events of a model.

        Raises:
            JournalError: if that cannot be written.
        """

    @abstractmethod
    def order_commits(self, db: Session) -> None:
        """Wait, in a transaction that will give places, until every other one that has given some has ended."""

    @abstractmethod
    def insert(self, db: Session, table: str, rows: Sequence[Row]) -> dict[str, int]:
        """Insert rows, leave alone what has their id already, and return the places of those that are new, by id."""

    @abstractmethod
    def compact(self) -> None:
        """Write what is left anew: what was deleted is nowhere in the files of the database.

        Raises:
            JournalError: if somebody reads it for longer than it is waited for.
        """

    @abstractmethod
    def rehash(self, target: Path, change: Callable[[str], str]) -> int:
        """Write a copy with another pseudonym for everybody where the database is a file; how many rows were changed.

        Args:
            target: folder of the copy.
            change: the new pseudonym of one, or of a text that ends with one.
        """

    @abstractmethod
    def texts(self) -> Iterator[tuple[str, str]]:
        """Every row that is in no file of the home, as a text, beside the name of its table."""

    @abstractmethod
    def check(self) -> None:
        """Raises JournalError if events could not be kept now."""

    @abstractmethod
    def broken(self, error: Exception) -> JournalError:
        """A failure of the library as one of ours."""

    @abstractmethod
    def lost(self, error: Exception) -> bool:
        """Whether a failure is of the connection alone: what was tried may be tried on another one."""

    def read(self, query: str, *values: object) -> list[tuple]:
        """What a query finds.

        Raises:
            JournalError: if it cannot be read.
        """
        return self.working(lambda db: db.execute(query, values).fetchall())

    def write(self, batch: Sequence[Sequence[Row]]) -> list[list[Kept]]:
        """Keep rows in one transaction; one whose id is there already stays as it is there.

        Args:
            batch: rows that came together, several times.

        Returns:
            Events as they are there, for each that is in the batch, when all is durable.

        Raises:
            JournalError: if they could not be kept; then none of them is.
        """

        def work(db: Session) -> list[list[Kept]]:
            db.execute(self.begin_words)
            self.order_commits(db)
            rows = [row for part in batch for row in part]
            kept = iter(
                [one for table in TABLES for one in self.put(db, table, [r for r in rows if table_of(r) == table])]
            )
            db.execute("commit")
            return [[next(kept) for row in part if isinstance(row, Event)] for part in batch]

        return self.working(work)

    def put(self, db: Session, table: str, rows: Sequence[Row]) -> list[Kept]:
        """Insert rows of a table in a transaction that orders commits; events as they are there then."""
        fresh = self.insert(db, table, rows) if rows else {}
        if table != "events":
            return []
        known, kept = _events(db, {row.event_id for row in rows if isinstance(row, Event)} - fresh.keys()), []
        for row in rows:
            if isinstance(row, Event) and row.event_id in fresh:
                kept.append(Kept(fresh.pop(row.event_id), row, True))
                known[row.event_id] = Kept(kept[-1].seq, row, False)  # of one that is twice among the rows
            else:
                kept.append(known[astuple(row)[0]])
        return kept

    def close(self) -> None:
        """Close what is open."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    def make_tables(self, db: Session) -> None:
        """Those that are missing, as in a journal that an older version began."""
        for table in TABLES:
            id_, *others = [f"{name} {sql_type(name)}" for name in names_of(table)]
            db.execute(f"create table if not exists {table} ({self.place}, {id_} unique, {', '.join(others)})")
        # which places of a table are together in a file
        db.execute("create table if not exists seals (name text, first bigint, last bigint, unique (name, last))")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One on a connection of its own, which may take its time."""
        try:
            with closing(self.connect()) as db:
                db.execute(self.begin_words)
                yield db
                db.execute("commit")
        except self.failures as error:
            raise self.broken(error) from error

    def begin_once(self) -> None:
        """Begin it if this object has not."""
        with self._beginning:
            if not self._begun:
                self.begin()
                self._begun = True

    def working(self, work: Callable[[Session], T]) -> T:
        """Work on a connection that is there; on a new one if it was lost meanwhile, as by a restart of its server.

        Raises:
            JournalError: if it cannot be done.
        """
        self.begin_once()
        try:
            try:
                return self._on(self._taken, work)
            except self.failures as error:
                if not self.lost(error):
                    raise
                self.close()
                return self._on(self.connect, work)
        except self._refusals as error:
            raise self.broken(error) from error

    def _on(self, opened: Callable[[], Session], work: Callable[[Session], T]) -> T:
        db = opened()
        try:
            found = work(db)
        except BaseException:
            db.close()
            raise
        self._idle.put(db)
        return found

    def _taken(self) -> Session:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self.connect()


def sql_type(column: str) -> str:
    """Of what a column holds."""
    return _SQL_TYPES[type_of(column)]


def _events(db: Session, ids: set[str]) -> dict[str, Kept]:
    if not ids:
        return {}
    query = f"select seq, {', '.join(names_of('events'))} from events where event_id in ({', '.join('?' * len(ids))})"
    found = db.execute(query, sorted(ids)).fetchall()
    return {row[1]: Kept(row[0], Event(*row[1:]), False) for row in found}
