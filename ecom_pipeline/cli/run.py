"""Commands that work through Dagster: run the pipeline, judge the estimators, open the UI, free what a dead run holds."""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, enter, require_room, tell
from ecom_pipeline.errors import InputError, PipelineError
from ecom_pipeline.schema.inputs import OFFERS
from resources.run_config import CONFIG, read_config
from resources.writer import one_writer

_DEVICES = "auto, cpu, cuda, or cuda:1 and so on."
_PID = "ecom/pid"
_GATES_OF_INPUT = {
    *("raw_items", "raw_events", "raw_judgments", "raw_offers", "raw_exposures"),
    *("items", "judgments", *OFFERS, "exposures", "cleaned_interactions", "training_samples"),
}


@app.command()
def run(
    home: HomeOption = DEFAULT_HOME,
    source: Annotated[str, typer.Option(help="A packaged source's name, a folder, or NAME:FOLDER.")] = "",
    device: Annotated[str, typer.Option(envvar="ECOM_DEVICE", help=_DEVICES)] = "auto",
    seed: Annotated[int | None, typer.Option(help="First seed of training and of the bootstrap.", min=0)] = None,
    config: Annotated[Path | None, typer.Option(envvar=CONFIG, help="Run configuration of Dagster, as YAML.")] = None,
) -> None:
    """Bring everything up to date through Dagster, and say what came out; with nothing new, nothing is recomputed."""
    enter(home, ECOM_SOURCE=_source(source), ECOM_DEVICE=_device(device))
    from ecom_pipeline import definitions

    seeded = ("weighting_trials", "interaction_trials", "ranker", "fine_tuned_model", "evaluation")
    run_config = read_config(config, {name: {"seed": seed} for name in seeded})
    home_, warehouse = definitions.HOME, definitions.WAREHOUSE
    with one_writer(home_.folder, "`ecom run`"), _instance(home_) as instance:
        for run_id in free_dead_runs(instance):
            print(f"run {run_id[:8]} had died; it is marked as failed and holds nothing any more", file=sys.stderr)
        n_assets, started = 0, time.monotonic()
        while (plan := definitions.next_plan(warehouse, home_, run_config, definitions.made_assets(instance))).assets:
            _execute(instance, plan, run_config)
            n_assets += len(plan.assets)
        done = f"{n_assets} assets made" if n_assets else "nothing is new, nothing was made again"
        print(f"{done}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    tell(home_, warehouse)


@app.command()
def benchmark(
    home: HomeOption = DEFAULT_HOME,
    source: Annotated[str, typer.Option(help="As for `run`: what to fill an empty home with.")] = "",
    device: Annotated[str, typer.Option(envvar="ECOM_DEVICE", help=_DEVICES)] = "auto",
    seeds: Annotated[int | None, typer.Option(help="Runs with labels made wrong anew.", min=1)] = None,
    config: Annotated[Path | None, typer.Option(envvar=CONFIG, help="Run configuration of Dagster, as YAML.")] = None,
) -> None:
    """Judge every estimator on the samples of this home: which finds wrong labels, and whose weights help?"""
    enter(home, ECOM_SOURCE=_source(source), ECOM_DEVICE=_device(device))
    from ecom_pipeline import definitions

    run_config = read_config(config, {"importance_benchmark": {"n_seeds": seeds}})
    home_, warehouse = definitions.HOME, definitions.WAREHOUSE
    with one_writer(home_.folder, "`ecom benchmark`"), _instance(home_) as instance:
        plans = definitions.up_to_embeddings(warehouse, home_, run_config, lambda: definitions.made_assets(instance))
        for plan in plans:
            _execute(instance, plan, run_config)
    from ecom_pipeline.benchmark import leaderboard

    told = leaderboard.verdicts(warehouse.read("importance_benchmark"))
    print("\n".join(["", *told, "", f"leaderboard: {home_.leaderboard}"]))


@app.command()
def ui(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[int, typer.Option(help="Where the UI listens, on this machine alone.")] = 3000,
) -> None:
    """Open the Dagster UI on the same assets, storage and history; it runs until it is stopped."""
    enter(home)
    from ecom_pipeline import definitions

    home_ = definitions.HOME
    home_.prepare()
    os.environ["DAGSTER_HOME"] = str(home_.dagster)
    command = ["dagster", "dev", "-m", "ecom_pipeline.definitions", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", *command])


@app.command()
def unlock(home: HomeOption = DEFAULT_HOME) -> None:
    """Mark runs whose process is dead as failed, and free what they hold."""
    if not home.is_dir():
        raise InputError(f"home: 1 folder is missing: {str(home)!r}. It must be one of a run: check --home.")
    enter(home)
    from ecom_pipeline import definitions

    with _instance(definitions.HOME) as instance:
        freed = free_dead_runs(instance)
    print(f"{len(freed)} dead runs freed" + "".join(f"\n{run_id}" for run_id in freed))


def free_dead_runs(instance: Any) -> list[str]:
    """Mark runs as failed whose process is gone, free their pool slots, and return their ids."""
    import dagster as dg

    under_way = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
    freed = []
    for one in instance.get_runs(dg.RunsFilter(statuses=under_way)):
        pid = one.tags.get(_PID)
        if pid is None or Path(f"/proc/{pid}").exists() or _alive(int(pid)):
            continue  # a run of the UI or the daemon is theirs to watch
        instance.report_run_failed(one, f"its process, {pid}, is gone")
        instance.event_log_storage.free_concurrency_slots_for_run(one.run_id)
        freed.append(one.run_id)
    return freed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _source(source: str) -> str:
    """A source's name in a form that holds wherever the command is run from; unknown ones are refused at once."""
    from ecom_pipeline import sources

    if not source or source in sources.adapters():
        if source:
            sources.find(source)
        return source
    found = sources.find(source)
    return f"{found.adapter.name}:{found.folder}"


def _device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise InputError(
            f"--device: 1 value is unknown: {device!r}. It must be auto, cpu, cuda, or cuda: and a number: choose one."
        )
    return device


@contextmanager
def _instance(home: Any) -> Iterator[Any]:
    import dagster as dg

    from resources.history import files_of, held_open

    home.prepare()
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    with dg.DagsterInstance.get() as instance, held_open(files_of(instance)):
        yield instance


def _execute(instance: Any, plan: Any, run_config: Mapping) -> None:
    """One run of Dagster in this process."""
    import dagster as dg

    from ecom_pipeline.definitions import defs
    from resources.history import files_of, held_open

    job, run_id = defs.resolve_implicit_global_asset_job_def(), str(uuid4())
    with held_open(files_of(instance, run_id)):
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(name) for name in plan.assets],
            run_config={"loggers": {"console": {}}, **plan.run_config(run_config)},
            tags={_PID: str(os.getpid()), **plan.tags()},
            raise_on_error=False,
            run_id=run_id,
        )
    if not result.success:
        _explain(result)


def _explain(result: Any) -> None:
    """Raise for a failed run what went wrong first, as an error of ours."""
    for evaluation in result.get_asset_check_evaluations():
        if not evaluation.passed and evaluation.severity.value == "ERROR":
            asset = evaluation.asset_key.to_user_string()
            kind = InputError if asset in _GATES_OF_INPUT else PipelineError
            details = {name: value.value for name, value in evaluation.metadata.items()}
            raise kind(
                f"gate {evaluation.check_name!r} of {asset!r} is shut: {evaluation.description or details}. What lies "
                "below it was not made. Look at rejected_rows and at the source, mend what is named, and run again."
            )
    failures = [event for event in result.all_events if event.is_step_failure]
    for event in failures:
        error = event.step_failure_data.error
        while error is not None:
            if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
                raise KeyboardInterrupt
            if error.cls_name in _ours():
                raise _ours()[error.cls_name](error.message.split(": ", 1)[-1].strip())
            require_room(error.message)
            error = error.cause
    told = failures[0].step_failure_data.error.to_string() if failures else "no step says why"
    raise PipelineError(f"run {result.run_id} failed: {told}")


def _ours() -> dict[str, type[PipelineError]]:
    from ecom_pipeline import errors

    return {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, PipelineError)
    }
