"""Histories as they are now: what was published, and what users did since; one more event is one more row.

On the floor of `service`.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock

import numpy as np
import pandas as pd

from ecom_pipeline.recommend.interactions import Visits, day_of
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.recommend.lists import reason_text, reasons
from ecom_pipeline.service.histories import History, with_events
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.rows import Event
from ecom_pipeline.service.measures import stage
from ecom_pipeline.service.published import PublishedModel

RECORDING = timedelta(days=28)  # a model whose day is longer past is of a recording: its days go on from there


@dataclass(frozen=True, slots=True)
class Clock:
    """The shop's time: now, or for a recording as long after its last day as has passed since it was published."""

    lag: timedelta

    @classmethod
    def of(cls, day: int, published_at: datetime) -> "Clock":
        """From a model's day and when it was published."""
        lag = published_at - datetime.combine(day_of(day), datetime.min.time(), UTC)
        return cls(lag if lag > RECORDING else timedelta())

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC) - self.lag


class Live:
    """A published model, and what users did since it was made."""

    def __init__(self, model: PublishedModel, published_at: datetime) -> None:
        self.model, self.published_at = model, published_at
        self.clock = Clock.of(model.told["day"], published_at)
        self.seen_until: int = model.told["journal"]
        self._events: dict[str, list[Event]] = defaultdict(list)
        self._lock = Lock()

    def catch_up(self, journal: Journal) -> None:
        """Know of every event that was acknowledged, by this process or another."""
        with self._lock:
            for kept in journal.after(self.seen_until):
                self._events[kept.event.actor].append(kept.event)
                self.seen_until = kept.seq

    @property
    def n_events(self) -> int:
        """Events that the model knows only from the journal."""
        with self._lock:
            return sum(map(len, self._events.values()))

    def events(self, actor: str) -> list[Event]:
        """What somebody did since, in the order in which it happened."""
        with self._lock:
            return sorted(self._events.get(actor, []), key=lambda event: (event.occurred_at, event.event_id))

    def code(self, actor: str) -> int:
        """Of a user; of one who is not in the model a code that nobody has."""
        return self.model.user.get(actor, self.model.acts.n_users)

    def knows(self, actor: str) -> bool:
        """Whether anything is known of somebody."""
        return actor in self.model.user or bool(self._events.get(actor))

    def history(self, actor: str) -> History:
        """What somebody took, as of now."""
        acts, code = self.model.acts, self.code(actor)
        own = slice(np.searchsorted(acts.user, code), np.searchsorted(acts.user, code, side="right"))
        before = acts.only(np.arange(own.start, own.stop))
        return with_events(before, code, self.events(actor), self.model, self.clock.now())

    def lists(self, actor: str, system: str, rules: ListRules) -> pd.DataFrame:
        """A list for somebody's next visit.

        Args:
            actor: a keyed hash, or a session's actor.
            system: "weighted" or its twin, "unweighted".
            rules: of the list.

        Returns:
            item (code), rank, score, channel, reason. What is popular for those of whom nothing is known, or where too
            little was there to learn from.
        """
        maker = self.model.makers.get(system)
        with stage("history"):
            history = self.history(actor) if maker else None
        if maker is None or history is None or not len(history.acts):
            return self._popular(rules.top)
        code, day = self.code(actor), self.model.told["day"]
        visits = Visits(np.array([code]), np.array([day]))
        with stage("lists"):
            found = maker.lists(history.acts, visits, rules=rules)
        titles = self.model.search.titles
        return found.assign(reason=reasons(found, titles, day))

    def weights(self, actor: str, system: str) -> pd.DataFrame:
        """What each taking of somebody's history weighs, and why: a row an item and day, the latest first.

        Returns:
            item (code), day (a number), n_acts, weight, by_age, times_shown, returned, and counts: whether nobody dismissed it.
        """
        history = self.history(actor)
        acts, day = history.acts, self.model.told["day"]
        maker = self.model.makers.get(system)
        weight = maker.index.weights(acts, np.full(len(acts), day)) if maker else np.ones(len(acts), np.float32)
        aged = maker.index.weighting.by_age(day - acts.day) if maker else np.ones(len(acts), np.float32)
        shown = acts.times_shown(day) if len(acts.shown) else np.zeros(len(acts), np.int64)
        frame = pd.DataFrame(
            {
                "item": acts.item,
                "day": acts.day,
                "n_acts": acts.n_acts.sum(1).astype(int),
                "weight": weight.astype(float),
                "by_age": aged.astype(float),
                "times_shown": shown,
                "returned": acts.returned < day,
                "counts": True,
            }
        )
        out = history.dismissed
        gone = pd.DataFrame({"item": out.item, "day": out.day, "n_acts": out.n_acts.sum(1).astype(int)})
        gone = gone.assign(weight=0.0, by_age=1.0, times_shown=0, returned=False, counts=False)
        parts = [part for part in (frame, gone) if len(part)] or [frame]
        return pd.concat(parts, ignore_index=True).sort_values(
            ["day", "weight", "item"], ascending=[False, False, True]
        )

    def _popular(self, top: int) -> pd.DataFrame:
        found, day = self.model.popular.head(top), self.model.told["day"]
        told = [reason_text("popular", [], n, day, 0) for n in found.popular]
        return found.assign(rank=np.arange(1, len(found) + 1), channel="popular", reason=told)
