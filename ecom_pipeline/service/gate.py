"""Whom the service does not know, and keeps nothing of: people who were forgotten.

On the floor of `service`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from ecom_pipeline.files import stamp
from ecom_pipeline.sources.forgotten import NOBODY, Forgotten, read_forgotten
from ecom_pipeline.sources.people import HashKey


@dataclass(slots=True)
class Gate:
    """The tombstones of a home, read again when their file changes.

    Attributes:
        file: of the tombstones; nobody was forgotten where there is none.
        hash_key: with which ids of people are hashed.
    """

    file: Path
    hash_key: HashKey
    _stamp: str | None = None
    _forgotten: Forgotten = NOBODY
    _lock: Lock = field(default_factory=Lock)

    def is_shut(self, raw: str) -> bool:
        """Whether a raw id of a user or a session is of somebody who was forgotten.

        Raises:
            HomeError: if the file changed and is damaged, or of another key.

        Cost: a look at the file; where anybody was forgotten, a few hashes.
        """
        with self._lock:
            now = stamp(self.file) if self.file.is_file() else ""
            if now != self._stamp:
                self._forgotten, self._stamp = read_forgotten(self.file, self.hash_key), now
        return bool(self._forgotten) and self._forgotten.find(raw, self.hash_key) is not None
