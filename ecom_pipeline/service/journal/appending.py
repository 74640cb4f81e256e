"""What is to be kept goes through one thread: what comes at once shares a commit, and is acknowledged after it.

On the floor of `service`.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal.database import Database
from ecom_pipeline.service.journal.rows import Event, Exposure, Kept, Rating, Row, names_of
from ecom_pipeline.service.journal.sealing import sealed_until

_BATCH = 500  # rows of a commit, at most


class Journal:
    """Appends, and reads what was appended; safe for several threads and processes, as its database is."""

    def __init__(self, database: Database) -> None:
        """Open, or begin, a journal.

        Raises:
            JournalError: if it cannot be opened.
        """
        self.database = database
        self._queue: queue.SimpleQueue[tuple[Sequence[Row], Future] | None] = queue.SimpleQueue()
        database.begin_once()
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def submit(self, rows: Sequence[Row]) -> Future:
        """As `append` or `rate`, for whoever has other things to do until then."""
        waiting: Future = Future()
        waiting.set_running_or_notify_cancel()  # who gives up waiting cancels nothing: the writer would die of telling him
        self._queue.put((rows, waiting))
        return waiting

    def append(self, rows: Sequence[Event]) -> list[Kept]:
        """Keep events, and return when they are durable; one whose id is there already is returned as it is there.

        Raises:
            JournalError: if they could not be kept; then none of them is.

        Cost: one commit with an fsync, shared with others that wait at the same time; of a server, three ways there and back.
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
        return {exposure_id for (exposure_id,) in self.database.read("select exposure_id from exposures")}

    def after(self, seq: int) -> list[Kept]:
        """Events behind a place, in their order."""
        names = ", ".join(names_of("events"))
        rows = self.database.read(f"select seq, {names} from events where seq > ? order by seq", seq)
        return [Kept(row[0], Event(*row[1:]), True) for row in rows]

    def last(self) -> int:
        """The last place; 0 where nothing was kept."""
        return self.database.read("select coalesce(max(seq), 0) from events")[0][0]

    def ratings(self) -> list[Rating]:
        """All of them, in their order."""
        names = ", ".join(names_of("ratings"))
        return [Rating(*row) for row in self.database.read(f"select {names} from ratings order by seq")]

    def take_back(self, rating_id: str) -> bool:
        """Undo a rating that no file was sealed with; whether there was one.

        Raises:
            JournalError: if the journal cannot be written.
        """
        with self.database.alone() as db:
            sealed = sealed_until(db, self.database.folder, "ratings")
            found = db.execute("delete from ratings where rating_id = ? and seq > ?", [rating_id, sealed])
            return found.rowcount > 0

    def away(self) -> str:
        """Why nothing can be kept now; nothing where it can."""
        try:
            self.database.check()
        except JournalError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Write what waits, and stop."""
        self._queue.put(None)
        self._writer.join()
        self.database.close()

    def _write(self) -> None:
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
            self._commit(batch)
            if stop:
                break

    def _commit(self, batch: list[tuple[Sequence[Row], Future]]) -> None:
        """All of a batch in one transaction; only then is anybody told."""
        try:
            found = self.database.write([rows for rows, _ in batch])
        except JournalError as error:  # somebody waits, and others come after
            for _, waiting in batch:
                waiting.set_exception(JournalError(str(error)))  # each waits for one of its own
            return
        for kept, (_, waiting) in zip(found, batch, strict=True):
            waiting.set_result(kept)
