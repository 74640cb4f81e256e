"""Whatever happens to the files, in whatever order: the warehouse is that of the final folder, read at once."""

from datetime import date, datetime

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import write_csv

from ecom_pipeline import cleaning, days, ledger, sources
from ecom_pipeline.sources import landing

NOW = datetime(2026, 1, 1)
LIMITS = cleaning.Limits(near_seconds=5, actions_per_minute=30, actions_per_day=300, events_per_day=5000)
TABLES = ("raw_events", "cleaned_interactions", "rejected_rows", "items")


def ev(day, item="a", user="u", action="click", time="10:00:00", **more):
    row = {"occurred_at": f"2024-05-{day:02d}T{time}Z", "user_id": user, "session_id": "", "action": action}
    return row | {"item_id": item, "event_id": "", "quantity": "", "price": "", "shelf": ""} | more


def refresh(db, folder):
    """As a refresh does it: what is new lands, and stale days alone are cleaned, until none is stale."""
    source = sources.find(str(folder))
    source.land(db, "items", hash_key=b"key")
    source.land(db, "events", hash_key=b"key")
    cleaning.settle_days(db, NOW)
    ledger.forget_days(db, "cleaned_interactions", "select day from event_days")
    cleaning.clean_items(db)
    every = f"select day, content as made_from, content, n_rows from ({days.inputs(days.FIRST_DAY, date.max)})"
    recorded = "select day, made_from from ledger where asset = 'cleaned_interactions'"
    for _ in range(10):
        rows = db.execute(
            f"select day, (day, made_from) not in ({recorded}) from ({every}) as e order by day"
        ).fetchall()
        stale = [day for day, is_stale in rows if is_stale]
        if not stale:
            break
        for first, last in days.stretches(stale, [day for day, _ in rows]):
            cleaning.clean_events(db, first, last, LIMITS)
            inside = f"select * from ({every}) as e where day between '{first}' and '{last}'"
            ledger.record_days(db, "cleaned_interactions", inside)
    return contents(db)


def contents(db):
    return {table: sorted(map(str, db.execute(f"from {table}").fetchall())) for table in TABLES}


def fresh(folder):
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        return refresh(db, folder)


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def write(folder, files):
    """The folder as it is now: these files and the catalogue; `None` takes a file away."""
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        if rows is None:
            (folder / name).unlink()
        else:
            write_csv(folder / name, rows)


CATALOGUE = [{"item_id": name, "title": f"Item {name}"} for name in "abc"]
BEFORE_AND_AFTER = {
    "a row that is there twice moves": (
        {"events.csv": [ev(1), ev(1)]},
        {"events.csv": [ev(9, "b"), ev(1), ev(1)]},
    ),
    "of two that are alike the other comes first": (
        {"events.csv": [ev(1, shelf="x"), ev(1, shelf="y")]},
        {"events.csv": [ev(9, "b", shelf="z"), ev(1, shelf="y"), ev(1, shelf="x")]},
    ),
    "a row moves to another file": (
        {"events-a.csv": [ev(1, shelf="x"), ev(2, "b")], "events-c.csv": [ev(1, shelf="y")]},
        {"events-a.csv": [ev(2, "b")], "events-d.csv": [ev(1, shelf="x")]},
    ),
    "an id is taken by an earlier day, over midnight": (
        {"events-a.csv": [ev(3, time="23:59:59", event_id="k"), ev(4, time="00:00:02", event_id="m")]},
        {"events-b.csv": [ev(1, "b", event_id="k")]},
    ),
    "a purchase was undone on its day": (
        {"events-1.csv": [ev(1, action="purchase"), ev(1, action="return", time="11:00:00")]},
        {"events-2.csv": [ev(2, action="return")]},
    ),
    "a return of nothing after a purchase was undone": (
        {
            "events-1.csv": [
                ev(1, action="purchase", quantity="1"),
                ev(1, action="return", time="11:00:00", quantity="1"),
            ]
        },
        {"events-2.csv": [ev(2, action="return", quantity="0")]},
    ),
    "the purchase of a visitor known by session goes": (
        {
            "events-a.csv": [ev(1, user="", session_id="s", action="purchase")],
            "events-b.csv": [ev(3, user="", session_id="s", action="return")],
        },
        {"events-a.csv": [ev(2, "c", user="", session_id="s")]},
    ),
    "prices have another form": (
        {"events.csv": [ev(1, action="purchase", price="1,234"), ev(2, "b", action="purchase", price="5,6")]},
        {"events.csv": [ev(1, action="purchase", price="1,234"), ev(2, "b", action="purchase", price="5.6")]},
    ),
    "times have another form": (
        {
            "events-b.csv": [ev(20, "b", event_id="k")],
            "events-a.csv": [
                ev(1, "b", event_id="x") | {"occurred_at": "13/05/2024"},
                ev(1, "b", event_id="k") | {"occurred_at": "05/06/2024"},
            ],
        },
        {
            "events-a.csv": [
                ev(1, "b", event_id="x") | {"occurred_at": "05/13/2024"},
                ev(1, "b", event_id="k") | {"occurred_at": "05/06/2024"},
            ]
        },
    ),
    "names are handed on": (
        {"events-1.csv": [ev(1)], "events-2.csv": [ev(2)]},
        {"events-3.csv": [ev(2)], "events-2.csv": [ev(1)], "events-1.csv": None},
    ),
    "names are exchanged": (
        {"events-1.csv": [ev(1), ev(1)], "events-2.csv": [ev(2, "unknown")]},
        {"events-1.csv": [ev(2, "unknown")], "events-2.csv": [ev(1), ev(1)]},
    ),
    "an item comes whose event takes an id": (
        {
            "events-a.csv": [
                ev(1, "d", event_id="k"),
                ev(3, time="23:59:59", event_id="k"),
                ev(4, time="00:00:02", event_id="m"),
            ]
        },
        {"items-new.csv": [{"item_id": "d", "title": "Item d"}]},
    ),
}


