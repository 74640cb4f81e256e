"""Whoever was forgotten is in no byte of a home, and no file brings him back."""

import csv
import gzip
import hashlib
import json
import shutil
import zipfile

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import KEY, make_published_shop, serve
from shop import ecom, write_csv
from starlette.testclient import TestClient
from test_writer import holder

from ecom_pipeline import sources
from ecom_pipeline.errors import HomeError, JournalError
from ecom_pipeline.privacy import relations
from ecom_pipeline.privacy.relations import Person
from ecom_pipeline.privacy.search import Wanted, search
from ecom_pipeline.service.journal import people
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.opening import open_database
from ecom_pipeline.service.journal.rows import Event, Exposure, Rating
from ecom_pipeline.service.journal.sealing import last_in_files, seal
from ecom_pipeline.service.journal.sqlite import SQLite
from ecom_pipeline.sources import landing
from ecom_pipeline.sources.forgotten import NOBODY, Forgotten, read_forgotten, tombstone, write_forgotten
from ecom_pipeline.sources.people import keyed_hash

TABLES = ("events", "campaign_users", "exposures")
PERSON = "person-3"


def land(db, folder, forgotten=NOBODY, key=b"key"):
    source = sources.find(str(folder))
    return {table: source.land(db, table, hash_key=key, forgotten=forgotten) for table in TABLES}


def rows_of(db):
    return {table: sorted(map(str, db.execute(f"from raw_{table}").fetchall())) for table in TABLES}


def person_of(db, raw, key=b"key"):
    actor = keyed_hash(raw, key)
    return Person(actor, tombstone(actor, key), raw, tuple(sorted(relations.own_sessions(db, actor))))


users = st.sampled_from(["ann", "bob", "cy", ""])
acts = st.lists(
    st.tuples(users, st.sampled_from(["s1", "s2", "s3", ""]), st.sampled_from(["", "ann", "dora"])), max_size=12
)


