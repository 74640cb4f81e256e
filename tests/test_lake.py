"""A lake: several processes write at once, and everything else is as in the one file."""

import hashlib
import importlib.util
import itertools
import subprocess
import sys
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from postgres import PASSWORD, binaries, serving
from shop import ROOT, ecom, write_csv

from assets.prepare import CleaningConfig
from assets.publish import settings_of
from ecom_pipeline import cleaning, ledger, sources
from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.ledger import Entry
from ecom_pipeline.privacy.search import Wanted, search
from ecom_pipeline.sources.people import keyed_hash
from resources import extensions
from resources.lake import Lake
from resources.warehouse import Warehouse

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="no Postgres server is installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("duckdb_extension_ducklake") is None,
        reason="duckdb-extension-ducklake is not installed",
    ),
]
OF_THE_CLOCK = {"embedded_at", "written_at", "landed_at"}
NOT_COMPARED = {"ledger_entries", "landed_files", "costs"}  # what was made when, and how long it took
PERSON = "person-of-many-letters"
DAY = date(2024, 5, 1)
KEY = hashlib.sha256(b"tests").digest()
_NUMBER = itertools.count()


@pytest.fixture(scope="module")
def server():
    with serving() as found:
        yield found


@pytest.fixture
def lake(server, tmp_path, monkeypatch):
    """An empty one, in a home of its own."""
    database = f"lake{next(_NUMBER)}"
    server.ask("postgres", f"create database {database}")
    monkeypatch.setenv("ECOM_LAKE", server.connection(database))
    return of(tmp_path / "home")


def of(home, **settings):
    return Warehouse(
        path=str(home / "warehouse.duckdb"), lake_folder=str(home / "lake"), **{"snapshot_hours": 0, **settings}
    )


def fill(warehouse, table="t", x=1):
    with warehouse.transaction() as db:
        db.execute(f"create or replace table {table} as select {x} as x from range(10)")


def files(warehouse):
    return len(list(Path(warehouse.lake_folder).rglob("*.parquet")))


def relations(warehouse):
    """Rows of each relation, whatever their order, without what the clock says."""
    found = {}
    with warehouse.connect() as db:
        names = "select table_name from duckdb_tables() where database_name = current_database()"
        for (name,) in db.execute(names).fetchall():
            columns = [column for column in db.sql(f"from {name} limit 0").columns if column not in OF_THE_CLOCK]
            rows = db.execute(f"select {', '.join(columns)} from {name}").fetchall()
            found[name] = sorted(map(repr, rows)) if name not in NOT_COMPARED else len(rows)
    return found


WRITE = """
import sys, time
from resources.warehouse import Warehouse
path, folder, name, last = sys.argv[1:]
warehouse = Warehouse(path=path, lake_folder=folder)
for nth in range(12):
    with warehouse.transaction() as db:
        db.execute("insert into acts select ?, ?, range from range(100)", [name, nth])
        db.execute(f"create or replace table of_{name} as select {nth} as nth")
        if str(nth) == last:
            print("inside", flush=True)
            time.sleep(60)
    print(nth, flush=True)
"""


def writer(warehouse, name, last=""):
    """Another process that adds to a relation that others add to, and replaces one of its own, both at once."""
    command = [sys.executable, "-c", WRITE, warehouse.path, warehouse.lake_folder, name, last]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once_and_of_a_killed_one_all_is_there_that_it_had_committed(lake):
    with lake.transaction() as db:
        db.execute("create table acts (name varchar, nth bigint, act bigint)")
    with writer(lake, "one") as one, writer(lake, "two") as two, writer(lake, "three", last="2") as three:
        told = {"two": [two.stdout.readline().strip() for _ in range(5)]}
        two.kill()  # wherever it is
        told["three"] = list(iter(lambda: three.stdout.readline().strip(), "inside"))
        three.kill()  # within a transaction
        told["one"] = one.stdout.read().split()
    found = {name: [] for name in told}
    for name, nth, n_rows in lake.read("select name, nth, count(*) from acts group by all order by all").to_numpy():
        assert n_rows == 100
        found[name].append(str(nth))
    assert told["one"] == found["one"] == [str(nth) for nth in range(12)]
    assert told["three"] == found["three"] == ["0", "1"]
    assert found["two"][:5] == told["two"]
    for name, there in found.items():
        assert lake.read(f"of_{name}").nth.tolist() == [int(there[-1])]


