"""Faults of time and company: a clock that goes back, and processes that want one home at once; for `faults.py`."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fault_bench import DONE, NOT_TRIED, REFUSED, ROOT, Bench, Outcome, of_four_parts, spoken, unwhole

HOLDING = "import duckdb, sys, time; db = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(float(sys.argv[2]))"


def locked(bench: Bench) -> Iterator[Outcome]:
    """another program holds the warehouse: for 10 seconds, and for longer than a minute"""
    home = bench.copy("locked")
    for seconds, end in ((10, DONE), (600, REFUSED)):
        command = [sys.executable, "-c", HOLDING, str(home / "warehouse.duckdb"), str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            outcome = bench.tried(home, f"held for {seconds} s", look=False)
            holder.kill()
        wrong = outcome.wrong or ("" if outcome.end == end else f"ended as {outcome.end}")
        yield Outcome(outcome.point, outcome.end, outcome.said, wrong or unwhole(home))
    yield bench.mended(home)


def clock(bench: Bench) -> Iterator[Outcome]:
    """the clock goes back: by an hour, to the day before the last event, to before all of them"""
    home = bench.copy("clock")
    moments = {
        "to a day of the events": datetime(2024, 5, 9, 12, tzinfo=UTC).timestamp(),
        "to before all events": datetime(2024, 4, 1, tzinfo=UTC).timestamp(),
        "by an hour": datetime.now(UTC).timestamp() - 3600,
    }
    for nth, (point, to) in enumerate(moments.items()):
        if nth >= bench.points:
            yield Outcome(point, NOT_TRIED)
            continue
        yield bench.tried(home, point, clock=int(to - time.time()))
        bench.one_day_less()
        yield bench.tried(home, f"{point}, and a file changes", clock=int(to - time.time()))
        bench.restored(bench.source)
    yield bench.mended(home)


def pairs(bench: Bench) -> Iterator[Outcome]:
    """two runs are started at once in an empty home: one works, the other says which one does"""
    home = bench.empty("pairs")
    two = [begin(bench, home, *bench.run_command()) for _ in range(2)]
    codes = []
    for nth, run in enumerate(two, 1):
        code, said = run.end()
        codes.append(code)
        wrong = of_four_parts(code, said) if code else ""
        yield Outcome(f"run {nth} of 2", REFUSED if code else DONE, spoken(said) if code else "", wrong)
    yield Outcome(
        "both", f"exit codes {sorted(codes)}", wrong="" if sorted(codes) == [0, 1] else "one must work, one not"
    )
    yield bench.mended(home)


def served(bench: Bench) -> Iterator[Outcome]:
    """`ecom serve` answers beside a run that publishes another model: no request fails, and the new one is taken up"""
    home, port = bench.copy("served"), free_port()
    bench.one_day_less()
    service = begin(bench, home, "serve", "--port", port)
    try:
        before = wait_for(f"http://127.0.0.1:{port}/ready")["model"]
        run, n_asked, failed = begin(bench, home, *bench.run_command()), 0, []
        while run.process.poll() is None:
            try:
                ask(f"http://127.0.0.1:{port}/users/person-1/recommendations")
            except OSError as error:
                failed.append(str(error))
            n_asked += 1
            time.sleep(0.1)
        code, said = run.end()
        wrong = f"exit {code}: {spoken(said)}" if code else ""
        wrong = wrong or (
            f"{len(failed)} of {n_asked} requests failed, first: {failed[0]}" if failed else unwhole(home)
        )
        yield Outcome("requests while the run worked", DONE, wrong=wrong)
        time.sleep(20)
        after = ask(f"http://127.0.0.1:{port}/ready")["model"]
        yield Outcome("20 seconds later", DONE, wrong="" if after != before else "the new model does not serve")
    finally:
        service.stop()
    yield bench.mended(home)


def watched(bench: Bench) -> Iterator[Outcome]:
    """`ecom ui` is open, and commands read, beside a run"""
    home = bench.copy("watched")
    bench.one_day_less()
    page = begin(bench, home, "ui", "--port", free_port())
    run = begin(bench, home, *bench.run_command())
    try:
        while run.process.poll() is None:
            yield bench.answered(home, "`ecom report` meanwhile", "report")
            yield bench.answered(home, "`ecom recommend` meanwhile", "recommend", "--user", "person-1")
        code, said = run.end()
        yield Outcome("the run", DONE, wrong=f"exit {code}: {spoken(said)}" if code else unwhole(home))
        yield Outcome("the UI afterwards", DONE, wrong="" if page.process.poll() is None else "it has ended")
    finally:
        page.stop()
    yield bench.mended(home)


@dataclass
class Begun:
    """A command in a process and a group of its own; what it says goes to a file."""

    process: subprocess.Popen
    file: Path

    def end(self) -> tuple[int, str]:
        """Wait for it: its exit code, and what it said."""
        return self.process.wait(), self.file.read_text()

    def stop(self) -> None:
        """Interrupt it and what it has started, as Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def begin(bench: Bench, home: Path, *command: object) -> Begun:
    """A command that goes on while others do."""
    number, name = tempfile.mkstemp(prefix=f"{command[0]}-", suffix=".txt", dir=bench.work)
    whole = [sys.executable, "-m", "ecom_pipeline.cli", *map(str, command), "--home", str(home)]
    with os.fdopen(number, "w") as file:
        process = subprocess.Popen(
            whole, cwd=ROOT, env=bench.environment, stdout=file, stderr=file, start_new_session=True
        )
    return Begun(process, Path(name))


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def ask(address: str) -> dict:
    """The answer of a service."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.load(answer)


def wait_for(address: str, *, seconds: float = 300) -> dict:
    """The first answer of a service that begins."""
    until = time.monotonic() + seconds
    while True:
        try:
            return ask(address)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
