"""How long do ten million interactions take to be read, weighed and indexed, and in how much memory?

    python benchmarks/interaction_scale.py [--rows 10000000] [--items 20000] [--memory 2GB]

Complete Journey after the cleaning of the pipeline, as often as it takes: every copy has households of its own, so users
grow and the catalogue stays. The copies are written to a warehouse on disk by another process, which is not measured.
Peaks are of the whole process so far; the warehouse may use `--memory` of it.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
from next_visit import cleaned

from ecom_pipeline.recommend.interaction_weights import build_interaction_weights
from ecom_pipeline.recommend.interactions import read_interactions
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.weighting import Weighting

WEIGHTING = Weighting("hyperbolic", 40.0, quantity=0.2)


def write_copies(path: str, n_rows: int) -> None:
    """A warehouse with at least so many cleaned interactions."""
    db = cleaned("complete-journey")
    (n,) = db.execute("select count(*) from cleaned_interactions").fetchall()[0]
    db.execute(f"attach '{path}' as disk")
    copied = ", ".join(
        f"{name} || '-' || copy as {name}" for name in ("event_id", "user_id", "session_id", "return_of")
    )
    db.execute(f"""
        create table disk.cleaned_interactions as
        select i.* replace ({copied}) from cleaned_interactions as i, range({-(-n_rows // n)}) as r(copy)""")


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print what a step took."""
    started = time.monotonic()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{what:<40}{time.monotonic() - started:>8.1f} s   peak {peak:.2f} GiB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--memory", default="2GB", help="of the warehouse")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "copies.duckdb")
        writer = multiprocessing.get_context("spawn").Process(target=write_copies, args=(path, options.rows))
        writer.start()
        writer.join()
        db = duckdb.connect(path, config={"memory_limit": options.memory, "temp_directory": folder, "threads": 2})
        db.execute("set enable_progress_bar = false")
        with measured("read_interactions"):
            acts = read_interactions(db, options.items)
        with measured("interaction_weights, every act"):
            counts = build_interaction_weights(db, WEIGHTING, int(acts.day.max()) + 1, None)
        db.close()
    print(counts)
    print(f"{len(acts)} rows (user, item, day), {acts.n_users} users, {acts.n_items} items")
    day = int(acts.day.max()) + 1
    with measured("Weighting.as_of"):
        weight = WEIGHTING.as_of(acts, np.full(len(acts), day))
    del weight
    with measured("Index.fit"):
        Index.fit(acts, day, weighting=WEIGHTING)


if __name__ == "__main__":
    main()