@settings(max_examples=25)
@given(acts)
def test_to_forget_and_to_land_without_somebody_is_the_same(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("law")
    write_csv(folder / "items.csv", [{"item_id": "a", "title": "A"}])
    first = {
        "occurred_at": "2024-05-01T10:00:00Z",
        "action": "click",
        "item_id": "a",
        "user_id": "ann",
        "customer_id": "",
    }
    told = [first] + [{**first, "user_id": u, "session_id": s, "customer_id": c} for u, s, c in rows]
    write_csv(folder / "events.csv", [{"session_id": "", **row} for row in told])
    with duckdb.connect() as forgetting, duckdb.connect() as landing_:
        sources.find(str(folder)).land(forgetting, "events", hash_key=b"key")
        person = person_of(forgetting, "ann")
        forgotten = NOBODY.with_more([person.actor, *person.sessions], b"key")
        n_rows = forgetting.execute("select count(*) from raw_events").fetchone()[0]
        gone = relations.take_out(forgetting, person)["raw_events"]
        found = sources.find(str(folder)).land(landing_, "events", hash_key=b"key", forgotten=forgotten)
        tables = ("raw_events", "event_days")
        assert [sorted(map(str, db.execute(f"from {one}").fetchall())) for db in (forgetting,) for one in tables] == [
            sorted(map(str, landing_.execute(f"from {one}").fetchall())) for one in tables
        ]
        assert (found.n_rows_forgotten, found.n_rows) == (gone, n_rows - gone)
        assert landing.content(forgetting, ["events"]) == landing.content(landing_, ["events"])


def test_others_keep_every_row_and_its_place(shop):
    with duckdb.connect() as db:
        land(db, shop.folder)
        before, person = rows_of(db), person_of(db, PERSON)
        gone = relations.take_out(db, person)
        after = rows_of(db)
    assert {table: len(before[table]) - len(after[table]) for table in TABLES} == {
        table: gone[f"raw_{table}"] for table in TABLES
    }
    assert all(set(after[table]) < set(before[table]) for table in TABLES)
    with (shop.folder / "events.csv").open() as file:
        assert gone["raw_events"] == sum(row["user_id"] == PERSON for row in csv.DictReader(file))


def test_a_session_that_somebody_shared_stays(tmp_path):
    write_csv(tmp_path / "items.csv", [{"item_id": "a", "title": "A"}])
    row = {"occurred_at": "2024-05-01T10:00:00Z", "action": "click", "item_id": "a"}
    acts = [("ann", "own"), ("", "own"), ("ann", "shared"), ("bob", "shared"), ("", "shared")]
    write_csv(tmp_path / "events.csv", [{**row, "user_id": user, "session_id": session} for user, session in acts])
    with duckdb.connect() as db:
        sources.find(str(tmp_path)).land(db, "events", hash_key=b"key")
        assert relations.take_out(db, person_of(db, "ann")) == {"raw_events": 3}
        assert db.execute("select row_number from raw_events order by 1").fetchall() == [(4,), (5,)]


def test_a_folder_named_after_somebody_is_called_after_his_tombstone(tmp_path):
    write_csv(tmp_path / "items.csv", [{"item_id": "a", "title": "A"}])
    folder = tmp_path / "events" / "user_id=ann"
    folder.mkdir(parents=True)
    write_csv(folder / "x.csv", [{"occurred_at": "2024-05-01T10:00:00Z", "action": "click", "item_id": "a"}])
    with duckdb.connect() as db:
        source = sources.find(str(tmp_path))
        source.land(db, "events", hash_key=b"key")
        person = person_of(db, "ann")
        relations.take_out(db, person)
        forgotten = NOBODY.with_more([person.actor], b"key")
        again = source.land(db, "events", hash_key=b"key", forgotten=forgotten)
        assert (again.n_rows, again.n_files_read, again.n_files_gone) == (0, 0, 0)
        assert relations.n_named(db, Wanted(person.actor, "ann")) == {}


def test_whoever_was_forgotten_under_one_key_stays_so_under_two(shop):
    forgotten = NOBODY.with_more([keyed_hash(PERSON, b"key")], b"key")
    with duckdb.connect() as one, duckdb.connect() as two:
        found = [land(one, shop.folder, forgotten), land(two, shop.folder, forgotten, (b"key", b"newer"))]
    assert found[0]["events"].n_rows_forgotten == found[1]["events"].n_rows_forgotten > 0


def test_tombstones_of_another_key_are_refused(tmp_path):
    file = tmp_path / "forgotten.json"
    write_forgotten(file, NOBODY.with_more([keyed_hash("ann", b"key")], b"key"), b"key")
    assert read_forgotten(file, (b"key", b"newer")).find("ann", (b"key", b"newer"))
    with pytest.raises(HomeError, match="1 people and sessions were forgotten under another key"):
        read_forgotten(file, b"other")
    assert keyed_hash("ann", b"key") not in file.read_text()


def journal_with(database, person, other):
    journal = Journal(database)
    told = {"occurred_at": "2026-01-01T00:00:00+00:00", "action": "click", "item_id": "i"}
    journal.append(
        [
            Event(event_id="a", user_id=person, session_id="s" * 32, **told),
            Event(event_id="b", user_id=None, session_id="s" * 32, **told),
            Event(event_id="c", user_id=other, session_id="t" * 32, **told),
        ]
    )
    journal.rate([Rating("r", "x", "q", "i", 1.0, person, "2026-01-01T00:00:00+00:00")])
    journal.expose([Exposure(f"e:a:{person}", "e", "a", person, None, "2026-01-01T00:00:00+00:00")])
    return journal


@pytest.mark.parametrize("sealed", [False, True])
def test_nothing_of_him_is_left_in_the_journal_while_a_service_holds_it(journal_in, tmp_path, sealed):
    person, other = keyed_hash("ann", b"key"), keyed_hash("bob", b"key")
    database = journal_in(tmp_path / "journal")
    journal = journal_with(database, person, other)
    if sealed:
        seal(database)
    sessions = people.own_sessions(database, person)
    assert sessions == {"s" * 32}
    assert sum(people.n_named(database, person).values()) == 3
    gone = people.forget(database, person, sessions)
    assert sum(gone.values()) == (8 if sealed else 4)
    assert [kept.event.event_id for kept in journal.after(0)] == ["c"]
    assert last_in_files(database.folder, "events") == (3 if sealed else 0)
    texts = [text for _, text in database.texts()]
    journal.close()
    assert search(tmp_path, Wanted(person)).found == {}
    assert not any(person in text for text in texts)
    assert search(tmp_path, Wanted(other)).found or any(other in text for text in texts)


def test_what_cannot_be_opened_is_named_and_the_search_goes_on(tmp_path):
    pq.write_table(pa.table({"x": ["a" * 1000]}), tmp_path / "cut.parquet")
    with zipfile.ZipFile(tmp_path / "cut.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x", "ann" * 1000)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"ann" * 1000))
    for file in (tmp_path / "cut.parquet", tmp_path / "cut.gz"):
        file.write_bytes(file.read_bytes()[:-9])
    damaged = bytearray((tmp_path / "cut.zip").read_bytes())
    damaged[40:60] = bytes(20)
    (tmp_path / "cut.zip").write_bytes(damaged)
    (tmp_path / "z.txt").write_text("here is ann-4711081512345")
    told = search(tmp_path, Wanted("ann-4711081512345"))
    assert told.unopened.keys() == {"cut.parquet", "cut.zip", "cut.gz"}
    assert told.found == {"z.txt": 1}


