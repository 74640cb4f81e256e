"""A day is told when it is farther from usual than ordinary days are, whatever the number of rows."""

from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pytest

from ecom_pipeline import ledger, schema
from ecom_pipeline.watching import figures
from ecom_pipeline.watching.costs import Cost, by_day, costliest, note, noted_until
from ecom_pipeline.watching.drift import Limits, alarms, judged
from ecom_pipeline.watching.series import watch

FIRST = date(2024, 1, 1)
N_DAYS = 80


def make_days(times: int = 1, n_days: int = N_DAYS, seed: int = 0, db=None):
    """A warehouse with some hundred events a day, fewer on Sundays; each row so many times."""
    db, draw = db or duckdb.connect(config={"threads": 1}), np.random.default_rng(seed)
    for name in ("cleaned_interactions", "rejected_rows", "items"):
        schema.RELATIONS[name].create(db)
    add_days(db, {n: int(draw.normal(200, 10)) - 80 * (n % 7 == 6) for n in range(n_days)}, times=times)
    return db


def add_days(db, n_events: dict[int, int], *, price: float = 10.0, times: int = 1):
    """Events by day: a tenth of them are purchases; prices differ by a tenth."""
    planned = ", ".join(f"({n}, {size})" for n, size in n_events.items())
    db.execute(
        f"""create or replace temp table came as select date '{FIRST}' + n as day, day || '-' || i || '-' || t as event_id,
            day::timestamp as occurred_at, 'u' || (i * 7 + n) % 90 as user_id, 'i' || i % 50 as item_id,
            if(i % 10 = 0, 'purchase', 'click') as action, {price} * (1 + (i + n) % 11 / 100) as price
        from (values {planned}) as d(n, size), range(300) as a(i), range({times}) as b(t) where i < size"""
    )
    db.execute("delete from cleaned_interactions where day in (select day from came)")
    db.execute("insert into cleaned_interactions by name from came")
    content = "sum(hash(event_id, price)::hugeint)::varchar"
    counted = f"select day, {content} as made_from, {content} as content, count(*) as n_rows from came group by day"
    ledger.record_days(db, "cleaned_interactions", counted)


def watched(db, **settings):
    return watch(db, Limits(**settings), date(2025, 1, 1), code="1")


def told(db, days: int = 1) -> set[tuple[str, str]]:
    return {(one.figure, one.part) for one in alarms(db, days)}


def distances(db) -> dict:
    rows = db.execute("select day, figure, part, distance from drift where kind = 'share' and distance is not null")
    return {key: distance for *key, distance in rows.fetchall() for key in [tuple(key)]}


def test_ordinary_days_and_their_sundays_are_usual():
    with make_days() as db:
        watched(db)
        assert told(db, N_DAYS) == set()
        assert db.execute("select count(*) from drift where verdict = 'usual'").fetchone()[0] > 500


@pytest.mark.parametrize(
    ("n_events", "price", "expected"),
    [(100, 10.0, ("events", "")), (200, 1000.0, ("price", "median")), (0, 10.0, ("users", ""))],
)
def test_lost_events_and_other_units_are_told(n_events, price, expected):
    with make_days() as db:
        add_days(db, {N_DAYS: n_events}, price=price)
        if not n_events:
            add_days(db, {N_DAYS + 1: 200})  # a day without events is known by the one after it
        watched(db)
        assert expected in told(db, 2)


def test_the_number_of_rows_changes_no_distance_of_a_share():
    with make_days() as small, make_days(times=5) as large:
        for db in (small, large):
            watched(db)
        few, many = distances(small), distances(large)
    assert few.keys() == many.keys()
    assert list(few.values()) == pytest.approx([many[key] for key in few])


def test_a_new_day_is_counted_alone_and_comes_out_as_if_all_had_been(monkeypatch):
    with make_days() as db, make_days() as afresh:
        watched(db)
        for one in (db, afresh):
            add_days(one, {N_DAYS: 140})
        counted = []
        of_days = figures.of_days
        monkeypatch.setattr(figures, "of_days", lambda db, days, **rest: (
            counted.extend(db.execute(days).fetchall()), of_days(db, days, **rest)))  # fmt: skip
        assert watched(db)["n_days_counted"] == 1
        assert counted == [(FIRST + timedelta(days=N_DAYS),)]
        watched(afresh)
        assert db.execute("from drift").fetchall() == afresh.execute("from drift").fetchall()


def test_what_a_run_found_is_kept_when_the_next_one_looks():
    with make_days() as db:
        for n in range(3):
            db.execute("insert into items by name select 'i' || ? as item_id, 'A title' as title", [n])
            add_days(db, {N_DAYS + n: 200})
            watched(db)
        rows = db.execute("select value from drift where figure = 'items' and family = 'catalogue' order by day")
        assert rows.fetchall() == [(n + 1,) for n in range(3)]


def test_a_day_that_lasts_still_and_one_that_went_are_not_judged():
    with make_days() as db:
        watched(db)
        last = FIRST + timedelta(days=N_DAYS - 1)
        ledger.forget_days(db, "cleaned_interactions", f"select day from ledger where day < date '{last}'")
        watched(db)
        assert db.execute("select max(day) from drift").fetchone() == (last - timedelta(days=1),)
        watch(db, Limits(), last - timedelta(days=1), code="1")
        assert db.execute("select max(day) from drift").fetchone() == (last - timedelta(days=2),)


def test_the_distance_is_the_one_worked_by_hand():
    """0 and 1 by turns, so that weekdays alternate: usual is half of ln 2, and so is the median error; then 99."""
    with duckdb.connect() as db:
        db.execute(f"create table v {figures.VALUES}")
        for n in range(43):
            db.execute("insert into v values (?, 'events', 'x', '', 'count', ?)", [FIRST + timedelta(days=n), n % 2])
        db.execute("insert into v values (?, 'events', 'x', '', 'count', 99)", [FIRST + timedelta(days=43)])
        row = db.execute(
            f"select usual, spread, distance, verdict from ({judged('v', Limits())}) order by day desc limit 1"
        )
        usual, spread, distance, verdict = row.fetchone()
    assert (usual, verdict) == (pytest.approx(2**0.5 - 1), "unusual")
    assert distance == pytest.approx((np.log(100) - np.log(1 + usual)) / spread)
    assert spread == pytest.approx(1.4826 * np.log(2) / 2)


def test_a_day_costs_what_its_steps_took_and_a_step_of_two_assets_is_counted_once():
    def cost(run, asset, hour, seconds, day=1):
        return Cost(run, asset, datetime(2024, 1, day, hour), seconds, 10, 0.5, 1000 * day + hour)

    with duckdb.connect() as db:
        first = [cost("a", "items", 8, 3.0), cost("a", "cleaned", 9, 4.0), cost("a", "rejected", 9, 4.0)]
        assert note(db, first) == 3
        assert note(db, [*first, cost("b", "items", 7, 5.0, day=2)]) == 1
        assert noted_until(db) == datetime(2024, 1, 2, 7)
        days = by_day(db)
        assert days[["seconds", "n_rows", "gpu_seconds", "home_bytes"]].values.tolist() == [
            [7, 30, 1, 1009],
            [5, 10, 0.5, 2007],
        ]
        (row,) = costliest(db, 2).itertuples(index=False)
        assert tuple(row) == ("items", 5, 3)
        note(db, [cost("c", "cleaned", 9, 2.0, day=3), cost("c", "rejected", 9, 2.0, day=3)])
        (row,) = costliest(db, 2).itertuples(index=False)
        assert tuple(row) == ("cleaned, rejected", 2, 4)
