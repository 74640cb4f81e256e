"""The service: what it answers at which path, within which limits, and to whom.

On the floor of `service`.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import anyio.to_thread
from fastapi import FastAPI, Query, Response
from fastapi import Path as InPath

from ecom_pipeline import identity
from ecom_pipeline.forms.texts import filled
from ecom_pipeline.recommend.interactions import day_of
from ecom_pipeline.schema.samples import SuspectOrder
from ecom_pipeline.service import answers, measures
from ecom_pipeline.service.gate import Gate
from ecom_pipeline.service.guards import LOOPBACK, Limits, add_guards, require
from ecom_pipeline.service.journal.rows import Event, Rating
from ecom_pipeline.service.live import Live
from ecom_pipeline.service.messages import (
    EventRequest,
    EventsKept,
    EventsRequest,
    Health,
    Id,
    RatingKept,
    RatingRequest,
    Ready,
    Results,
    SearchRequest,
    Sent,
    Suspects,
    System,
    TextRequest,
    Top,
    UserWeights,
)
from ecom_pipeline.service.page import add_page
from ecom_pipeline.service.problems import MEDIA_TYPE, Problem, ProblemBody
from ecom_pipeline.service.serving import Serving
from ecom_pipeline.service.trials import HEADER, Applied, Trials
from ecom_pipeline.sources.people import HashKey, keyed_hash, masked

log = logging.getLogger(__name__)
AHEAD = timedelta(minutes=5)  # clocks differ


@dataclass(frozen=True, slots=True)
class House:
    """What an app is of.

    Attributes:
        serving: the model that serves, and the journal.
        trials: experiments that run; None: none can.
        hash_key: with which ids of people are hashed, as in the warehouse.
        gate: knows who was forgotten; None: nobody was.
        keys: file of the API keys; None: no key is asked for, as on loopback.
        limits: of requests.
        origins: of pages elsewhere that may call from a browser.
        hosts: names under which it may be asked where no key is asked for.
    """

    serving: Serving
    hash_key: HashKey
    keys: Path | None
    trials: Trials | None = None
    limits: Limits = field(default_factory=Limits)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = LOOPBACK
    gate: Gate | None = None

    def person(self, raw: str) -> str | None:
        """The keyed hash of an id, None where it is a word for nothing or was forgotten; that of a known user is itself."""
        return raw if raw in self.serving.model.user else self.hashed(raw)

    def user(self, raw: str) -> str:
        """Who a user is in histories."""
        return self.person(raw) or ""

    def session(self, raw: str) -> str:
        """Who a session is there."""
        return identity.actors_of(str(self.hashed(raw)))[1]

    def apply(self, changes: Literal["lists", "search"], actor: str, response: Response) -> System:
        """The system that answers somebody: his arm's, which the header tells, else the weighted one."""
        named = actor and identity.person_of(actor) != (None, "None")  # not of a word for nothing
        applied = self.trials.apply(changes, actor, self.serving.clock.now()) if self.trials and named else Applied()
        if applied.header:
            response.headers[HEADER] = applied.header
        return applied.system or "weighted"

    def hashed(self, raw: str) -> str | None:
        """The keyed hash of an id, None where it is a word for nothing or of somebody who was forgotten."""
        found = filled(raw)
        return None if found is None or self.is_forgotten(found) else keyed_hash(found, self.hash_key)

    def is_forgotten(self, raw: str | None) -> bool:
        """Whether an id is of somebody who was forgotten, or of a session that was his alone."""
        found = None if raw is None else filled(raw)
        return found is not None and self.gate is not None and self.gate.is_shut(found)


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": told, "content": {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}}}
    for status, told in {
        400: "The body is no JSON.",
        401: "No key, or one that is not valid.",
        403: "The key does not reach so far.",
        404: "Something that was asked for is unknown.",
        413: "The body is too large.",
        422: "The request is not as it must be.",
        429: "Too many requests.",
        503: "The journal cannot be written, or the answer took too long.",
    }.items()
}


