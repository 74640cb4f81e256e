"""How long a service takes to answer, and where the time goes: text queries, lists, similar items and events at fixed rates.

    python benchmarks/service_load.py --home HOME [--seconds 30] [--ranked 50000] [--flat 10000] [--only events]

HOME has a published model; with --ranked a copy is served in which so many items are ranked, by the ranker that it has. The client runs beside the service and sends at its own pace whether answers come or not, so
that a slow answer delays nobody's clock. Queries are words of titles; who acts on what is drawn from the acts themselves, so
that busy users and popular items come as often as they do. Prints quantiles, the time of each stage, and the memory before and after.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

PORT = 8765
RATES = {"search": 20, "lists": 20, "similar": 20, "events": 200}


def memory_mib(pid: int) -> float:
    """Resident memory of a process, without pages of files that it maps."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


async def drive(kind: str, rate: float, seconds: float, make) -> tuple[np.ndarray, int]:
    """Send at a rate, and return milliseconds from when each was due until it was answered, and how many failed."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    took, failed, tasks = [], 0, []

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", limits=limits, timeout=30) as client:

        async def one(due: float) -> None:
            nonlocal failed
            method, path, body = make()
            answer = await client.request(method, path, json=body)
            failed += answer.status_code != 200
            took.append((time.perf_counter() - due) * 1000)

        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)
        print(f"{kind:<9}{len(tasks) / (time.perf_counter() - began):8.1f} a second", end="")
    return np.array(took), failed


def stages() -> dict[str, tuple[float, float]]:
    """Sum and count of each stage so far."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics").read().decode()
    found: dict[str, dict[str, float]] = {}
    for part, stage, value in re.findall(r'ecom_stage_seconds_(sum|count)\{stage="([^"]+)"\} (\S+)', text):
        found.setdefault(stage, {})[part] = float(value)
    return {stage: (one["sum"], one["count"]) for stage, one in found.items()}


def makers(home: Path, draw: random.Random):
    """What to send of each kind."""
    name = json.loads((home / "published" / "current.json").read_text())["name"]
    folder = home / "published" / name
    items = pd.read_parquet(folder / "items.parquet", columns=["item_id", "title"])
    users = pd.read_parquet(folder / "users.parquet").user_id.to_numpy()
    acts = {name: np.load(folder / "acts" / f"{name}.npy", mmap_mode="r") for name in ("user", "item")}
    titles, n_ranked = items.title.tolist(), json.loads((folder / "manifest.json").read_text())["n_ranked"]

    def act() -> tuple[str, str]:
        row = draw.randrange(len(acts["user"]))
        return str(users[acts["user"][row]]), items.item_id.iat[acts["item"][row]]

    def query() -> str:
        words = draw.choice(titles).lower().split()
        return " ".join(draw.sample(words, min(len(words), draw.randint(1, 3))))

    def event() -> dict:
        user, item = act()
        return {"user_id": user, "action": "purchase", "item_id": item}

    print(f"{len(items):,} items, {n_ranked:,} ranked, {len(users):,} users")
    return {
        "search": lambda: ("POST", "/search", {"query": query(), "top": 50}),
        "lists": lambda: ("GET", f"/users/{act()[0]}/recommendations?top=10", None),
        "similar": lambda: ("GET", f"/items/{act()[1]}/similar?top=10", None),
        "events": lambda: ("POST", "/events", event()),
    }


def publish_more(home: Path, target: Path, n_items: int) -> None:
    """A model of more ranked items than the ranker of a home learnt on."""
    from ecom_pipeline import ledger
    from ecom_pipeline.recommend.catalogue import read_shop
    from ecom_pipeline.recommend.saved import SavedRanker
    from ecom_pipeline.service import folders
    from ecom_pipeline.service.published import Ingredients, write_model
    from resources.warehouse import Warehouse

    with Warehouse(path=str(home / "warehouse.duckdb")).connect() as db:
        of = {name: ledger.entries(db, name)[ledger.WHOLE].content for name in ("ranker", "adapted_encoder")}
        folder = home / "rankers" / of["ranker"]
        rankers = {"weighted": SavedRanker.read(folder), "unweighted": SavedRanker.read(folder / "twin")}
        shop = read_shop(db, n_items, divisions=rankers["weighted"].divisions)
        day = int(shop.acts.day.max()) + 1
        given = Ingredients(shop, day, rankers, home / "encoders" / of["adapted_encoder"], None, 0, target / "graphs")
        folders.publish(target / "published", lambda part: write_model(part, db, given), lambda _: {})


def main() -> None:
    """Start a service, and send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--flat", type=int, default=0, help="Then so many more requests, to see the memory.")
    parser.add_argument("--only", choices=RATES, help="Send this kind alone.")
    parser.add_argument("--ranked", type=int, default=0, help="Items; 0: the published model as it is.")
    asked = parser.parse_args()
    if asked.ranked:
        target = Path(tempfile.mkdtemp())
        publish_more(asked.home, target, asked.ranked)
        asked.home = target
    command = [sys.executable, "-m", "ecom_pipeline.cli", "serve", "--home", str(asked.home), "--port", str(PORT)]
    service = subprocess.Popen([*command, "--rate", "100000"], env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready")
                break
            except OSError:
                time.sleep(0.2)
        make = makers(asked.home, random.Random(0))
        asyncio.run(drive("warm", 20, 5, make["lists"]))
        asyncio.run(drive("warm", 20, 5, make["search"]))
        asyncio.run(drive("warm", 20, 1, make["events"]))
        print(f"\nmemory of its own {memory_mib(service.pid):,.0f} MiB")
        for kind, rate in [(kind, rate) for kind, rate in RATES.items() if asked.only in (None, kind)]:
            before = stages()
            took, failed = asyncio.run(drive(kind, rate, asked.seconds, make[kind]))
            p50, p95, p99 = np.quantile(took, [0.5, 0.95, 0.99])
            print(f"   p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   p99 {p99:6.1f} ms   failed {failed} of {len(took)}")
            for stage, (seconds, n) in stages().items():
                was = before.get(stage, (0, 0))
                if n > was[1]:
                    print(f"         {stage:<14}{(seconds - was[0]) / (n - was[1]) * 1000:7.2f} ms")
        for part in range(4 if asked.flat else 0):
            for kind in ("search", "lists", "similar"):
                took, _ = asyncio.run(drive("", 60, asked.flat / 12 / 60, make[kind]))
            print(
                f"   memory of its own {memory_mib(service.pid):,.0f} MiB after {asked.flat * (part + 1) // 4:,} more"
            )
    finally:
        service.terminate()
        service.wait()


if __name__ == "__main__":
    main()
