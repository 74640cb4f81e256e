"""A checkpoint that a kill cannot tear: what DuckDB writes over itself is kept beside the file until all is on the disk.

DuckDB 1.5 writes what is new into free blocks and then one of two headers, but blocks of its catalogue that are free in part it
writes over themselves, and of a block that is half written nothing can be read. So those are copied before. Where the headers are
those of the copy, the checkpoint did not come to its end: whoever opens the file next puts the copy back, and the log still has
what was committed since.
"""

import fcntl
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import duckdb

log = logging.getLogger(__name__)
BY_US_ALONE = {"checkpoint_threshold": "1TB"}  # with this, and a pragma, DuckDB begins none itself
_DAMAGE = ("Corrupt database file", "Computed AES tag differs")  # how DuckDB tells of it, without a key and with one
_N_HEADER_BYTES = 3 * 4096  # one for good, and two of which that of the later checkpoint holds; blocks follow


@dataclass
class _Use:
    """What this process has of a file: connections, descriptors beside theirs, and a lock for whoever opens or closes one."""

    gate: threading.Lock = field(default_factory=threading.Lock)
    n_open: int = 0
    descriptors: set[int] = field(default_factory=set)


_USES: dict[str, _Use] = {}


class _State(Enum):
    WHOLE = auto()
    CHANGED = auto()  # headers are not those of the copy: the checkpoint came to its end, or one of them is torn
    HELD = auto()  # by another process, whose copy that is


@contextmanager
def opened(path: str, connect: Callable[[], duckdb.DuckDBPyConnection]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a file; the last of this process to be closed writes into the file what is in the log.

    Args:
        path: of the file.
        connect: opens it by `attempt`, as often as it likes.

    Raises:
        duckdb.Error: if the checkpoint fails: what was committed is in the log then, and the next one has it.
        OSError: if there is no room for the copy.

    Cost: each time that something was written, a copy of the blocks of the catalogue and three waits for the disk.
    """
    use = _USES.setdefault(path, _Use())
    with use.gate:
        db = connect()
        use.n_open += 1
    try:
        yield db
    except BaseException:
        with suppress(duckdb.Error, OSError):  # what went wrong first is to be told
            _close(db, path, use)
        raise
    _close(db, path, use)


def attempt(path: str, connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
    """Open a file, in which a checkpoint may have been broken off; within what `opened` calls.

    Args:
        path: of the file.
        connect: opens it under the settings `BY_US_ALONE`.

    Raises:
        duckdb.Error: if it cannot be opened.
    """
    if _USES[path].n_open:
        return connect()
    state = _look(path)
    try:
        db = connect()
    except duckdb.Error as error:
        # a log that is gone went after the headers were written
        if not (state is _State.CHANGED and is_damage(error) and has_log(path)):
            raise
        if _look(path, is_torn=True) is not _State.WHOLE:
            raise
        state, db = _State.WHOLE, connect()
    db.execute("pragma disable_checkpoint_on_shutdown")
    if state is _State.HELD:  # the other process is gone since, and what it has left was not looked at
        db.close()
        return attempt(path, connect)
    if state is _State.CHANGED:
        _drop(path)
    return db


def is_damage(error: duckdb.Error) -> bool:
    """Whether an error says that bytes of a file are not those that were written."""
    return any(sign in str(error) for sign in _DAMAGE)


def has_log(path: str) -> bool:
    """Whether anything was committed that is not in the file itself."""
    written = Path(f"{path}.wal")
    return written.is_file() and written.stat().st_size > 0


def _close(db: duckdb.DuckDBPyConnection, path: str, use: _Use) -> None:
    with use.gate:
        use.n_open -= 1
        try:
            if not use.n_open and has_log(path) and not _undo(path).exists():
                with suppress(duckdb.Error):
                    db.rollback()  # what was begun and broken off
                _keep_aside(db, path)
                db.execute("checkpoint")
                _drop(path)
        finally:
            db.close()
            _close_unless_shared(use)


def _keep_aside(db: duckdb.DuckDBPyConnection, path: str) -> None:
    """Copy what the next checkpoint may write over."""
    of_file = "from pragma_database_size() where database_name = current_database()"
    ((size,),) = db.execute(f"select block_size {of_file}").fetchall()
    blocks = db.execute("select block_id from pragma_metadata_info()").fetchall()
    spans = {0: _N_HEADER_BYTES} | {_N_HEADER_BYTES + block * size: size for (block,) in blocks}
    with _file(path) as descriptor:
        _write_undo(path, {at: os.pread(descriptor, n_bytes, at) for at, n_bytes in spans.items()})


def _look(path: str, *, is_torn: bool = False) -> _State:
    """What a file is that nobody here has open; a checkpoint that was broken off is undone.

    Args:
        path: of the file.
        is_torn: whether it cannot be opened: then other headers say that one of them is torn.
    """
    if not _undo(path).is_file():
        return _State.WHOLE
    if not Path(path).is_file():  # it was moved away
        _drop(path)
        return _State.WHOLE
    with _file(path) as descriptor:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # as systems tell of a lock
            return _State.HELD
        before = _read_undo(path)
        if before and not is_torn and os.pread(descriptor, _N_HEADER_BYTES, 0) != before[0]:
            return _State.CHANGED
        for at, written in before.items():
            os.pwrite(descriptor, written, at)
        os.fsync(descriptor)
        _drop(path)
    if before:
        log.warning(
            "warehouse: 1 checkpoint of %r was broken off; %d blocks are put back as they were before it. Nothing is lost, as what "
            "was committed since is in the log; nothing is to be done",
            *(path, len(before) - 1),
        )
    return _State.WHOLE


def _write_undo(path: str, before: Mapping[int, bytes]) -> None:
    """On the disk for certain, or it can be seen that not all of it is."""
    content = b"".join(before.values())
    spans = json.dumps([[at, len(written)] for at, written in before.items()]).encode()
    with open(_undo(path), "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(b"\n".join((hashlib.sha256(spans + content).hexdigest().encode(), spans, content)))
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path)


def _read_undo(path: str) -> dict[int, bytes]:
    """Bytes by their place; none if not all of them were written, as the checkpoint has not begun then."""
    digest, _, rest = _undo(path).read_bytes().partition(b"\n")
    spans, _, content = rest.partition(b"\n")
    if hashlib.sha256(spans + content).hexdigest().encode() != digest:
        return {}
    before, start = {}, 0
    for at, n_bytes in json.loads(spans):
        before[at] = content[start : start + n_bytes]
        start += n_bytes
    return before


def _drop(path: str) -> None:
    _undo(path).unlink(missing_ok=True)
    _sync_folder(path)  # or after a loss of power it would be there again, beside a later file


def _undo(path: str) -> Path:
    return Path(f"{path}.undo")


def _sync_folder(path: str) -> None:
    descriptor = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _file(path: str) -> Iterator[int]:
    """A descriptor of a file that DuckDB may have open here, and lock: its lock would go with any descriptor that is closed."""
    use = _USES[path]
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    use.descriptors.add(descriptor)
    try:
        yield descriptor
    finally:
        _close_unless_shared(use)


def _close_unless_shared(use: _Use) -> None:
    """Close our own descriptors of a file, unless DuckDB has it open still, as for rows that are streamed."""
    others = {int(name) for name in os.listdir("/dev/fd")} - use.descriptors
    for ours in list(use.descriptors):
        if not any(_is_same_file(ours, other) for other in others):
            os.close(ours)
            use.descriptors.remove(ours)


def _is_same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:  # closed meanwhile
        return False
