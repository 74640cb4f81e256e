"""The journal: what users did, raters said and experiments applied to, on the disk for certain before anybody is told so.

On the floor of `service`. SQLite with a write-ahead log, synchronous, one writer at a time. Events that come at once share a
commit. People are in it as keyed hashes only. Sealed files of it are a source of the next refresh.
"""

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecom_pipeline import identity
from ecom_pipeline.errors import JournalError

FILE = "journal.sqlite"
_BATCH = 500  # rows of a commit, at most
_PATIENCE = 10.0  # seconds that another writer is waited for


@dataclass(frozen=True, slots=True)
class Event:
    """What a user did.

    Attributes:
        event_id: an event that comes again under its id is the same event.
        occurred_at: UTC, ISO 8601.
        user_id: keyed hash; None: nobody is known.
        session_id: keyed hash.
        action: one of `schema.ACTIONS`.
        item_id: in the catalogue.
        query: that the item was found with.
        position: rank at which it was shown.
        propensity: with which it was shown.
        rating: of a review, in stars.
        quantity: pieces.
        price: of a piece.
    """

    event_id: str
    occurred_at: str
    user_id: str | None
    session_id: str | None
    action: str
    item_id: str
    query: str | None = None
    position: int | None = None
    propensity: float | None = None
    rating: float | None = None
    quantity: float | None = None
    price: float | None = None

    @property
    def actor(self) -> str:
        """Who acted, as `identity.actor` has it."""
        return self.user_id or identity.actors_of(str(self.session_id))[1]


@dataclass(frozen=True, slots=True)
class Rating:
    """What a rater said of a sample: a judgment of its own source.

    Attributes:
        rating_id: unique.
        sample_id: that was shown.
        query: of the sample.
        item_id: of the sample.
        relevance: the grade.
        rater: keyed hash of a name.
        rated_at: UTC, ISO 8601.
    """

    rating_id: str
    sample_id: str
    query: str
    item_id: str
    relevance: float
    rater: str
    rated_at: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """That an arm of an experiment was applied to somebody, for the first time.

    Attributes:
        exposure_id: the same for one unit and arm of an experiment.
        experiment: its name.
        arm: that was applied.
        user_id: keyed hash; None: nobody is known.
        session_id: keyed hash.
        exposed_at: UTC, ISO 8601.
    """

    exposure_id: str
    experiment: str
    arm: str
    user_id: str | None
    session_id: str | None
    exposed_at: str


