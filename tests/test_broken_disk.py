"""A full disk and a damaged warehouse are told as such, wherever they are met."""

import os
import sqlite3

import duckdb
import pytest

from ecom_pipeline.cli.app import require_room
from ecom_pipeline.errors import HomeError, WarehouseError
from resources.warehouse import Warehouse

ROWS = "create table t as select range as i, hash(range)::varchar as text from range(200_000)"


@pytest.fixture
def warehouse(tmp_path):
    found = Warehouse(path=str(tmp_path / "w.duckdb"))
    with found.transaction() as db:
        db.execute(ROWS)
    with found.connect() as db:
        db.execute("checkpoint")
    return found


@pytest.mark.parametrize("size", [0, 100, 500_000])
def test_a_warehouse_that_was_cut_says_what_to_do(warehouse, size):
    os.truncate(warehouse.path, size)
    with pytest.raises(
        WarehouseError, match=r"1 file cannot be opened or read.* must be a whole DuckDB file.*move it away"
    ):
        warehouse.read("t")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_block_that_is_damaged_is_told_when_it_is_read(warehouse, share):
    with open(warehouse.path, "r+b") as file:
        file.seek(int(os.path.getsize(warehouse.path) * share))
        file.write(b"\x5a" * 4096)
    with pytest.raises(WarehouseError, match="1 file cannot be opened or read"), warehouse.connect() as db:
        db.execute("select sum(hash(t)::hugeint) from t").fetchall()


def test_a_disk_that_is_full_when_the_file_is_made_is_told_as_such(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise duckdb.IOException('IO Error: Could not write file "w.duckdb.new": No space left on device')

    monkeypatch.setattr(duckdb, "connect", refuse)
    with pytest.raises(WarehouseError, match="1 write was refused, as the disk is full"):
        Warehouse(path=str(tmp_path / "w.duckdb")).has("t")


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device", "a.json"), sqlite3.OperationalError("database or disk is full")],
)
def test_a_full_disk_is_told_as_such(error):
    with pytest.raises(HomeError, match=r"disk: 1 write was refused.* must be room.*free some"):
        require_room(error)


def test_other_errors_are_not_of_the_disk():
    require_room(OSError(13, "Permission denied", "a.json"))
