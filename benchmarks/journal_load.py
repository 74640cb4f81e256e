"""How many events a second a journal acknowledges, and after how long: in the home's file, and in Postgres on this machine.

    python benchmarks/journal_load.py [--seconds 4] [--tries 3]

Each process is a service without its HTTP, and in it clients send one event, or a batch of 100, and the next one when that is
acknowledged. Postgres runs with its own settings, syncs its disk, and is reached over a socket of this machine, so what a
network adds is not in it. The kinds take turns, and of each figure the median of the tries is told, as a machine may have other
work. With TMPDIR=/dev/shm no disk is waited for.
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from postgres import Server, serving  # noqa: E402

from ecom_pipeline.service.journal.appending import Journal  # noqa: E402
from ecom_pipeline.service.journal.opening import open_database  # noqa: E402
from ecom_pipeline.service.journal.rows import Event  # noqa: E402

KEY = b"benchmark"
KINDS = [(where, n) for n in (1, 2) for where in ("file", "server")]
LOADS = {"1 client, 1 event": (1, 1), "16 clients, 1 event": (16, 1), "4 clients, 100 events": (4, 100)}


def main() -> None:
    """Print what each load gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--tries", type=int, default=3)
    options = parser.parse_args()
    print(f"{'each process':24}{'processes':>10}{'where':>8}{'a second':>10}{'p50 ms':>8}{'p99 ms':>8}")
    with serving("") as server:
        for load, (n_clients, n_events) in LOADS.items():
            found: dict[tuple[str, int], list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
            for _ in range(options.tries):
                for kind, told in found.items():
                    told.append(tried(server, *kind, n_clients, n_events, options.seconds))
            for (where, n), told in found.items():
                rate, p50, p99 = np.median(told, axis=0)
                print(f"{load:24}{n:>10}{where:>8}{rate:10,.0f}{p50:8.1f}{p99:8.1f}", flush=True)


def tried(
    server: Server, where: str, n_processes: int, n_clients: int, n_events: int, seconds: float
) -> tuple[float, float, float]:
    """Events a second of all processes, and quantiles of milliseconds until one is acknowledged."""
    with tempfile.TemporaryDirectory() as folder:
        server.ask("postgres", "drop schema if exists ecom_journal cascade")
        connection = server.connection("postgres") if where == "server" else ""
        context = multiprocessing.get_context("spawn")
        told: multiprocessing.Queue = context.Queue()
        together = context.Barrier(n_processes)
        given = (Path(folder), connection, n_clients, n_events, seconds, together, told)
        processes = [context.Process(target=serve, args=given) for _ in range(n_processes)]
        for one in processes:
            one.start()
        took = np.concatenate([told.get() for _ in processes])
        for one in processes:
            one.join()
    return len(took) * n_events / seconds, *(np.quantile(took, [0.5, 0.99]) * 1000)


def serve(
    folder: Path,
    connection: str,
    n_clients: int,
    n_events: int,
    seconds: float,
    together: threading.Barrier,
    told: multiprocessing.Queue,
) -> None:
    """A process that keeps what its clients send for some seconds, and tells how long each of them waited."""
    with closing(Journal(open_database(folder, connection, KEY))) as journal:
        together.wait()
        took: list[float] = []
        until = time.perf_counter() + seconds

        def send() -> None:
            while (began := time.perf_counter()) < until:
                journal.append([event() for _ in range(n_events)])
                took.append(time.perf_counter() - began)

        clients = [threading.Thread(target=send) for _ in range(n_clients)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
    told.put(np.array(took))


def event() -> Event:
    """A purchase of somebody."""
    return Event(
        event_id=uuid4().hex,
        occurred_at="2026-01-01T00:00:00.000000+00:00",
        user_id=uuid4().hex,
        session_id=uuid4().hex,
        action="purchase",
        item_id="1082185",
        quantity=2.0,
        price=1.99,
    )


if __name__ == "__main__":
    main()
