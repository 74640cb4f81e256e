import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import ROOT, ecom, write_csv

from ecom_pipeline.errors import HomeError
from resources.home import Home
from resources.private import keep_private
from resources.warehouse import Warehouse

KEY = 'a "quoted" \\ këy of a shop'
FILLED = "create or replace table raw_items as select '{}' as source"


def contents(home: Path) -> dict[str, bytes]:
    """Every file of a home, and every compressed cell of its databases opened."""
    found = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for path in home.rglob("*.db"):
        with sqlite3.connect(path) as db:
            tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
            cells = [cell for name in tables for row in db.execute(f'select * from "{name}"') for cell in row]
        for nth, cell in enumerate(cells):
            if isinstance(cell, bytes):
                found[f"{path}, blob {nth}"] = zlib.decompress(cell)
    return found


def spellings(key: str) -> list[bytes]:
    """A text as it is, and as it stands in JSON, in JSON in JSON, and deeper."""
    found = [key, *(key := json.dumps(key)[1:-1] for _ in range(4))]
    return [one.encode() for one in found]


def places(home: Path, key: str) -> list[str]:
    return [name for name, bytes_ in contents(home).items() if any(one in bytes_ for one in spellings(key))]


def open_to_others(home: Path) -> list[str]:
    found = []
    for path in (home, *home.rglob("*")):
        with suppress(FileNotFoundError):  # what a database writes beside itself may go while we look
            if path.lstat().st_mode & 0o077 and not path.is_symlink():
                found.append(str(path))
    return found


