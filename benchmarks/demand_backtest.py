"""Rolling-origin backtest of demand: what is chosen on past weeks, beside seasonal naive, ETS, Theta, Croston SBA and TSB.

    python benchmarks/demand_backtest.py [--source NAME | NAME:FOLDER] [--items 2000] [--origins 4]

A source is what the pipeline takes, such as complete-journey, the default, or online-retail:FOLDER. Items are those sold most before
the first origin. Origins are eight weeks apart, and all that is chosen or learnt for one is known before it. MASE is scaled by
the naive forecast's error within the item's past; the pinball loss, a mean over five quantiles, likewise, and weighted by what
was paid for the item in the four weeks before the origin, as in the M5 competition. Seasonal naive is the same week of the last year,
where a year is known. Intervals: 1,000 draws of items, origins of an item kept together.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from next_visit import cleaned

from ecom_pipeline import cleaning, sources
from ecom_pipeline.demand.classical import METHODS
from ecom_pipeline.demand.evaluation import CHOSEN, errors_by_item
from ecom_pipeline.demand.forecast import Settings, forecast
from ecom_pipeline.demand.intervals import Conformal
from ecom_pipeline.demand.weekly import HORIZON, Weekly, read_weekly
from ecom_pipeline.schema.inputs import OFFERS

YEAR, RECENT = 52, 4
SEASONAL = "seasonal naive"


def seasonal(weekly: Weekly, origin: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, HORIZON) the same weeks of the last year, and (n, HORIZON, 5) quantiles by its errors eight weeks before."""
    now, before = (
        weekly.units[:, start - YEAR : start - YEAR + HORIZON].astype(float) for start in (origin, origin - HORIZON)
    )
    past = weekly.units[:, origin - HORIZON : origin].astype(float)
    return now, Conformal.fit(past, before, np.full(len(past), origin)).quantiles(now)


def errors(weekly: Weekly, origin: int, settings: Settings) -> pd.DataFrame:
    """A row an item, method and metric, with what was paid for the item lately."""
    began = time.perf_counter()
    found = forecast(weekly.until(origin), settings)
    took = time.perf_counter() - began
    print(f"  as of {weekly.monday(origin)}: {found.choice}; {took:.0f} s for {len(weekly.units)} items", flush=True)
    made = {CHOSEN: (found.units, found.quantiles)}
    if origin - HORIZON >= YEAR:
        made[SEASONAL] = seasonal(weekly, origin)
    paid = pd.Series(weekly.money[:, origin - RECENT : origin].sum(1), weekly.item_ids)
    rows = errors_by_item(weekly, origin, made, settings)
    return rows.assign(origin=origin, paid=rows["item"].map(paid))


def show(rows: pd.DataFrame) -> None:
    """Means, and what is chosen less each other method, with intervals over items."""
    items = np.unique(rows["item"])
    draw = np.random.default_rng(0).multinomial(len(items), np.full(len(items), 1 / len(items)), 1000)
    n_origins = rows.origin.nunique()
    print(f"  {len(items)} items, {n_origins} origins, {HORIZON} weeks each")
    for metric, weighted in (("MASE", False), ("scaled pinball", True), ("scaled pinball", False)):
        part = rows[rows.metric == metric]
        weight = part.paid.to_numpy(float) if weighted else np.ones(len(part))
        table = part.assign(weight=weight, product=part["value"] * weight)
        total = {
            method: one.groupby("item")[["product", "weight"]].sum().reindex(items).fillna(0).to_numpy()
            for method, one in table.groupby("method")
        }
        print(f"  {'weighted ' * weighted}{metric}")
        for method in (CHOSEN, SEASONAL, *METHODS):
            if method in total:
                same = table[table.method == method].origin.unique()  # seasonal naive may lack an origin
                paired = table[(table.method == CHOSEN) & table.origin.isin(same)]
                ours = paired.groupby("item")[["product", "weight"]].sum().reindex(items).fillna(0).to_numpy()
                difference = ratio(draw, ours) - ratio(draw, total[method])
                value = ratio(np.ones((1, len(items))), total[method])[0]
                low, high = np.quantile(ratio(draw, total[method]), [0.025, 0.975])
                told = f"    {method:<16}{value:.4f} [{low:.4f}, {high:.4f}]"
                if method != CHOSEN:
                    mean = ratio(np.ones((1, len(items))), ours)[0] - value
                    low, high = np.quantile(difference, [0.025, 0.975])
                    told += f"   chosen less it {mean:+.4f} [{low:+.4f}, {high:+.4f}], {len(same)} origins"
                print(told, flush=True)
    inside = rows[rows.metric.str.startswith(("inside", "enough")) & (rows.method == CHOSEN)]
    print("  " + ", ".join(f"{name} {value:.1%}" for name, value in inside.groupby("metric")["value"].mean().items()))


def ratio(draw: np.ndarray, total: np.ndarray) -> np.ndarray:
    """(k,) weighted means of k draws of items."""
    product, weight = (draw @ total).T
    return product / weight


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="complete-journey")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--origins", type=int, default=4)
    asked = parser.parse_args()
    db = cleaned(asked.source)
    source = sources.find(asked.source)
    for table in OFFERS:
        source.land(db, table, hash_key=b"benchmark")
    cleaning.clean_offers(db)
    weekly = read_weekly(db, n_items=asked.items, n_tested=asked.origins * HORIZON)
    print(f"{asked.source}: {weekly.n_weeks} weeks from {weekly.first_week}", flush=True)
    origins = [weekly.n_weeks - HORIZON * back for back in range(asked.origins, 0, -1)]
    show(pd.concat([errors(weekly, origin, Settings()) for origin in origins], ignore_index=True))


if __name__ == "__main__":
    sys.exit(main())
