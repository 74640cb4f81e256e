"""Where faults are tried: small homes, forked commands, and what must hold of a home whatever happened to it.

For `faults.py`, and its stages beside it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import duckdb

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from shop import HEAD_ALONE, make_purchases, make_shop  # noqa: E402

from ecom_pipeline.errors import WarehouseError  # noqa: E402
from ecom_pipeline.language.embeddings import IN_USE  # noqa: E402
from ecom_pipeline.service import folders  # noqa: E402
from resources.warehouse import Warehouse  # noqa: E402

OF_THE_CLOCK = {"embedded_at", "written_at", "landed_at"}
# what was made when, from what bytes, how often a day was to be cleaned again, and how long it took
NOT_COMPARED = {"ledger_entries", "landed_files", "touched_days", "costs"}
# what earlier runs noted of themselves under an earlier last day stays, and is what its figures are compared with
DRIFT = """(select day, family, figure, part, kind, value from drift
    where family = 'events' or day = (select max(day) from drift where family = 'events'))"""
# of some relations not all rows are looked at: texts that were read once and are in use no more stay
ROWS = {"drift": DRIFT, "embeddings": f"(from embeddings where {IN_USE})"}
KILLED = -9
UNREADABLE = "the warehouse cannot be read"


GONE_ON, REFUSED, DONE = "killed, then gone on with", "an error of four parts", "a run that came to its end"
EQUAL, NOT_TRIED = "finished, and equal to an undisturbed run", "**not tried yet**"


@dataclass(frozen=True)
class Outcome:
    """How one fault ended at one point, and what was said; `wrong` is empty where it ended as it must."""

    point: str
    end: str
    said: str = ""
    wrong: str = ""


@dataclass
class Bench:
    """A place to work, a small shop, and a process that forks commands."""

    work: Path
    points: int
    judged: bool = False
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
        """What runs read: ten days of purchases, or all of the small shop with its judgments. A fault may harm it."""
        if not self._pristine.is_dir():
            whole = self._pristine if self.judged else self.work / "whole"
            for folder in {whole, self._pristine}:
                folder.mkdir(parents=True)
            shop = make_shop(whole)
            if not self.judged:
                make_purchases(shop, self._pristine)
        return self.restored(self.work / "source")

    @property
    def _pristine(self) -> Path:
        return self.work / "pristine"

    def restored(self, folder: Path) -> Path:
        """The source as it was before anything was done to it."""
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(self._pristine, folder)

    @cached_property
    def clean(self) -> Path:
        """A home that nothing disturbed. Do not touch."""
        home = self.work / "clean"
        if (home / "published" / folders.CURRENT).is_file():
            return home
        code, said = self.run(home)
        assert code == 0, said[-2000:]
        return home

    def copy(self, name: str) -> Path:
        """A copy of the undisturbed home."""
        self.empty(name)
        return shutil.copytree(self.clean, self.work / "homes" / name)

    def empty(self, name: str) -> Path:
        """A home that is not there yet."""
        home = self.work / "homes" / name
        shutil.rmtree(home, ignore_errors=True)
        return home

    @cached_property
    def with_judgments(self) -> "Bench":
        """The same with judgments and searches."""
        return Bench(self.work / "judged", self.points, judged=True)

    @cached_property
    def environment(self) -> dict[str, str]:
        """Of every command: one key, one thread, and none of our own settings."""
        own = {k: v for k, v in os.environ.items() if k not in ("ECOM_HOME", "ECOM_SOURCE", "DAGSTER_HOME")}
        fixed = {"OMP_NUM_THREADS": "1", "ECOM_HASH_KEY": "tests", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        return own | fixed

    def run_command(self) -> tuple[object, ...]:
        """`ecom run` over the source, with settings under which it is short."""
        return ("run", "--source", self.source, "--config", self.config, "--device", "cpu")

    def run(self, home: Path, **arm: object) -> tuple[int, str]:
        """`ecom run` in a child, as `ecom` does it."""
        return self.ecom(*self.run_command(), home=home, **arm)

    def tried(self, home: Path, point: str, *, look: bool = True, **arm: object) -> Outcome:
        """A run over what was harmed: it comes to its end, or says why not; and the home is whole, if that is looked at."""
        code, said = self.run(home, **arm)
        damage = unwhole(home) if look else ""
        if code == 0:
            return Outcome(point, DONE, wrong=damage)
        return Outcome(point, REFUSED, spoken(said), of_four_parts(code, said) or damage)

    def answered(self, home: Path, point: str, *command: object) -> Outcome:
        """Another command: it comes to its end, or says why not; a service that begins to serve is ended, which is wrong."""
        code, said = self.ecom(*command, home=home, seconds=300)
        if code == 0:
            return Outcome(point, DONE)
        return Outcome(point, REFUSED, spoken(said), of_four_parts(code, said))

    def one_day_less(self) -> None:
        """Take the last day out of the events, so that a run that has seen it has something to do."""
        file = self.restored(self.source) / "events.csv"
        rows = file.read_text().splitlines(keepends=True)
        file.write_text("".join(row for row in rows if "2024-05-10T" not in row))

    def mended(self, home: Path) -> Outcome:
        """A run over the source as it was: it must come to its end, and to what an undisturbed one makes."""
        self.restored(self.source)
        code, said = self.run(home)
        if code:
            return Outcome("mended", "not finished", wrong=f"exit {code}: {spoken(said)}")
        return Outcome("mended", EQUAL, wrong=unwhole(home) or differs(home, self.clean))

    def ecom(self, *command: object, home: Path, **arm: object) -> tuple[int, str]:
        """One command in a child of its own: its exit code, negative where it was killed, and what it said."""
        out = self.work / "said.txt"
        order = {"argv": [*map(str, command), "--home", str(home)], "out": str(out), **arm}
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
            environment = {**self.environment, "LD_PRELOAD": str(self.shim)}
            command = [sys.executable, str(Path(__file__).with_name("fault_server.py"))]
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
            assert self._server.stdout
            assert json.loads(self._server.stdout.readline()) == "ready"
        return self._server


def remove_warehouse(home: Path) -> None:
    """What an operator does with a warehouse that cannot be read."""
    for file in home.glob("warehouse.duckdb*"):
        file.unlink()


def state(home: Path) -> dict[str, object]:
    """What a home holds, without what the clock says: relations as sets of rows, published files, the report."""
    found: dict[str, object] = {}
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as db:
        for (name,) in db.execute("select table_name from duckdb_tables()").fetchall():
            if name not in NOT_COMPARED:
                rows = ROWS.get(name, name)
                columns = [column for column in db.sql(f"from {rows} limit 0").columns if column not in OF_THE_CLOCK]
                row = f"hash(row({', '.join(columns)}))::hugeint"
                found[name] = db.execute(f"select sum({row}), count(*) from {rows}").fetchone()
    told = folders.verified(home / "published" / folders.current(home / "published"))
    found |= {name: digest for name, digest in told["files"].items() if not name.endswith("manifest.json")}
    report = (home / "reports" / "report.html").read_text()
    return found | {"report": re.sub(r'<section id="costs">.*?</section>', "", report, flags=re.DOTALL)}


def differs(home: Path, other: Path, *, but: Collection[str] = ()) -> str:
    """What is not the same in two homes, but for some relations."""
    one, two = state(home), state(other)
    names = sorted(name for name in (one.keys() | two.keys()).difference(but) if one.get(name) != two.get(name))
    return f"{len(names)} differ from an undisturbed run, first {names[0]!r}" if names else ""


def unwhole(home: Path) -> str:
    """What must hold at every moment: a publication is whole, and a relation is as the ledger says."""
    published = home / "published"
    if (published / folders.CURRENT).exists() and not folders.current_is_whole(published):
        return "the publication is damaged"
    if not (home / "warehouse.duckdb").exists():
        return ""
    with tempfile.TemporaryDirectory() as folder:  # what a kill has left is to be met by the next run
        for file in home.glob("warehouse.duckdb*"):
            shutil.copy(file, folder)
        try:
            return _unlike_the_ledger(Warehouse(path=str(Path(folder, "warehouse.duckdb"))))
        except (duckdb.Error, WarehouseError) as error:
            return f"{UNREADABLE}: {without_paths(str(error))[:150]}"


def _unlike_the_ledger(warehouse: Warehouse) -> str:
    with warehouse.connect() as db:
        tables = {name for (name,) in db.execute("select table_name from information_schema.tables").fetchall()}
        kept = db.execute("from ledger where day = date '0001-01-01'").fetchall() if "ledger" in tables else []
        for asset, _, _, content, *_ in kept:
            if asset in tables and not asset.startswith("raw_"):
                rows = ROWS["embeddings"] if asset == "embeddings" else asset  # of `drift` the ledger has every row
                whole = db.execute(f"select coalesce(sum(hash(r)::hugeint), 0) || '/' || count(*) from {rows} r")
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
    return without_paths(error.removeprefix("ecom: ").split(". ")[0]).split(": computed checksum")[0][:150]


def without_paths(said: str) -> str:
    """Files by their names alone."""
    return re.sub(r"""(['"\s])/[^'"\s]*/""", r"\1", said)