def change_after_another(warehouse):
    with warehouse.transaction() as db:
        db.execute("update t set x = 2")
        with warehouse.transaction() as other:
            other.execute("update t set x = 3")


def test_of_two_changes_of_the_same_rows_one_holds_and_the_other_is_told(lake):
    fill(lake)
    with pytest.raises(
        WarehouseError, match=r"1 change was refused, as another process has.*only the first.*start the"
    ):
        change_after_another(lake)
    assert set(lake.read("t").x) == {3}


def test_a_transaction_sees_one_state_whatever_others_write_meanwhile(lake):
    fill(lake)
    with lake.transaction() as db:
        assert db.execute("select sum(x) from t").fetchall() == [(10,)]
        fill(lake, x=2)
        assert db.execute("select sum(x) from t").fetchall() == [(10,)]
    assert lake.read("t").x.sum() == 20


@dg.asset
def rows(warehouse: Warehouse) -> None:
    fill(warehouse, x=2)


@pytest.mark.parametrize(("hours", "left"), [(0, 1), (24, 2)])
def test_at_the_end_of_a_run_goes_what_was_replaced_so_long_ago(lake, tmp_path, hours, left):
    fill(lake)
    assert dg.materialize([rows], resources={"warehouse": of(tmp_path / "home", snapshot_hours=hours)}).success
    assert files(lake) == left
    assert lake.read("t").x.sum() == 20


def test_small_changes_become_one_file(lake):
    fill(lake, "small")
    for nth in range(5):
        with lake.transaction() as db:
            db.execute(f"insert into small values ({nth})")
    assert files(lake) == 6
    assert dg.materialize([rows], resources={"warehouse": lake}).success
    assert files(lake) == 2
    assert lake.read("small").x.tolist() == [*[1] * 10, *range(5)]


@pytest.fixture
def source(tmp_path):
    """A shop of which a run makes no more than samples, as they are too few."""
    folder = tmp_path / "shop"
    folder.mkdir()
    write_csv(folder / "items.csv", [{"item_id": "a", "title": "a red mug"}])
    write_csv(folder / "judgments.csv", [{"query": "mug", "item_id": "a", "relevance": 1}])
    return folder


def land(warehouse, source):
    with warehouse.transaction() as db:
        for table in ("items", "events"):
            sources.find(str(source)).land(db, table, hash_key=KEY)
        cleaning.clean_items(db)
        cleaning.clean_events(db, DAY, DAY, cleaning.Limits(**settings_of(CleaningConfig())))


def test_whoever_is_forgotten_is_in_no_byte_of_the_home_and_in_no_row_of_the_catalogue(lake, source, tmp_path):
    act = {"occurred_at": f"{DAY}T10:00:00Z", "action": "click", "item_id": "a"}
    write_csv(source / "events.csv", [{**act, "user_id": PERSON}, {**act, "user_id": "another"}])
    land(lake, source)
    wanted, folder = Wanted(keyed_hash(PERSON, KEY), PERSON), Path(lake.lake_folder)
    assert any(search(folder, wanted).found)
    assert any(wanted.count(row) for _, row in lake.catalogue())
    told = ecom("forget", PERSON, home=tmp_path / "home")
    assert told.returncode == 0, told.stderr
    assert search(tmp_path / "home", wanted).found == {}
    assert not any(wanted.count(row) for _, row in lake.catalogue())
    assert lake.read("raw_events").user_id.nunique() == 1
    assert not Path(lake.path).exists()


