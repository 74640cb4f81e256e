"""The folder under which everything lives, and what it remembers."""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from duckdb import DuckDBPyConnection
from pydantic import Field

from ecom_pipeline.errors import HomeError, InputError
from resources.exchange import require_none
from resources.keyring import unlock
from resources.private import keep_private, secret
from resources.warehouse import Warehouse

DAGSTER_YAML = """\
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {pools: {granularity: op, default_limit: 1}, runs: {max_concurrent_runs: 1}}
run_monitoring: {enabled: true, poll_interval_seconds: 30, free_slots_after_run_end_seconds: 60}
python_logs: {managed_python_loggers: [ecom_pipeline], python_log_level: INFO}
"""


class Home(dg.ConfigurableResource):
    """Paths under one folder; the secret for hashing ids; and which source the folder was filled from."""

    path: str = Field(description="Absolute folder; made when first written to.")
    asked_source: str = Field(default="", description="Source asked for now; empty: the one remembered.")

    @property
    def asked_key(self) -> str:
        """Secret for hashing ids that was asked for, or nothing; a field would stand in Dagster's history.

        Raises:
            InputError: if it is blank, as a deployment whose secret is missing may make it.
        """
        return secret("ECOM_HASH_KEY")

    @property
    def new_key(self) -> bytes:
        """Secret that ids are to be hashed with from now on, 32 bytes.

        Raises:
            InputError: if none is asked for, or it is blank.
        """
        asked = secret("ECOM_HASH_KEY_NEW")
        if not asked:
            raise InputError(
                "ECOM_HASH_KEY_NEW: 1 key is missing. It must hold the new secret, which stands on no command line: set it in "
                "the environment."
            )
        return hashlib.sha256(asked.encode()).digest()

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return Path(self.path)

    @property
    def models(self) -> Path:
        """Trained models, one folder each."""
        return self.folder / "models"

    @property
    def rankers(self) -> Path:
        """Rankers of the whole catalogue, one folder each."""
        return self.folder / "rankers"

    @property
    def encoders(self) -> Path:
        """Language models in use, one folder each."""
        return self.folder / "encoders"

    @property
    def frozen(self) -> Path:
        """What frozen layers gave for texts; can be deleted at any time."""
        return self.folder / "frozen"

    @property
    def graphs(self) -> Path:
        """Graphs by which near texts are found in large catalogues, one folder each; can be deleted at any time."""
        return self.folder / "graphs"

    @property
    def published(self) -> Path:
        """Models that a service loads, the latest three, and which of them is to serve."""
        return self.folder / "published"

    @property
    def journal(self) -> Path:
        """What users did and raters said since: a refresh seals files of it here, and without a server the service keeps it here."""
        return self.folder / "journal"

    @property
    def journal_connection(self) -> str:
        """How the Postgres is reached in which the journal is, or nothing; a field would stand in Dagster's history.

        Raises:
            InputError: if it is blank, as a deployment whose secret is missing may make it.
        """
        return secret("ECOM_JOURNAL")

    @property
    def key_file(self) -> Path:
        """Hashes of the service's API keys."""
        return self.folder / "keys.json"

    @property
    def experiments(self) -> Path:
        """The file that says which experiments there are; absent where there are none."""
        return self.folder / "experiments.yaml"

    @property
    def forgotten(self) -> Path:
        """The file that says, as keyed hashes, who was forgotten; absent where nobody was."""
        return self.folder / "forgotten.json"

    @property
    def chain(self) -> Path:
        """Earlier keys, locked with the newest; absent where the key was never changed."""
        return self.folder / "hash.chain"

    @property
    def receipts(self) -> Path:
        """What was done for people's privacy: a file each time."""
        return self.folder / "receipts"

    @property
    def report(self) -> Path:
        """The latest report."""
        return self.folder / "reports" / "report.html"

    @property
    def leaderboard(self) -> Path:
        """The latest benchmark of the estimators."""
        return self.folder / "reports" / "benchmark.html"

    @property
    def dagster(self) -> Path:
        """Dagster's own storage."""
        return self.folder / "dagster"

    @property
    def n_bytes(self) -> int:
        """Of all its files; links are not followed.

        Cost: a look at each file's entry.
        """
        return size_of(self.folder)

    def prepare(self) -> None:
        """Make the folder, for its owner alone, with Dagster's settings in it.

        Raises:
            HomeError: as `keep_private`.
        """
        keep_private(self.folder)
        self.dagster.mkdir(exist_ok=True)
        settings = self.dagster / "dagster.yaml"
        if not settings.exists():
            settings.write_text(DAGSTER_YAML)

    def source(self, default: str) -> str:
        """The source asked for, else the one remembered, else the default.

        Raises:
            HomeError: if what is remembered cannot be read.
        """
        return self.asked_source or self._remembered() or default

    @contextmanager
    def landing(self, warehouse: Warehouse, default: str) -> Iterator[DuckDBPyConnection]:
        """A transaction in which a table of the source lands.

        The source is remembered before, so that after a kill at any place the next run goes on with it; after an error
        the one before it is remembered again, whose tables are still there.

        Args:
            warehouse: of this home.
            default: what `source` takes where none is asked for or remembered.

        Raises:
            HomeError: if none is asked for or remembered, and tables of some source are there.
        """
        before, source = self._remembered(), self.source(default)
        if not before and not self.asked_source:
            self._refuse_another(warehouse, default)
        self._remember(source)
        try:
            with warehouse.transaction() as db:
                yield db
        except BaseException:
            self._remember(before)
            raise

    def hash_key(self) -> bytes | tuple[bytes, ...]:
        """Secret for hashing ids of users, 32 bytes: given, kept, or made once and readable by its owner alone.

        Where the key was changed, all keys in their order.

        Raises:
            HomeError: if the one that is kept is damaged; if the key was changed, and what is given is not the new one, or
                the change was broken off.
        """
        require_none(self.folder)
        if self.asked_key:
            newest = hashlib.sha256(self.asked_key.encode()).digest()
            return (*unlock(self.chain, newest), newest) if self.chain.is_file() else newest
        if self.chain.is_file():
            raise HomeError(
                f"hash.chain: 1 key is missing: the key of {str(self.folder)!r} was changed. ECOM_HASH_KEY must be what "
                "ECOM_HASH_KEY_NEW was then: set it in the environment."
            )
        kept = self.folder / "hash.key"
        if not kept.is_file():
            keep_private(self.folder)
            with suppress(FileExistsError), _written_aside(kept, secrets.token_hex(32)) as part:
                os.link(part, kept)  # of two that make one at once, the first one's stays
        text = kept.read_text().strip()
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise HomeError(
                f"hash.key: 1 key is damaged: {str(kept)!r} holds {len(text)} characters. It must hold the 64 hexadecimal "
                "digits that people in this home are hashed with: restore the file, or delete it, and the next run "
                "hashes everybody anew with another key."
            )
        return bytes.fromhex(text)

    def prune(self, folder: Path, in_use: Collection[str], *, n_last: int = 3) -> list[str]:
        """Delete what nothing refers to any more, and return the names of what is gone.

        Args:
            folder: such as `models`; a folder each in it.
            in_use: names of those that are referred to; they stay whatever their age.
            n_last: of the others, so many stay, those written to last.
        """
        others = [one for one in folder.glob("*/") if one.name not in in_use]
        old = sorted(others, key=lambda one: one.stat().st_mtime_ns, reverse=True)[n_last:]
        for one in old:
            shutil.rmtree(one)
        return sorted(one.name for one in old)

    def _remembered(self) -> str:
        kept = self.folder / "source.json"
        if not kept.is_file():
            return ""
        try:
            return json.loads(kept.read_text())["source"]
        except (ValueError, LookupError, TypeError) as error:
            raise HomeError(
                f"source.json: 1 file is damaged: {str(kept)!r}: {error}. It must name the source that this home is filled "
                "from: delete it, and say which with --source or ECOM_SOURCE."
            ) from error

    def _remember(self, source: str) -> None:
        kept = self.folder / "source.json"
        if not source:
            kept.unlink(missing_ok=True)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with _written_aside(kept, json.dumps({"source": source})) as part:
            os.replace(part, kept)

    def _refuse_another(self, warehouse: Warehouse, default: str) -> None:
        with warehouse.connect() as db:
            names = """select table_name from duckdb_tables()
                where database_name = current_database() and starts_with(table_name, 'raw_')"""
            tables = [name for (name,) in db.execute(names).fetchall()]
            filled = [name for name in tables if db.execute(f"from {name} limit 1").fetchall()]
        if filled:
            raise HomeError(
                f"home: {len(filled)} tables are filled from a source that is not remembered; first: {filled[0]!r} in "
                f"{str(self.folder)!r}. A home must be told once where its data come from, and {default!r} would replace "
                "them: say which with --source or ECOM_SOURCE."
            )


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; links are not followed."""
    total = 0
    for entry in folder.rglob("*"):
        with suppress(FileNotFoundError):  # databases come and go beside their journals
            found = entry.lstat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


@contextmanager
def _written_aside(file: Path, text: str) -> Iterator[Path]:
    """A file beside another, for its owner alone and on the disk for certain, to be put in its place at once."""
    number, name = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with os.fdopen(number, "w") as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
