"""What breaks: real runs on a small home are killed and harmed, and the end is looked at; writes docs/faults.md.

    python benchmarks/faults.py [--out docs/faults.md] [--only WORDS ...] [--points 400] [--work DIR]

Every fault is made from outside: files are damaged, processes killed, a disk is full, a clock goes back. The end must be a
right result or an error of four parts, with nothing lost and the last good publication whole; then what was harmed is
finished, and must be what a run that nothing disturbed has made: every relation, every published file and the report.
Needs Linux and a C compiler, for faults inside a write (fault_shim.c). Results are kept beside the table, in JSON, as it grows,
so that a fault may be tried alone. Exit code 1: something was not right.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import fault_damage
import fault_kills
import fault_meetings
import fault_sources
from fault_bench import NOT_TRIED, ROOT, Bench, Outcome

from ecom_pipeline.errors import PipelineError

Fault = Callable[[Bench], Iterator[Outcome]]
FAULTS: list[Fault] = [
    *(fault_kills.boundaries, fault_kills.torn, fault_kills.full, fault_meetings.locked),
    *(fault_damage.warehouse, fault_damage.publication, fault_damage.models, fault_damage.halves),
    *(fault_sources.columns, fault_sources.zones, fault_sources.titles, fault_sources.numbers),
    *(fault_sources.little, fault_sources.labels),
    *(fault_meetings.clock, fault_meetings.pairs, fault_meetings.served, fault_meetings.watched),
]
HEAD = """\
# What was broken on purpose

Written by `{command}`; nothing here is typed by hand. Every fault is made from outside, to real runs of `ecom` on a home of
124 items and ten days of purchases (where judgments are needed, on the small shop of the tests). A fault ends as it must in a
right result or in an error of four parts, with the publication whole, and with each relation as the ledger says. Then the
fault is taken away, `ecom run` is started again, and the home must hold what an undisturbed one holds: every row of every
relation, every published file by its hash, the report byte for byte. Instants at which something was written, seconds, and the
ledger of files, are not compared.

"""
TAIL = """
## What is known and not mended

- A warehouse whose bytes are others than were written, by a disk or by hand, is told of and not mended: the command says so and what
  to do, and `ecom run` makes all of it anew from the source, but for rows of files that are gone from there: keep a copy of
  `warehouse.duckdb`, made while no run is at work, where those matter.

## What cannot be tried here

- The loss of power: a process is killed, and what it gave to the system reaches the disk all the same. The journal, the
  warehouse and the pointer to what is published are synced; files of models are not.
- A disk that returns other bytes than were written to it, while a run is at work; a damaged file is tried at rest.
- A file system without `flock` and atomic `rename`, as some network mounts are: a home must not lie there.
- A full disk is feigned: writes, from the nth on, are refused with ENOSPC inside the process; memory-mapped files are not.
- Faults inside Dagster's own SQLite files, which are left out of torn and refused writes.
"""


def main() -> int:
    """Try faults, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "faults.md")
    parser.add_argument("--only", nargs="*", default=[], choices=[fault.__name__ for fault in FAULTS])
    parser.add_argument("--points", type=int, default=400, help="At most so many kills, or harms, of a kind.")
    parser.add_argument("--work", type=Path, help="Folder to work in and to keep; not said: one that goes.")
    args = parser.parse_args()
    file = args.out.with_suffix(".json")
    kept = json.loads(file.read_text()) if file.is_file() else {}
    with tempfile.TemporaryDirectory() as own:
        bench = Bench((args.work or Path(own)).absolute(), args.points)
        for fault in FAULTS:
            if not args.only or fault.__name__ in args.only:
                for found in tried(bench, fault):
                    kept[fault.__name__] = found
                    file.write_text(json.dumps(kept, indent=1) + "\n")
                    args.out.write_text(page(kept))
    return int(any(one["wrong"] for fault in kept.values() for one in fault["outcomes"]))


def tried(bench: Bench, fault: Fault) -> Iterator[dict[str, object]]:
    """One fault at all of its points: what is known of it after each."""
    began, outcomes = time.monotonic(), []
    on = f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    for outcome in to_the_end(fault(bench)):
        print(f"{time.monotonic() - began:.0f} s, {fault.__name__}: {outcome}", flush=True)
        outcomes.append(asdict(outcome))
        yield {"outcomes": list(outcomes), "seconds": round(time.monotonic() - began), "on": on}


def to_the_end(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Outcomes, and that it broke off where looking at what is left fails."""
    try:
        yield from outcomes
    except (AssertionError, OSError, ValueError, LookupError, duckdb.Error, PipelineError) as error:
        yield Outcome("the suite itself", "broken off", wrong=f"{type(error).__name__}: {str(error)[:300]}")


def page(kept: Mapping[str, dict]) -> str:
    """The table, and below it what was said at points that have a name."""
    known = [(fault, kept[fault.__name__]) for fault in FAULTS if fault.__name__ in kept]
    rows = ["| fault | alone | points | how they ended | seconds, on |", "|---|---|---:|---|---|"]
    for fault, found in known:
        outcomes = [Outcome(**one) for one in found["outcomes"]]
        wrong = [one for one in outcomes if one.wrong]
        n_tried = sum(one.end != NOT_TRIED for one in outcomes)
        ends = [f"{n} {end}" for end, n in Counter(one.end for one in outcomes if not one.wrong).items()]
        ends += [] if outcomes[-1].point == "mended" else ["**not finished**"]
        ends += [f"**{len(wrong)} not as they must**, first: {wrong[0].point} {wrong[0].wrong}"] if wrong else []
        rows.append(
            f"| {fault.__doc__} | `--only {fault.__name__}` | {n_tried} | {'; '.join(ends)} | "
            f"{found['seconds']}, {found['on']} |"
        )
    rows += [
        f"| {fault.__doc__} | `--only {fault.__name__}` | 0 | **not tried yet** | |"
        for fault in FAULTS
        if fault.__name__ not in kept
    ]
    rows += ["", "## What was said", "", "| fault | at | how it ended |", "|---|---|---|"]
    for fault, found in known:
        rows += said(fault.__name__, [Outcome(**one) for one in found["outcomes"]])
    return HEAD.format(command="python benchmarks/faults.py") + "\n".join(rows) + "\n" + TAIL


def said(name: str, outcomes: list[Outcome]) -> list[str]:
    """A row for each way in which points ended, those without a name together."""
    rows = Counter(
        (one.point, f"**not as it must:** {one.wrong}" if one.wrong else one.said or one.end)
        for one in outcomes
        if one.point != "mended"
    )
    return [
        f"| {name} | {point or f'{n} of the points'} | {' '.join(end.replace('|', '/').split())} |"
        for (point, end), n in rows.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
