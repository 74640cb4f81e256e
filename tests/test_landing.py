"""Files land once, whatever their order; a day is cleaned again when what it reads has changed, and only then."""

import os
from datetime import date, datetime
from itertools import permutations

import duckdb
import pytest
from shop import write_csv

from ecom_pipeline import cleaning, days, ledger, sources
from ecom_pipeline.errors import SourceError
from ecom_pipeline.laws import LAWS
from ecom_pipeline.sources import landing

NOW = datetime(2026, 1, 1)
LIMITS = cleaning.Limits(near_seconds=5, actions_per_minute=30, actions_per_day=300, events_per_day=5000)
ITEMS = [{"item_id": name, "title": f"Item {name}"} for name in "abc"]


def event(day, item="a", user="u", action="click", time="10:00:00", **more):
    return {"occurred_at": f"2024-05-{day:02d}T{time}Z", "user_id": user, "action": action, "item_id": item, **more}


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


@pytest.fixture
def folder(tmp_path):
    """A shop with events of three days, a file each."""
    write_csv(tmp_path / "items.csv", ITEMS)
    for day in (1, 2, 3):
        write_csv(tmp_path / f"events-2024-05-{day:02d}.csv", [event(day), event(day, "b", "v")])
    return tmp_path


def land(db, folder, table="events", **more):
    return sources.find(str(folder)).land(db, table, **{"hash_key": b"key", **more})


def contents(db):
    """What each day would be made from."""
    return dict(db.execute(f"select day, content from ({days.inputs(date(2000, 1, 1), date(2100, 1, 1))})").fetchall())


def stale(before, after):
    """Days of May that are to be cleaned again."""
    return {day.day for day in after if before.get(day) != after[day]}


def warehouse(db, folder):
    """Everything cleaned, as sorted rows."""
    land(db, folder, "items")
    land(db, folder)
    cleaning.clean_items(db)
    cleaning.settle_days(db, NOW)
    cleaning.clean_events(db, date(2024, 1, 1), date(2024, 12, 31), LIMITS)
    tables = ("raw_events", "cleaned_interactions", "rejected_rows")
    return {table: sorted(map(str, db.execute(f"from {table}").fetchall())) for table in tables}


def test_a_known_file_is_not_read_again(db, folder):
    assert land(db, folder) == landing.Landed(
        n_rows=6, n_files=3, n_files_read=3, n_rows_read=6, n_files_gone=0, n_rows_forgotten=0
    )
    write_csv(folder / "events-2024-05-04.csv", [event(4)])
    assert land(db, folder) == landing.Landed(
        n_rows=7, n_files=4, n_files_read=1, n_rows_read=1, n_files_gone=0, n_rows_forgotten=0
    )
    assert land(db, folder).n_files_read == 0


def test_a_new_day_makes_no_other_day_stale(db, folder):
    land(db, folder)
    before = contents(db)
    write_csv(folder / "events-2024-05-04.csv", [event(4)])
    land(db, folder)
    assert stale(before, contents(db)) == {4}


def test_an_edit_that_keeps_size_and_time_is_seen(db, folder):
    file = folder / "events-2024-05-01.csv"
    land(db, folder)
    was, fingerprint = file.stat(), sources.find(str(folder)).fingerprint("events")
    file.write_bytes(file.read_bytes().replace(b",b", b",c"))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert file.stat().st_size == was.st_size
    assert sources.find(str(folder)).fingerprint("events") != fingerprint
    before = contents(db)
    assert land(db, folder).n_files_read == 1
    assert stale(before, contents(db)) == {1}


def test_a_file_written_again_as_it_was_changes_nothing(db, folder):
    land(db, folder)
    before = contents(db)
    file = folder / "events-2024-05-01.csv"
    file.write_bytes(file.read_bytes())
    assert land(db, folder).n_files_read == 0
    assert contents(db) == before


def test_a_file_that_is_gone_keeps_its_rows_until_it_is_forgotten(db, folder):
    land(db, folder)
    (folder / "events-2024-05-01.csv").unlink()
    assert land(db, folder) == landing.Landed(
        n_rows=6, n_files=3, n_files_read=0, n_rows_read=0, n_files_gone=1, n_rows_forgotten=0
    )
    with pytest.raises(
        SourceError, match=r"still in the source: 'events-2024-05-02.csv'.*one of the 1.*'events-2024-05-01.csv'"
    ):
        landing.forget(db, "events-2024-05-02.csv")
    assert landing.forget(db, "events-2024-05-01.csv") == {"events": 2}
    assert db.sql("select min(day) from raw_events").fetchone() == (date(2024, 5, 2),)
    assert land(db, folder).n_rows == 4


