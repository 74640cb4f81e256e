from functools import cache

import duckdb
import pytest
from shop import SHARED, write_csv

from ecom_pipeline import sources
from ecom_pipeline.errors import SourceError
from ecom_pipeline.schema.inputs import COLUMNS
from ecom_pipeline.sources import canonical


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


@pytest.fixture(scope="module")
def real():
    """Rows of a real set's tables, and the connection in which they landed; each set lands once."""
    with duckdb.connect() as connection:
        yield cache(lambda folder: _real(connection.cursor(), folder))


def _real(db, folder):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"the real data of {folder} is not on this machine")
    db.execute(f"attach ':memory:' as {folder}; use {folder}; set timezone = 'UTC'")
    return landed(db, SHARED / folder), db


def landed(db, source):
    found = sources.find(str(source))
    counts = {table: found.land(db, table, hash_key=b"key").n_rows for table in COLUMNS}
    return {table: n for table, n in counts.items() if n}


ITEM = {"item_id": "a", "title": "A", "shelf": "7"}
EVENT = {"occurred_at": "2024-01-01T10:00:00+02:00", "user_id": "u", "action": "click", "item_id": "a"}
JUDGMENT = {"query": "q", "item_id": "a", "relevance": "2"}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_canonical_folder_is_read_in_either_format(db, tmp_path, ending):
    for table, row in (("items", ITEM), ("events", EVENT), ("judgments", JUDGMENT)):
        write_csv(tmp_path / f"{table}.csv", [row])
        if ending == "parquet":
            db.execute(
                f"copy (from read_csv('{tmp_path}/{table}.csv', all_varchar = true)) to '{tmp_path}/{table}.parquet'"
            )
            (tmp_path / f"{table}.csv").unlink()
    assert landed(db, tmp_path) == {"items": 1, "events": 1, "judgments": 1}
    assert db.sql("select attributes from raw_items").fetchone() == ('{"shelf":"7"}',)
    assert str(db.sql("select instant from raw_events").fetchone()[0]) == "2024-01-01 08:00:00"


@pytest.mark.parametrize("column", ["shelf", "file_row_number", "File_Row_Number"])
def test_rows_of_parquet_have_their_places_whatever_its_columns_are_called(db, tmp_path, column):
    write_csv(tmp_path / "items.csv", [ITEM])
    events = "'2024-01-01' as occurred_at, 'u' as user_id, 'click' as action, 'a' as item_id, range as event_id"
    options = "format parquet, row_group_size 2048"
    db.execute(f"copy (select {events}, 7 as {column} from range(5000)) to '{tmp_path}/events.parquet' ({options})")
    assert landed(db, tmp_path)["events"] == 5000
    assert db.sql("from raw_events where row_number is distinct from event_id::bigint + 1").fetchall() == []
    assert db.sql("select distinct attributes from raw_events").fetchall() == [(f'{{"{column}":7}}',)]


def test_several_files_make_one_table(db, tmp_path):
    write_csv(tmp_path / "items.csv", [ITEM])
    (tmp_path / "events").mkdir()
    write_csv(tmp_path / "events" / "a.csv", [EVENT])
    write_csv(tmp_path / "events" / "b.csv", [{**EVENT, "position": 3}])
    assert landed(db, tmp_path)["events"] == 2


def test_ids_of_people_are_hmac_sha256(db, tmp_path):
    import hashlib
    import hmac

    write_csv(tmp_path / "items.csv", [ITEM])
    write_csv(tmp_path / "events.csv", [EVENT])
    landed(db, tmp_path)
    assert db.sql("select user_id from raw_events").fetchone() == (
        hmac.new(b"key", b"u", hashlib.sha256).hexdigest()[:32],
    )


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"1 folder is missing: .*nowhere.*check the path"):
        sources.find(str(tmp_path / "nowhere"))


