"""Faults at rest: the warehouse, a model, or a file of the source is not what it was; for `faults.py`."""

import gzip
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TypeVar

import duckdb
from fault_bench import Bench, Outcome, remove_warehouse

from ecom_pipeline.service import folders

Harm = Callable[[Path], object]
P = TypeVar("P")


def half(file: Path) -> None:
    """The second half of a file is missing."""
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    """A file of no bytes."""
    os.truncate(file, 0)


def garbage(file: Path, *, at: float = 0.5) -> None:
    """Some bytes of a file are others."""
    with file.open("r+b") as opened:
        opened.seek(int(file.stat().st_size * at))
        opened.write(b"\x5a" * 4096)


def gone(file: Path) -> None:
    """A file that is not there."""
    file.unlink()


FILES: dict[str, Harm] = {"cut in half": half, "of no bytes": empty, "with garbage in it": garbage, "gone": gone}


def warehouse(bench: Bench) -> Iterator[Outcome]:
    """the warehouse is cut, or holds garbage; at last it is moved away"""
    harms: dict[str, Harm] = {
        "cut in half": half,
        "of no bytes": empty,
        "another file": lambda file: file.write_text("not a database"),
        "garbage in the header": lambda file: garbage(file, at=0),
        **{f"garbage at {at:.0%}": lambda file, at=at: garbage(file, at=at) for at in (0.2, 0.4, 0.6, 0.8)},
        "garbage for a log": lambda file: Path(f"{file}.wal").write_bytes(b"\x5a" * 5000),
    }
    home = bench.copy("warehouse")
    file = home / "warehouse.duckdb"
    for point, harm in harms.items():
        remove_warehouse(home)
        shutil.copyfile(bench.clean / file.name, file)
        harm(file)
        yield bench.answered(home, f"{point}, `ecom report`", "report")
        yield bench.tried(home, f"{point}, `ecom run`", look=False)
    remove_warehouse(home)
    yield bench.mended(home)


def publication(bench: Bench) -> Iterator[Outcome]:
    """a published file is damaged: `ecom serve` must refuse it, and `ecom run` publish again"""
    home = bench.copy("publication")
    published = home / "published"
    told = folders.verified(published / folders.current(published))
    largest = sorted(told["files"], key=lambda name: -(published / told["name"] / name).stat().st_size)
    trees = [name for name in told["files"] if name.endswith(("trees.txt", ".safetensors"))]
    names = (*largest[:2], *trees[:2], folders.MANIFEST, f"../{folders.CURRENT}")
    for name, point in drawn(names, bench.points):
        FILES[point](apart(published / folders.current(published) / name))
        yield bench.answered(home, f"{Path(name).name} {point}, `ecom serve`", "serve", "--port", 0)
        yield bench.mended(home)


def drawn(names: Sequence[P], n_points: int) -> list[tuple[P, str]]:
    """Files and what is done to them: all there are in an order drawn at random, or the first of them."""
    found = list(product(names, FILES))
    random.Random(5).shuffle(found)
    return found[:n_points]


def models(bench: Bench) -> Iterator[Outcome]:
    """a file of the ranker or of the language model in use is damaged: where nothing is new, and where a new day asks for lists"""
    home = bench.copy("models")
    names = sorted(
        file.relative_to(home)
        for folder in ("rankers", "encoders")
        for file in (home / folder).rglob("*")
        if file.is_file() and "twin" not in file.parts
    )
    for nth, (name, point) in enumerate(drawn(names, bench.points)):
        home, told = bench.copy("models"), f"{name.parts[0]}/{name.name} {point}"
        FILES[point](apart(home / name))
        if nth % 4:
            yield replace(bench.mended(home), point=told)
        else:
            bench.one_day_less()
            yield bench.tried(home, f"{told}, and a new day")
    yield bench.mended(home)


def apart(file: Path) -> Path:
    """A file of its own: what is published may be the same file as what was trained."""
    own = file.with_name(f"{file.name}.own")
    shutil.copyfile(file, own)
    os.replace(own, file)
    return file


def halves(bench: Bench) -> Iterator[Outcome]:
    """a file of the source is read while it is written: cut at bytes drawn from all of it, or a Parquet without its end"""
    home, size = bench.copy("halves"), (bench.source / "events.csv").stat().st_size
    for share in (0.0, 0.001, 0.3, 0.5, 0.7, 0.999):
        os.truncate(bench.restored(bench.source) / "events.csv", int(size * share))
        yield bench.tried(home, f"events.csv, {share:.1%} of it")
    for share in (0.0, 0.5, 0.99):
        folder = bench.restored(bench.source)
        duckdb.sql(f"from read_csv('{folder / 'events.csv'}', all_varchar = true)").write_parquet(
            f"{folder}/events.parquet"
        )
        (folder / "events.csv").unlink()
        file = folder / "events.parquet"
        os.truncate(file, int(file.stat().st_size * share))
        yield bench.tried(home, f"events.parquet, {share:.0%} of it")
    folder = bench.restored(bench.source)
    (folder / "events.csv.gz").write_bytes(gzip.compress((folder / "events.csv").read_bytes())[:-100])
    (folder / "events.csv").unlink()
    yield bench.tried(home, "events.csv.gz without its end")
    yield bench.mended(home)
