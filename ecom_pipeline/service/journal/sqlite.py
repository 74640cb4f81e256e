"""The journal in a file of the home: SQLite with a write-ahead log, synchronous, one writer at a time.

On the floor of `service`. For the processes of one machine.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import astuple
from pathlib import Path

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal.database import PATIENCE, Database, Session
from ecom_pipeline.service.journal.rows import TABLES, Row, names_of, of_persons
from ecom_pipeline.service.journal.sealing import last_in_files

FILE = "journal.sqlite"


class SQLite(Database):
    """A file in the folder of the sealed ones; whoever writes locks all of it, so places are of the order of commits."""

    place = "seq integer primary key autoincrement"
    begin_words = "begin immediate"
    failures = (sqlite3.Error,)

    @property
    def file(self) -> Path:
        """The database."""
        return self.folder / FILE

    @property
    def name(self) -> str:
        """As receipts call it."""
        return FILE

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self.file.is_file()

    def connect(self) -> sqlite3.Connection:
        """Open a connection; of several threads one at a time may use it."""
        db = sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        return db

    def begin(self) -> int:
        """Make the file, or tables that it lacks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self.connect()) as db:
                self.make_tables(db)
            with self.transaction() as db:
                for table in TABLES:
                    _go_on_after(db, table, last_in_files(self.folder, table))
        except sqlite3.Error as error:
            raise self.broken(error) from error
        return 0

    def alone(self) -> AbstractContextManager[Session]:
        """A transaction in which nobody else writes or seals."""
        self.begin_once()
        return self.transaction()

    def order_commits(self, db: Session) -> None:
        """Nothing is left to wait for: a transaction that writes has the whole file."""

    def insert(self, db: Session, table: str, rows: Sequence[Row]) -> dict[str, int]:
        """Insert rows one by one, which costs nothing in a file; where they came to be is asked of each."""
        names, fresh = names_of(table), {}
        query = (
            f"insert into {table} ({', '.join(names)}) values ({', '.join('?' * len(names))}) on conflict do nothing"
        )
        for row in rows:
            if db.execute(query, astuple(row)).rowcount:
                ((fresh[astuple(row)[0]],),) = db.execute("select last_insert_rowid()").fetchall()
        return fresh

    def go_on_after(self, table: str, seq: int) -> None:
        """Give no row of a table a place up to one."""
        with self.alone() as db:
            _go_on_after(db, table, seq)

    def compact(self) -> None:
        """Write the file anew, and empty the log beside it."""
        try:
            with closing(self.connect()) as db:
                db.execute("vacuum")
                ((busy, *_),) = db.execute("pragma wal_checkpoint(truncate)").fetchall()
        except sqlite3.Error as error:
            busy, why = 1, str(error)
        else:
            why = "its log is being read"
        if busy:
            raise JournalError(
                f"journal: 1 file cannot be written anew: {str(self.file)!r}: {why}. Nobody may read it for 10 s, or bytes "
                "of deleted rows stay in it: stop `ecom serve` for a moment, and try again."
            )

    def rehash(self, target: Path, change: Callable[[str], str]) -> int:
        """Write a copy with another pseudonym for everybody."""
        copy = SQLite(target)
        # nobody writes until all is copied
        with self.alone(), closing(sqlite3.connect(self.file)) as db, closing(sqlite3.connect(copy.file)) as fresh:
            db.backup(fresh)
        with closing(copy.connect()) as fresh:
            fresh.create_function(
                "rehashed", 1, lambda text: None if text is None else change(text), deterministic=True
            )
            columns = {table: of_persons(table) for table in TABLES}
            n_rows = sum(
                fresh.execute(f"update {table} set {', '.join(f'{one} = rehashed({one})' for one in names)}").rowcount
                for table, names in columns.items()
            )
        copy.compact()
        return n_rows

    def texts(self) -> Iterator[tuple[str, str]]:
        """None: all is in a file of the home."""
        return iter(())

    def check(self) -> None:
        """Raises JournalError if the file cannot be read."""
        self.read("select seq from events limit 1")

    def lost(self, error: Exception) -> bool:
        """Never: there is no connection to a file that could break."""
        return False

    def broken(self, error: Exception) -> JournalError:
        """A failure, with the file's name."""
        return JournalError(
            f"journal: 1 file cannot be used: {str(self.file)!r}: {error}. It must be a journal that this process may write "
            "to, on a disk with room: free the disk or mend its rights; what was acknowledged before is in it."
        )


def _go_on_after(db: Session, table: str, seq: int) -> None:
    ((last,),) = db.execute("select coalesce(max(seq), 0) from sqlite_sequence where name = ?", [table]).fetchall()
    if last < seq:
        db.execute("delete from sqlite_sequence where name = ?", [table])
        db.execute("insert into sqlite_sequence (name, seq) values (?, ?)", [table, seq])
