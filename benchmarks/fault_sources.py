"""Sources that are odd but may come: other columns, zones and sizes, and values that are no numbers; for `faults.py`."""

import csv
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from fault_bench import EQUAL, NOT_TRIED, Bench, Outcome, differs
from shop import write_csv

Rows = list[dict[str, str]]
Change = Callable[[Rows], Rows]


def edit(folder: Path, table: str, change: Change) -> None:
    """Write a table anew with other rows."""
    file = folder / f"{table}.csv"
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    write_csv(file, change(rows))


def each(**changes: Callable[[dict[str, str], int], object]) -> Change:
    """Values of columns, each from its row and the row's number."""
    return lambda rows: [
        {**row, **{name: value(row, nth) for name, value in changes.items()}} for nth, row in enumerate(rows)
    ]


def renamed(was: str, now: str) -> Change:
    """A column under another name."""
    return lambda rows: [{now if name == was else name: value for name, value in row.items()} for row in rows]


def without(column: str) -> Change:
    """No such column."""
    return lambda rows: [{name: value for name, value in row.items() if name != column} for row in rows]


def through(bench: Bench, name: str, table: str, changes: Mapping[str, Change]) -> Iterator[Outcome]:
    """Runs over one change after another, in a home that knew the source as it was, and has it back at the end."""
    home = bench.copy(name)
    for point, change in list(changes.items())[: bench.points]:
        edit(bench.restored(bench.source), table, change)
        yield bench.tried(home, f"{table}: {point}")
    for point in list(changes)[bench.points :]:
        yield Outcome(f"{table}: {point}", NOT_TRIED)
    yield bench.mended(home)


def columns(bench: Bench) -> Iterator[Outcome]:
    """columns that are new, missing, renamed, or there twice"""
    changes: dict[str, Change] = {
        "a new column": each(mood=lambda row, nth: f"mood {nth}"),
        "a new column of empty name": each(**{"": lambda row, nth: nth}),
        "event_id is missing": without("event_id"),
        **{f"{name} is missing": without(name) for name in ("occurred_at", "item_id", "user_id", "action")},
        **{f"{name} is called x_{name}": renamed(name, f"x_{name}") for name in ("occurred_at", "item_id")},
        "user_id in capitals": renamed("user_id", "USER_ID"),
        "item_id in two spellings": each(ITEM_ID=lambda row, nth: row["item_id"]),
    }
    yield from through(bench, "columns", "events", changes)


def zones(bench: Bench) -> Iterator[Outcome]:
    """the same instants in many time zones, in one file: the very same must come of them"""
    home = bench.copy("zones")

    def moved(row: dict[str, str], nth: int) -> str:
        try:
            instant = datetime.fromisoformat(row["occurred_at"])
        except ValueError:
            return row["occurred_at"]
        if instant.tzinfo is None or not 2000 < instant.year < 2100:
            return row["occurred_at"]
        return instant.astimezone(timezone(timedelta(minutes=(-720, -210, 0, 330, 345, 840)[nth % 6]))).isoformat()

    edit(bench.restored(bench.source), "events", each(occurred_at=moved))
    outcome = bench.tried(home, "events: 6 zones in turn, from -12:00 to +14:00")
    apart = differs(home, bench.clean, but=("raw_events", "rejected_rows", "event_days"))
    yield Outcome(outcome.point, EQUAL, outcome.said, outcome.wrong or apart)
    yield bench.mended(home)


def titles(bench: Bench) -> Iterator[Outcome]:
    """titles of 1 MB: of one word, of many, with a line break in each, of markup alone"""
    mega = 1_000_000
    texts = {
        "many lines": "red mug\n" * (mega // 8),
        "one word": "x" * mega,
        "many words": "red mug " * (mega // 8),
        "markup alone": "<b>" * (mega // 3),
    }
    changes = {
        point: each(title=lambda row, nth, text=text: text if nth < 3 else row["title"])
        for point, text in texts.items()
    }
    yield from through(bench, "titles", "items", changes)


def numbers(bench: Bench) -> Iterator[Outcome]:
    """NaN, infinity and numbers that no machine holds, where numbers are expected"""
    odd = ("nan", "NaN", "inf", "-Infinity", "1e400", "-1e400", "1e-400", "9" * 400, "0x10", "--5")

    def pick(row: dict[str, str], nth: int) -> str:
        return odd[nth % len(odd)]

    yield from through(bench, "numbers", "items", {"price": each(price=pick)})
    events = {
        "quantity and price": each(quantity=pick, price=pick),
        "position and propensity": each(position=pick, propensity=pick),
    }
    yield from through(bench, "numbers", "events", events)


def little(bench: Bench) -> Iterator[Outcome]:
    """little to learn from: a day without events, a day of views alone, one user, one item, no event at all"""
    changes: dict[str, Change] = {
        "a header and no event": lambda rows: [{**rows[0], "occurred_at": "soon"}],
        "one event": lambda rows: rows[:1],
        "one user": each(user_id=lambda row, nth: "person-1"),
        "one item": each(item_id=lambda row, nth: "i0-0-0"),
        "a day of one class, views alone": each(
            action=lambda row, nth: "impression" if row["occurred_at"].startswith("2024-05-05") else row["action"]
        ),
        "a day without events": lambda rows: [row for row in rows if not row["occurred_at"].startswith("2024-05-05")],
    }
    yield from through(bench, "little", "events", changes)


def labels(bench: Bench) -> Iterator[Outcome]:
    """judged labels that are all equal, NaN, or infinite"""
    odd = ("nan", "inf", "-inf", "1e400")
    changes: dict[str, Change] = {
        "all are 0": each(relevance=lambda row, nth: 0),
        "all are 1": each(relevance=lambda row, nth: 1),
        "every third is no number": each(
            relevance=lambda row, nth: row["relevance"] if nth % 3 else odd[nth // 3 % len(odd)]
        ),
    }
    yield from through(bench.with_judgments, "labels", "judgments", changes)
