"""Experiments that run in the service: who gets which system, and that it is on the disk before he sees it.

On the floor of `service`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock

from ecom_pipeline import identity
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments.plan import Arm, Experiment, Place, System, read_experiments
from ecom_pipeline.files import stamp
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.rows import Exposure

log = logging.getLogger(__name__)
HEADER = "X-Experiment"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an answer is made with.

    Attributes:
        system: whose answer; None: as without experiments.
        header: `experiment=arm` of each experiment, parted by `; `; empty where there is none.
    """

    system: System | None = None
    header: str = ""


@dataclass(slots=True)
class Trials:
    """The experiments of a home's file, read again when it changes; a broken file leaves those that ran.

    Attributes:
        file: that says which experiments there are.
        journal: keeps who was exposed to what, once for each unit and arm.
    """

    file: Path
    journal: Journal
    refused: str = ""
    _stamp: str | None = None
    _running: tuple[Experiment, ...] = ()
    _exposed: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def apply(self, changes: Place, actor: str, now: datetime) -> Applied:
        """Who somebody is in the experiments that change a place, today.

        Args:
            changes: lists or search.
            actor: a user's keyed hash, or a session's actor.
            now: the shop's time.

        Raises:
            JournalError: if the exposure cannot be kept: then nothing is shown either.

        Cost: nothing where nobody is in an experiment; at the first time of a unit, a commit.
        """
        kind = "session" if identity.is_session(actor) else "user"
        running = [
            one for one in self._read() if one.changes == changes and one.runs_on(now.date()) and one.unit == kind
        ]
        found = [(one, arm) for one in running if (arm := one.assign(actor))]
        self._expose(found, actor, now)
        systems = [arm.system for _, arm in found if arm.system]
        return Applied(systems[0] if systems else None, "; ".join(f"{one.name}={arm.name}" for one, arm in found))

    def _expose(self, found: Sequence[tuple[Experiment, Arm]], actor: str, now: datetime) -> None:
        new = [
            Exposure(key, one.name, arm.name, *identity.person_of(actor), now.isoformat(timespec="microseconds"))
            for one, arm in found
            if (key := f"{one.name}:{arm.name}:{actor}") not in self._exposed
        ]
        if new:
            self.journal.expose(new)
            with self._lock:
                self._exposed.update(one.exposure_id for one in new)

    def _read(self) -> tuple[Experiment, ...]:
        now = stamp(self.file) if self.file.is_file() else ""
        if now == self._stamp:
            return self._running
        with self._lock:
            self._stamp = now
            try:
                self._running, self.refused = read_experiments(self.file), ""
            except ExperimentError as error:
                self.refused = str(error)
                log.error("experiments stay as they were: %s", error)
            return self._running