def test_nobody_else_may_write_while_somebody_is_forgotten(lake):
    fill(lake)
    with lake.transaction() as db:
        db.execute("create table acts (name varchar, nth bigint, act bigint)")
    with writer(lake, "one", last="0") as other:
        assert other.stdout.readline() == "inside\n"
        with pytest.raises(WarehouseError, match=rf"1 other processes work in the lake; first: 'ecom-{other.pid}-"):
            lake.compact()
        other.kill()
    assert files(lake) == 3  # what the killed one has left
    lake.compact()
    assert files(lake) == 1


BEGIN = """
import sys
from resources.warehouse import Warehouse
with Warehouse(path=sys.argv[1], lake_folder=sys.argv[2]).transaction() as db:
    db.execute("create table late as select range as x from range(100000)")
    print("begun", flush=True)
    sys.stdin.readline()
"""


def test_what_somebody_begins_to_write_meanwhile_stays(lake, monkeypatch):
    fill(lake)
    command, asked = [sys.executable, "-c", BEGIN, lake.path, lake.lake_folder], Lake._require_alone
    with ExitStack() as open_until_here:

        def a_moment_later(self, db):
            asked(self, db)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            begun.append(open_until_here.enter_context(subprocess.Popen(command, cwd=ROOT, **pipes)))
            assert begun[0].stdout.readline() == "begun\n"

        begun: list[subprocess.Popen] = []
        monkeypatch.setattr(Lake, "_require_alone", a_moment_later)
        lake.compact()
        begun[0].communicate("\n")
        assert begun[0].returncode == 0
    assert lake.read("select sum(x) from late").iat[0, 0] == sum(range(100000))


def test_a_server_that_lets_nobody_in_is_told_without_the_password(server, source, tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_LAKE", server.url("nowhere", password="mistaken-4712"))
    run = ecom("run", "--source", source, home=tmp_path / "home")
    assert run.returncode == 1
    assert (
        "1 server does not let us in, the Postgres that keeps the lake's catalogue: connection to server" in run.stderr
    )
    assert "It must run and know us by ECOM_LAKE: start it or correct the variable" in run.stderr
    assert "mistaken" not in run.stderr + run.stdout


def test_the_password_is_nowhere(lake, source, tmp_path, server, monkeypatch):
    monkeypatch.setenv("ECOM_LAKE", server.url(f"lake{next(_NUMBER) - 1}"))
    run = ecom("run", "--source", source, home=tmp_path / "home")
    assert "splits have no sample" in run.stderr  # landed, cleaned, sampled
    assert lake.has("items")
    assert PASSWORD not in run.stdout + run.stderr
    assert search(tmp_path / "home", Wanted(PASSWORD)).found == {}
    assert PASSWORD not in repr(Lake("folder", PASSWORD))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("version", "9.9", "1 lake is of another version of DuckLake.*install the same version"),
        ("data_path", "/elsewhere/", "1 folder is not the one that holds.*must be the same.*set ECOM_LAKE_FOLDER"),
    ],
)
def test_another_lake_than_this_one_is_told(lake, server, tmp_path, monkeypatch, setting, value, told):
    fill(lake)
    server.ask(f"lake{next(_NUMBER) - 1}", f"update ducklake_metadata set value = '{value}' where key = '{setting}'")
    again = Warehouse(path=str(tmp_path / "again.duckdb"), lake_folder=lake.lake_folder)
    with pytest.raises(WarehouseError, match=told):
        again.read("t")


def test_a_new_lake_takes_no_folder_of_another_one(lake, server, monkeypatch):
    fill(lake)
    server.ask("postgres", f"create database lake{next(_NUMBER)}")
    monkeypatch.setenv("ECOM_LAKE", server.connection(f"lake{next(_NUMBER) - 1}"))
    with pytest.raises(WarehouseError, match=r"1 folder holds rows of another lake; first: .*must be empty: set"):
        fill(lake)


