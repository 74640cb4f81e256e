"""What breaks: real runs on a small home are killed and harmed, and the end is looked at; writes docs/faults.md.

    python benchmarks/faults.py [--out docs/faults.md] [--only WORDS ...] [--points 400]

Every fault is made from outside: files are damaged, processes killed, a disk is full, a clock goes back. The end must be a
right result or an error of four parts, with nothing lost and the last good publication whole; then what was harmed is
finished, and must be what a run that nothing disturbed has made: every relation, every published file and the report.
Needs a C compiler for faults inside a write (fault_shim.c), and root for a disk of its own; what cannot be tried is said.
Results are kept beside the table as it grows, so that a fault may be tried alone. Exit code 1: something was not right.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from shop import HEAD_ALONE, make_purchases, make_shop  # noqa: E402

from ecom_pipeline.service import folders  # noqa: E402

OF_THE_CLOCK = {"embedded_at", "written_at", "landed_at"}
NOT_COMPARED = {"ledger", "landed_files"}  # what was made when, and from what bytes
KILLED = -9


@dataclass(frozen=True)
class Outcome:
    """How one fault ended at one point; `wrong` is empty where it ended as it must."""

    told: str
    wrong: str = ""


@dataclass
class Bench:
    """A place to work, a small shop, and a process that forks commands."""

    work: Path
    points: int
    _server: subprocess.Popen | None = field(default=None, init=False)

    @cached_property
    def shim(self) -> Path:
        """The compiled shim."""
        built = self.work / "shim.so"
        source = Path(__file__).with_name("fault_shim.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True)
        return built

    @cached_property
    def config(self) -> Path:
        """Settings under which a run is short."""
        path = self.work / "config.yaml"
        path.write_text(HEAD_ALONE)
        return path

    @cached_property
    def source(self) -> Path:
        """Purchases of ten days, a file for all of them but the last."""
        whole, folder = self.work / "whole", self.work / "source"
        if folder.is_dir():
            return folder
        whole.mkdir()
        folder.mkdir()
        make_purchases(make_shop(whole), folder)
        return folder

    @cached_property
    def clean(self) -> Path:
        """A home that nothing disturbed. Do not touch."""
        home = self.work / "clean"
        if (home / "published" / folders.CURRENT).is_file():
            return home
        code, told = self.ecom("run", "--source", self.source, home=home)
        assert code == 0, told[-2000:]
        return home

    def copy(self, name: str) -> Path:
        """A copy of the undisturbed home."""
        target = self.work / "homes" / name
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(self.clean, target)

    def ecom(self, verb: str, *arguments: object, home: Path, **arm: object) -> tuple[int, str]:
        """One command in a child of its own: its exit code, negative where it was killed, and what it said."""
        of_run = ["--config", str(self.config), "--device", "cpu"] if verb == "run" else []
        at = [] if verb == "check" else ["--home", str(home)]
        out = self.work / "said.txt"
        order = {"argv": [verb, *map(str, arguments), *of_run, *at], "out": str(out), **arm}
        if "way" in arm:
            order = {"under": str(home), "without": "/dagster/", **order}
        server = self._running()
        assert server.stdin
        assert server.stdout
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        json.loads(server.stdout.readline())
        code = json.loads(server.stdout.readline())
        return code, out.read_text()

    def _running(self) -> subprocess.Popen:
        if self._server is None:
            environment = {k: v for k, v in os.environ.items() if k not in ("ECOM_HOME", "ECOM_SOURCE", "DAGSTER_HOME")}
            environment |= {"LD_PRELOAD": str(self.shim), "OMP_NUM_THREADS": "1", "ECOM_HASH_KEY": "tests"}
            environment["PYTHONPATH"] = str(ROOT)
            command = [sys.executable, str(Path(__file__).with_name("fault_server.py"))]
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
            assert self._server.stdout
            assert json.loads(self._server.stdout.readline()) == "ready"
        return self._server


def state(home: Path) -> dict[str, object]:
    """What a home holds, without what the clock says: relations as sets of rows, published files, the report."""
    found: dict[str, object] = {}
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as db:
        for (name,) in db.execute("select table_name from duckdb_tables()").fetchall():
            if name not in NOT_COMPARED:
                columns = [column for column in db.sql(f"from {name} limit 0").columns if column not in OF_THE_CLOCK]
                row = f"hash(row({', '.join(columns)}))::hugeint"
                found[name] = db.execute(f"select sum({row}), count(*) from {name}").fetchone()
    told = folders.verified(home / "published" / folders.current(home / "published"))
    found |= {name: digest for name, digest in told["files"].items() if not name.endswith("manifest.json")}
    return found | {"report": (home / "reports" / "report.html").read_bytes()}


def differs(home: Path, other: Path) -> str:
    """What is not the same in two homes."""
    one, two = state(home), state(other)
    names = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    return f"{len(names)} differ from an undisturbed run, first {names[0]!r}" if names else ""


def unwhole(home: Path) -> str:
    """What must hold at every moment: a publication is whole, and a relation is as the ledger says."""
    published = home / "published"
    if (published / folders.CURRENT).exists() and not folders.current_is_whole(published):
        return "the publication is damaged"
    if not (home / "warehouse.duckdb").exists():
        return ""
    with duckdb.connect(str(home / "warehouse.duckdb")) as db:  # plays back what a kill left
        tables = {name for (name,) in db.execute("select table_name from duckdb_tables()").fetchall()}
        rows = db.execute("from ledger where day = date '0001-01-01'").fetchall() if "ledger" in tables else []
        for asset, _, _, content, *_ in rows:
            if asset in tables and not asset.startswith("raw_"):
                whole = db.execute(f"select coalesce(sum(hash(r)::hugeint), 0) || '/' || count(*) from {asset} r")
                if whole.fetchall() != [(content,)]:
                    return f"{asset} is not what the ledger says"
    return ""


def of_four_parts(code: int, said: str) -> str:
    """What is wrong with an error: it must be ours, count, say what must hold, and what to do."""
    error = next((line for line in said.splitlines() if line.startswith("ecom: ")), "")
    if code not in (1, 2) or not error:
        return f"exit {code}, and no error of ours: {said.strip().splitlines()[-1:]}"
    parts = re.fullmatch(r"ecom: .+?: .*\d.*\. .*(must|may|Only one).*\.", said[said.index("ecom: ") :].strip(), re.S)
    return "" if parts and "Traceback" not in said else f"not of four parts: {error}"


def spoken(said: str) -> str:
    """The error's first sentence, without paths."""
    error = said[said.index("ecom: ") :] if "ecom: " in said else said[-200:]
    return re.sub(r"'/[^']*/", "'", error.removeprefix("ecom: ").split(". ")[0])[:150]