def test_a_renamed_file_does_not_land_twice(db, folder):
    land(db, folder)
    (folder / "events-2024-05-01.csv").rename(folder / "events-old.csv")
    assert land(db, folder) == landing.Landed(
        n_rows=6, n_files=3, n_files_read=0, n_rows_read=0, n_files_gone=0, n_rows_forgotten=0
    )
    assert db.sql("select count(*) from raw_events where file = 'events-old.csv'").fetchone() == (2,)


def test_two_copies_of_a_file_that_is_gone_are_two_files(db, folder):
    land(db, folder)
    content = (folder / "events-2024-05-01.csv").read_bytes()
    (folder / "events-2024-05-01.csv").unlink()
    for name in ("events-x.csv", "events-y.csv"):
        (folder / name).write_bytes(content)
    assert land(db, folder).n_rows == 8
    counts = dict(db.execute("select file, count(*) from raw_events group by file").fetchall())
    assert counts == {"events-2024-05-02.csv": 2, "events-2024-05-03.csv": 2, "events-x.csv": 2, "events-y.csv": 2}


def test_another_key_is_refused_where_a_file_has_gone_since(db, folder):
    land(db, folder)
    (folder / "events-2024-05-01.csv").unlink()
    with pytest.raises(SourceError, match=r"rows of 1 files that are gone.*first: 'events-2024-05-01.csv'"):
        land(db, folder, hash_key=b"another")
    assert db.sql("select count(*) from raw_events").fetchone() == (6,)


def test_rows_put_before_others_make_only_their_day_stale(db, folder):
    write_csv(folder / "events.csv", [event(day, "c", f"w{day}") for day in range(5, 20)])
    warehouse(db, folder)
    before = contents(db)
    write_csv(folder / "events.csv", [event(20, "c", "w20"), *(event(day, "c", f"w{day}") for day in range(5, 20))])
    land(db, folder)
    assert stale(before, contents(db)) == {20}


def test_a_rejected_row_that_moved_in_its_file_is_named_anew(db, folder):
    write_csv(folder / "events.csv", [event(6, "unknown"), event(7)])
    warehouse(db, folder)
    before = contents(db)
    write_csv(folder / "events.csv", [event(8), event(6, "unknown"), event(7)])
    land(db, folder)
    assert stale(before, contents(db)) == {6, 8}


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ([event(4, event_id="e1")], {2, 4}),  # an id that day 2 has
        ([event(1, "c", "x", "purchase", "08:00:00")], {1, 3}),  # the purchase of a return of day 3
        ([event(1, "a", "u", time="23:59:58")], {1, 2}),  # just before the midnight after which it may be repeated
        ([event(5, "c", "z")], {5}),
    ],
)
def test_a_late_event_makes_stale_what_reads_it(db, folder, late, expected):
    write_csv(folder / "events-a.csv", [event(2, event_id="e1"), event(3, "c", "x", "return")])
    land(db, folder)
    before = contents(db)
    write_csv(folder / "events-late.csv", late)
    land(db, folder)
    assert stale(before, contents(db)) == expected


def test_a_new_item_makes_stale_the_days_on_which_it_was_met(db, folder):
    write_csv(folder / "events-a.csv", [event(7, "d")])
    warehouse(db, folder)
    before = contents(db)
    write_csv(folder / "items-new.csv", [{"item_id": "d", "title": "Item d"}])
    land(db, folder, "items")
    cleaning.clean_items(db)
    assert stale(before, contents(db)) == {7}


def test_the_last_file_of_the_catalogue_holds(db, folder):
    write_csv(folder / "items-2024-06.csv", [{"item_id": "a", "title": "New name"}])
    land(db, folder, "items")
    cleaning.clean_items(db)
    assert db.sql("select title from items where item_id = 'a'").fetchall() == [("New name",)]
    assert db.sql("select file, rule from rejected_rows").fetchall() == [("items.csv", "item_id_repeated")]


def test_an_event_of_the_future_gets_its_day_when_it_comes(db, folder):
    write_csv(folder / "events-a.csv", [{**event(1), "occurred_at": "2026-12-24T10:00:00Z"}])
    land(db, folder)
    cleaning.settle_days(db, NOW)
    assert db.sql("select rule from rejected_rows").fetchall() == [("time_in_future",)]
    assert not days.due(db, NOW)
    later = datetime(2026, 12, 25)
    assert days.due(db, later)
    cleaning.settle_days(db, later)
    assert not days.due(db, later)
    assert db.sql("select count(*) from rejected_rows").fetchone() == (0,)
    assert date(2026, 12, 24) in contents(db)