@pytest.mark.parametrize("said", ["mistaken-4712", "postgresql://ecom:mistaken-4712@[db/lake", "host=x mistaken=4712"])
def test_what_is_no_connection_string_is_not_repeated(lake, monkeypatch, said):
    monkeypatch.setenv("ECOM_LAKE", said)
    with pytest.raises(
        WarehouseError, match=r"1 connection string is none that Postgres can read.*correct the var"
    ) as told:
        fill(lake)
    assert "mistaken" not in str(told.value)


def test_a_key_for_a_file_is_refused(lake, monkeypatch):
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", "secret")
    with pytest.raises(WarehouseError, match=r"ECOM_WAREHOUSE_KEY: 1 key is of no use beside ECOM_LAKE.*must be unset"):
        fill(lake)


def test_rows_that_are_gone_are_told(lake):
    fill(lake)
    next(Path(lake.lake_folder).rglob("*.parquet")).unlink()
    with pytest.raises(
        WarehouseError, match=r"1 file of a lake's rows cannot be read.*must lie where the catalogue says"
    ):
        lake.read("t")


def test_a_server_that_goes_within_a_transaction_is_told_and_the_next_one_goes_on(lake, server):
    fill(lake)
    with pytest.raises(WarehouseError, match=r"1 server does not let us in.*start the command again"):
        lose_the_server(lake, server)
    assert lake.read("t").x.sum() == 10


def lose_the_server(warehouse, server):
    with warehouse.transaction() as db:
        db.execute("insert into t values (7)")
        server.ask(
            "postgres",
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname is not null",
        )


def test_steps_that_write_different_relations_never_contradict_each_other(lake):
    with lake.transaction() as db:
        ledger.record(db, "one", Entry("before", "", 0))
    with lake.transaction() as db:
        db.execute("create table one as select 1 as x")
        ledger.record(db, "one", Entry("a", "b", 1))
        with lake.transaction() as other:
            other.execute("create table two as select 2 as x")
            ledger.record(other, "two", Entry("c", "d", 1))
            ledger.record_days(
                other, "days", "select date '2024-05-01' as day, 'e' as made_from, 'f' as content, 1 as n_rows"
            )
    with lake.connect() as db:
        assert ledger.entries(db, "one") == {ledger.WHOLE: Entry("a", "b", 1)}
        assert ledger.contents(db).keys() == {"one", "two", "days"}


def test_a_folder_without_a_catalogue_is_refused(lake, monkeypatch):
    monkeypatch.delenv("ECOM_LAKE")
    with pytest.raises(WarehouseError, match=r"ECOM_LAKE: 1 connection is missing.*set it in the environment"):
        fill(lake)


def test_a_missing_extension_is_told_by_its_package(lake, monkeypatch, tmp_path):
    monkeypatch.setattr(extensions, "_file", lambda name: tmp_path / name)
    with pytest.raises(
        WarehouseError,
        match=r"ECOM_LAKE: 1 package is missing, duckdb-extension-ducklake .*pip install 'ecom-pipeline\[lake\]'",
    ):
        fill(lake)


def test_the_key_of_people_cannot_be_changed_in_a_lake(lake, tmp_path):
    fill(lake)
    with pytest.raises(WarehouseError, match=r"1 lake cannot change its key.*must be one file.*name an empty database"):
        lake.write_to(tmp_path / "copy.duckdb")


def test_a_whole_run_makes_of_a_lake_what_it_makes_of_the_file(finished, shop, config, tmp_path, server, monkeypatch):
    made = ["run", "--source", shop.folder, "--config", config, "--device", "cpu"]
    server.ask("postgres", "create database whole")
    monkeypatch.setenv("ECOM_LAKE", server.connection("whole"))
    run = ecom(*made, home=tmp_path / "lake", check=True)
    file, lake = Warehouse(path=str(finished.home / "warehouse.duckdb")), of(tmp_path / "lake")
    assert relations(lake) == relations(file)
    again = ecom(*made, home=tmp_path / "lake", check=True)
    assert "nothing is new" in again.stderr
    assert again.stdout == run.stdout
