"""Rows of the journal: what a user did, what a rater said, what an experiment applied to whom.

On the floor of `service`. People are in them as keyed hashes only.
"""

import re
from dataclasses import dataclass, fields

import pyarrow as pa

from ecom_pipeline import identity
from ecom_pipeline.sources.people import HashKey, keyed_hash


@dataclass(frozen=True, slots=True)
class Event:
    """What a user did.

    Attributes:
        event_id: an event that comes again under its id is the same event.
        occurred_at: UTC, ISO 8601.
        user_id: keyed hash; None: nobody is known.
        session_id: keyed hash.
        action: one of `schema.ACTIONS`.
        item_id: in the catalogue.
        query: that the item was found with.
        position: rank at which it was shown.
        propensity: with which it was shown.
        rating: of a review, in stars.
        quantity: pieces.
        price: of a piece.
    """

    event_id: str
    occurred_at: str
    user_id: str | None
    session_id: str | None
    action: str
    item_id: str
    query: str | None = None
    position: int | None = None
    propensity: float | None = None
    rating: float | None = None
    quantity: float | None = None
    price: float | None = None

    @property
    def actor(self) -> str:
        """Who acted, as `identity.actor` has it."""
        return self.user_id or identity.actors_of(str(self.session_id))[1]


@dataclass(frozen=True, slots=True)
class Rating:
    """What a rater said of a sample: a judgment of its own source.

    Attributes:
        rating_id: unique.
        sample_id: that was shown.
        query: of the sample.
        item_id: of the sample.
        relevance: the grade.
        rater: keyed hash of a name.
        rated_at: UTC, ISO 8601.
    """

    rating_id: str
    sample_id: str
    query: str
    item_id: str
    relevance: float
    rater: str
    rated_at: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """That an arm of an experiment was applied to somebody, for the first time.

    Attributes:
        exposure_id: the same for one unit and arm of an experiment.
        experiment: its name.
        arm: that was applied.
        user_id: keyed hash; None: nobody is known.
        session_id: keyed hash.
        exposed_at: UTC, ISO 8601.
    """

    exposure_id: str
    experiment: str
    arm: str
    user_id: str | None
    session_id: str | None
    exposed_at: str


Row = Event | Rating | Exposure
TABLES: dict[str, type] = {"events": Event, "ratings": Rating, "exposures": Exposure}
_PSEUDONYM_AT_THE_END = re.compile("[0-9a-f]{32}$")
PERSONS = ("user_id", "session_id", "rater")
ENDS_WITH_ONE = "exposure_id"
TIMES = ("rated_at", "exposed_at")  # kept as texts, sealed as instants
_NUMBERS = {
    "position": pa.int64(),
    **dict.fromkeys(("propensity", "rating", "quantity", "price", "relevance"), pa.float64()),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """An event that is durable.

    Attributes:
        seq: place in the journal; of two events the later one was kept later.
        event: as it was kept first.
        new: whether it came for the first time.
    """

    seq: int
    event: Event
    new: bool


def names_of(table: str) -> list[str]:
    """Columns of a table, its id first, without its place."""
    return [field.name for field in fields(TABLES[table])]


def type_of(column: str) -> pa.DataType:
    """Of what a column holds."""
    return _NUMBERS.get(column, pa.string())


def table_of(row: Row) -> str:
    """That a row belongs to."""
    return next(name for name, kind in TABLES.items() if isinstance(row, kind))


def of_persons(table: str) -> list[str]:
    """Columns of a table that are pseudonyms, or end with one."""
    return [name for name in names_of(table) if name in (*PERSONS, ENDS_WITH_ONE)]


def pseudonym_under(text: str, keys: HashKey) -> str:
    """A pseudonym, or a text that ends with one, with that one hashed once more by each key."""
    return _PSEUDONYM_AT_THE_END.sub(lambda found: keyed_hash(found[0], keys), text)
