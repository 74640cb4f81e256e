"""What serves now, and how another model takes its place while requests run.

On the floor of `service`.
"""

import asyncio
import logging
import threading
from datetime import datetime
from pathlib import Path

from ecom_pipeline.errors import JournalError, PipelineError, PublicationError
from ecom_pipeline.service import folders
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.rows import Event, Kept
from ecom_pipeline.service.live import Clock, Live
from ecom_pipeline.service.measures import stage
from ecom_pipeline.service.published import PublishedModel

log = logging.getLogger(__name__)


class Serving:
    """Holds one model; a request takes it once, and so is answered by one model from its beginning to its end."""

    def __init__(self, published: Path, journal: Journal) -> None:
        """Load the model that is to serve.

        Raises:
            PublicationError: if there is none, or none that is whole.
        """
        self.published, self.journal = published, journal
        self.refused: str = ""  # why the latest publication does not serve
        self.n_swaps = 0
        self._refused: dict = {}  # the pointer to it
        self._live = self._load()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def live(self) -> Live:
        """The model that serves, knowing every event that was acknowledged, by this process or another."""
        live = self._live
        live.catch_up(self.journal)
        return live

    @property
    def last_known(self) -> Live:
        """The model that serves, as it is where the journal cannot be asked."""
        return self._live

    @property
    def model(self) -> PublishedModel:
        """The model that serves."""
        return self._live.model

    @property
    def clock(self) -> Clock:
        """The shop's time."""
        return self._live.clock

    @property
    def rated(self) -> dict[str, float]:
        """The grade of each sample that a rater answered; of several answers the last."""
        return {one.sample_id: one.relevance for one in self.journal.ratings()}

    async def keep(self, events: list[Event]) -> list[Kept]:
        """Keep events for certain; whoever takes `live` from then on, in any process, knows of them."""
        with stage("disk"):
            return await asyncio.wrap_future(self.journal.submit(events))

    def refresh(self) -> bool:
        """Take the latest publication if it is another and whole; whether it serves now."""
        try:
            latest = folders.pointer(self.published)
            if latest["name"] == self._live.model.name:
                self.refused, self._refused = "", {}
            if latest["name"] == self._live.model.name or latest == self._refused:
                return False
            fresh = self._load()
        except JournalError as error:
            log.error("another publication waits until the journal can be read: %s", error)
            return False
        except PipelineError as error:
            self._refuse(str(error))
            return False
        except Exception as error:
            log.exception("a publication cannot be loaded")
            self._refuse(f"{type(error).__name__}: {error}")
            return False
        self._live, self.refused, self._refused = fresh, "", {}
        self.n_swaps += 1
        log.info("model %s serves", fresh.model.name)
        return True

    def watch(self, seconds: float) -> None:
        """Look for another publication, again and again, in a thread of its own."""

        def look() -> None:
            while not self._stop.wait(seconds):
                self.refresh()

        self._watcher = threading.Thread(target=look, name="publications", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop watching, and write what waits."""
        self._stop.set()
        if self._watcher:
            self._watcher.join()
        self.journal.close()

    def _refuse(self, why: str) -> None:
        try:
            self._refused = folders.pointer(self.published)
        except PublicationError:
            self._refused = {}
        if why != self.refused:
            log.error("the latest publication does not serve: %s", why)
        self.refused = why

    def _load(self) -> Live:
        told = folders.pointer(self.published)
        model = PublishedModel.read(self.published / told["name"])
        self.journal.database.go_on_after("events", model.told["journal"])
        live = Live(model, datetime.fromisoformat(told["published_at"]))
        live.catch_up(self.journal)
        return live
