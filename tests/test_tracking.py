import importlib.util
import json
import os
import pickle
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from test_architecture import ROOT

from ecom_pipeline.curves import untracked
from ecom_pipeline.errors import InputError
from resources.tracking import Tracking

SETTINGS = {"learning_rate": 1e-4, "method": "lora", "layers": [1, 2], "teacher": None}
KEEPERS = [
    "tensorboard",
    pytest.param(
        "wandb",
        marks=pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="the extra wandb is not installed"),
    ),
    pytest.param(
        "mlflow",
        marks=[
            pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra mlflow is not installed"),
            # mlflow 3.17 asks SQLAlchemy 2.1 for a loader of older days
            pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
        ],
    ),
]
CURVE = {1: 0.5, 2: 0.25, 3: 0.125}
KILLED = """
import sys
from resources.tracking import Tracking
with Tracking(path=sys.argv[1], backend=sys.argv[2]).curves("model", "abc").run("twin", {}) as watch:
    for step in range(1, 5):
        watch(step, {"loss": float(step)})
    print("told", flush=True)
    sys.stdin.read()
"""


def train(tracking: Tracking, curve: dict[int, float], name: str = "twin") -> dict:
    curves = tracking.curves("model", "abc")
    with curves.run(name, SETTINGS) as watch:
        for step, loss in curve.items():
            watch(step, {"loss": loss})
    return curves.link()


def read(tracking: Tracking, name: str = "twin") -> tuple[list[tuple[int, float]], dict, str]:
    """Points, settings and final state of a run, by the library's own reader."""
    return {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}[tracking.backend](
        Path(tracking.path), name
    )


