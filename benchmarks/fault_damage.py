"""Faults at rest: the warehouse, a model, or a file of the source is not what it was; for `faults.py`."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_bench import DONE, REFUSED, Bench, Outcome, of_four_parts, spoken

Harm = Callable[[Path], object]


def half(file: Path) -> None:
    """The second half of a file is missing."""
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    """A file of no bytes."""
    os.truncate(file, 0)


def garbage(file: Path, *, at: float = 0.5, size: int = 4096) -> None:
    """Some bytes in a file are others."""
    with file.open("r+b") as opened:
        opened.seek(int(file.stat().st_size * at))
        opened.write(bytes(byte ^ 0x5A for byte in opened.read(size)) if False else b"\x5a" * size)


def gone(file: Path) -> None:
    """A file that is not there."""
    file.unlink()


def warehouse(bench: Bench) -> Iterator[Outcome]:
    """the warehouse is cut, or holds garbage, in a home that serves; then it is moved away"""
    harms: dict[str, Harm] = {
        "half of it": half,
        "no bytes": empty,
        "another file": lambda file: file.write_text("not a database"),
        "garbage in the header": lambda file: garbage(file, at=0),
        **{f"garbage at {at:.0%}": lambda file, at=at: garbage(file, at=at) for at in (0.2, 0.4, 0.6, 0.8)},
        "garbage for a log": lambda file: Path(f"{file}.wal").write_bytes(b"\x5a" * 5000),
    }
    home = bench.copy("warehouse")
    file = home / "warehouse.duckdb"
    for point, harm in harms.items():
        shutil.copyfile(bench.clean / file.name, file)
        harm(file)
        code, said = bench.ecom("report", home=home)
        end = DONE if code == 0 else REFUSED
        yield Outcome(f"read, {point}", end, spoken(said) if code else "", of_four_parts(code, said) if code else "")
        code, said = bench.run(home)
        end = DONE if code == 0 else REFUSED
        yield Outcome(f"run, {point}", end, spoken(said) if code else "", of_four_parts(code, said) if code else "")
    for left in home.glob("warehouse.duckdb*"):
        left.unlink()
    yield bench.mended(home)