def make_app(house: House) -> FastAPI:
    """The app; whoever runs it closes `house.serving` afterwards."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = house.limits.at_once
        yield

    app = FastAPI(
        title="ecom-pipeline",
        description="Search, recommendations and their reasons; what users do is kept and known at once.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # its page would be fetched from elsewhere
        redoc_url=None,
        responses=_PROBLEMS,
    )
    app.state.house = house
    add_guards(app, house.limits, origins=house.origins, keys=house.keys, hosts=house.hosts)
    _add_reading(app, house)
    _add_events(app, house)
    _add_labels(app, house)
    _add_watching(app, house)
    add_page(app, house)
    return app


def _add_reading(app: FastAPI, house: House) -> None:
    read = [require("read", house.keys)]

    @app.post("/search", dependencies=read, tags=["read"])
    def search(asked: SearchRequest, response: Response) -> Results:
        """Items for a query, by words and by meaning, the best ranked again by what was learnt.

        Where `user_id` or `session_id` says who searches, the arm of an experiment may rank; the header X-Experiment tells.
        """
        by = asked.by
        if by is None:
            actor = house.user(asked.user_id) if asked.user_id else house.session(asked.session_id or "")
            by = house.apply("search", actor, response)
        return answers.search(house.serving.model, asked.model_copy(update={"by": by}))

    @app.get("/users/{user_id:path}/recommendations", dependencies=read, tags=["read"])
    def of_user(user_id: Id, response: Response, top: Top = 10, system: System | None = None) -> Results:
        """What to show a user on the next visit; what is popular for one of whom nothing is known.

        Where no system is asked for, the arm of an experiment may say which; the header X-Experiment tells.
        """
        actor = house.user(user_id)
        return answers.recommend(
            house.serving.live, actor, top=top, system=system or house.apply("lists", actor, response)
        )

    @app.get("/sessions/{session_id:path}/recommendations", dependencies=read, tags=["read"])
    def of_session(session_id: Id, response: Response, top: Top = 10, system: System | None = None) -> Results:
        """The same for one who is not known, by what this session did and nothing else."""
        actor = house.session(session_id)
        return answers.recommend(
            house.serving.live, actor, top=top, system=system or house.apply("lists", actor, response)
        )

    @app.get("/items/{item_id:path}/similar", dependencies=read, tags=["read"])
    def like_item(item_id: Id, top: Top = 10) -> Results:
        """Items that are like an item."""
        model = house.serving.model
        return answers.similar(model, _place(model, item_id), top)

    @app.post("/similar", dependencies=read, tags=["read"])
    def like_text(asked: TextRequest) -> Results:
        """Items that are like one that is not sold yet."""
        return answers.like_text(house.serving.model, asked)

    @app.get("/weights/{user_id:path}", dependencies=read, tags=["read"])
    def weights(
        user_id: Id, top: Annotated[int, Query(ge=1, le=1000)] = 50, system: System = "weighted"
    ) -> UserWeights:
        """What each act of a user's history weighs today, and why."""
        return answers.weights(house.serving.live, house.user(user_id), system=system, top=top)


def _add_events(app: FastAPI, house: House) -> None:
    @app.post("/events", dependencies=[require("events", house.keys)], tags=["events"])
    async def events(sent: Sent) -> EventsKept:
        """Keep what users did. Answered when it is on the disk; the next request of any kind knows it."""
        each = sent.events if isinstance(sent, EventsRequest) else [sent]
        now = house.serving.clock.now()
        # nothing is kept of those who were forgotten; a session counts where no user is said
        known = [
            (number, one)
            for number, one in enumerate(each)
            if not house.is_forgotten(one.user_id if one.user_id is not None else one.session_id)
        ]
        kept = await house.serving.keep([_event(house, one, number, now) for number, one in known])
        n_new = sum(one.new for one in kept)
        measures.events(n_new)
        return EventsKept(
            kept=n_new,
            repeated=len(kept) - n_new,
            forgotten=len(each) - len(known),
            event_ids=[one.event.event_id for one in kept],
        )


