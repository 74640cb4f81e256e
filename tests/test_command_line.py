import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import version
from types import SimpleNamespace

import duckdb
import pandas as pd
import pytest
from shop import ROOT, ecom, write_csv
from typer.testing import CliRunner

from ecom_pipeline.cli import app
from ecom_pipeline.errors import WarehouseError
from resources.warehouse import Warehouse

GOOD_ITEM = {"item_id": "a", "title": "A"}


def test_suspects_are_listed_with_text_label_score_and_why(finished, tmp_path):
    table = tmp_path / "suspects.csv"
    ecom("suspects", "--top", 25, "--csv", table, home=finished.home, check=True)
    found = pd.read_csv(table)
    assert len(found) == 25
    assert found.wrong_probability.is_monotonic_decreasing
    assert found.why.str.contains("labelled .; models that did not see it give label 1 a chance of").all()
    assert "-> " in ecom("suspects", "--top", 1, home=finished.home, check=True).stdout


def test_acts_that_are_not_their_users_own_are_listed_with_a_reason(finished, tmp_path):
    table = tmp_path / "acts.csv"
    ecom("suspects", "--interactions", "--top", 5, "--csv", table, home=finished.home, check=True)
    found = pd.read_csv(table)
    assert len(found) <= 5
    assert found.why.str.len().min() > 10
    refused = ecom("suspects", "--interactions", "--ask", home=finished.home)
    assert (refused.returncode, "stands alone" in refused.stderr) == (2, True)
    nothing = ecom("suspects", "--interactions", home=tmp_path / "empty")
    assert (nothing.returncode, "1 relation is missing" in nothing.stderr) == (2, True)


def test_suspects_are_mostly_the_planted_ones(finished, shop, tmp_path):
    table = tmp_path / "suspects.csv"
    ecom("suspects", "--top", 20, "--csv", table, home=finished.home, check=True)
    found = pd.read_csv(table)
    planted = [(row.context_text, row.item_id) in shop.flipped for row in found.itertuples()]
    assert sum(planted) >= 10


def test_suspects_by_worth_are_judged_pairs_first_and_mostly_the_planted_ones(finished, shop, tmp_path):
    table = tmp_path / "worth.csv"
    ecom("suspects", "--order", "worth", "--top", 20, "--csv", table, home=finished.home, check=True)
    found = pd.read_csv(table)
    assert found.worth_of_asking.is_monotonic_decreasing
    planted = [(row.context_text, row.item_id) in shop.flipped for row in found.itertuples()]
    assert sum(planted) >= 10
    assert ecom("suspects", "--order", "best", home=finished.home).returncode == 2


def test_what_to_have_judged_next_is_what_models_are_least_sure_of_and_says_what_nobody_judged(finished, tmp_path):
    table = tmp_path / "ask.csv"
    ecom("suspects", "--ask", "--top", 400, "--csv", table, home=finished.home, check=True)
    found = pd.read_csv(table)
    assert found.expected_gap.is_monotonic_decreasing
    assert found.expected_gap.to_numpy() == pytest.approx(2 * found.oof_score * (1 - found.oof_score))
    assert set(found.judged) == {True, False}
    told = ecom("suspects", "--ask", "--top", 400, home=finished.home, check=True).stdout
    assert told.count("  not judged\n") == (~found.judged).sum()
    assert "what to have judged next" in ecom("suspects", "--help", home=finished.home, check=True).stdout


def test_a_user_and_an_item_have_lists_and_one_must_be_named(finished):
    def told(*options):
        return ecom("recommend", *options, home=finished.home)

    own, new = told("--user", "person-1", "--top", 5), told("--user", "nobody", "--top", 5)
    assert len(own.stdout.splitlines()) == 5
    assert "New visitors are shown this" in new.stdout
    assert len(new.stdout.splitlines()) == 6
    assert told("--item", "i0-0-0").stdout.startswith(
        "red ceramic coffee mug with handle (i0-0-0): 10 items are like it"
    )
    for wrong, words in (
        (("--item", "no-such"), "--item: 1 id is unknown: 'no-such'"),
        ((), "0 of --user and --item are given"),
        (("--user", "person-1", "--item", "i0-0-0"), "2 of --user and --item are given"),
    ):
        refused = told(*wrong)
        assert refused.returncode == 2
        assert words in refused.stderr


