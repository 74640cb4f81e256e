"""One adapter a format; each yields the canonical tables `items`, `events` and `judgments`.

On the floor above `schema`. To add a format, add a file with an `ADAPTER`.
"""

import hashlib
import importlib
import os
import pkgutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import SourceError
from ecom_pipeline.files import stamp
from ecom_pipeline.quoting import literal
from ecom_pipeline.schema import JOURNAL
from ecom_pipeline.sources.forgotten import NOBODY, Forgotten
from ecom_pipeline.sources.landing import Landed, Origin, land
from ecom_pipeline.sources.people import HashKey
from ecom_pipeline.sources.source import Adapter, Part

DEFAULT = "complete-journey"


@dataclass(frozen=True, slots=True)
class Source:
    """An adapter, the folder that it reads, and the journal of the shop's service beside it.

    Attributes:
        adapter: of the folder's format.
        folder: of the user's files, or of a package's.
        journal: folder with what users did and raters said at the service, in files that never change; None: none.
    """

    adapter: Adapter
    folder: Path
    journal: Path | None = None

    def parts(self) -> list[Part]:
        """What the files hold, those of the journal last."""
        return [*self.adapter.parts(self.folder), *(journal_parts(self.journal) if self.journal else [])]

    def fingerprint(self, table: str) -> str:
        """Changes when a file of a table appears, goes, grows or is written again; reads no content."""
        files = {file for part in self.parts() if part.table == table for file in (part.file, *part.also)}
        told = repr((self.adapter.name, sorted((os.path.relpath(file, self.folder), stamp(file)) for file in files)))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def land(
        self,
        db: DuckDBPyConnection,
        table: str,
        *,
        hash_key: HashKey,
        reader: str = "",
        forgotten: Forgotten = NOBODY,
    ) -> Landed:
        """Bring `raw_<table>` up to this source's files; see `landing.land`.

        Args:
            db: a connection inside a transaction.
            table: one of `schema.inputs.COLUMNS`.
            hash_key: secret for ids of people, each key of at most 64 bytes.
            reader: version of the code that reads; files that another version read are read again.
            forgotten: people whose rows are left out.
        """
        origin = Origin(f"{self.adapter.name}:{self.folder}", self.folder, reader, hash_key, forgotten)
        return land(db, table, self.parts(), origin, datetime.now(UTC).replace(tzinfo=None))


def journal_parts(folder: Path) -> list[Part]:
    """What a service has kept: events, raters' answers as judgments, and exposures."""
    tables = {"events": "events", "ratings": "judgments", "exposures": "exposures"}
    return [
        Part(table, file, partial(_read_parquet, file), name=f"{JOURNAL}{file.name}", hashed=True)
        for kept, table in tables.items()
        for file in sorted(folder.glob(f"{kept}-*-*.parquet"))
    ]


def _read_parquet(file: Path, _: DuckDBPyConnection) -> str:
    return f"select * from read_parquet({literal(str(file))})"


def adapters() -> dict[str, Adapter]:
    """Every adapter in this folder, by name; the canonical format last, as it asks the least of a folder."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found = [module.ADAPTER for module in modules if hasattr(module, "ADAPTER")]
    return {adapter.name: adapter for adapter in sorted(found, key=lambda a: (a.name == "canonical", a.name))}


def find(source: str) -> Source:
    """The source that a user means by the name of a packaged one, a folder, or NAME:FOLDER.

    Raises:
        SourceError: if there is no such source, or no adapter recognises the folder.
    """
    known = adapters()
    name, _, rest = source.partition(":")
    if source in known and (default := known[source].folder):
        return Source(known[source], default())
    if name in known and rest:
        return Source(known[name], _folder(rest))
    folder = _folder(source)
    for adapter in known.values():
        if adapter.recognises(folder):
            return Source(adapter, folder)
    found = sorted(path.name for path in folder.iterdir())
    raise SourceError(
        f"source: {source!r} holds {len(found)} files that no adapter recognises; first: {(found or ['nothing'])[0]!r}."
        f" A folder must be in one of the formats {', '.join(known)}; the canonical one has items.parquet or items.csv"
        " beside events or judgments. Rename the files, or say NAME:FOLDER."
    )


def _folder(text: str) -> Path:
    folder = Path(text).expanduser().resolve()
    if not folder.is_dir():
        packaged = ", ".join(name for name, adapter in adapters().items() if adapter.folder)
        raise SourceError(
            f"source: 1 folder is missing: {text!r}. A source is a folder, or the name of a packaged one ({packaged}): "
            "check the path."
        )
    return folder