def _event(house: House, sent: EventRequest, number: int, now: datetime) -> Event:
    # what comes without a time happened in the order of the batch
    occurred_at = sent.occurred_at or now + timedelta(microseconds=number)
    latest = now + AHEAD
    if occurred_at > latest or occurred_at.year < 2000:
        raise Problem(
            status=422,
            type="time-impossible",
            title="an event is of no possible time",
            detail=f"1 event or more; first: number {number + 1} of the batch, at {occurred_at.isoformat()}",
            must=f"occurred_at must be from 2000 on, and not after {latest.isoformat(timespec='seconds')}, the shop's time: "
            f"its data end on {day_of(house.serving.model.told['day'] - 1)}",
            action="mend the clock that wrote it, leave occurred_at out, or bring the data up to date; nothing was kept",
        )
    user_id = None if sent.user_id is None else house.person(sent.user_id)
    session_id = None if sent.session_id is None else house.hashed(sent.session_id)
    if user_id is None and session_id is None:
        raise Problem(
            status=422,
            type="nobody",
            title="an event is of nobody",
            detail=f"1 event or more; first: number {number + 1} of the batch, of {sent.user_id or sent.session_id!r}",
            must="user_id or session_id must be an id, and no word for nothing",
            action="send the id of the user, or of the session; nothing of the batch was kept",
        )
    told = sent.model_dump(exclude={"event_id", "occurred_at", "user_id", "session_id", "query"})
    return Event(
        event_id=sent.event_id or uuid4().hex,
        occurred_at=occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
        user_id=user_id,
        session_id=session_id,
        query=None if sent.query is None else masked(sent.query),
        **told,
    )


def _add_labels(app: FastAPI, house: House) -> None:
    label = [require("label", house.keys)]

    @app.get("/suspects", dependencies=label, tags=["label"])
    def suspects(top: Top = 20, order: SuspectOrder = "probability") -> Suspects:
        """Samples that are probably mislabelled and that nobody has rated yet."""
        return answers.suspects(house.serving.model, top=top, order=order, rated=house.serving.rated)

    @app.post("/ratings", dependencies=label, tags=["label"])
    def rate(sent: RatingRequest) -> RatingKept:
        """Keep what a rater says of a sample; the next refresh learns from it in place of the old grade."""
        model = house.serving.model
        found = model.suspects[model.suspects.sample_id == sent.sample_id]
        if found.empty:
            raise _unknown(
                "sample_id", sent.sample_id, "one of `/suspects`", "ask for suspects again: the model changed"
            )
        if sent.relevance not in model.grades:
            raise _unknown("relevance", str(sent.relevance), f"one of {model.grades}", "choose of these")
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        row = found.iloc[0]
        rater = keyed_hash(sent.rater.strip(), house.hash_key)
        rating = Rating(*(uuid4().hex, sent.sample_id, row.context_text, row.item_id, sent.relevance, rater, now))
        house.serving.journal.rate([rating])
        return RatingKept(rating_id=rating.rating_id)

    @app.delete("/ratings/{rating_id}", dependencies=label, tags=["label"], status_code=204)
    def take_back(rating_id: Annotated[str, InPath(pattern="^[0-9a-f]{32}$")]) -> None:
        """Undo a rating that no refresh has read."""
        if not house.serving.journal.take_back(rating_id):
            raise _unknown(
                "rating_id",
                rating_id,
                "of a rating that no refresh has read",
                "rate the sample again: the last answer holds",
            )


def _add_watching(app: FastAPI, house: House) -> None:
    @app.get("/health", tags=["watch"])
    def health() -> Health:
        """That the process answers."""
        return Health()

    @app.get("/ready", tags=["watch"])
    def ready() -> Ready:
        """What serves, and why the latest publication does not, if so; a problem while nothing can be kept."""
        house.serving.journal.database.check()
        return _ready(house, house.serving.live)

    @app.get("/metrics", tags=["watch"], response_class=Response)
    def metrics() -> Response:
        """For Prometheus."""
        serving, away = house.serving, house.serving.journal.away()
        told = _ready(house, serving.last_known if away else serving.live)
        text, media_type = measures.told(told, n_swaps=serving.n_swaps, journal_away=bool(away))
        return Response(text, media_type=media_type)


def _ready(house: House, live: Live) -> Ready:
    return Ready(
        ready=True,
        model=live.model.name,
        day=str(day_of(live.model.told["day"])),
        published_at=live.published_at,
        events_since=live.n_events,
        refused=house.serving.refused,
        experiments_refused=house.trials.refused if house.trials else "",
    )


def _place(model: Any, item_id: str) -> int:
    if item_id not in model.place:
        raise _unknown(
            "item_id", item_id, f"of one of {len(model.items):,} published items", "publish again if it is new"
        )
    return model.place[item_id]


def _unknown(what: str, value: str, must: str, action: str) -> Problem:
    return Problem(
        status=404,
        type=f"{what.replace('_', '-')}-unknown",
        title=f"1 {what} is unknown",
        detail=f"1 {what}: {value[:200]!r}",
        must=f"{what} must be {must}",
        action=action,
    )