def test_weights_are_exported_with_the_ids_of_the_pairs(finished, tmp_path):
    path = tmp_path / "weights.parquet"
    told = ecom("weights", "--export", path, home=finished.home, check=True).stdout
    found, beside = pd.read_parquet(path), tmp_path / "weights-interactions.parquet"
    assert {"sample_id", "sample_weight", "group_id", "item_id"} <= set(found.columns)
    trained = found[found.split == "train"]
    assert found.sample_weight.notna().tolist() == (found.split == "train").tolist()
    assert found.sample_weight.mean() == pytest.approx(1)
    acts = pd.read_parquet(beside)
    assert {"event_id", "user_id", "item_id", "day", "action", "interaction_weight"} <= set(acts.columns)
    assert acts.interaction_weight.mean() == pytest.approx(1)
    assert told == (  # what the model was trained with, and what lists are
        f"{len(trained)} weights of oof_confidence, and {len(found) - len(trained)} pairs held out: {path}\n{len(acts)} weights of past acts: {beside}\n"
    )


def test_another_estimators_weights_are_exported_by_its_name(finished, tmp_path):
    path = tmp_path / "weights.parquet"
    told = ecom("weights", "--export", path, "--estimator", "automatic", home=finished.home, check=True).stdout
    assert "of the automatic choice, " in told or "that are all 1, as the automatic choice is none" in told


def test_the_report_is_told_again_without_a_run(finished):
    assert ecom("report", home=finished.home, check=True).stdout == finished.output


def test_the_version_is_that_of_the_package():
    assert CliRunner().invoke(app, ["--version"]).output == f"ecom-pipeline {version('ecom-pipeline')}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--source", "/no/such/folder"), "1 folder is missing"),
        (("run", "--device", "tpu"), "--device: 1 value is unknown: 'tpu'"),
        (("run", "--config", "/no/such.yaml"), "1 file is missing"),
        (("report",), "1 relation is missing"),
        (("suspects",), "`ecom run` first"),
        (("weights", "--export", "x.parquet"), "1 relation is missing"),
        (("frobnicate",), "No such command"),
    ],
)
def test_wrong_input_ends_with_2_and_a_line_that_helps(tmp_path, arguments, told):
    result = ecom(*arguments, home=tmp_path) if arguments[0] != "frobnicate" else ecom("frobnicate", home=tmp_path)
    assert result.returncode == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_estimator_is_refused(finished, tmp_path):
    result = ecom("weights", "--export", tmp_path / "w", "--estimator", "magic", home=finished.home)
    assert result.returncode == 2
    assert "must be one of automatic, group_agreement" in result.stderr


def test_a_source_without_a_column_ends_with_2_and_names_it(tmp_path):
    write_csv(tmp_path / "items.csv", [GOOD_ITEM])
    write_csv(tmp_path / "judgments.csv", [{"query": "q", "item_id": "a"}])
    result = ecom("run", "--source", tmp_path, home=tmp_path / "home")
    assert result.returncode == 2
    assert "judgments: 1 required columns are missing in 'judgments.csv'; first: 'relevance'" in result.stderr


def test_a_source_of_rejected_rows_alone_ends_with_2_and_the_gate_that_is_shut(tmp_path):
    write_csv(tmp_path / "items.csv", [{"item_id": "a", "title": " "}])
    write_csv(tmp_path / "judgments.csv", [{"query": "q", "item_id": "a", "relevance": 1}])
    result = ecom("run", "--source", tmp_path, home=tmp_path / "home")
    assert result.returncode == 2
    assert "gate 'items_keep_schema_keys_and_ranges' of 'items' is shut" in result.stderr


def test_too_little_to_learn_from_ends_with_2(tmp_path):
    write_csv(tmp_path / "items.csv", [GOOD_ITEM])
    write_csv(tmp_path / "judgments.csv", [{"query": "q", "item_id": "a", "relevance": 1}])
    result = ecom("run", "--source", tmp_path, home=tmp_path / "home")
    assert result.returncode == 2
    assert "splits have no sample" in result.stderr