Row = Event | Rating | Exposure
TABLES: dict[str, type] = {"events": Event, "ratings": Rating, "exposures": Exposure}
_TIMES = ("rated_at", "exposed_at")  # kept as texts, sealed as instants
_TYPES = {
    "position": pa.int64(),
    **dict.fromkeys(("propensity", "rating", "quantity", "price", "relevance"), pa.float64()),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """An event that is on the disk.

    Attributes:
        seq: place in the journal.
        event: as it was kept first.
        new: whether it came for the first time.
    """

    seq: int
    event: Event
    new: bool


class Journal:
    """Appends, and reads what was appended; safe for several threads, and for several processes on one machine."""

    def __init__(self, folder: Path) -> None:
        """Open, or begin, the journal of a folder.

        Raises:
            JournalError: if it cannot be opened.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._file = folder, folder / FILE
        self._queue: queue.SimpleQueue[tuple[Sequence[Row], Future] | None] = queue.SimpleQueue()
        try:
            with closing(self._connect()) as db:
                _make_tables(db)
        except sqlite3.Error as error:
            raise _broken(self._file, error) from error
        for table in TABLES:
            self.go_on_after(table, sealed_until(folder, table))
        self._reading = threading.local()
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def go_on_after(self, table: str, seq: int) -> None:
        """Give no row of a table a place up to one that is known to be taken, as after the database was lost or restored.

        Raises:
            JournalError: if that cannot be written.
        """
        with alone(self._file) as db:
            (last,) = db.execute("select coalesce(max(seq), 0) from sqlite_sequence where name = ?", [table]).fetchone()
            if last < seq:
                db.execute("delete from sqlite_sequence where name = ?", [table])
                db.execute("insert into sqlite_sequence (name, seq) values (?, ?)", [table, seq])

    def submit(self, rows: Sequence[Row]) -> Future:
        """As `append` or `rate`, for whoever has other things to do until then."""
        waiting: Future = Future()
        waiting.set_running_or_notify_cancel()  # who gives up waiting cancels nothing: the writer would die of telling him
        self._queue.put((rows, waiting))
        return waiting

    def append(self, rows: Sequence[Event]) -> list[Kept]:
        """Keep events, and return when they are on the disk; one whose id is there already is returned as it is there.

        Raises:
            JournalError: if they could not be kept; then none of them is.

        Cost: one commit with an fsync, shared with others that wait at the same time.
        """
        return self.submit(rows).result()

    def rate(self, rows: Sequence[Rating]) -> None:
        """Keep ratings, as `append` keeps events."""
        self.submit(rows).result()

    def expose(self, rows: Sequence[Exposure]) -> None:
        """Keep exposures likewise; one that is there already stays as it is."""
        self.submit(rows).result()

    def exposures(self) -> set[str]:
        """Ids of all exposures."""
        return {exposure_id for (exposure_id,) in self._read("select exposure_id from exposures")}

    def after(self, seq: int) -> list[Kept]:
        """Events behind a place, in their order."""
        names = ", ".join(field.name for field in fields(Event))
        rows = self._read(f"select seq, {names} from events where seq > ? order by seq", seq)
        return [Kept(row[0], Event(*row[1:]), True) for row in rows]

    def last(self) -> int:
        """The last place; 0 where nothing was kept."""
        return self._read("select coalesce(max(seq), 0) from events")[0][0]

    def ratings(self) -> list[Rating]:
        """All of them, in their order."""
        names = ", ".join(field.name for field in fields(Rating))
        return [Rating(*row) for row in self._read(f"select {names} from ratings order by seq")]

    def take_back(self, rating_id: str) -> bool:
        """Undo a rating that no file was sealed with; whether there was one.

        Raises:
            JournalError: if the journal cannot be written.
        """
        with alone(self._file) as db:
            sealed = sealed_until(self.folder, "ratings")
            found = db.execute("delete from ratings where rating_id = ? and seq > ?", [rating_id, sealed])
            return found.rowcount > 0

    def close(self) -> None:
        """Write what waits, and stop."""
        self._queue.put(None)
        self._writer.join()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file, timeout=_PATIENCE, isolation_level=None)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        return db

    def _read(self, query: str, *values: object) -> list[tuple]:
        try:
            if not hasattr(self._reading, "db"):
                self._reading.db = self._connect()
            return self._reading.db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _broken(self._file, error) from error

    def _write(self) -> None:
        with closing(self._connect()) as db:
            while (first := self._queue.get()) is not None:
                batch, stop = [first], False
                while sum(len(rows) for rows, _ in batch) < _BATCH:
                    try:
                        following = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        stop = True
                        break
                    batch.append(following)
                self._commit(db, batch)
                if stop:
                    break

    def _commit(self, db: sqlite3.Connection, batch: list[tuple[Sequence[Row], Future]]) -> None:
        """All of a batch in one transaction; only then is anybody told."""
        try:
            db.execute("begin immediate")
            found = [[_put(db, row) for row in rows] for rows, _ in batch]
            db.execute("commit")
        except (
            sqlite3.Error,
            ArithmeticError,
            ValueError,
            TypeError,
        ) as error:  # somebody waits, and others come after
            with suppress(sqlite3.Error):
                db.execute("rollback")
            for _, waiting in batch:
                waiting.set_exception(_broken(self._file, error))
            return
        for kept, (_, waiting) in zip(found, batch, strict=True):
            waiting.set_result(kept)


def _make_tables(db: sqlite3.Connection) -> None:
    """Those that are missing, as in a journal that an older version began."""
    for table, kind in TABLES.items():
        names = [field.name for field in fields(kind)]
        db.execute(
            f"create table if not exists {table} (seq integer primary key autoincrement, {', '.join(names)}, unique ({names[0]}))"
        )


def _put(db: sqlite3.Connection, row: Row) -> Kept | None:
    table = next(name for name, kind in TABLES.items() if isinstance(row, kind))
    names = [field.name for field in fields(row)]
    marks = ", ".join("?" * len(names))
    done = db.execute(f"insert or ignore into {table} ({', '.join(names)}) values ({marks})", astuple(row))
    if not isinstance(row, Event):
        return None
    if done.rowcount:
        return Kept(done.lastrowid or 0, row, True)
    was = db.execute(f"select seq, {', '.join(names)} from events where event_id = ?", [row.event_id]).fetchone()
    return Kept(was[0], Event(*was[1:]), False)


def seal(folder: Path) -> list[Path]:
    """Write what was kept since the last sealing to files that never change: a source's files, each row in one of them.

    Files are named by the places they hold, so what is sealed is what the names say: a kill at any place loses nothing and
    doubles nothing.

    Args:
        folder: of the journal; nothing is done where there is none.

    Returns:
        The new files, each `<table>-<first>-<last>.parquet`.

    Raises:
        JournalError: if the journal cannot be read.
    """
    if not (folder / FILE).is_file():
        return []
    return [file for table in TABLES if (file := _seal(folder, table))]


def sealed_files(folder: Path, table: str) -> list[Path]:
    """Files of a table, in the order of what they hold."""
    return sorted(folder.glob(f"{table}-*-*.parquet"))


def sealed_until(folder: Path, table: str) -> int:
    """The last place of a table that a file holds."""
    return max((int(file.stem.split("-")[2]) for file in sealed_files(folder, table)), default=0)


def n_unsealed(folder: Path, table: str) -> int:
    """Rows that no file holds yet; asks nothing of a journal that was never begun."""
    if not (folder / FILE).is_file():
        return 0
    try:
        with closing(sqlite3.connect(folder / FILE, timeout=_PATIENCE)) as db:
            _make_tables(db)
            return db.execute(f"select count(*) from {table} where seq > ?", [sealed_until(folder, table)]).fetchone()[
                0
            ]
    except sqlite3.Error as error:
        raise _broken(folder / FILE, error) from error


@contextmanager
def alone(file: Path) -> Iterator[sqlite3.Connection]:
    """One transaction in which nobody else writes or seals."""
    try:
        with closing(sqlite3.connect(file, timeout=_PATIENCE, isolation_level=None)) as db:
            db.execute("pragma synchronous = full")
            db.execute("begin immediate")
            _make_tables(db)
            yield db
            db.execute("commit")
    except sqlite3.Error as error:
        raise _broken(file, error) from error


def _seal(folder: Path, table: str) -> Path | None:
    names = [field.name for field in fields(TABLES[table])]
    with alone(folder / FILE) as db:
        query = f"select seq, {', '.join(names)} from {table} where seq > ? order by seq"
        rows = db.execute(query, [sealed_until(folder, table)]).fetchall()
        drop_unfinished(folder)
        return _written(folder, table, rows) if rows else None


def drop_unfinished(folder: Path) -> None:
    """Delete what a kill left of files that were being written; call it `alone`, as then nobody writes any."""
    for part in folder.glob("*.part"):
        part.unlink()


def _written(folder: Path, table: str, rows: Sequence[tuple]) -> Path:
    names = [field.name for field in fields(TABLES[table])]
    seq, *columns = zip(*rows, strict=True)
    types = [_TYPES.get(name, pa.string()) for name in names]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    for place in [names.index(name) for name in _TIMES if name in names]:
        arrays[place] = arrays[place].cast(pa.timestamp("us", "UTC"))
    file = folder / f"{table}-{seq[0]:012}-{seq[-1]:012}.parquet"
    part = file.with_suffix(f".{time.time_ns()}.part")
    pq.write_table(pa.table(arrays, names=names), part)
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    part.replace(file)
    return file


def _broken(file: Path, error: Exception) -> JournalError:
    return JournalError(
        f"journal: 1 file cannot be used: {str(file)!r}: {error}. It must be a journal that this process may write to, on a "
        "disk with room: free the disk or mend its rights; what was acknowledged before is in it."
    )
