"""How far each day is from usual, against how far ordinary days are from it."""

from dataclasses import dataclass
from datetime import date

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import literal

LEAST = 0.02  # in logs: what never moved must move by more than this, times the threshold
# by kind: the scale on which days are compared, and the way back; offsets give nothing at all a place on it
SCALES = {
    "share": ("ln(({0} + 0.001) / (1.001 - {0}))", "1.002 / (1 + exp(-{0})) - 0.001"),
    "count": ("ln({0} + 1)", "exp({0}) - 1"),
    "amount": ("ln({0} + 0.01)", "exp({0}) - 0.01"),
}
SAME_WEEKDAYS = 4  # events are compared with those of the same weekday, from so many on
EARLIER = 14  # days, or runs, with something usual, before which nothing is said


@dataclass(frozen=True, slots=True)
class Limits:
    """When a day is told.

    Attributes:
        threshold: distance from which a figure is unusual, in spreads.
        window: days that today is compared with.
    """

    threshold: float = 5.0
    window: int = 56


def judged(values: str, limits: Limits) -> str:
    """A query: every value beside what is usual, as rows of the relation `drift` in its order of columns.

    Usual is the median of the window: of its days on the same weekday for events, of all its runs else. The spread is
    the median of how far the window's days were, in logs or log odds, from what was usual for each of them, scaled as a
    normal law's standard deviation. Medians: up to half of the days may be out of the ordinary themselves.

    Args:
        values: relation of `figures.VALUES`, a row a day, figure and part.
        limits: when a day is told.

    Cost: some hundred values a day, whatever the number of events.
    """
    back = f"range between interval {limits.window} day preceding and interval 1 day preceding"
    series = "partition by family, figure, part"
    return f"""
        with scaled as (
            select *, {_scale(0, "value")} as y from {values}),
        expected as (
            select *, case when family <> 'events' then median(y) over every
                when count(*) over same >= {SAME_WEEKDAYS} then median(y) over same end as expected_y
            from scaled
            window same as ({series}, isodow(day) order by day {back}), every as ({series} order by day {back})),
        spreads as (
            select *, case when count(expected_y) over every >= {EARLIER}
                then greatest(1.4826 * median(abs(y - expected_y)) over every, {LEAST}) end as spread
            from expected window every as ({series} order by day {back}))
        select day, family, figure, part, kind, value, {_scale(1, "expected_y")} as usual, spread, (y - expected_y) / spread as distance,
            case when spread is null then 'too early' when abs(distance) >= {limits.threshold} then 'unusual' else 'usual' end
                as verdict
        from spreads"""


def _scale(way: int, column: str) -> str:
    """SQL: a column on the scale of its kind, or with `way` 1 back from it."""
    whens = (f"when {literal(kind)} then {sql[way].format(column)}" for kind, sql in SCALES.items())
    return f"case kind {' '.join(whens)} end"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A figure of a day that is unusual."""

    day: date
    family: str
    figure: str
    part: str
    value: float
    usual: float
    distance: float

    def __str__(self) -> str:
        name = f"{self.figure}: {self.part}" if self.part else self.figure
        return f"{self.day} {name} is {self.value:.4g}, usual {self.usual:.4g}, {self.distance:+.1f} spreads"


def alarms(db: DuckDBPyConnection, days: int = 7) -> list[Alarm]:
    """What is unusual on the last days that are known, the latest first, of a day the farthest first.

    Args:
        db: a connection to a warehouse with the relation `drift`.
        days: counted from the last one.
    """
    rows = db.execute(
        """select day, family, figure, part, value, usual, distance from drift
        where verdict = 'unusual' and day > (select max(day) from drift) - ?
        order by day desc, abs(distance) desc, figure, part""",
        [days],
    ).fetchall()
    return [Alarm(*row) for row in rows]
