"""Where the curves of a training go: TensorBoard, Weights & Biases or MLflow, all of them on this machine."""

import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from pydantic import Field, field_validator

from ecom_pipeline.errors import InputError

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "none": ""}
MODES = ("offline", "online")
MOST_ROWS = 50  # of the table beside an asset
Watch = Callable[[int, Mapping[str, float]], None]


class Tracking(dg.ConfigurableResource):
    """Curves and settings of every training, written while it runs; nothing leaves the machine unless asked to."""

    path: str = Field(description="Absolute folder of all curves; made when first written to.")
    backend: str = Field(default="tensorboard", description="tensorboard, wandb, mlflow or none.")
    wandb_mode: str = Field(default="offline", description="Of wandb: offline, or online, which sends to its service.")

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, backend: str) -> str:
        return _one_of("tracking", backend, tuple(PACKAGES))

    @field_validator("wandb_mode")
    @classmethod
    def _known_mode(cls, mode: str) -> str:
        return _one_of("wandb_mode", mode, MODES)

    def curves(self, asset: str, made: str) -> "Curves":
        """Curves of what an asset trains.

        Args:
            asset: its name.
            made: what it is made from, as a short hash: the same inputs go on in the same place, others begin anew.

        Raises:
            InputError: if the tracker's package is not installed, or it should send and has no key.
        """
        package = PACKAGES[self.backend]
        if package and not _installed(package):
            raise InputError(
                f"tracking: 1 package is missing, {package!r}. It must be installed beside the pipeline to track with "
                f"{self.backend!r}: run {sys.executable} -m pip install --constraint constraints.txt --editable "
                f"'.[{self.backend}]', or choose 'tensorboard'."
            )
        if self.backend == "wandb" and self.wandb_mode == "online" and not os.environ.get("WANDB_API_KEY"):
            raise InputError(
                "tracking: 1 key is missing, 'WANDB_API_KEY'. It must be in the environment when Weights & Biases is "
                "'online', as nobody is there to be asked: set it, or choose 'offline' and send with `wandb sync`."
            )
        return Curves(Path(self.path), self.backend, self.wandb_mode, asset, made)


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one asset, made from one set of inputs; `run` is what a training takes as its `track`.

    Can be pickled: a training in another process writes to the same place.

    Attributes:
        home: folder of all curves.
        backend: who keeps them.
        wandb_mode: offline or online.
        asset: what is trained.
        made: what it is made from.
        last: step and latest figures of each run in this process.
    """

    home: Path
    backend: str
    wandb_mode: str
    asset: str
    made: str
    last: dict[str, tuple[int, dict[str, float]]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the curves of these inputs lie."""
        return self.home / self.asset / self.made

    @contextmanager
    def run(self, name: str, settings: Mapping[str, object]) -> Iterator[Watch]:
        """One training: takes its figures by step, and closes the run however it ends.

        A training that goes on after a kill says some steps again, or begins anew: what was written from its first
        step on is replaced, so that no curve has a step twice. So steps count one thing in a run and never fall.

        Args:
            name: of the run; the same name under the same asset and inputs is the same run.
            settings: hyper-parameters.
        """
        begin = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow, "none": _nowhere}
        with ExitStack() as stack:
            write: Watch | None = None

            def watch(step: int, figures: Mapping[str, float]) -> None:
                nonlocal write
                if write is None:  # only now is it known at which step this training begins or goes on
                    plain = {key: _plain(value) for key, value in settings.items()}
                    if self.backend != "none":
                        self.folder.mkdir(parents=True, exist_ok=True)
                    write = stack.enter_context(begin[self.backend](self, name, plain, int(step)))
                told = {key: float(value) for key, value in figures.items()}
                write(int(step), told)
                self.last[name] = (int(step), self.last.get(name, (0, {}))[1] | told)

            yield watch

    def link(self) -> dict[str, dg.MetadataValue]:
        """What leads from an asset to its curves: their folder, the command that shows them, the last figures.

        Nothing where nothing was trained.
        """
        if self.backend == "none" or not self.folder.exists():
            return {}
        commands = {"tensorboard": self._tensorboard, "wandb": self._wandb, "mlflow": self._mlflow}[self.backend]()
        return {
            "curves": dg.MetadataValue.path(self.home / "mlflow.db" if self.backend == "mlflow" else self.folder),
            **{key: dg.MetadataValue.md(f"```\n{command}\n```") for key, command in commands.items()},
            "curves_last": dg.MetadataValue.md(self._table()),
        }

    def _tensorboard(self) -> dict[str, str]:
        return {"curves_show": shlex.join([_command("tensorboard"), "--logdir", str(self.folder)])}

    def _wandb(self) -> dict[str, str]:
        kept = self.folder / "wandb"
        return {
            "curves_show": shlex.join([_command("wandb"), "leet", str(kept)]),
            "curves_send": f"{shlex.join([_command('wandb'), 'sync', str(kept)])}/offline-run-*",
        }

    def _mlflow(self) -> dict[str, str]:
        from importlib.metadata import version

        # its pages are in the package mlflow, which does not install beside ours; the database is of one version
        package = f"mlflow=={version('mlflow-skinny')}"
        return {"curves_show": shlex.join(["pipx", "run", package, "ui", "--backend-store-uri", self.database])}

    @property
    def database(self) -> str:
        """MLflow's database, one for all assets."""
        return f"sqlite:///{self.home / 'mlflow.db'}"

    def _table(self) -> str:
        rows = [
            f"| {name} | {step} | {', '.join(f'{key} {value:.4g}' for key, value in figures.items())} |"
            for name, (step, figures) in list(self.last.items())[:MOST_ROWS]
        ]
        more = f"\n\nand {len(self.last) - MOST_ROWS} more runs" if len(self.last) > MOST_ROWS else ""
        return "\n".join(["| run | last step | figures |", "|---|---|---|", *rows]) + more


