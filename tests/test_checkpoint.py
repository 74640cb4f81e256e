"""A checkpoint of the warehouse that is broken off anywhere loses nothing; the worst of it is laid out byte by byte."""

import importlib.util
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from shop import ROOT

from ecom_pipeline.errors import WarehouseError
from resources import checkpoint
from resources.warehouse import Warehouse

HEADER, BLOCK = 4096, 262_144
GARBAGE = b"\x5a" * BLOCK
ENCRYPTED = pytest.param(
    "it's secret",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("duckdb_extension_httpfs") is None, reason="duckdb-extension-httpfs is not installed"
    ),
)


@pytest.fixture(params=["", ENCRYPTED])
def warehouse(request, tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_WAREHOUSE_KEY", request.param)
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"), patience_seconds=0)


@dataclass
class Moment:
    """The files of a warehouse when a checkpoint began, what the log was in its end, and the file before its log went."""

    before: bytes
    undo: bytes
    catalogue: list[int]
    log: bytes
    after: bytes
    rows: dict

    def torn(self) -> bytes:
        """The file as it is before a header is written, where no block of the catalogue is whole."""
        file = bytearray(self.after.ljust(len(self.before), b"\0"))
        file[: 3 * HEADER] = self.before[: 3 * HEADER]
        for block in self.catalogue:
            start = 3 * HEADER + block * BLOCK
            file[start : start + BLOCK] = GARBAGE
        return bytes(file)

    def with_part_of_a_header(self, n_bytes: int) -> bytes:
        """The file as it is when so many bytes of a header are written."""
        file = bytearray(self.after)
        (slot,) = (at for at in (HEADER, 2 * HEADER) if self.after[at : at + HEADER] != self.before[at : at + HEADER])
        file[slot + n_bytes : slot + HEADER] = self.before[slot + n_bytes : slot + HEADER]
        return bytes(file)


def part(warehouse, suffix=""):
    return Path(warehouse.path + suffix).read_bytes()


def rows_of(db):
    """Each relation as its rows' hash."""
    names = [name for (name,) in db.execute("select table_name from duckdb_tables()").fetchall()]
    return {name: db.execute(f"select sum(hash(r)::hugeint), count(*) from {name} r").fetchone() for name in names}


def rows(warehouse):
    with warehouse.connect() as db:
        return rows_of(db)


def change(db, draw):
    """Small and large relations, made anew, added to and taken from: blocks of the catalogue are freed in part."""
    n = draw.choice([10, 5000, 130_000])
    db.execute(f"create or replace table t{draw.randrange(5)} as select i, hash(i)::varchar as s from range({n}) r(i)")
    db.execute("create table if not exists u (a int, b varchar)")
    db.execute(f"insert into u select range, 'x' from range({draw.randrange(3000)})")
    db.execute(f"delete from u where a % 7 = {draw.randrange(7)}")


def broken_off(warehouse, seed, monkeypatch, n_changes=5):
    """A warehouse after some changes, of which the last one's checkpoint is broken off by DuckDB itself."""
    draw, found = random.Random(seed), {}
    for _ in range(n_changes):
        with warehouse.connect() as db:
            change(db, draw)
    keep = checkpoint._keep_aside

    def kept(db, path):
        keep(db, path)
        blocks = [block for (block,) in db.execute("select block_id from pragma_metadata_info()").fetchall()]
        found.update(before=part(warehouse), undo=part(warehouse, ".undo"), catalogue=blocks)
        db.execute("set debug_checkpoint_abort = 'before_truncate'")

    def change_once_more():
        with warehouse.connect() as db:
            change(db, draw)
            found["rows"] = rows_of(db)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_keep_aside", kept)
        with pytest.raises(duckdb.Error, match="Checkpoint aborted"):
            change_once_more()
    return Moment(**found, log=part(warehouse, ".wal"), after=part(warehouse))


def lay(warehouse, file, log, undo):
    for suffix, content in (("", file), (".wal", log), (".undo", undo)):
        Path(warehouse.path + suffix).write_bytes(content)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_of_a_checkpoint_is_written_it_is_undone_and_made_again(warehouse, monkeypatch, seed):
    moment = broken_off(warehouse, seed, monkeypatch)
    assert moment.catalogue
    lay(warehouse, moment.torn(), moment.log, moment.undo)
    assert rows(warehouse) == moment.rows
    assert {file.name for file in Path(warehouse.path).parent.iterdir()} == {"warehouse.duckdb"}
    with warehouse.connect() as db:
        change(db, random.Random(9))
        wanted = rows_of(db)
    assert rows(warehouse) == wanted != moment.rows


def test_without_the_copy_such_a_file_cannot_be_read(warehouse, monkeypatch):
    moment = broken_off(warehouse, 1, monkeypatch)
    lay(warehouse, moment.torn(), moment.log, b"")
    with pytest.raises(WarehouseError, match=r"1 file cannot be opened or read"):
        rows(warehouse)


@pytest.mark.parametrize("n_bytes", [0, 4, 50, 2048, HEADER])
def test_part_of_a_header_is_undone_too_and_a_whole_one_holds(warehouse, monkeypatch, n_bytes):
    moment = broken_off(warehouse, 2, monkeypatch)
    lay(warehouse, moment.with_part_of_a_header(n_bytes), moment.log, moment.undo)
    assert rows(warehouse) == moment.rows
    assert not Path(warehouse.path + ".undo").exists()


@pytest.mark.parametrize("size", [0, 10, 70, 20_000])
def test_a_copy_of_which_a_part_is_missing_was_never_needed(warehouse, monkeypatch, size):
    """All of it is on the disk before the checkpoint begins."""
    moment = broken_off(warehouse, 3, monkeypatch)
    lay(warehouse, moment.before, moment.log, moment.undo[:size])
    assert rows(warehouse) == moment.rows
    assert not Path(warehouse.path + ".undo").exists()


def test_what_was_done_is_said_in_the_log(warehouse, monkeypatch, caplog):
    moment = broken_off(warehouse, 4, monkeypatch)
    lay(warehouse, moment.torn(), moment.log, moment.undo)
    rows(warehouse)
    (message,) = caplog.messages
    assert f"1 checkpoint of {warehouse.path!r} was broken off; {len(moment.catalogue)} blocks are put back" in message


def test_a_wrong_key_undoes_nothing(warehouse, monkeypatch):
    if not os.environ["ECOM_WAREHOUSE_KEY"]:
        pytest.skip("of files with a key")
    moment = broken_off(warehouse, 5, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setenv("ECOM_WAREHOUSE_KEY", "another")
        with pytest.raises(WarehouseError, match="Wrong encryption key"):
            rows(warehouse)
    assert part(warehouse) == moment.after
    assert part(warehouse, ".undo") == moment.undo
    assert rows(warehouse) == moment.rows


def test_a_file_that_was_moved_away_takes_nothing_of_the_former_one(warehouse, monkeypatch):
    broken_off(warehouse, 6, monkeypatch)
    Path(warehouse.path).unlink()
    assert rows(warehouse) == {}
    assert {file.name for file in Path(warehouse.path).parent.iterdir()} == {"warehouse.duckdb"}


def test_what_a_kill_has_left_of_making_a_file_is_in_nobodys_way(warehouse):
    Path(warehouse.path + ".new").write_bytes(b"\0" * 8 + b"DUCK")
    assert rows(warehouse) == {}
    assert {file.name for file in Path(warehouse.path).parent.iterdir()} == {"warehouse.duckdb"}


def test_a_copy_of_another_process_is_left_to_it(warehouse):
    code = f"""
import os, time
from resources import checkpoint
from resources.warehouse import Warehouse
keep = checkpoint._keep_aside
def kept(db, path):
    keep(db, path)
    print("kept", flush=True)
    time.sleep(60)
checkpoint._keep_aside = kept
with Warehouse(path={warehouse.path!r}).connect() as db: db.execute("create table t as select 1 as x")"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "kept\n"
        undo = part(warehouse, ".undo")
        with pytest.raises(WarehouseError, match=rf"held by 1 process, .*\(PID {holder.pid}\)"):
            warehouse.read("t")
        assert part(warehouse, ".undo") == undo
        holder.kill()
    assert warehouse.read("t").x.tolist() == [1]


def test_the_last_connection_to_close_writes_the_log_into_the_file(warehouse):
    with warehouse.connect() as outer:
        with warehouse.connect() as db:
            db.execute("create table t as select 1 as x")
        assert checkpoint.has_log(warehouse.path)
        assert outer.execute("from t").fetchall() == [(1,)]
    assert not checkpoint.has_log(warehouse.path)


def test_what_was_committed_before_an_error_stays_and_what_was_begun_goes(warehouse):
    def fail():
        with warehouse.connect() as db:
            db.execute("create table t as select 1 as x")
            db.begin()
            db.execute("insert into t values (2)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not checkpoint.has_log(warehouse.path)
    assert warehouse.read("t").x.tolist() == [1]


def test_rows_that_are_streamed_keep_the_lock_of_the_file(warehouse):
    """A descriptor of ours that is closed would take the lock with it, and another process would write meanwhile."""
    with warehouse.connect() as db:
        db.execute("create table t as select range as x from range(500_000)")
        stream = db.execute("from t").to_arrow_reader(1000)
    code = f"""
from resources.warehouse import Warehouse
with Warehouse(path={warehouse.path!r}, patience_seconds=0).connect(): pass"""
    other = [sys.executable, "-c", code]
    assert "held by 1 process" in subprocess.run(other, cwd=ROOT, capture_output=True, text=True).stderr
    del stream
    with warehouse.connect() as db:
        db.execute("drop table t")
    assert subprocess.run(other, cwd=ROOT, capture_output=True, text=True).stderr == ""


def test_who_is_deleted_is_in_no_byte_of_what_a_checkpoint_has_left(warehouse, monkeypatch):
    word = "unmistakable"
    with warehouse.connect() as db:
        db.execute(f"create table people as select '{word}' || range as id from range(10)")
    moment = broken_off(warehouse, 7, monkeypatch)
    lay(warehouse, moment.torn(), moment.log, moment.undo)
    with warehouse.connect() as db:
        db.execute("delete from people")
    warehouse.compact()
    for file in Path(warehouse.path).parent.iterdir():
        assert word.encode() not in file.read_bytes()