def _tensorboard(home, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder = EventAccumulator(str(home / "model" / "abc" / name)).Reload()
    tags = folder.PluginTagToContent("hparams")
    told = plugin_data_pb2.HParamsPluginData.FromString(tags["_hparams_/session_start_info"]).session_start_info
    settings = {key: getattr(value, value.WhichOneof("kind")) for key, value in told.hparams.items()}
    state = "finished" if "_hparams_/session_end_info" in tags else "stopped"
    return [(event.step, event.value) for event in folder.Scalars("loss")], settings, state


def _wandb(home, name):
    files = sorted((home / "model" / "abc" / "wandb").glob("offline-run-*/*.wandb"))
    told = [records for records in map(_records, files) if records["run"][0]["run"]["display_name"] == name]
    assert len(told) == 1, "a run must have one file"
    points = [record["history"]["item"] for record in told[0]["history"]]
    settings = told[0]["run"][0]["run"]["config"]["update"]
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    ends = [record["exit"]["exit_code"] for record in told[0].get("exit", [])]
    return [(p["_step"], p["loss"]) for p in points], settings, "finished" if ends == [0] else "stopped"


def _records(file):
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    kinds = {}
    for record in map(json.loads, lines):
        kinds.setdefault(record["type"], []).append(record)
    return kinds


def _mlflow(home, name):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("model").experiment_id
    (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
    return points, run.data.params, "finished" if run.info.status == "FINISHED" else "stopped"


def _tell_and_stop(watch):
    for step, loss in CURVE.items():
        watch(step, {"loss": loss})
    raise KeyboardInterrupt  # as Ctrl-C does


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> Path:
    """MLflow's empty database: it takes a second to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking(request, tmp_path) -> Tracking:
    if request.param == "mlflow":
        (tmp_path / "curves").mkdir()
        shutil.copy(request.getfixturevalue("database"), tmp_path / "curves")
    return Tracking(path=str(tmp_path / "curves"), backend=request.param)


keepers = pytest.mark.parametrize("tracking", KEEPERS, indirect=True)


@keepers
def test_curves_and_settings_are_read_back_by_the_librarys_own_reader(tracking):
    train(tracking, CURVE)
    points, settings, state = read(tracking)
    assert points == list(CURVE.items())
    told = {key: str(value) for key, value in settings.items()}
    assert told == {"learning_rate": "0.0001", "method": "lora", "layers": "[1, 2]", "teacher": "null"}
    assert state == "finished"


@keepers
def test_a_training_that_goes_on_replaces_what_it_says_again(tracking):
    train(tracking, {1: 0.5, 2: 0.25, 3: 0.2, 4: 0.1})
    train(tracking, {3: 0.3, 4: 0.2, 5: 0.1})
    assert [(step, round(loss, 6)) for step, loss in read(tracking)[0]] == [
        (1, 0.5),
        (2, 0.25),
        (3, 0.3),
        (4, 0.2),
        (5, 0.1),
    ]


@keepers
def test_a_training_that_begins_anew_leaves_nothing_of_the_old_curve(tracking):
    train(tracking, CURVE)
    train(tracking, {0: 1.0, 1: 0.5})
    assert read(tracking)[0] == [(0, 1.0), (1, 0.5)]


@keepers
def test_a_training_that_is_stopped_keeps_its_curve(tracking):
    with pytest.raises(KeyboardInterrupt), tracking.curves("model", "abc").run("twin", {"seed": 1}) as watch:
        _tell_and_stop(watch)
    points, _, state = read(tracking)
    assert points == list(CURVE.items())
    assert state == "stopped"


@keepers
def test_several_runs_are_open_side_by_side(tracking):
    curves = tracking.curves("model", "abc")
    with curves.run("twin", {}) as first, curves.run("other", {}) as second:
        for step in (1, 2):
            first(step, {"loss": 1.0})
            second(step, {"loss": 2.0})
    assert read(tracking, "twin")[0] == [(1, 1.0), (2, 1.0)]
    assert read(tracking, "other")[0] == [(1, 2.0), (2, 2.0)]


@pytest.mark.parametrize("tracking", KEEPERS[:2], indirect=True)
def test_a_killed_training_goes_on_without_a_double_point(tracking):
    command = [sys.executable, "-c", KILLED, tracking.path, tracking.backend]
    alone = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # else it joins ours
    with subprocess.Popen(command, cwd=ROOT, env=alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"told\n"
        process.kill()
    train(tracking, {4: 0.5, 5: 0.25})
    steps = [step for step, _ in read(tracking)[0]]
    assert steps[-2:] == [4, 5]
    assert steps == sorted(set(steps))


@keepers
def test_no_host_is_looked_up(tracking, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: asked.append(host) or [])
    train(tracking, CURVE)
    assert asked == []


@keepers
def test_the_link_names_the_folder_a_command_that_is_there_and_the_last_figures(tracking):
    told = train(tracking, CURVE)
    assert Path(told["curves"].path).exists()
    command = shlex.split(told["curves_show"].md_str.strip("`\n"))
    assert command[0] == "pipx" or Path(command[0]).is_file()
    assert any(tracking.path in word for word in command)
    assert "| twin | 3 | loss 0.125 |" in told["curves_last"].md_str


def test_a_materialisation_leads_to_the_curves_of_its_training(tmp_path):
    @dg.asset
    def model(tracking: Tracking) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=train(tracking, CURVE))

    tracking = Tracking(path=str(tmp_path))
    done = dg.materialize([model], resources={"tracking": tracking})
    told = done.asset_materializations_for_node("model")[0].metadata
    assert told["curves"].path == str(tmp_path / "model" / "abc")
    assert f"--logdir {told['curves'].path}" in told["curves_show"].md_str
    assert read(tracking)[0] == list(CURVE.items())


def test_where_nothing_was_trained_there_is_nothing_to_link_to(tmp_path):
    assert train(Tracking(path=str(tmp_path)), {}) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_training_in_another_process_may_write_the_curves(tmp_path):
    tracking = Tracking(path=str(tmp_path))
    run = pickle.loads(pickle.dumps(tracking.curves("model", "abc").run))
    with run("twin", {}) as watch:
        watch(1, {"loss": 0.5})
    assert read(tracking)[0] == [(1, 0.5)]


def test_tracking_can_be_switched_off(tmp_path):
    assert train(Tracking(path=str(tmp_path), backend="none"), CURVE) == {}
    assert list(tmp_path.iterdir()) == []


def test_untracked_takes_figures_and_keeps_none():
    with untracked("twin", SETTINGS) as watch:
        assert watch(1, {"loss": 0.5}) is None


def test_the_table_says_how_many_runs_it_leaves_out(tmp_path):
    curves = Tracking(path=str(tmp_path)).curves("model", "abc")
    curves.folder.mkdir(parents=True)
    curves.last.update({f"run {number}": (1, {"loss": 0.5}) for number in range(53)})
    told = curves.link()["curves_last"].md_str
    assert "and 3 more runs" in told
    assert "run 49" in told
    assert "run 50" not in told


@pytest.mark.parametrize(("field", "value"), [("backend", "tensorbord"), ("wandb_mode", "dryrun")])
def test_an_unknown_choice_is_refused_with_what_there_is(field, value):
    with pytest.raises(InputError, match=f"1 value is unknown, '{value}'. It must be .* or .*: choose one"):
        Tracking(path="/curves", **{field: value})


@pytest.mark.parametrize("backend", ["wandb", "mlflow"])
def test_an_absent_extra_is_named_with_the_command_that_installs_it(backend, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = rf"run {re.escape(sys.executable)} -m pip install .* '\.\[{backend}\]'"
    with pytest.raises(InputError, match=rf"1 package is missing, '{backend}'\. .*{command}"):
        Tracking(path=str(tmp_path), backend=backend).curves("model", "abc")


def test_sending_without_a_key_is_refused_and_nobody_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("resources.tracking._installed", lambda package: True)
    with pytest.raises(InputError, match="1 key is missing, 'WANDB_API_KEY'"):
        Tracking(path=str(tmp_path), backend="wandb", wandb_mode="online").curves("model", "abc")