@contextmanager
def _nowhere(curves: Curves, name: str, settings: dict, first: int) -> Iterator[Watch]:
    yield lambda step, figures: None


@contextmanager
def _tensorboard(curves: Curves, name: str, settings: dict, first: int) -> Iterator[Watch]:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    # readers take the files by name, that is by the second of their making, and of earlier ones leave out what they say
    # from the first step on; so one that is made in the same second as another would be lost
    while any(_second(kept) >= int(time.time()) for kept in (curves.folder / name).glob("events.out.tfevents.*")):
        time.sleep(0.05)
    with SummaryWriter(str(curves.folder / name), purge_step=first, flush_secs=10) as writer:
        *opening, ending = hparams(settings, {})
        for part in opening:
            writer.file_writer.add_summary(part)

        def watch(step: int, figures: Mapping[str, float]) -> None:
            for key, value in figures.items():
                writer.add_scalar(key, value, step)

        yield watch
        writer.file_writer.add_summary(ending)


@contextmanager
def _wandb(curves: Curves, name: str, settings: dict, first: int) -> Iterator[Watch]:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it looks up a host, offline too
    import wandb

    online = curves.wandb_mode == "online"
    identity = _identity(curves, name)
    points = (
        curves.folder / f"{identity}.jsonl"
    )  # offline files cannot be gone on with: they are written anew from this
    earlier = _earlier(points, first)
    for old in (curves.folder / "wandb").glob(f"offline-run-*-{identity}"):
        shutil.rmtree(old)
    run = wandb.init(
        project="ecom-pipeline",
        group=f"{curves.asset}-{curves.made}"[:128],
        name=name,
        id=identity,
        dir=str(curves.folder),
        config=settings,
        mode="online" if online else "offline",
        resume="allow" if online else None,  # there, steps that it knows are left out
        reinit="create_new",
        settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
    )
    with _closing(lambda error: run.finish(exit_code=1 if error else 0)), points.open("w") as journal:

        def watch(step: int, figures: Mapping[str, float]) -> None:
            run.log(dict(figures), step=step)
            journal.write(json.dumps([step, figures]) + "\n")
            journal.flush()

        for step, figures in earlier:
            watch(step, figures)
        yield watch


@contextmanager
def _mlflow(curves: Curves, name: str, settings: dict, first: int) -> Iterator[Watch]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    import logging

    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
    client = MlflowClient(curves.database)
    known = client.get_experiment_by_name(curves.asset)
    artifacts = curves.folder.parent.as_uri()
    experiment = known.experiment_id if known else client.create_experiment(curves.asset, artifacts)
    tags = {"identity": _identity(curves, name), "made": curves.made}
    kept = client.search_runs([experiment], f"tags.identity = '{tags['identity']}'")
    # points cannot be taken out of a run: a run that is gone on with is written anew
    points = [p for run in kept for key in run.data.metrics for p in client.get_metric_history(run.info.run_id, key)]
    started = min((run.info.start_time for run in kept), default=None)
    identity = client.create_run(experiment, started, tags=tags, run_name=name).info.run_id
    for run in kept:
        client.delete_run(run.info.run_id)
    client.log_batch(identity, params=[Param(key, str(value)) for key, value in settings.items()])
    earlier = [Metric(p.key, p.value, p.timestamp, p.step) for p in points if p.step < first]
    for start in range(0, len(earlier), 1000):  # as many as it takes at once
        client.log_batch(identity, metrics=earlier[start : start + 1000])

    def watch(step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(identity, metrics=[Metric(key, value, now, step) for key, value in figures.items()])

    def close(error: BaseException | None) -> None:
        stopped = "FAILED" if isinstance(error, Exception) else "KILLED"
        client.set_terminated(identity, stopped if error else "FINISHED")

    with _closing(close):
        yield watch


@contextmanager
def _closing(close: Callable[[BaseException | None], object]) -> Iterator[None]:
    """Close a run with the error that ended it; Ctrl-C is one."""
    try:
        yield
    except BaseException as error:
        close(error)
        raise
    close(None)


def _earlier(points: Path, first: int) -> list[tuple[int, dict[str, float]]]:
    """Points before a step; a last line without an end was cut by a kill."""
    lines = points.read_text().splitlines(keepends=True) if points.is_file() else []
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(step, figures) for step, figures in told if step < first]


def _second(events: Path) -> int:
    return int(events.name.split(".")[3])


def _identity(curves: Curves, name: str) -> str:
    return hashlib.sha256(f"{curves.asset}/{curves.made}/{name}".encode()).hexdigest()[:16]


def _installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # a mere folder of that name is no package


def _command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _plain(value: object) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value, default=str)


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(
            f"{what}: 1 value is unknown, {value!r}. It must be {', '.join(allowed[:-1])} or {allowed[-1]}: "
            "choose one of them."
        )
    return value