@pytest.fixture(scope="module")
def worked_in(tmp_path_factory):
    """A home in which `ecom` and Dagster's own command have run, under a key and an umask that lets everybody read."""
    home, folder = tmp_path_factory.mktemp("worked") / "home", tmp_path_factory.mktemp("source")
    write_csv(folder / "items.csv", [{"item_id": "a", "title": "A"}])
    write_csv(folder / "judgments.csv", [{"query": "q", "item_id": "a", "relevance": 1}])
    before = os.umask(0o022)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECOM_HASH_KEY", KEY)
        assert "splits have no sample" in ecom("run", "--source", folder, home=home).stderr
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "ecom_pipeline.definitions"]
        environment = {**os.environ, "ECOM_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
        subprocess.run([*command, "--select", "raw_items"], cwd=ROOT, env=environment, check=True, capture_output=True)
    os.umask(before)
    return home


def test_the_key_that_was_asked_for_stands_nowhere_in_a_home(worked_in):
    assert any("blob" in name for name in contents(worked_in))
    assert places(worked_in, KEY) == []


def test_everything_in_a_home_is_for_its_owner_alone(worked_in, finished):
    assert open_to_others(worked_in) == []
    assert open_to_others(finished.home) == []


def old_history(home: Path, key: str) -> None:
    """As Dagster kept a resource's field: JSON in JSON, compressed."""
    field = {"default_value_as_json_str": json.dumps({"home": {"config": {"asked_key": key, "path": "p"}}})}
    (home / "dagster" / "history").mkdir(parents=True)
    with sqlite3.connect(home / "dagster" / "history" / "runs.db") as db:
        db.execute("create table snapshots (id integer primary key, snapshot_body blob)")
        db.execute("create table runs (run_body text)")
        body = zlib.compress(json.dumps({"fields": [field], "name": "items"}).encode())
        db.executemany("insert into snapshots (snapshot_body) values (?)", [(body,), (zlib.compress(b"items"),)])
        db.execute("insert into runs values (?)", [json.dumps({"run_config": {"asked_key": key, "kept": 1}})])


@pytest.mark.parametrize("key", [KEY, "items"])
def test_an_old_home_loses_the_key_and_nothing_else_and_says_so_once(tmp_path, caplog, key):
    old_history(tmp_path, key)
    assert places(tmp_path, key)
    Home(path=str(tmp_path)).prepare()
    assert "stood in 2 records" in caplog.text
    caplog.clear()
    Home(path=str(tmp_path)).prepare()
    assert caplog.text == ""
    with sqlite3.connect(tmp_path / "dagster" / "history" / "runs.db") as db:
        bodies = [zlib.decompress(body).decode() for (body,) in db.execute("select snapshot_body from snapshots")]
        (run,) = db.execute("select run_body from runs").fetchone()
    assert json.loads(json.loads(bodies[0])["fields"][0]["default_value_as_json_str"]) == {
        "home": {"config": {"path": "p"}}
    }
    assert (json.loads(bodies[0])["name"], bodies[1]) == ("items", "items")
    assert json.loads(run) == {"run_config": {"kept": 1}}
    if key == KEY:
        assert places(tmp_path, key) == []


def test_an_old_home_is_closed_and_what_is_not_ours_in_it_stays_as_it_is(tmp_path):
    (tmp_path / "models" / "one").mkdir(parents=True)
    for name in ("warehouse.duckdb", "models/one/manifest.json", "script.sh"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o755)
    target = tmp_path / "elsewhere"
    target.mkdir()
    target.chmod(0o755)
    (tmp_path / "curves").symlink_to(target)
    keep_private(tmp_path)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("script.sh", "models/one", "elsewhere")}
    assert modes == {"script.sh": 0o755, "models/one": 0o700, "elsewhere": 0o755}
    assert stat.S_IMODE((tmp_path / "warehouse.duckdb").stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@given(text=st.text("0123456789abcdef \n", max_size=70).filter(lambda text: len(text.strip()) != 64))
def test_a_damaged_key_is_refused_whatever_it_holds(tmp_path_factory, text):
    home = Home(path=str(tmp_path_factory.mktemp("damaged")))
    (home.folder / "hash.key").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ECOM_HASH_KEY")
        with pytest.raises(HomeError, match=r"hash.key: 1 key is damaged.*must hold the 64"):
            home.hash_key()


# forks a child for every line of ours that landing runs through, and kills it there
KILL = """
import os, signal, sys
from pathlib import Path
from resources.home import Home
from resources.warehouse import Warehouse

homes, asked = Path(sys.argv[1]), sys.argv[2]
for home in homes.iterdir():
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] in (0, signal.SIGKILL)
        continue
    n_lines = 0
    def trace(frame, event, arg):
        global n_lines
        if Path(frame.f_code.co_filename).parent.name != "resources" and frame.f_code.co_name != "land":
            return None
        n_lines += 1
        if n_lines > int(home.name):
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    def land():
        with Home(path=str(home), asked_source=asked).landing(Warehouse(path=str(home / "w.duckdb")), "default") as db:
            db.execute(f"create or replace table raw_items as select '{asked}' as source")
        return True
    sys.settrace(trace)
    land()
    sys.settrace(None)
    (home / "survived").touch()
    os._exit(0)
"""


@pytest.mark.parametrize("before", ["", "old"])
def test_after_a_kill_at_any_line_the_next_run_goes_on_with_the_source_whose_data_are_there(tmp_path, before):
    for nth in range(0, 420, 7):
        home = tmp_path / str(nth)
        home.mkdir()
        if before:
            with Home(path=str(home), asked_source=before).landing(Warehouse(path=str(home / "w.duckdb")), "d") as db:
                db.execute(FILLED.format(before))
    subprocess.run([sys.executable, "-c", KILL, str(tmp_path), "mine"], cwd=ROOT, check=True, timeout=120)
    seen = set()
    for home in tmp_path.iterdir():
        warehouse = Warehouse(path=str(home / "w.duckdb"))
        filled = warehouse.read("raw_items").source[0] if warehouse.has("raw_items") else ""
        remembered = Home(path=str(home)).source("default")
        seen.add((filled, remembered))
        assert remembered in {filled or "default", "mine"}
    assert (before, before or "default") in seen  # killed at the beginning
    assert (before, "mine") in seen  # killed with the source remembered, and nothing landed
    assert ("mine", "mine") in seen
    assert any((home / "survived").exists() for home in tmp_path.iterdir())


def test_a_source_that_cannot_land_is_not_remembered(tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))

    def fail(asked):
        with Home(path=str(tmp_path), asked_source=asked).landing(warehouse, "default"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail("broken")
    assert Home(path=str(tmp_path)).source("default") == "default"
    with Home(path=str(tmp_path), asked_source="good").landing(warehouse, "default") as db:
        db.execute(FILLED.format("good"))
    with pytest.raises(KeyboardInterrupt):
        fail("broken")
    assert Home(path=str(tmp_path)).source("default") == "good"


def test_a_home_with_data_of_a_forgotten_source_takes_no_other_unasked(tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    with warehouse.connect() as db:
        db.execute(FILLED.format("shop"))

    def land(asked):
        with Home(path=str(tmp_path), asked_source=asked).landing(warehouse, "default") as db:
            db.execute(FILLED.format(asked or "default"))

    with pytest.raises(HomeError, match="1 tables are filled from a source that is not remembered; first: 'raw_items'"):
        land("")
    assert warehouse.read("raw_items").source.tolist() == ["shop"]
    land("asked")
    land("")
    assert Home(path=str(tmp_path)).source("default") == "asked"


@pytest.mark.parametrize("text", ["", "{}", "[]", '"x"'])
def test_a_damaged_memory_of_the_source_is_refused(tmp_path, text):
    (tmp_path / "source.json").write_text(text)
    with pytest.raises(HomeError, match=r"source.json: 1 file is damaged.*--source or ECOM_SOURCE"):
        Home(path=str(tmp_path)).source("default")


def test_pruning_keeps_what_is_referred_to_and_the_last_ones(tmp_path):
    home = Home(path=str(tmp_path))
    for nth, name in enumerate("abcdef"):
        (home.models / name).mkdir(parents=True)
        (home.models / name / "manifest.json").touch()
        os.utime(home.models / name, (nth, nth))
    (home.models / "last.json").touch()
    assert home.prune(home.models, {"a"}) == ["b", "c"]
    assert sorted(path.name for path in home.models.iterdir()) == ["a", "d", "e", "f", "last.json"]
    shutil.rmtree(home.models)
    assert home.prune(home.models, {"a"}) == []
