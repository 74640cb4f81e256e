"""Whom to ask: orders of users for later campaigns, for items and for categories of Complete Journey, and effects that are known.

    python benchmarks/audiences.py [--items 30] [--categories 15] [--worlds 100]

Four tables. Campaigns: the later third of those that had ended is foretold, each by those that ended before it began; what the
asset tells, then every model and every half-life of an offer's weight, with the difference from its twin without weights; intervals
draw users and campaigns. Items and categories: the last 28 days are foretold from 28-day stretches before them; items are drawn from
those that 40 users or more bought in the 28 days before, categories likewise. Effects: made users to whom an offer that adds a known
amount was given the likelier the more they buy; how far the estimates are off, and how often the interval holds the truth.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from next_visit import cleaned

from ecom_pipeline import cleaning, sources
from ecom_pipeline.audiences.evaluation import BEFORE, RFM, ended_before, evaluate, simple_orders, tested_offers
from ecom_pipeline.audiences.gains import FIGURES, area, calibration_error, judged, lift
from ecom_pipeline.audiences.offers import (
    FEATURES,
    Audience,
    Offer,
    last_day_of,
    past_windows,
    read_audience,
    read_campaigns,
)
from ecom_pipeline.audiences.response import Settings, fit_model, fit_responder
from ecom_pipeline.audiences.uplift import effect_scores, naive_difference
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.schema.inputs import OFFERS

KINDS = (("logistic", 0.01), ("logistic", 0.1), ("logistic", 1.0), ("trees", 4), ("trees", 8))
HALF_LIVES = (None, 30.0, 60.0, 180.0)
METRICS = {name: FIGURES[name] for name in ("AUC", "average precision", "lift at 10%")}
ADDED = 0.15


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=30)
    parser.add_argument("--categories", type=int, default=15)
    parser.add_argument("--worlds", type=int, default=100)
    asked = parser.parse_args()
    db = cleaned("complete-journey")
    source = sources.find("complete-journey")
    for table in OFFERS:
        source.land(db, table, hash_key=b"benchmark")
    cleaning.clean_offers(db)
    offers = read_campaigns(db)
    audience = read_audience(db, offers)
    campaigns(audience, offers)
    for response in ("redeemed", "bought"):
        every_weighting(audience, offers, response)
    everyday(db, asked.items, asked.categories)
    known_effects(asked.worlds)


def campaigns(audience: Audience, offers: list[Offer]) -> None:
    """What the asset tells, and how long it takes."""
    began = time.perf_counter()
    figures, told = evaluate(audience, offers)
    print(f"asset: {time.perf_counter() - began:.1f} s; {told}")
    for row in figures.itertuples():
        print(
            f"{row.response:<9}{row.model:<44}{row.metric:<40}{row.value:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}]"
        )


def every_weighting(audience: Audience, offers: list[Offer], response: str) -> None:
    """Each model with each half-life, fixed before anything is seen, against itself without weights."""
    value = getattr(audience, response)
    usable = audience.given & np.isfinite(value)
    tested = tested_offers(audience, offers, usable)
    rows = np.concatenate([np.flatnonzero(usable & (audience.offer == offer.name)) for offer in tested])
    on = (value[rows], audience.offer[rows], audience.user_id[rows])
    for kind in KINDS:
        base = {}
        for half_life in HALF_LIVES:
            score = np.concatenate(list(_foretold(audience, offers, tested, value, usable, Settings(*kind, half_life))))
            words = [f"{response:<9}{Settings(*kind, half_life)!s:<52}"]
            for name, figure in METRICS.items():
                drawn = judged(figure, score, *on)
                base.setdefault(name, drawn)
                low, high = np.nanquantile(drawn[1] - base[name][1], [0.025, 0.975])
                words.append(f"{name} {drawn[0]:.4f} {drawn[0] - base[name][0]:+.4f} [{low:+.4f}, {high:+.4f}]")
            print("  ".join([*words, f"calibration error {judged(calibration_error, score, *on)[0]:.4f}"]), flush=True)


def _foretold(
    audience: Audience,
    offers: list[Offer],
    tested: list[Offer],
    value: np.ndarray,
    usable: np.ndarray,
    settings: Settings,
) -> Iterator[np.ndarray]:
    for offer in tested:
        train = usable & ended_before(audience, offers, offer)
        model = fit_responder(audience.known[train], value[train], audience.offer[train], audience.age[train], settings)
        yield model.probability(audience.known[usable & (audience.offer == offer.name)])


def everyday(db: duckdb.DuckDBPyConnection, n_items: int, n_categories: int) -> None:
    """Who buys an item, or of a category, in the last 28 days of the data?"""
    since = last_day_of(db) - timedelta(days=55)
    for column, n in (("item_id", n_items), ("category", n_categories)):
        names = db.execute(
            f"""select {column} from cleaned_interactions join items using (item_id)
            where action = 'purchase' and day between ? and ? and {column} is not null
            group by 1 having count(distinct user_id) between 40 and 1200 order by hash({column} || 'drawn') limit ?""",
            [since, since + timedelta(days=27), n],
        ).fetchall()
        found, refused, took = [], 0, []
        for (name,) in names:
            began = time.perf_counter()
            asked = [item for (item,) in db.execute(f"select item_id from items where {column} = ?", [name]).fetchall()]
            try:
                found.append(_last_stretch(db, asked))
            except ExperimentError:
                refused += 1
            took.append(time.perf_counter() - began)
        table = pd.DataFrame(found)
        print(
            f"{column}: {len(found)} foretold, {refused} refused, {np.median(took):.1f} s each; mean and 95 % over them"
        )
        for name in table:
            half = 1.96 * table[name].std() / np.sqrt(len(table))
            print(f"  {name:<44}{table[name].mean():8.4f} ± {half:.4f}", flush=True)


def _last_stretch(db: duckdb.DuckDBPyConnection, items: list[str]) -> dict[str, float]:
    windows = past_windows(db, items, days=28)
    audience = read_audience(db, windows)
    last = windows[-2].name
    train, held = np.isin(audience.offer, [one.name for one in windows[:-2]]), audience.offer == last
    model = fit_responder(
        audience.known_of_user[train],
        audience.bought[train],
        audience.offer[train],
        audience.age[train],
        fold_by=audience.user_id[train],
    )
    scores = {"model": model.probability(audience.known_of_user[held]), **simple_orders(audience.known[held], seed=0)}
    truth, weight = audience.bought[held], np.ones(int(held.sum()))
    off = float(np.log((scores["model"].sum() + 0.5) / (truth.sum() + 0.5)))
    figures = {"share who buy": truth.mean(), "log of expected over seen": off, "its distance from 0": abs(off)}
    figures["calibration error"] = calibration_error(scores["model"], truth, weight)
    for name, score in scores.items():
        figures[f"AUC, {name}"] = area(score, truth, weight)
        figures[f"lift at 10%, {name}"] = lift(0.1)(score, truth, weight)
    for other in (BEFORE, RFM):
        figures[f"AUC, model - {other}"] = figures["AUC, model"] - figures[f"AUC, {other}"]
    return figures


def known_effects(n_worlds: int) -> None:
    """Estimates of an effect that is known, where who buys more is given the offer more often."""
    found = []
    for seed in range(n_worlds):
        draw = np.random.default_rng(seed)
        known = np.abs(draw.normal(size=(2000, len(FEATURES))))
        taste = known[:, 0] - known[:, 1]
        given = draw.random(2000) < 1 / (1 + np.exp(-1.5 * taste))
        chances = [np.clip(0.4 + 0.15 * taste + added, 0.02, 0.98) for added in (0.0, ADDED)]
        truth = float((chances[1] - chances[0]).mean())
        response = (draw.random(2000) < np.where(given, chances[1], chances[0])).astype(float)
        sides = [fit_model("logistic", 0.1, known[s], response[s], np.ones(int(s.sum()))) for s in (given, ~given)]
        two = float(np.subtract(*(side.predict_proba(known)[:, 1] for side in sides)).mean())
        value, low, high = effect_scores(known, response, given, np.arange(2000).astype(str)).average
        found.append((naive_difference(response, given) - truth, two - truth, value - truth, low <= truth <= high))
    table = np.array(found, float)
    for name, column in zip(("plain difference", "two models", "doubly robust"), table.T, strict=False):
        print(f"{name:<18}off by {column.mean():+.4f}, spread {column.std():.4f}")
    print(f"doubly robust interval holds the truth in {table[:, 3].mean():.0%} of {n_worlds} worlds")


if __name__ == "__main__":
    main()