def test_a_folder_that_nobody_recognises_says_what_it_must_hold(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        SourceError, match=r"holds 1 files that no adapter recognises; first: 'notes.txt'.*items.parquet"
    ):
        sources.find(str(tmp_path))


def test_items_alone_are_not_enough(db, tmp_path):
    write_csv(tmp_path / "items.csv", [ITEM])
    with pytest.raises(SourceError, match=r"has items of items, events, judgments.*add the missing file"):
        landed(db, tmp_path)


def test_a_missing_column_is_named(db, tmp_path):
    write_csv(tmp_path / "items.csv", [ITEM])
    write_csv(tmp_path / "events.csv", [{"occurred_at": "2024-01-01", "action": "click", "item_id": "a"}])
    with pytest.raises(
        SourceError, match=r"events: 1 required columns are missing in 'events\.csv'; first: 'user_id or session_id'"
    ):
        landed(db, tmp_path)


def test_an_empty_file_is_named(db, tmp_path):
    (tmp_path / "items.csv").write_text("")
    write_csv(tmp_path / "judgments.csv", [JUDGMENT])
    with pytest.raises(SourceError, match=r"1 file is empty: 'items.csv'.*add it"):
        landed(db, tmp_path)


def test_a_file_of_one_column_is_named(db, tmp_path):
    (tmp_path / "items.csv").write_text("item_id title\na A\n")
    write_csv(tmp_path / "judgments.csv", [JUDGMENT])
    with pytest.raises(SourceError, match=r"'items.csv' has 1 column in its first line.*with commas"):
        landed(db, tmp_path)


def test_a_text_file_in_place_of_parquet_is_an_error_of_the_source(db, tmp_path):
    write_csv(tmp_path / "items.csv", [ITEM])
    (tmp_path / "events.parquet").write_text("occurred_at,action\n")
    with pytest.raises(SourceError, match=r"1 file cannot be read, .*events\.parquet.*true ending"):
        landed(db, tmp_path)


def test_a_dated_file_comes_after_the_file_without_a_date(tmp_path):
    write_csv(tmp_path / "events.csv", [EVENT])
    write_csv(tmp_path / "events-2026-05-01.csv", [EVENT])
    assert [path.name for path in canonical.table_files(tmp_path, "events")] == ["events.csv", "events-2026-05-01.csv"]


def test_a_source_changes_when_a_file_of_it_does(tmp_path):
    write_csv(tmp_path / "items.csv", [ITEM])
    write_csv(tmp_path / "judgments.csv", [JUDGMENT])
    before = sources.find(str(tmp_path)).fingerprint("events")
    assert sources.find(str(tmp_path)).fingerprint("events") == before
    of_items = sources.find(str(tmp_path)).fingerprint("items")
    write_csv(tmp_path / "events.csv", [EVENT])
    assert sources.find(str(tmp_path)).fingerprint("events") != before
    assert sources.find(str(tmp_path)).fingerprint("items") == of_items


def test_the_default_source_is_complete_journey(db):
    assert landed(db, sources.DEFAULT) == {
        "items": 92_331,
        "events": 1_469_307,
        "campaigns": 27,
        "campaign_users": 6589,
        "campaign_items": 104_011,
        "promotions": 1_303_853,
    }


@pytest.mark.parametrize(
    ("folder", "counts"),
    [
        ("crowdflower", {"items": 7614, "judgments": 7781}),
        ("online_retail", {"items": 7517, "events": 765_468}),
        ("esci_ubi", {"items": 7640, "events": 3446, "judgments": 6678}),
    ],
)
def test_real_sets_land_whole(real, folder, counts):
    assert real(folder)[0] == counts


def test_cancelled_invoices_are_returns(real):
    _, db = real("online_retail")
    (negative, n) = db.sql(
        "select count(*) filter (quantity::double < 0), count(*) from raw_events where action = 'return'"
    ).fetchone()
    assert negative == 0
    assert n > 10_000
