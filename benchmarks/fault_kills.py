"""Faults while a run is at work: it is killed, killed inside a write, or the disk is full; for `faults.py`."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fault_bench import (
    GONE_ON,
    KILLED,
    NOT_TRIED,
    REFUSED,
    UNREADABLE,
    Bench,
    Outcome,
    of_four_parts,
    remove_warehouse,
    spoken,
    unwhole,
)


def harmed(bench: Bench, home: Path, armed: Callable[[int], dict[str, Any]], n_points: int) -> Iterator[Outcome]:
    """Runs that go on with the same home, each armed anew, until one gets through."""
    for nth in range(n_points):
        code, said = bench.run(home, **armed(nth))
        if code == 0:
            break
        if code == KILLED:
            wrong = unwhole(home)
            yield Outcome("", GONE_ON, wrong=wrong)
            if wrong.startswith(UNREADABLE):
                yield bench.tried(home, "`ecom run` over such a warehouse", look=False)
                remove_warehouse(home)
        else:
            yield Outcome("", REFUSED, spoken(said), of_four_parts(code, said) or unwhole(home))


def boundaries(bench: Bench) -> Iterator[Outcome]:
    """kill -9 before and after every commit to the warehouse, and every file put in its place"""
    met, wanted, tried = (bench.work / f"{name}.txt" for name in ("met", "wanted", "tried"))
    for file in (met, tried):
        file.unlink(missing_ok=True)
    code, said = bench.run(bench.empty("boundaries"), met=str(met))
    assert code == 0, said[-2000:]
    names = met.read_text().splitlines()
    n_wanted = min(bench.points, len(names))
    wanted.write_text("".join(f"{names[n * len(names) // n_wanted]}\n" for n in range(n_wanted)))
    yield from harmed(
        bench, bench.empty("boundaries"), lambda nth: {"wanted": str(wanted), "tried": str(tried)}, n_wanted
    )
    for _ in range(len(names) - len(tried.read_text().splitlines())):
        yield Outcome("", NOT_TRIED)
    yield bench.mended(bench.work / "homes" / "boundaries")


def torn(bench: Bench) -> Iterator[Outcome]:
    """kill -9 inside a write, drawn at random, every second one of the warehouse: half of its bytes are written"""
    draw, home = random.Random(5), bench.empty("torn")

    def armed(nth: int) -> dict[str, Any]:
        of_warehouse = {"under": str(home / "warehouse.duckdb")} if nth % 2 else {}
        return {"way": "torn", "nth": draw.randint(1, 40 if nth % 2 else 120), **of_warehouse}

    yield from harmed(bench, home, armed, bench.points // 5)
    yield bench.mended(home)


def full(bench: Bench) -> Iterator[Outcome]:
    """the disk is full from the nth write on"""
    places, home = (1, 5, 25, 60, 100, 160, 240, 400)[: bench.points], bench.empty("full")
    yield from harmed(bench, home, lambda nth: {"way": "full", "nth": places[nth]}, len(places))
    yield bench.mended(home)