def test_a_sealed_file_that_cannot_be_read_is_told_and_nothing_is_taken_out_before(tmp_path):
    person = keyed_hash("ann", b"key")
    database = SQLite(tmp_path / "journal")
    journal_with(database, person, keyed_hash("bob", b"key")).close()
    file = seal(database)[0]
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(JournalError, match=rf"1 sealed file cannot be read: .*{file.name}"):
        people.own_sessions(database, person)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    make_published_shop().publish(folder / "published")
    return folder


def test_the_service_keeps_nothing_of_him(published):
    app, serving = serve(published)
    file = published / "forgotten.json"
    with TestClient(app) as client:
        event = {"event_id": "x", "user_id": "zoe", "action": "click", "item_id": "i1"}
        write_forgotten(file, Forgotten().with_more([keyed_hash("zoe", KEY)], KEY), KEY)
        told = client.post("/events", json={"events": [event, {**event, "event_id": "y", "user_id": "u1"}]}).json()
    assert (told["kept"], told["forgotten"], told["event_ids"]) == (1, 1, ["y"])
    assert [kept.event.event_id for kept in serving.journal.after(0)] == ["y"]
    serving.close()


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    """A copy of a finished home, with a journal and a file of the shop's in which somebody is named."""
    folder = tmp_path_factory.mktemp("forgetting") / "home"
    shutil.copytree(finished.home, folder)
    return folder


def key_of_tests():
    return hashlib.sha256(b"tests").digest()


def test_who_was_forgotten_is_in_no_byte_of_a_home(home):
    person = keyed_hash(PERSON, key_of_tests())
    journal_with(SQLite(home / "journal"), person, keyed_hash("person-4", key_of_tests())).close()
    assert search(home, Wanted(person)).found
    done = ecom("forget", PERSON, home=home, check=True)
    assert "found nowhere" in done.stdout
    assert search(home, Wanted(person, PERSON)).found == {}
    (receipt,) = (home / "receipts").glob("*-forget.json")
    told = json.loads(receipt.read_text())
    assert told["found"] == {}
    assert told["rows"]["raw_events"] == told["rows"]["cleaned_interactions"] > 0
    assert told["rows"]["published models"] == 1
    assert told["n_bytes_searched"] > 1_000_000
    assert ecom("forget", PERSON, home=home, check=True).returncode == 0  # once more changes nothing
    assert ecom("forget", PERSON, "--check", home=home).returncode == 0
    (home / "notes.txt").write_text(f"ask {PERSON}")
    refused = ecom("forget", PERSON, "--check", home=home)
    (home / "notes.txt").unlink()
    assert refused.returncode == 1
    assert "'notes.txt', 1 times" in refused.stderr
    with duckdb.connect(str(home / "warehouse.duckdb")) as db:
        assert db.execute("select count(distinct user_id) from cleaned_interactions").fetchall() == [(30 - 1,)]
        stale = db.execute("select asset from ledger where asset in ('raw_events', 'recommendations')").fetchall()
    assert stale == []


def test_errors_say_what_to_do(home, tmp_path):
    unknown = ecom("forget", "nobody-of-ours", home=home)
    assert (unknown.returncode, unknown.stderr.count("1 user is unknown: 'nobody-of-ours'")) == (2, 1)
    missing = ecom("forget", PERSON, home=tmp_path / "none")
    assert (missing.returncode, "1 file is missing, warehouse.duckdb" in missing.stderr) == (2, True)
    neither = ecom("forget", home=home)
    assert (neither.returncode, "0 of USER and --actor are given" in neither.stderr) == (2, True)
    with holder(home):
        busy = ecom("forget", "person-5", home=home)
    assert (busy.returncode, "in use by 1 other `ecom run`" in busy.stderr) == (1, True)


def test_who_was_forgotten_is_in_no_row_of_a_journal_on_a_server(home, connection, monkeypatch):
    monkeypatch.setenv("ECOM_JOURNAL", connection)
    person = keyed_hash("person-7", key_of_tests())
    database = open_database(home / "journal", connection, key_of_tests())
    journal_with(database, person, keyed_hash("person-4", key_of_tests())).close()
    assert ecom("forget", "person-7", "--check", home=home).returncode == 1
    before = json.loads(max((home / "receipts").glob("*-check.json")).read_text())["found"]
    assert {name: n for name, n in before.items() if "Postgres" in name} == {
        "journal in Postgres: events": 1,
        "journal in Postgres: ratings": 1,
        "journal in Postgres: exposures": 2,
    }
    done = ecom("forget", "person-7", home=home, check=True)
    assert "found nowhere" in done.stdout
    rows = json.loads(max((home / "receipts").glob("*-forget.json")).read_text())["rows"]
    assert {name: n for name, n in rows.items() if "Postgres" in name} == {
        "journal in Postgres: events": 2,
        "journal in Postgres: ratings": 1,
        "journal in Postgres: exposures": 1,
    }
    assert not any(person in text for _, text in database.texts())
    database.close()
