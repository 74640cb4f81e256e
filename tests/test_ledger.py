import duckdb
import pytest

from ecom_pipeline import days, ledger
from ecom_pipeline.ledger import WHOLE, Entry

DAYS = "select date '2024-05-01' + range::int as day, 'm' as made_from, 'c' as content, 1 as n_rows from range(3)"


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        yield connection


def test_of_each_asset_and_day_the_last_entry_holds(db):
    db.begin()  # in which the clock stands still
    for content in "abc":
        ledger.record(db, "items", Entry("made", content, 1))
    ledger.record_days(db, "events", DAYS)
    ledger.record_days(db, "events", DAYS.replace("range(3)", "range(1)").replace("'c'", "'d'"))
    assert ledger.entries(db, "items") == {WHOLE: Entry("made", "c", 1)}
    assert [entry.content for _, entry in sorted(ledger.entries(db, "events").items())] == ["d", "c", "c"]


def test_what_is_forgotten_is_there_no_more_and_may_come_again(db):
    ledger.record_days(db, "events", DAYS)
    ledger.record(db, "items", Entry("made", "a", 1))
    ledger.forget_days(db, "events", "select date '2024-05-02'")
    ledger.forget(db, "items")
    assert list(ledger.entries(db, "events")) == ["2024-05-02"]
    assert ledger.contents(db).keys() == {"events"}
    ledger.record(db, "items", Entry("made", "a", 1))
    assert ledger.contents(db).keys() == {"events", "items"}


def test_an_entry_is_the_last_though_another_clock_was_ahead(db):
    ledger.record(db, "items", Entry("made", "ahead", 1))
    db.execute("update ledger_entries set written_at = written_at + interval 1 day")
    ledger.record(db, "items", Entry("made", "here", 1))
    assert ledger.entries(db, "items")[WHOLE].content == "here"


def test_what_an_older_version_kept_is_taken_over(db):
    db.execute(
        "create table ledger as select 'items' as asset, date '0001-01-01' as day, 'made' as made_from, 'a' as content, "
        "1::bigint as n_rows, now()::timestamp as written_at"
    )
    db.execute("create table touched_days as select date '2024-05-01' as day, 4::bigint as n_times")
    db.execute("alter table touched_days add primary key (day)")
    assert ledger.entries(db, "items") == {WHOLE: Entry("made", "a", 1)}
    for _ in range(2):
        days.touch(db, "select unnest([date '2024-05-01', date '2024-05-02', date '2024-05-02', null])")
    assert [n for _, n in db.execute("from touched_days order by day").fetchall()] == [6, 2]
