"""How long a forecast of many series takes: the items of Complete Journey sold most, eight weeks ahead, with all that is chosen.

    python benchmarks/demand_speed.py [--items 2000 20000] [--source NAME | NAME:FOLDER]

The time is of `forecast` alone: choosing on past weeks, one model of all items, classical methods, intervals and categories; not of
reading the events. Real series, none repeated; one process.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from next_visit import cleaned

from ecom_pipeline import cleaning, sources
from ecom_pipeline.demand.forecast import forecast
from ecom_pipeline.demand.weekly import read_weekly
from ecom_pipeline.schema.inputs import OFFERS


def main() -> None:
    """Print a line a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="*", default=[2000, 20000])
    parser.add_argument("--source", default="complete-journey")
    asked = parser.parse_args()
    db = cleaned(asked.source)
    source = sources.find(asked.source)
    for table in OFFERS:
        source.land(db, table, hash_key=b"benchmark")
    cleaning.clean_offers(db)
    for n_items in asked.items:
        weekly = read_weekly(db, n_items=n_items)
        began, busy = time.perf_counter(), time.process_time()
        found = forecast(weekly)
        seconds, spent = time.perf_counter() - began, time.process_time() - busy
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{len(weekly.units)} series of {weekly.n_weeks} weeks: {seconds:.0f} s by the clock, {spent:.0f} s of processor, "
            f"the process at most {peak:.1f} GiB; {found.choice}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
