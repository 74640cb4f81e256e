"""Instants: the form in which a column of a file has them is found once, over all of it; what is in doubt is refused."""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import SourceError
from ecom_pipeline.quoting import literal

ISO = "ISO 8601"
_DAY_FIRST, _MONTH_FIRST = "day/month/year", "month/day/year"
_CLOCKS = ("", " %H:%M:%S.%f", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p")


def _strptime(value: str, formats: list[str], zoned: bool = False) -> str:
    parsed = f"try_strptime({value}, [{', '.join(map(literal, formats))}])"
    return f"{parsed}::timestamptz::timestamp" if zoned else parsed


def _epoch(digits: str, per_second: int) -> str:
    """Whole or broken units since 1970, in the years from 1990 to 2099."""
    # whole numbers alone: a division would be of floating point, and wrong in its last digits
    nanoseconds = f"(try_cast(trimmed(t) as decimal(28, 6)) * {1_000_000_000 // per_second})::hugeint"
    return (
        f"case when regexp_full_match(trimmed(t), '[0-9]{{{digits}}}(\\.[0-9]+)?') "
        f"then make_timestamp((({nanoseconds} + 500) // 1000)::bigint) end"
    )


_DATE = r"regexp_replace(trimmed(t), '^([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4}),?[ T]*', '\1/\2/\3 ')"
_WORDS = "regexp_replace(regexp_replace(trimmed(t), '\\s*(GMT|UTC|Z)$', ' +0000'), '^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +', '')"
# zones after a blank, minutes without seconds before a zone, and a comma before fractions of a second
_REGULAR = (
    r"regexp_replace(regexp_replace(regexp_replace(trimmed(t), '\s+(Z|[+-][0-9]{2}(:?[0-9]{2})?)$', '\1'), "
    r"'([ T][0-9]{2}:[0-9]{2})(Z|[+-][0-9]{2}(:?[0-9]{2})?)$', '\1:00\2'), ',([0-9]{1,9})(Z|[+-][0-9:]+)?$', '.\1\2')"
)
_FORMS = {
    ISO: f"coalesce(try_cast(t as timestamptz), try_cast({_REGULAR} as timestamptz), "
    + _strptime("trimmed(t)", ["%Y%m%dT%H%M%S%z", "%Y%m%d %H:%M:%S%z"], True)
    + "::timestamptz)::timestamp",
    "digits of a date": _strptime("trimmed(t)", ["%Y%m%d", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%Y%m%d %H:%M:%S"]),
    "seconds since 1970": _epoch("9,10", 1),
    "milliseconds since 1970": _epoch("12,13", 1000),
    "microseconds since 1970": _epoch("15,16", 1_000_000),
    "nanoseconds since 1970": _epoch("18,19", 1_000_000_000),
    "names of months": "coalesce("
    + _strptime(
        _WORDS,
        ["%d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%b %d, %Y %H:%M:%S %z"],
        True,
    )
    + ", "
    + _strptime(
        "trimmed(t)",
        [
            f"{day}{clock}"
            for day in ("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y")
            for clock in _CLOCKS
        ],
    )
    + ")",
    _DAY_FIRST: _strptime(f"trimmed({_DATE})", [f"%d/%m/%Y{clock}" for clock in _CLOCKS]),
    _MONTH_FIRST: _strptime(f"trimmed({_DATE})", [f"%m/%d/%Y{clock}" for clock in _CLOCKS]),
}


@dataclass(frozen=True, slots=True)
class TimeForm:
    """How a file's times are written.

    Attributes:
        name: in words.
        instant: an SQL expression over the text t: UTC, null where it is of another form.
    """

    name: str
    instant: str


def inline(column: str) -> str:
    """The instant that most files need no more for: ISO 8601 as DuckDB reads it; null for what has to be looked at."""
    return f"try_cast({column} as timestamptz)::timestamp"


def iso() -> TimeForm:
    """ISO 8601, also with a blank before the zone, without seconds, or with a comma before their fractions."""
    return TimeForm(ISO, _FORMS[ISO])


def form(db: DuckDBPyConnection, file: str, rows: str) -> TimeForm:
    """The form of a column, that in which the most of it can be read.

    Args:
        db: a connection with the macros of `texts`.
        file: whose column.
        rows: a query that yields texts, as t.

    Raises:
        SourceError: if day and month can be exchanged and nothing tells them apart, or some say one and some the other.

    Cost: some scans of the texts.
    """
    counts = ", ".join(f"count({instant})" for instant in _FORMS.values())
    day, month = _FORMS[_DAY_FIRST], _FORMS[_MONTH_FIRST]
    *found, n_day, n_month, n_either, first = db.execute(
        f"""select {counts}, count(*) filter (where {month} is null and {day} is not null),
            count(*) filter (where {day} is null and {month} is not null),
            count(*) filter (where {day} <> {month}),
            any_value(t || ', ' || {day} || ' or ' || {month}) filter (where {day} <> {month})
        from ({rows})"""
    ).fetchall()[0]
    best = max(zip(found, _FORMS, strict=True), key=lambda pair: pair[0])[1]  # of equals the first
    if best in (_DAY_FIRST, _MONTH_FIRST):
        if n_either and (n_day > 0) == (n_month > 0):
            raise SourceError(
                f"events: {n_either} times of {file!r} can be read with day and month exchanged; first: {first}. "
                f"{n_day} can be day/month alone and {n_month} month/day alone: the whole column must be one of them. Write "
                "times as 2010-12-01T08:26:00Z."
            )
        best = _DAY_FIRST if n_day else _MONTH_FIRST
    return TimeForm(best, _FORMS[best])