@pytest.mark.parametrize(("before", "after"), BEFORE_AND_AFTER.values(), ids=BEFORE_AND_AFTER)
def test_after_a_change_all_is_as_if_it_were_read_at_once(db, tmp_path, before, after):
    write(tmp_path / "shop", {"items.csv": CATALOGUE, **before})
    refresh(db, tmp_path / "shop")
    write(tmp_path / "shop", after)
    assert refresh(db, tmp_path / "shop") == fresh(tmp_path / "shop")


def test_a_home_that_takes_another_folder_has_nothing_of_the_first(db, tmp_path):
    of_both = [ev(2, action="return"), ev(3, "b", event_id="k")]
    first = [ev(1, action="purchase"), *of_both[:1], ev(1, "b", event_id="k", time="12:00:00"), *of_both[1:]]
    write(tmp_path / "x", {"items.csv": CATALOGUE, "events-a.csv": first, "events-old.csv": [ev(7), ev(7)]})
    write(tmp_path / "y", {"items.csv": CATALOGUE, "events-a.csv": of_both, "events-new.csv": [ev(7), ev(7)]})
    refresh(db, tmp_path / "x")
    assert refresh(db, tmp_path / "y") == fresh(tmp_path / "y")


def test_a_file_that_is_forgotten_and_comes_back_under_another_name(db, tmp_path):
    folder = tmp_path / "shop"
    write(folder, {"items.csv": CATALOGUE, "events-a.csv": [ev(1), ev(1)], "events-z.csv": [ev(2)]})
    refresh(db, folder)
    write(folder, {"events-a.csv": None})
    refresh(db, folder)
    landing.forget(db, "events-a.csv")
    write(folder, {"events-b.csv": [ev(1), ev(1)]})
    assert refresh(db, folder) == fresh(folder)


ROWS = st.lists(
    st.builds(
        ev,
        st.integers(1, 4),
        st.sampled_from("abd"),
        st.sampled_from(["u", "v", ""]),
        st.sampled_from(["click", "click", "purchase", "return"]),
        st.sampled_from(["00:00:01", "10:00:00", "23:59:58"]),
        session_id=st.sampled_from(["", "s"]),
        event_id=st.sampled_from(["", "", "k", "l"]),
        quantity=st.sampled_from(["", "1", "2"]),
    ),
    min_size=1,
    max_size=4,
)
CHANGE = st.one_of(
    st.tuples(st.just("write"), st.sampled_from("pqr"), ROWS),
    st.tuples(st.just("forget"), st.sampled_from("pqr"), st.none()),
    st.tuples(st.just("exchange"), st.sampled_from("pqr"), st.sampled_from("pqr")),
    st.tuples(st.just("item"), st.just("d"), st.booleans()),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(CHANGE, min_size=1, max_size=5))
def test_after_any_changes_all_is_as_if_it_were_read_at_once(tmp_path_factory, sequence):
    folder = tmp_path_factory.mktemp("shop")
    write(folder, {"items.csv": CATALOGUE, "events-o.csv": [ev(1)]})
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        refresh(db, folder)
        for kind, name, more in sequence:
            file = folder / f"events-{name}.csv"
            if kind == "write":
                write_csv(file, more)
            elif kind == "item":
                write_csv(folder / "items.csv", [*CATALOGUE, *([{"item_id": "d", "title": "Item d"}] if more else [])])
            elif kind == "exchange" and file.exists() and (other := folder / f"events-{more}.csv").exists():
                first, second = file.read_bytes(), other.read_bytes()
                file.write_bytes(second)
                other.write_bytes(first)
            elif kind == "forget" and file.exists():
                file.unlink()
                refresh(db, folder)
                landing.forget(db, file.name)
            found = refresh(db, folder)
        assert found == fresh(folder)
