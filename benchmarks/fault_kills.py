"""Faults while a run is at work: it is killed, killed inside a write, or the disk is full; for `faults.py`."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fault_bench import GONE_ON, KILLED, REFUSED, Bench, Outcome, of_four_parts, spoken, unwhole


def harmed(bench: Bench, home: Path, armed: Callable[[int], dict[str, Any]], n_points: int) -> Iterator[Outcome]:
    """Runs that go on with the same home, each armed anew, until one gets through; then its result is compared."""
    for nth in range(n_points):
        code, said = bench.run(home, **armed(nth))
        if code == 0:
            break
        if code == KILLED:
            yield Outcome("", GONE_ON, wrong=unwhole(home))
        else:
            yield Outcome("", REFUSED, spoken(said), of_four_parts(code, said) or unwhole(home))
    yield bench.mended(home)


def boundaries(bench: Bench) -> Iterator[Outcome]:
    """kill -9 before and after every commit to the warehouse, and every file put in its place"""
    tried = bench.work / "tried.txt"
    tried.unlink(missing_ok=True)
    yield from harmed(bench, bench.empty("boundaries"), lambda nth: {"tried": str(tried)}, bench.points)


def torn(bench: Bench) -> Iterator[Outcome]:
    """kill -9 inside a write, drawn at random: half of its bytes are written"""
    draw = random.Random(5)
    yield from harmed(
        bench, bench.empty("torn"), lambda nth: {"way": "torn", "nth": draw.randint(1, 120)}, bench.points // 5
    )


def full(bench: Bench) -> Iterator[Outcome]:
    """the disk is full from the nth write on"""
    places = (1, 5, 25, 60, 100, 160, 240, 400)[: bench.points]
    yield from harmed(bench, bench.empty("full"), lambda nth: {"way": "full", "nth": places[nth]}, len(places))