def test_the_order_in_which_files_arrive_does_not_matter(tmp_path):
    rows = {
        "events-a.csv": [event(1, event_id="e1"), event(2, "c", "x", "return"), event(3, "unknown")],
        "events-b.csv": [event(1, "c", "x", "purchase"), event(2, event_id="e1"), event(2, "b", time="00:00:01")],
        "events-c.csv": [
            event(1, "b", time="23:59:59"),
            event(2, "c", "x", "purchase", "12:00:00"),
            event(1, event_id="e1"),
        ],
    }
    found = []
    for number, order in enumerate(permutations(rows)):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_csv(folder / "items.csv", ITEMS)
        with duckdb.connect() as db:
            db.execute("set timezone = 'UTC'")
            before = {}
            for file in order:
                write_csv(folder / file, rows[file])
                land(db, folder, "items")
                land(db, folder)
                cleaning.clean_items(db)
                cleaning.settle_days(db, NOW)
                for day in sorted(stale(before, contents(db))):  # as a refresh does it: nothing else
                    cleaning.clean_events(db, date(2024, 5, day), date(2024, 5, day), LIMITS)
                before = contents(db)
            tables = ("raw_events", "cleaned_interactions", "rejected_rows")
            found.append({table: sorted(map(str, db.execute(f"from {table}").fetchall())) for table in tables})
    assert all(one == found[0] for one in found[1:])


def test_another_key_is_refused_where_files_are_gone(db, folder):
    land(db, folder)
    assert land(db, folder, hash_key=b"another").n_files_read == 3
    (folder / "events-2024-05-01.csv").unlink()
    land(db, folder, hash_key=b"another")
    with pytest.raises(
        SourceError, match=r"rows of 1 files that are gone.*first: 'events-2024-05-01.csv'.*forget-file"
    ):
        land(db, folder)


def test_files_that_another_version_read_are_read_again(db, folder):
    land(db, folder, reader="1")
    assert land(db, folder, reader="2").n_files_read == 3


def test_a_late_event_of_a_cleaned_day_breaks_no_law_before_it_is_cleaned(db, folder):
    law = next(law for law in LAWS if law.relation == "cleaned_interactions")
    warehouse(db, folder)
    every = f"select day, content as made_from, content, n_rows from ({days.inputs(days.FIRST_DAY, date.max)})"
    ledger.record_days(db, "cleaned_interactions", every)
    write_csv(folder / "events-late.csv", [event(1, "c", "late")])
    land(db, folder)
    assert db.execute(law.broken).fetchall() == []
    db.execute("delete from cleaned_interactions where day = '2024-05-02' and item_id = 'b'")
    assert db.execute(law.broken).fetchall() == [(date(2024, 5, 2), 2, 1, 0)]


def test_a_file_that_is_gone_outlives_a_new_version_of_the_reader_and_of_the_table(db, folder):
    land(db, folder, reader="1")
    (folder / "events-2024-05-01.csv").unlink()
    (folder / "events-2024-05-02.csv").rename(folder / "events-two.csv")
    db.execute("alter table raw_events drop column malformed; alter table raw_events add column older varchar")
    done = land(db, folder, reader="2")
    assert (done.n_rows, done.n_files, done.n_files_read, done.n_files_gone) == (6, 3, 2, 1)
    assert "malformed" in db.sql("from raw_events limit 0").columns


def test_events_without_a_day_stay_rejected_where_no_event_has_one(db, tmp_path):
    write_csv(tmp_path / "items.csv", ITEMS)
    write_csv(
        tmp_path / "events.csv", [{**event(1), "occurred_at": "yesterday"}, {**event(1), "occurred_at": "tomorrow"}]
    )
    assert warehouse(db, tmp_path)["cleaned_interactions"] == []
    assert db.sql("select row_number, rule from rejected_rows order by 1").fetchall() == [
        (1, "time_unreadable"),
        (2, "time_unreadable"),
    ]


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0", "\u200b"])
def test_blanks_around_an_id_are_no_part_of_it(db, tmp_path, blank):
    write_csv(tmp_path / "items.csv", [{"item_id": f"a{blank}", "title": "A"}])
    rows = [event(1, user="u", event_id="e1"), event(2, user=f"{blank}u", item=f"{blank}a", event_id=f"e1{blank}")]
    write_csv(tmp_path / "events.csv", rows)
    warehouse(db, tmp_path)
    assert db.sql("select count(distinct user_id) from raw_events").fetchone() == (1,)
    assert db.sql("select event_id, item_id from cleaned_interactions").fetchall() == [("e1", "a")]
    assert db.sql("select rule from rejected_rows").fetchall() == [("event_id_repeated",)]


def test_a_folder_may_be_called_as_a_column_of_ours(db, folder):
    (folder / "events" / "row_number=7").mkdir(parents=True)
    write_csv(folder / "events" / "row_number=7" / "x.csv", [event(1), event(1, "q"), event(1, "r")])
    before = warehouse(db, folder)
    rows = db.execute("select row_number, attributes from raw_events where file like 'events/%' order by 1").fetchall()
    assert rows == [(n, '{"own_row_number":"7"}') for n in (1, 2, 3)]
    assert [row for row in before["rejected_rows"] if "item_unknown" in row] != []
    assert db.sql("select count(*) from rejected_rows where file like 'events/%'").fetchone() == (3,)
