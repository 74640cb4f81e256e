import multiprocessing
import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields
from threading import Thread

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.rows import Event, Exposure, Rating
from ecom_pipeline.service.journal.sealing import last_in_files, n_unsealed, seal, sealed_files
from ecom_pipeline.service.journal.sqlite import FILE, SQLite


def event(name: str, **changes: object) -> Event:
    told = {"occurred_at": "2026-01-01T00:00:00+00:00", "user_id": "u", "session_id": None, "action": "click"}
    return Event(**{"event_id": name, "item_id": "i", **told, **changes})


@pytest.fixture
def database(journal_in, tmp_path):
    return journal_in(tmp_path / "journal")


@pytest.fixture
def journal(database):
    one = Journal(database)
    yield one
    one.close()


def test_an_event_is_kept_once_and_told_as_it_came_first(journal):
    (first,) = journal.append([event("a")])
    (again,) = journal.append([event("a", item_id="other")])
    assert (first.new, again.new) == (True, False)
    assert again.event.item_id == "i"
    assert [kept.event.event_id for kept in journal.after(0)] == ["a"]


def test_a_batch_that_names_an_event_twice_keeps_it_once(journal):
    assert [kept.new for kept in journal.append([event("a"), event("b"), event("a")])] == [True, True, False]
    assert len(journal.after(0)) == 2


def test_many_threads_lose_nothing(journal):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: journal.append([event(f"e{n % 150}")]), range(300)))
    kept = journal.after(0)
    assert sorted(one.event.event_id for one in kept) == sorted(f"e{n}" for n in range(150))
    assert [one.seq for one in kept] == sorted(one.seq for one in kept)


def test_two_processes_write_one_journal(journal_in, tmp_path):
    here, there = Journal(journal_in(tmp_path)), Journal(journal_in(tmp_path))
    here.append([event("a")])
    there.append([event("b"), event("a")])
    assert [kept.event.event_id for kept in here.after(0)] == ["a", "b"]
    for one in (here, there):
        one.close()


def test_what_cannot_be_written_is_said_and_not_acknowledged(tmp_path):
    folder = tmp_path / "journal"
    one = Journal(SQLite(folder))
    one.append([event("a")])
    (folder / "journal.sqlite").unlink()
    (folder / "journal.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(JournalError, match="1 file cannot be used"):
        Journal(SQLite(folder))


def test_what_is_sealed_is_in_one_file_whatever_comes_between(database, journal):
    folder = database.folder
    journal.append([event("a"), event("b", quantity=2.5, position=3)])
    assert n_unsealed(database, "events") == 2
    (first,) = seal(database)
    assert seal(database) == []
    journal.append([event("c")])
    journal.rate([Rating("r", "s", "mug", "i", 3.0, "ana", "2026-01-01T00:00:00+00:00")])
    seal(database)
    tables = [pq.read_table(file).to_pylist() for file in sealed_files(folder, "events")]
    assert [[row["event_id"] for row in table] for table in tables] == [["a", "b"], ["c"]]
    assert tables[0][1]["quantity"] == 2.5
    assert pq.read_table(sealed_files(folder, "ratings")[0]).to_pylist()[0]["relevance"] == 3
    assert first.name == "events-000000000001-000000000002.parquet"
    assert (n_unsealed(database, "events"), last_in_files(folder, "events")) == (0, 3)


def test_a_journal_that_was_taken_away_begins_behind_what_was_sealed_and_what_models_know(tmp_path):
    database = SQLite(tmp_path)
    one = Journal(database)
    one.append([event("a"), event("b")])
    seal(database)
    one.close()
    (tmp_path / "journal.sqlite").unlink()
    database = SQLite(tmp_path)
    again = Journal(database)
    database.go_on_after("events", 7)
    assert [kept.seq for kept in again.append([event("c")])] == [8]
    database.go_on_after("events", 3)
    assert [kept.seq for kept in again.append([event("d")])] == [9]
    (file,) = seal(database)
    assert [row["event_id"] for row in pq.read_table(file).to_pylist()] == ["c", "d"]
    again.close()


def test_places_go_on_behind_one_that_is_known_to_be_taken(database, journal):
    database.go_on_after("events", 7)
    assert [kept.seq for kept in journal.append([event("a"), event("b")])] == [8, 9]
    database.go_on_after("events", 3)
    assert [kept.seq for kept in journal.append([event("c")])] == [10]


def test_a_sealing_that_was_killed_before_the_rename_is_done_again(database, journal):
    journal.append([event("a")])
    (file,) = seal(database)
    journal.append([event("b")])
    left = file.rename(file.with_suffix(".123.part"))  # what a kill leaves
    assert n_unsealed(database, "events") == 2
    again = [pq.read_table(one).to_pylist() for one in seal(database)]
    assert [[row["event_id"] for row in table] for table in again] == [["a"], ["b"]]
    assert not left.exists()


def test_who_no_longer_waits_for_an_event_keeps_no_other_from_being_kept(tmp_path):
    one = Journal(SQLite(tmp_path))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("begin immediate")
        waiting = one.submit([event("a")])
        assert not waiting.cancel()  # as a request does that has run out of time
        other.execute("rollback")
    assert one.append([event("b")])[0].new
    assert [kept.event.event_id for kept in one.after(0)] == ["a", "b"]
    one.close()


def test_a_rating_is_taken_back_until_a_file_holds_it(database, journal):
    said = [Rating(name, "s", "mug", "i", 3.0, "ana", "2026-01-01T00:00:00+00:00") for name in ("r1", "r2")]
    journal.rate(said[:1])
    assert journal.take_back("r1")
    assert journal.ratings() == []
    journal.rate(said[1:])
    seal(database)
    assert not journal.take_back("r2")
    assert [rating.rating_id for rating in journal.ratings()] == ["r2"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=12))
