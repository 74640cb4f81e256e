"""What a lake costs beside the one file: landing and cleaning the packaged data, one new day beside them, and small steps.

    python benchmarks/lake_cost.py [--tries 3]

Postgres runs on this machine with its own settings, the folder is on the same disk, so what a network adds is not in it.
File and lake take turns, each time in an empty home; of each figure the least of the tries is told. Seconds are of this process on
its processors, as a machine may have other work; what the server takes beside it is told where the clock runs too. A small step
replaces a relation of 100 rows, or adds 100, and notes it in the ledger, as every asset does.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from postgres import Server, serving  # noqa: E402

from assets.prepare import CleaningConfig  # noqa: E402
from assets.publish import settings_of  # noqa: E402
from ecom_pipeline import cleaning, ledger, sources  # noqa: E402
from ecom_pipeline.ledger import Entry  # noqa: E402
from resources.home import size_of  # noqa: E402
from resources.warehouse import Warehouse  # noqa: E402

TABLES = ("items", "events", "campaigns", "campaign_users", "campaign_items", "promotions")
N_STEPS = 10


def main() -> None:
    """Print what each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {"file": {}, "lake": {}}
    with serving("") as server:
        for nth in range(options.tries):
            for kind, told in found.items():
                with tempfile.TemporaryDirectory() as home:
                    for what, value in tried(warehouse_of(kind, Path(home), server, nth), Path(home)).items():
                        told.setdefault(what, []).append(value)
            print(f"try {nth + 1} of {options.tries} done", file=sys.stderr)
    print(f"{'':44}{'file':>10}{'lake':>10}{'ratio':>8}")
    for what, values in found["file"].items():
        file, lake = min(values), min(found["lake"][what])
        print(f"{what:44}{file:10.3g}{lake:10.3g}{lake / file:8.2f}")


def warehouse_of(kind: str, home: Path, server: Server, nth: int) -> Warehouse:
    """An empty one."""
    if kind == "file":
        return Warehouse(path=str(home / "warehouse.duckdb"))
    server.ask("postgres", f"create database lake{nth}")
    os.environ["ECOM_LAKE"] = server.connection(f"lake{nth}")
    return Warehouse(path=str(home / "warehouse.duckdb"), lake_folder=str(home / "lake"), snapshot_hours=0)


def tried(warehouse: Warehouse, home: Path) -> dict[str, float]:
    """Seconds and bytes of each part."""
    with warehouse.connect():
        pass  # what is done once a process
    source, limits = sources.find(sources.DEFAULT), cleaning.Limits(**settings_of(CleaningConfig()))

    def land() -> None:
        with warehouse.transaction() as db:
            for table in TABLES:
                source.land(db, table, hash_key=b"benchmark")
            cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))

    def clean() -> None:
        with warehouse.transaction() as db:
            cleaning.clean_items(db)
            cleaning.clean_offers(db)
            ((first, last),) = db.execute("select min(day), max(day) from event_days").fetchall()
            cleaning.clean_events(db, first, last, limits)

    def clean_a_day() -> None:
        with warehouse.transaction() as db:
            ((day,),) = db.execute("select max(day) from cleaned_interactions").fetchall()
            cleaning.clean_events(db, day, day, limits)

    def replace() -> None:
        with warehouse.transaction() as db:
            db.execute("create or replace table step as select range as x from range(100)")
            ledger.record(db, "step", Entry("", "", 100))

    def add() -> None:
        with warehouse.transaction() as db:
            db.execute("insert into step select range from range(100)")
            ledger.record(db, "step", Entry("", "", 100))

    def read() -> None:
        with warehouse.connect() as db:
            db.execute("select count(distinct user_id), sum(price) from cleaned_interactions").fetchall()

    told = seconds("land", land) | seconds("clean", clean) | seconds("clean one day again", clean_a_day)
    told |= seconds("replace a small relation", replace, N_STEPS) | seconds("add to one", add, N_STEPS)
    told |= seconds("read two columns of events", read, 3) | {"home, MB": size_of(home) / 1e6}
    told |= seconds("write all anew", warehouse.compact)
    return told | {"home then, MB": size_of(home) / 1e6}


def seconds(what: str, work: Callable[[], None], n: int = 1) -> dict[str, float]:
    """Of one call, on average: on the processors and by the clock."""
    processors, clock = time.process_time(), time.monotonic()
    for _ in range(n):
        work()
    spent = {"s": time.process_time() - processors, "s by the clock": time.monotonic() - clock}
    return {f"{what}, {unit}": value / n for unit, value in spent.items()}


if __name__ == "__main__":
    main()
