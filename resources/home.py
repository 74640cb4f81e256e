"""The folder under which everything lives, and what it remembers."""

import hashlib
import json
import os
import secrets
from pathlib import Path

import dagster as dg
from pydantic import Field

DAGSTER_YAML = """\
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {pools: {granularity: op, default_limit: 1}, runs: {max_concurrent_runs: 2}}
run_monitoring: {enabled: true, poll_interval_seconds: 30, free_slots_after_run_end_seconds: 60}
python_logs: {managed_python_loggers: [ecom_pipeline], python_log_level: INFO}
"""


class Home(dg.ConfigurableResource):
    """Paths under one folder; the secret for hashing ids; and which source the folder was filled from."""

    path: str = Field(description="Absolute folder; made when first written to.")
    asked_source: str = Field(default="", description="Source asked for now; empty: the one remembered.")
    asked_key: str = Field(default="", description="Secret for hashing ids; empty: the one kept in the folder.")

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

    def prepare(self) -> None:
        """Make the folder, with Dagster's settings in it."""
        self.dagster.mkdir(parents=True, exist_ok=True)
        settings = self.dagster / "dagster.yaml"
        if not settings.exists():
            settings.write_text(DAGSTER_YAML)

    def source(self, default: str) -> str:
        """The source asked for, else the one remembered, else the default."""
        if self.asked_source:
            return self.asked_source
        kept = self.folder / "source.json"
        return json.loads(kept.read_text())["source"] if kept.is_file() else default

    def remember_source(self, source: str) -> None:
        """Keep the source's name, so that the UI and later runs read the same."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "source.json").write_text(json.dumps({"source": source}))

    def hash_key(self) -> bytes:
        """Secret for hashing ids of users, 32 bytes: given, kept, or made once and readable by its owner alone."""
        if self.asked_key:
            return hashlib.sha256(self.asked_key.encode()).digest()
        kept = self.folder / "hash.key"
        if not kept.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            # created with its permissions: there is no moment in which others may read it
            with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        return bytes.fromhex(kept.read_text().strip())