@pytest.mark.parametrize("kept", ["events", "judgments"])
def test_events_alone_and_judgments_alone_are_enough(shop, quick, tmp_path, kept):
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in ("items", kept):
        shutil.copy(shop.folder / f"{name}.csv", folder)
    result = ecom("run", "--source", folder, "--config", quick, home=tmp_path / "home", check=True)
    assert "weighted - unweighted" in result.stdout
    assert ("Nobody took anything" in result.stdout) == (kept == "judgments")


@contextmanager
def started(home, *arguments):
    """A run in a process of its own, which is ended in any case."""
    environment = {**os.environ, "ECOM_HOME": str(home)}
    command = [sys.executable, "-m", "ecom_pipeline.cli", "run", "--home", str(home), *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process, words):
    told = ""
    for line in process.stderr:
        told += line
        if words in line:
            return told
    raise AssertionError(f"the run ended before it said {words!r}")


@pytest.fixture(scope="module")
def broken_off(shop, quick, tmp_path_factory):
    """Of one home: a run that a second one met and that was killed, and the next, which Ctrl-C stopped."""
    home, told = tmp_path_factory.mktemp("broken_off") / "home", SimpleNamespace()
    with started(home, "--source", shop.folder, "--config", quick) as first:
        wait_for(first, "reading items")
        first.send_signal(signal.SIGSTOP)  # it cannot be over before the second one comes
        told.pid, told.second = first.pid, ecom("run", "--config", quick, home=home)
        first.send_signal(signal.SIGCONT)
        wait_for(first, "samples: {")
        first.send_signal(signal.SIGKILL)
    told.unlocked = [ecom("unlock", home=home, check=True).stdout for _ in range(2)]
    with started(home, "--config", quick) as following:
        told.before = wait_for(following, "texts are not embedded yet")
        following.send_signal(signal.SIGINT)
        told.after, told.code = following.stderr.read(), following.wait()
    return told


def test_two_runs_in_one_home_are_refused_by_name(broken_off):
    assert broken_off.second.returncode == 1
    assert f"1 other `ecom run`, PID {broken_off.pid}" in broken_off.second.stderr


def test_after_kill_9_nothing_is_locked_and_the_next_run_goes_on(broken_off):
    assert "1 dead runs freed" in broken_off.unlocked[0]
    assert "0 dead runs freed" in broken_off.unlocked[1]
    assert "reading items" not in broken_off.before  # what was landed is not landed again
    assert "cleaning" not in broken_off.before


def test_ctrl_c_ends_with_1_and_says_how_to_go_on(broken_off):
    assert broken_off.code == 1
    assert "stopped; the next `ecom run` goes on from what was finished" in broken_off.after
    assert "Traceback" not in broken_off.before + broken_off.after


def test_a_warehouse_that_is_held_says_by_whom(tmp_path):
    path = str(tmp_path / "w.duckdb")
    code = f"import duckdb, time; db = duckdb.connect({path!r}); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        try:
            with (
                pytest.raises(WarehouseError, match=rf"held by 1 process, .*\(PID {holder.pid}\)"),
                Warehouse(path=path, patience_seconds=0).connect(),
            ):
                pass
        finally:
            holder.kill()


def test_a_warehouse_that_a_process_of_another_container_holds_is_waited_for(tmp_path):
    """DuckDB cannot number such a process."""
    apart = ["unshare", "--pid", "--fork"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("no namespace of process numbers may be made here")
    path = str(tmp_path / "w.duckdb")
    asked = f"""from resources.warehouse import Warehouse
with Warehouse(path={path!r}, patience_seconds=0).connect(): pass"""
    with duckdb.connect(path):
        told = subprocess.run([*apart, sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert "held by 1 process, PID 0, for longer" in told.stderr


def test_a_change_that_fails_leaves_the_old_relation_in_place(tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    with warehouse.transaction() as db:
        db.execute("create table t as select 1 as x")

    def fail():
        with warehouse.transaction() as db:
            db.execute("create or replace table t as select 2 as x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert warehouse.read("t").x.tolist() == [1]


def test_a_shut_gate_makes_dagster_end_with_an_error(finished, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(finished.home, home)
    command = [
        sys.executable,
        "-m",
        "dagster",
        "asset",
        "materialize",
        "-m",
        "ecom_pipeline.definitions",
        "--select",
        "items",
    ]
    environment = {**os.environ, "ECOM_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    with duckdb.connect(str(home / "warehouse.duckdb")) as db:
        db.execute("delete from raw_items")
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
