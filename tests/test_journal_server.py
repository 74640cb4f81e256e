"""The journal in Postgres: what several machines share, and what a server may do to it."""

import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pyarrow.parquet as pq
import pytest
from postgres import PASSWORD, Server
from test_forget import journal_with
from test_journal import event

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal import people
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.database import Database
from ecom_pipeline.service.journal.opening import open_database
from ecom_pipeline.service.journal.rows import Rating
from ecom_pipeline.service.journal.sealing import n_unsealed, seal, sealed_files
from ecom_pipeline.service.journal.sqlite import SQLite
from ecom_pipeline.sources.people import keyed_hash

psycopg = pytest.importorskip("psycopg")
KEY, NEXT = b"tests", b"next"


@pytest.fixture
def machine(connection, tmp_path):
    """Gives the journal's database as another machine has it, which shares the server and, unless told, no folder."""
    opened, numbers = [], count()

    def make(folder: Path | None = None, key: object = KEY) -> Database:
        opened.append(open_database(folder or tmp_path / f"machine-{next(numbers)}", connection, key))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def journal(machine):
    with closing(Journal(machine())) as one:
        yield one


def ids_in_files(folder: Path) -> list[str]:
    return [row["event_id"] for file in sealed_files(folder, "events") for row in pq.read_table(file).to_pylist()]


def begun(database: Database, name: str):
    """A transaction of another machine that has given a place and is not committed."""
    db = database.connect()
    db.execute(database.begin_words)
    database.order_commits(db)
    (kept,) = database.put(db, "events", [event(name)])
    return db, kept


def test_nobody_passes_a_place_that_may_still_be_committed(journal, machine):
    other = machine()
    db, first = begun(other, "a")
    later = journal.submit([event("b")])
    time.sleep(0.3)
    assert not later.done()
    assert (journal.after(0), seal(journal.database)) == ([], [])
    db.execute("commit")
    (second,) = later.result()
    assert second.seq > first.seq
    seal(journal.database)
    assert ids_in_files(journal.database.folder) == ["a", "b"]
    db.close()


def test_a_place_that_was_given_and_not_committed_is_a_hole_and_no_more(journal, machine):
    db, first = begun(machine(), "a")
    later = journal.submit([event("b")])
    db.close()  # as a machine that is gone
    (second,) = later.result()
    assert second.seq > first.seq
    seal(journal.database)
    assert ids_in_files(journal.database.folder) == ["b"]


def write_and_give_up(database: Database, draw: random.Random, names: Iterator[str]) -> list[str]:
    """Transactions, of which one in three is broken off; the names of what the others wrote."""
    done = []
    for _ in range(40):
        rows = [event(next(names)) for _ in range(draw.randint(1, 3))]
        db = database.connect()
        db.execute(database.begin_words)
        database.order_commits(db)
        database.put(db, "events", rows)
        time.sleep(draw.random() / 500)
        if draw.random() > 1 / 3:
            db.execute("commit")
            done += [row.event_id for row in rows]
        db.close()
    return done


def test_though_many_transactions_give_up_nobody_skips_an_event(machine, tmp_path):
    """Four machines write, one reads on from where it is, and two seal into one folder."""
    seen, stop, shared = [], Flag(), tmp_path / "shared"
    names = (f"e{number}" for number in count())

    def read(journal: Journal) -> None:
        until = 0
        while not stop.is_set():
            for kept in journal.after(until):
                seen.append(kept.event.event_id)
                until = kept.seq

    def seal_on(database: Database) -> None:
        while not stop.is_set():
            seal(database)

    with closing(Journal(machine(shared))) as reader:
        watchers = [Thread(target=read, args=(reader,))]
        watchers += [Thread(target=seal_on, args=(machine(shared),)) for _ in range(2)]
        for one in watchers:
            one.start()
        with ThreadPoolExecutor(4) as pool:
            made = pool.map(lambda seed: write_and_give_up(machine(), random.Random(seed), names), range(4))
            done = [name for part in made for name in part]
        time.sleep(0.1)
        stop.set()
        for one in watchers:
            one.join()
        seal(reader.database)
    assert len(done) > 100
    assert sorted(seen) == sorted(done)
    assert ids_in_files(shared) == seen
    assert len(sealed_files(shared, "events")) > 3


