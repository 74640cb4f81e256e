import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import dagster as dg
import pytest
from shop import ROOT, ecom

from ecom_pipeline.errors import HomeError
from resources.warehouse import Warehouse
from resources.writer import one_writer

HOLD = """
import sys
from pathlib import Path
from resources.writer import one_writer
with one_writer(Path(sys.argv[1]), "`ecom run`"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(home):
    """Another process that works in a home, until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@dg.asset
def rows(warehouse: Warehouse) -> None:
    with warehouse.connect() as db:
        db.execute("create or replace table rows as select 1 as x")


def materialize(home, patience=0.3):
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"), run_patience_seconds=patience)
    return dg.materialize([rows], resources={"warehouse": warehouse})


def test_a_process_that_holds_a_home_may_enter_again_and_only_the_outermost_lets_go(tmp_path):
    with one_writer(tmp_path, "outer"):
        with one_writer(tmp_path, "inner"):
            assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\nouter"
        refused = subprocess.run([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, capture_output=True, text=True)
        assert f"in use by 1 other outer, PID {os.getpid()}. Only one may work in a home" in refused.stderr
    with holder(tmp_path):
        pass


def test_ecom_run_is_refused_at_once_while_dagster_works_in_the_home(tmp_path):
    with one_writer(tmp_path, "run 1234 of Dagster"):
        refused = ecom("run", home=tmp_path)
    assert refused.returncode == 1
    assert f"1 other run 1234 of Dagster, PID {os.getpid()}" in refused.stderr


def test_a_run_of_dagster_waits_says_for_whom_and_gives_up(tmp_path, capfd):
    with holder(tmp_path) as process:
        with pytest.raises(dg.DagsterError) as failed:
            materialize(tmp_path)
        assert isinstance(failed.value.__cause__, HomeError)
        assert f"1 other `ecom run`, PID {process.pid} for longer than 0.3 s" in str(failed.value.__cause__)
        assert f"waiting for `ecom run`, PID {process.pid}" in capfd.readouterr().err
        assert not (tmp_path / "warehouse.duckdb").exists()
    assert materialize(tmp_path).success


def test_dagsters_own_command_waits_until_the_holder_is_killed(tmp_path, shop):
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "ecom_pipeline.definitions"]
    environment = {**os.environ, "ECOM_HOME": str(tmp_path), "ECOM_SOURCE": str(shop.folder)}
    with holder(tmp_path) as process:
        waiting = subprocess.Popen(
            [*command, "--select", "raw_items"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert any(f"waiting for `ecom run`, PID {process.pid}" in line for line in waiting.stderr)
        process.kill()
        waiting.stderr.read()
        assert waiting.wait() == 0
    assert Warehouse(path=str(tmp_path / "warehouse.duckdb")).has("raw_items")


def test_sensors_and_whoever_only_reads_do_not_wait(tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    with holder(tmp_path), dg.build_resources({"warehouse": warehouse}) as resources:
        assert not resources.warehouse.has("rows")


def test_a_forked_child_that_outlives_its_parent_holds_nothing(tmp_path):
    code = HOLD.replace(
        'print("held"',
        'import multiprocessing as m, time; m.get_context("fork").Process(target=time.sleep, args=(20,)).start(); print("held"',
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with one_writer(tmp_path, "next", patience_seconds=10):  # the child may not have run yet
            pass
        process.stdout.close()


def test_both_of_two_that_enter_at_once_are_never_in(tmp_path):
    # it waits for its processes, where `multiprocessing.Pool` kills them: one that is not hit is waited for without end
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = list(pool.map(enter, [tmp_path] * 40, range(40)))
    assert outcomes == ["alone"] * 40


def enter(folder, nth):
    with one_writer(folder, str(nth), patience_seconds=60):
        inside = folder / "inside"
        inside.touch(exist_ok=False)
        inside.unlink()
    return "alone"
