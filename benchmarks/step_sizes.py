"""What does each step of a run take: seconds, processor seconds, and the largest memory of its processes together?

    python benchmarks/step_sizes.py [--home HOME] [--source SOURCE] [--again ASSET ...]

Every stale step is made in a process of its own, as in a pod of its own, in the order of `ecom run` and with its gates; or,
in a copy of a finished home, those of some assets are made again. Memory is the proportional set size (PSS) of the step's
process and of all that it starts, looked at every second: what a limit of a container meets, but for the cache of files that
the system gives back. Linux alone. Seconds hold the start of the process, which is measured first, with nothing to make.
When each call that a step makes side by side was done, joblib tells in Dagster's logs of that step (`dagster/storage` of the
home). With `--home` it goes on where it was stopped.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assets.refresh import Plan

_GIB = 2**20  # in kibibytes, as the system tells of memory
_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    """By a process and all that it started."""

    seconds: float
    cpu_seconds: float
    peak_gib: float


def main() -> None:
    """Print a row a step as it is made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--source", default="")
    parser.add_argument(
        "--again", nargs="+", help="of a finished home, make the steps of these assets again", default=()
    )
    parser.add_argument("--make", nargs="*", help="make these assets here, and measure nothing")
    parser.add_argument("--days", nargs=2, type=date.fromisoformat, help="of assets that have days")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        _enter(options.home or Path(aside), options.source)
        if options.make is not None:
            make(options.make, options.days)
            return
        print(f"{'step':<44}{'seconds':>9}{'core s':>9}{'GiB':>7}", flush=True)
        for name, taken in measured(options.home or Path(aside), options.again):
            print(f"{name:<44}{taken.seconds:>9.1f}{taken.cpu_seconds:>9.1f}{taken.peak_gib:>7.2f}", flush=True)


def _enter(home: Path, source: str) -> None:
    from ecom_pipeline.cli.app import enter

    enter(home, ECOM_SOURCE=source)


def make(names: Sequence[str], days: Sequence[date] | None) -> None:
    """Make assets with their gates, as one run of Dagster in this process; nothing where there are no names."""
    from assets.refresh import Plan
    from ecom_pipeline import definitions
    from ecom_pipeline.cli.run import _execute, _instance

    if names:
        from joblib import parallel_config

        with parallel_config(verbose=51), _instance(definitions.HOME) as instance:
            _execute(instance, Plan(tuple(names), (days[0], days[1]) if days else None), {})


def measured(home: Path, again: Sequence[str]) -> Iterator[tuple[str, Taken]]:
    """Each step as it was made, one with nothing to do first."""
    yield "(start alone)", run([], home)
    for plan in _again(again) if again else _stale():
        for names, days in _steps(plan):
            yield ", ".join(names)[:43], run([*names, *(["--days", *days] if days else [])], home)


def _again(names: Sequence[str]) -> "Iterator[Plan]":
    """One plan of assets of which the ledger knows nothing any more."""
    from assets.refresh import Plan
    from ecom_pipeline import definitions, ledger

    with definitions.WAREHOUSE.transaction() as db:
        for name in names:
            ledger.forget(db, name)
            ledger.forget(db, f"weeks of {name}")
        if "embeddings" in names:
            db.execute("delete from embeddings")
    yield Plan(tuple(names))


def _stale() -> "Iterator[Plan]":
    """The plans of `ecom run`, each when the one before it is done."""
    from ecom_pipeline import definitions
    from ecom_pipeline.cli.run import _instance

    while True:
        with _instance(definitions.HOME) as instance:
            made = definitions.made_assets(instance)
        plan = definitions.next_plan(definitions.WAREHOUSE, definitions.HOME, {}, made)
        if not plan.assets:
            return
        yield plan


def _steps(plan: "Plan") -> Iterator[tuple[list[str], list[str]]]:
    """The assets of each step of a plan, and the days where they have days."""
    from assets.refresh import FLOW

    for asset in FLOW:
        names = sorted(key.to_user_string() for key in asset.keys if key.to_user_string() in plan.assets)
        if names:
            yield names, [day.isoformat() for day in plan.days] if plan.days and asset.partitions_def else []


def run(names: Sequence[str], home: Path) -> Taken:
    """A process that makes assets, and what it took."""
    command = [sys.executable, __file__, "--home", str(home), "--make", *names]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    peak = 0.0
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, _pss(process.pid))
        time.sleep(_EVERY_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(names)}: the process ended with {process.returncode}")
    return Taken(time.monotonic() - started, used.ru_utime + used.ru_stime, peak / _GIB)


def _pss(session: int) -> float:
    """Kibibytes of all processes of a session."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, LookupError, ValueError):
            if os.getsid(int(folder.name)) == session:
                rows = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
                total += float(rows["Pss"].split()[0])
    return total


if __name__ == "__main__":
    main()