@settings(max_examples=15)
def test_in_whatever_order_events_come_and_files_are_sealed_each_event_is_in_one_file(tmp_path_factory, steps):
    database = SQLite(tmp_path_factory.mktemp("journal"))
    one = Journal(database)
    for name, sealing in steps:
        one.append([event(name)])
        if sealing:
            seal(database)
    seal(database)
    files = sealed_files(database.folder, "events")
    assert [row["event_id"] for file in files for row in pq.read_table(file).to_pylist()] == list(
        dict.fromkeys(name for name, _ in steps)
    )
    one.close()


def _write_until_killed(folder, told) -> None:
    one = Journal(SQLite(folder))
    with open(told, "a", buffering=1) as acknowledged, ThreadPoolExecutor(4) as pool:

        def send(number: int) -> None:
            one.append([event(f"e{number}")])
            acknowledged.write(f"e{number}\n")

        for _ in pool.map(send, range(1_000_000)):
            pass


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_write_until_killed, args=(tmp_path / "journal", tmp_path / "told"))
    process.start()
    deadline = time.monotonic() + 60
    while not ((tmp_path / "told").exists() and (tmp_path / "told").stat().st_size > 2000):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    acknowledged = set((tmp_path / "told").read_text().split("\n")[:-1])
    one = Journal(SQLite(tmp_path / "journal"))
    kept = [row.event.event_id for row in one.after(0)]
    assert len(acknowledged) > 200
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))
    one.close()


@pytest.mark.parametrize("left", [0, 2])
def test_a_journal_that_was_lost_or_restored_goes_on_behind_what_was_sealed(tmp_path, left):
    database = SQLite(tmp_path)
    one = Journal(database)
    one.append([event(name) for name in "abcd"])
    one.close()
    seal(database)
    database.close()
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    if left:  # an older copy is put back, which had less
        (sealed,) = sealed_files(tmp_path, "events")
        aside = sealed.rename(tmp_path / "aside")
        older = Journal(SQLite(tmp_path))
        older.append([event(name) for name in "abcd"[:left]])
        older.close()
        aside.rename(sealed)
    database = SQLite(tmp_path)
    again = Journal(database)
    again.append([event("e")])
    assert [kept.event.event_id for kept in again.after(4)] == ["e"]
    (file,) = seal(database)
    assert [row["event_id"] for row in pq.read_table(file).to_pylist()] == ["e"]
    again.close()


def beside_the_next_sealing(monkeypatch, act) -> list[Thread]:
    """Start something while a file is being sealed, and give it the time to be done if nothing holds it."""
    threads, write = [], pq.write_table

    def slow(*given, **named):
        if not threads:
            threads.append(Thread(target=act))
            threads[0].start()
            threads[0].join(0.3)
        write(*given, **named)

    monkeypatch.setattr(pq, "write_table", slow)
    return threads


def test_what_two_seal_at_once_is_in_one_file(database, journal, monkeypatch):
    journal.append([event("a")])
    threads = beside_the_next_sealing(monkeypatch, lambda: (journal.append([event("b")]), seal(database)))
    seal(database)
    threads[0].join()
    files = sealed_files(database.folder, "events")
    assert [row["event_id"] for file in files for row in pq.read_table(file).to_pylist()] == ["a", "b"]


def test_a_rating_is_not_taken_back_while_it_is_being_sealed(database, journal, monkeypatch):
    journal.rate([Rating("r", "s", "mug", "i", 3.0, "ana", "2026-01-01T00:00:00+00:00")])
    answers = []
    threads = beside_the_next_sealing(monkeypatch, lambda: answers.append(journal.take_back("r")))
    seal(database)
    threads[0].join()
    assert answers == [False]
    assert [rating.rating_id for rating in journal.ratings()] == ["r"]


def test_after_an_event_that_cannot_be_written_others_are_kept(journal):
    with pytest.raises(JournalError):
        journal.append([event("a", position=1 << 70)])
    assert journal.append([event("b")])[0].new


def exposure(unit: str, at: str = "2026-01-01T00:00:00+00:00") -> Exposure:
    return Exposure(f"colours:loud:{unit}", "colours", "loud", unit, None, at)


def test_a_unit_is_exposed_to_an_arm_once_at_the_first_time_and_sealed_as_an_instant(database, journal):
    journal.expose([exposure("u"), exposure("v")])
    journal.expose([exposure("u", "2026-02-02T00:00:00+00:00")])
    assert journal.exposures() == {"colours:loud:u", "colours:loud:v"}
    (file,) = seal(database)
    rows = pq.read_table(file).to_pylist()
    assert [(row["user_id"], row["exposed_at"].isoformat()) for row in rows] == [
        ("u", "2026-01-01T00:00:00+00:00"),
        ("v", "2026-01-01T00:00:00+00:00"),
    ]
    assert n_unsealed(database, "exposures") == 0


def test_a_journal_of_an_older_version_gets_what_it_lacks(tmp_path):
    names = [field.name for field in fields(Event)]
    with closing(sqlite3.connect(tmp_path / FILE)) as db:  # as a version wrote it that knew no exposures and no seals
        db.execute(
            f"create table events (seq integer primary key autoincrement, {', '.join(names)}, unique ({names[0]}))"
        )
        db.execute("insert into events (event_id, occurred_at, action, item_id) values ('a', '2026', 'click', 'i')")
        db.commit()
    database = SQLite(tmp_path)
    assert n_unsealed(database, "exposures") == 0
    assert [file.name.split("-")[0] for file in seal(database)] == ["events"]
