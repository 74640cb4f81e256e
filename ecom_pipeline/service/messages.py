"""What clients send and get, with examples: the service's OpenAPI is made of these.

On the floor of `service`.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from ecom_pipeline.schema import ACTIONS

# no database of texts but SQLite keeps the character 0
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]([^\n\x00]*[^\s\x00-\x1f\x7f])?$")]
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*\S[^\x00]*$")]
Top = Annotated[int, Field(ge=1, le=100)]
System = Literal["weighted", "unweighted"]
Action = Literal[ACTIONS]  # type: ignore[valid-type]  # the same words as in the relation
MOST_EVENTS = 1000  # of a request


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SearchRequest(_Message):
    """A query, and what may be found."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"query": "dark chocolate", "top": 5, "max_price": 10}]},
    )

    query: Text = Field(description="What is looked for.")
    top: Top = Field(default=10, description="How many results, at most.")
    category: str | None = Field(
        default=None, max_length=500, description="A path that an item's category begins with."
    )
    min_price: float | None = Field(default=None, ge=0, description="Items without a price are left out then.")
    max_price: float | None = Field(default=None, ge=0, description="Likewise.")
    by: Literal["weighted", "unweighted", "none"] | None = Field(
        default=None,
        description="Which twin ranks the best again; none: words and meaning alone. Not said: the weighted one, or that of "
        "an experiment's arm.",
    )
    user_id: Id | None = Field(default=None, description="Who searches, for experiments.")
    session_id: Id | None = Field(default=None, description="Likewise, of one who is not known.")
    explain: bool = Field(default=False, description="Whether each result says what its score is made of.")


class TextRequest(_Message):
    """The text of an item that is not sold yet."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"text": "organic oat drink, unsweetened, 1 litre", "top": 5}]},
    )

    text: Text = Field(description="Title, brand, category and description, as far as they are known.")
    top: Top = Field(default=10, description="How many results, at most.")


_SOMEBODY: list[Any] = [
    {"required": [name], "properties": {name: {"type": "string"}}} for name in ("user_id", "session_id")
]


class EventRequest(_Message):
    """What a user did."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"anyOf": _SOMEBODY})

    event_id: Id | None = Field(
        default=None, description="Sent again under its id, an event is kept once. Made where it is missing."
    )
    occurred_at: AwareDatetime | None = Field(
        strict=False, default=None, description="With zone; now where it is missing."
    )
    user_id: Id | None = Field(default=None, description="The shop's id; only a keyed hash of it is kept.")
    session_id: Id | None = Field(default=None, description="Of one who is not known; likewise.")
    action: Action = Field(
        description="dismiss: what was taken of the item so far shall not count for this user; restore: it shall."
    )
    item_id: Id = Field(description="The shop's id.")
    query: Text | None = Field(default=None, description="That the item was found with; none: a list showed it.")
    position: int | None = Field(default=None, ge=1, le=1_000_000, description="Rank at which it was shown.")
    propensity: float | None = Field(default=None, gt=0, le=1, description="With which it was shown.")
    rating: float | None = Field(default=None, ge=1, le=5, description="Of a review, in stars.")
    quantity: float | None = Field(default=None, ge=0, le=1e9, description="Pieces.")
    price: float | None = Field(default=None, ge=0, le=1e12, description="Of a piece.")

    @model_validator(mode="after")
    def _somebody(self) -> "EventRequest":
        if self.user_id is None and self.session_id is None:
            raise ValueError("user_id or session_id must be there")
        return self


class EventsRequest(_Message):
    """A batch of events: all are kept, or none."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"events": [{"event_id": "e1", "user_id": "77", "action": "click", "item_id": "1082185"}]},
            ]
        },
    )

    events: list[EventRequest] = Field(min_length=1, max_length=MOST_EVENTS)


def _batch_or_one(sent: object) -> str:
    return "batch" if isinstance(sent, EventsRequest) or (isinstance(sent, dict) and "events" in sent) else "one"


Sent = Annotated[
    Annotated[EventsRequest, Tag("batch")] | Annotated[EventRequest, Tag("one")], Discriminator(_batch_or_one)
]


class RatingRequest(_Message):
    """What a rater says of a sample."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"sample_id": "0f9c", "relevance": 3, "rater": "ana"}]},
    )

    sample_id: Id = Field(description="As `/suspects` gives it.")
    relevance: float = Field(ge=0, le=1000, allow_inf_nan=False, description="The right grade, one of those in use.")
    rater: str = Field(min_length=1, max_length=100, pattern=r"\S", description="Who says so.")


class Result(BaseModel):
    """An item of a list."""

    item_id: str
    title: str
    score: float = Field(description="A chance where a ranker gave it; else what the list is in the order of.")
    why: str = Field(description="For people.")
    explain: dict[str, float | int | str | list[str] | None] | None = Field(default=None, description="If asked for.")


class Results(BaseModel):
    """A list, the best first, and the model that made it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "results": [
                        {"item_id": "1082185", "title": "BANANAS", "score": 0.41, "why": "taken on 12 days before"}
                    ],
                    "model": "3f1c9a0e5b7d2468",
                }
            ]
        }
    )

    results: list[Result]
    model: str = Field(description="Name of the published model.")


class EventsKept(BaseModel):
    """What is on the disk now."""

    kept: int = Field(description="Events that came for the first time.")
    repeated: int = Field(description="Events that were there already, as they were sent first.")
    forgotten: int = Field(default=0, description="Events of people who were forgotten, of which nothing is kept.")
    event_ids: list[str]


class WeightedAct(BaseModel):
    """A day's taking of an item, and what it weighs today."""

    item_id: str
    title: str
    day: str
    times: int = Field(description="Acts of that day.")
    weight: float = Field(description="1: as a purchase of yesterday, where nothing else is weighed.")
    counts: bool = Field(description="False where somebody said that it shall not count.")
    why: str


class UserWeights(BaseModel):
    """A history with the weight of each act."""

    weights: list[WeightedAct]
    weighed_by: str = Field(description="What makes weights differ, or none.")
    model: str


class Neighbour(BaseModel):
    """A sample that is near a suspect."""

    query: str
    title: str
    relevance: float | None


class Suspect(BaseModel):
    """A sample that is probably mislabelled."""

    sample_id: str
    query: str
    item_id: str
    title: str
    label: float
    relevance: float | None = Field(description="The grade that it has, where it was judged.")
    wrong_probability: float
    worth: float | None = Field(description="Wrong probability times what the change would do to the ranker.")
    why: str
    agreeing: list[Neighbour]
    disagreeing: list[Neighbour]


class Suspects(BaseModel):
    """Samples to look at, and the grades that may be given."""

    suspects: list[Suspect]
    grades: list[float]
    n_rated: int = Field(description="Answers of raters that the next refresh reads, and those it has read.")
    model: str


class RatingKept(BaseModel):
    """A rating that is on the disk."""

    rating_id: str


class Health(BaseModel):
    """That the process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """What serves."""

    ready: bool
    model: str
    day: str = Field(description="For which its lists are made.")
    published_at: datetime
    events_since: int = Field(description="Events that this model knows only from the journal.")
    refused: str = Field(description="Why the latest publication does not serve; empty where it does.")
    experiments_refused: str = Field(description="Why the file of experiments is not read; empty where it is.")