def test_an_event_of_one_machine_is_known_to_every_other_at_once_and_kept_once(journal, machine):
    with closing(Journal(machine())) as other:
        for number in range(20):
            here, there = (journal, other) if number % 2 else (other, journal)
            here.append([event(f"e{number}")])
            assert there.after(0)[-1].event.event_id == f"e{number}"
            (again,) = there.append([event(f"e{number}", item_id="another")])
            assert (again.new, again.event.item_id) == (False, "i")


def test_what_one_machine_sealed_is_the_same_file_on_another_and_no_rating_of_it_is_taken_back(journal, machine):
    other = machine()
    journal.append([event("a"), event("b")])
    journal.rate([Rating("r", "s", "mug", "i", 3.0, "ana", "2026-01-01T00:00:00+00:00")])
    seal(journal.database)
    with closing(Journal(other)) as there:
        assert not there.take_back("r")
        there.append([event("c")])
    assert n_unsealed(other, "events") == 3
    seal(other)
    seal(journal.database)
    files = [sorted(one.folder.glob("*.parquet")) for one in (journal.database, other)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    assert ids_in_files(other.folder) == ["a", "b", "c"]


@pytest.fixture
def careless(postgres):
    """A server that by itself would answer before its disk does."""
    postgres.ask("postgres", "alter database postgres set synchronous_commit = off")
    yield postgres
    postgres.ask("postgres", "alter database postgres reset synchronous_commit")


def test_what_was_acknowledged_is_there_after_the_server_was_killed(careless, journal):
    for number in range(30):
        journal.append([event(f"e{number}")])
    careless.stop()
    with pytest.raises(JournalError, match="1 server does not do what is asked"):
        journal.append([event("lost")])
    careless.start()
    time.sleep(1.1)
    assert [kept.event.event_id for kept in journal.after(0)] == [f"e{number}" for number in range(30)]
    assert journal.append([event("e29")])[0].new is False
    assert journal.append([event("lost")])[0].new is True


def test_a_connection_that_the_server_ended_is_made_again_unnoticed(journal, connection):
    journal.append([event("a")])
    with psycopg.connect(connection, autocommit=True) as admin:
        others = "datname = current_database() and pid <> pg_backend_pid()"
        admin.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {others}")
    assert journal.append([event("b")])[0].new
    assert len(journal.after(0)) == 2


def test_who_holds_places_and_says_nothing_loses_them(machine):
    database = machine()
    database.begin_once()
    with closing(database.connect()) as db:
        asked = "select current_setting('synchronous_commit'), current_setting('idle_in_transaction_session_timeout')"
        assert db.execute(asked).fetchall() == [("on", "5s")]


@pytest.mark.parametrize(
    "said",
    [
        "mistaken-4712",
        "postgresql://ecom:mistaken-4712@[db/lake",
        "host=x mistaken=4712",
        "postgresql://ecom:a@mistaken-4712@db/lake",
        "postgresql://ecom:mistaken-4712/b@db/lake",
        "host=db password=a mistaken-4712 dbname=x",
    ],
)
def test_what_is_no_connection_string_is_not_repeated(tmp_path, said):
    with pytest.raises(JournalError, match=r"1 connection string is none.*correct the variable\.$") as refused:
        open_database(tmp_path, said, KEY)
    assert "mistaken" not in str(refused.value)


def test_without_the_library_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "ecom_pipeline.service.journal.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(JournalError, match=r"1 package is missing, psycopg\..*pip install 'ecom-pipeline\[journal\]'"):
        open_database(tmp_path, "host=db", KEY)


def test_a_server_that_lets_us_not_in_is_told_without_the_password(connection, tmp_path):
    database = open_database(tmp_path, connection.replace(PASSWORD, "mistaken-4712"), KEY)
    with pytest.raises(JournalError, match=r"password authentication failed.*start it or correct the var") as refused:
        Journal(database)
    assert "mistaken" not in f"{refused.value} {refused.value.__cause__}"


def test_people_of_another_home_are_not_mixed_with_ours(journal, machine):
    with pytest.raises(JournalError, match=r"1 database is of another key.*nothing was kept"):
        Journal(machine(key=b"another"))


def in_bytes(server: Server, text: str) -> int:
    """How often a text stands in the files of a server's databases."""
    server.ask("postgres", "checkpoint")
    files = (server.folder / "data" / "base").rglob("*")
    return sum(one.read_bytes().count(text.encode()) for one in files if one.is_file())


def test_under_a_new_key_nobody_is_named_as_before_and_who_has_the_former_keeps_nothing(journal, machine, postgres):
    person, new = keyed_hash("ann", KEY), keyed_hash("ann", (KEY, NEXT))
    journal_with(journal.database, person, keyed_hash("bob", KEY)).close()
    assert in_bytes(postgres, person)
    later = machine(key=(KEY, NEXT))
    assert later.begin() == 5
    assert later.begin() == 0
    assert (in_bytes(postgres, person), in_bytes(postgres, new) > 0) == (0, True)
    assert sum(people.n_named(later, new).values()) == 3
    with pytest.raises(JournalError, match="1 database is of another key"):
        journal.append([event("z")])
    assert "another key" in journal.away()
    with closing(Journal(later)) as again:
        assert [kept.event.event_id for kept in again.after(0)] == ["a", "b", "c"]
        assert again.append([event("d")])[0].seq > 3


def test_of_who_is_forgotten_no_byte_is_left_though_somebody_still_sees_the_state_of_before(
    journal, machine, postgres, connection
):
    person = keyed_hash("ann", KEY)
    with psycopg.connect(connection) as other:
        other.execute("set transaction isolation level repeatable read")
        other.execute("select 1")  # an old transaction, which keeps a vacuum from deleting rows
        database = machine()
        journal_with(database, person, keyed_hash("bob", KEY)).close()
        with psycopg.connect(connection, autocommit=True) as admin:
            admin.execute("analyze")
        assert in_bytes(postgres, person)
        people.forget(database, person, ["s" * 32])
        assert in_bytes(postgres, person) == 0
    assert [kept.event.event_id for kept in journal.after(0)] == ["c"]


def test_a_journal_in_a_file_moves_to_the_server_with_all_it_holds(machine, tmp_path):
    folder = tmp_path / "home"
    file = SQLite(folder)
    with closing(Journal(file)) as before:
        before.append([event("a"), event("b\0")])
        seal(file)
        before.append([event("c")])
    database = machine(folder)
    with closing(Journal(database)) as after:
        assert [kept.event.event_id for kept in after.after(0)] == ["a", "b\ufffd", "c"]
        assert [kept.seq for kept in after.after(0)][:2] == [1, 2]
        assert after.append([event("a")])[0].new is False
    assert list(folder.glob("journal.sqlite*")) == []
    seal(database)
    assert ids_in_files(folder) == ["a", "b\0", "c"]
    with pytest.raises(JournalError, match=r"ECOM_JOURNAL: 1 connection is missing.*set it in the environment"):
        open_database(folder, "", KEY)


def test_what_a_service_kept_in_a_file_by_mistake_is_added_to_what_is_on_the_server(journal, machine, tmp_path):
    journal.append([event("a"), event("b")])
    with closing(Journal(SQLite(tmp_path / "home"))) as mistaken:
        mistaken.append([event("b"), event("c")])
    database = machine(tmp_path / "home")
    assert n_unsealed(database, "events") == 3
    assert [kept.event.event_id for kept in journal.after(0)] == ["a", "b", "c"]


def test_files_of_another_journal_are_not_taken_for_those_of_this_one(journal, machine, tmp_path):
    journal.append([event("a")])
    file = SQLite(tmp_path / "home")
    with closing(Journal(file)) as other:
        other.append([event("x")])
    seal(file)
    with pytest.raises(JournalError, match=r"1 sealed files are of another journal than the 1 rows.*must be of one"):
        Journal(machine(tmp_path / "home"))
    assert file.exists


def test_a_database_that_was_lost_begins_behind_what_the_folder_holds(machine, connection, tmp_path):
    folder = tmp_path / "home"
    with closing(Journal(machine(folder))) as one:
        one.append([event("a"), event("b")])
    seal(one.database)
    with psycopg.connect(connection, autocommit=True) as admin:
        admin.execute("drop schema ecom_journal cascade")
    with closing(Journal(machine(folder))) as again:
        assert [kept.seq for kept in again.append([event("c")])] == [3]
    seal(again.database)
    assert ids_in_files(folder) == ["a", "b", "c"]
