"""One process at a time works in a home; the lock goes with the process, however that ends."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ecom_pipeline.errors import HomeError
from resources.exchange import finish
from resources.private import keep_private

_LOCK, _SERVED = "run.lock", "serve.lock"


@contextmanager
def one_writer(
    folder: Path, name: str, *, patience_seconds: float = 0, log: logging.Logger | None = None
) -> Iterator[None]:
    """Hold a home: whoever writes there does so in here. A process that holds it may enter again.

    Args:
        folder: the home; made if it is not there, and closed to others at the beginning and at the end.
        name: who holds it, for those that must wait.
        patience_seconds: how long to wait for another process; 0: not at all.
        log: where to say that we wait, and for whom.

    Raises:
        HomeError: if another process holds it for longer.
    """
    keep_private(folder)
    file = folder / _LOCK
    lock = FileLock(file, mode=0o600, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if patience_seconds and log:
            log.info("waiting for %s, which works in %s, for %g s at most", _holder(file), folder, patience_seconds)
        try:
            lock.acquire(timeout=patience_seconds, poll_interval=0.2)
        except Timeout as error:
            waited = f" for longer than {patience_seconds:g} s" if patience_seconds else ""
            raise HomeError(
                f"home: {str(folder)!r} is in use by 1 other {_holder(file)}{waited}. Only one may work in a home: wait "
                "for it, end it, or choose another --home."
            ) from error
    try:
        if lock.lock_counter == 1:
            file.write_text(f"{os.getpid()}\n{name}")
            finish(folder)
        yield
    finally:
        keep_private(folder)
        lock.release()


@contextmanager
def served(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Be one of the services that answer out of a home, or keep all of them away.

    Args:
        folder: the home.
        alone: whether no service may answer meanwhile.

    Raises:
        HomeError: if one does, or if services are kept away.
    """
    keep_private(folder)
    with (folder / _SERVED).open("w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            who = "1 service or more answers out of it" if alone else "1 process changes its keys"
            raise HomeError(
                f"home: {str(folder)!r} is in use: {who}. Services and a change of keys must not meet, as each "
                f"hashes people with its own: {'stop `ecom serve`' if alone else 'wait'}, and try again."
            ) from error
        yield


def _holder(file: Path) -> str:
    """Who wrote itself down when it took the lock."""
    pid, _, name = file.read_text().partition("\n")
    return f"{name or 'process'}, PID {pid or 'unknown'}"