def harmed(
    bench: Bench, home: Path, armed: Callable[[int], dict[str, Any]], end: Callable[[int, str], str]
) -> Iterator:
    """Runs that go on with the same home, each armed anew, until one gets through; then its result is compared."""
    for nth in range(bench.points):
        code, said = bench.ecom("run", "--source", bench.source, home=home, **armed(nth))
        if code == 0:
            break
        yield Outcome("gone on with", end(code, said) or unwhole(home))
    else:
        code, said = bench.ecom("run", "--source", bench.source, home=home)
        assert code == 0, said[-2000:]
    yield Outcome("finished, equal to an undisturbed run", differs(home, bench.clean))


def killed(code: int, said: str) -> str:
    """A kill is all that may have ended a process."""
    return "" if code == KILLED else f"exit {code}: {spoken(said)}"


def boundaries(bench: Bench) -> Iterator[Outcome]:
    """kill -9 before and after every commit to the warehouse, and every file put in its place"""
    home, tried = bench.work / "homes" / "boundaries", bench.work / "tried.txt"
    yield from harmed(bench, home, lambda nth: {"tried": str(tried)}, killed)


def torn(bench: Bench) -> Iterator[Outcome]:
    """kill -9 inside a write: half of its bytes are written"""
    draw = random.Random(5)
    yield from harmed(
        bench, bench.work / "homes" / "torn", lambda nth: {"way": "torn", "nth": draw.randint(1, 60)}, killed
    )


def full(bench: Bench) -> Iterator[Outcome]:
    """the disk is full from the nth write on"""
    places = (1, 5, 25, 60, 100, 160, 240, 400)

    def armed(nth: int) -> dict[str, Any]:
        return {"way": "full", "nth": places[nth]} if nth < len(places) else {}

    yield from harmed(bench, bench.work / "homes" / "full", armed, of_four_parts)


FAULTS: list[Callable[[Bench], Iterator[Outcome]]] = [boundaries, torn, full]


def main() -> int:
    """Try faults, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--work", type=Path, help="Folder to work in and to keep; not said: one that goes.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        bench = Bench((args.work or Path(own)).absolute(), args.points)
        bench.work.mkdir(exist_ok=True)
        for fault in FAULTS:
            if args.only and fault.__name__ not in args.only:
                continue
            for outcome in fault(bench):
                print(fault.__name__, outcome, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
