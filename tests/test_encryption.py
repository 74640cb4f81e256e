"""A warehouse with a key: nothing of it can be read without, wherever DuckDB puts it."""

import importlib.util
import subprocess
import sys

import pytest
from shop import ROOT, ecom, write_csv

from ecom_pipeline.errors import InputError, WarehouseError
from resources.warehouse import Warehouse

WORD = "unmistakable"
KEY = "it's secret"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("duckdb_extension_httpfs") is None, reason="duckdb-extension-httpfs is not installed"
)


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", KEY)
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"), patience_seconds=0)


def fill(warehouse, n=1000):
    with warehouse.transaction() as db:
        db.execute(f"create or replace table items as select '{WORD}' || range as item_id from range({n})")


def readable(folder):
    return {file.name for file in folder.rglob("*") if file.is_file() and WORD.encode() in file.read_bytes()}


def test_what_is_written_can_be_read_with_the_key_alone(warehouse, tmp_path, monkeypatch):
    fill(warehouse)
    assert warehouse.has("items")
    assert len(warehouse.read("items")) == 1000
    assert readable(tmp_path) == set()
    monkeypatch.delenv("ECOM_WAREHOUSE_KEY")
    with pytest.raises(
        WarehouseError, match=r"1 file cannot be opened with ECOM_WAREHOUSE_KEY as it is.*without a key"
    ):
        warehouse.read("items")
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", "another")
    with pytest.raises(WarehouseError, match=r"Wrong encryption key.*It must be the key that the file was made with"):
        warehouse.read("items")
    fill(Warehouse(path=str(tmp_path / "other.duckdb")))


def test_a_file_without_a_key_is_not_taken_for_one_with(warehouse, tmp_path, monkeypatch):
    monkeypatch.delenv("ECOM_WAREHOUSE_KEY")
    fill(warehouse)
    assert readable(tmp_path) == {"warehouse.duckdb"}  # so it would be seen
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", KEY)
    with pytest.raises(WarehouseError, match=r"is not encrypted.*and none where it was made without"):
        warehouse.read("items")
    monkeypatch.delenv("ECOM_WAREHOUSE_KEY")
    assert len(warehouse.read("items")) == 1000


def test_what_is_not_in_the_file_yet_and_what_does_not_fit_into_memory_is_encrypted_too(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", KEY)
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"), memory_limit="60MB")
    with warehouse.connect() as db:
        db.execute(f"create table items as select '{WORD}' || range as item_id from range(3000)")
        assert (tmp_path / "warehouse.duckdb.wal").stat().st_size > 0
        assert readable(tmp_path) == set()
        db.execute("set threads = 1; set preserve_insertion_order = false")
        rows = db.execute(f"select '{WORD}' || hash(range) as x, range from range(4_000_000) order by x")
        assert rows.fetchone()[0].startswith(WORD)
        spilled = list((tmp_path / "warehouse.duckdb.tmp").iterdir())
        assert sum(file.stat().st_size for file in spilled) > 1_000_000
        assert readable(tmp_path) == set()


def test_a_copy_has_the_same_key(warehouse, tmp_path):
    fill(warehouse)
    warehouse.compact()
    warehouse.write_to(tmp_path / "copy.duckdb")
    assert readable(tmp_path) == set()
    assert len(Warehouse(path=str(tmp_path / "copy.duckdb")).read("items")) == len(warehouse.read("items")) == 1000


def test_one_process_may_open_it_twice_and_another_one_is_told_who_holds_it(warehouse):
    fill(warehouse)
    with warehouse.connect() as db:
        db.execute("create table t as select 1 as x")
        assert warehouse.read("t").x.tolist() == [1]
    code = f"""
import sys, time; from resources.warehouse import Warehouse
with Warehouse(path={warehouse.path!r}).connect(): print("held", flush=True); sys.stdin.read()"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WarehouseError, match=rf"is held by 1 process, .*\(PID {holder.pid}\)"):
            warehouse.read("t")
        holder.stdin.close()


def test_a_blank_key_is_none_and_is_said(warehouse, monkeypatch):
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", "  ")
    with pytest.raises(InputError, match="ECOM_WAREHOUSE_KEY: 1 key is blank"):
        fill(warehouse)


def test_a_run_needs_nothing_more_than_the_key(tmp_path, monkeypatch):
    source, home = tmp_path / "shop", tmp_path / "home"
    source.mkdir()
    write_csv(source / "items.csv", [{"item_id": "a", "title": WORD}])
    write_csv(source / "judgments.csv", [{"query": f"{WORD} query", "item_id": "a", "relevance": 1}])
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", KEY)
    run = ecom("run", "--source", source, home=home)
    assert "splits have no sample" in run.stderr  # landed, cleaned, sampled
    with Warehouse(path=str(home / "warehouse.duckdb")).connect() as db:
        assert db.execute("select title from items").fetchall() == [(WORD,)]
    assert readable(home) == set()
    assert not any(KEY.encode() in file.read_bytes() for file in home.rglob("*") if file.is_file())
