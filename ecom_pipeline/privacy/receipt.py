"""What was done for a person's privacy, as a file that names nobody.

On the floor of `privacy`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done, and what was looked at afterwards.

    Attributes:
        done: "forget", "check" or "rotate-key".
        who: tombstone of the person; empty where it was everybody.
        rows: that went or were changed, by relation, file or kind.
        n_files_searched: of the home.
        n_bytes_searched: of them.
        n_bytes_opened: of what is compressed in them, opened and searched too.
        raw_id: how the shop's id was looked for.
        found: how often he is still named, by place; empty is the proof, if nothing is unopened.
        unopened: files that are searched as bytes alone, as what is compressed in them cannot be opened, and why.
        remaining: what is still to be done, in words.
        at: UTC, ISO 8601.
    """

    done: str
    who: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    n_files_searched: int = 0
    n_bytes_searched: int = 0
    n_bytes_opened: int = 0
    raw_id: str = ""
    found: Mapping[str, int] = field(default_factory=dict)
    unopened: Mapping[str, str] = field(default_factory=dict)
    remaining: tuple[str, ...] = ()
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))

    def write(self, folder: Path) -> Path:
        """Write it to a file of its own, for the owner alone, and return that."""
        folder.mkdir(exist_ok=True)
        file = folder / f"{self.at.replace(':', '').replace('+0000', 'Z')}-{self.done}.json"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            json.dump(asdict(self), opened, indent=1)
            opened.flush()
            os.fsync(opened.fileno())
        return file

    def lines(self) -> list[str]:
        """The same for people."""
        shown = [f"{self.done} at {self.at}" + (f", of {self.who}" if self.who else "")]
        shown += [f"  {n:>10,}  {place}" for place, n in self.rows.items()] if self.rows else ["  nothing was changed"]
        if self.n_files_searched:
            opened = f" and {self.n_bytes_opened:,} of what is compressed" if self.n_bytes_opened else ""
            shown.append(f"searched: {self.n_bytes_searched:,} bytes of {self.n_files_searched:,} files{opened}")
            shown.append(f"the shop's id: {self.raw_id}")
            shown += [f"  FOUND {n:,} times: {place}" for place, n in self.found.items()] or ["  found nowhere"]
            shown += [f"  NOT OPENED: {place}: {why}" for place, why in self.unopened.items()]
        return [*shown, *(f"remaining: {one}" for one in self.remaining)]
