"""Do weights of past acts by how they came about make lists better: promotion, logged chance of showing, rank?

    python benchmarks/circumstances.py promotion [--periods 320 270 230] [--processes 1]
    python benchmarks/circumstances.py bandit FOLDER

`promotion`: Complete Journey after the cleaning of the pipeline, 20,000 items, next visits of the 30 days from each period's
first day. The choice is the pipeline's: 24 weightings, tried on the two stretches of 28 days before; then the same with 12 more by promotion (reach).
Then each is judged on the test visits by nDCG@10 of a list of the own history and an item-item model, whose share was chosen before it:
the chosen one as it is, and times a factor for acts under promotion. A promotion is known in two ways: `reach`, the share of shops
that showed the item on a display or in the mailer that week; and `discount`, the share of the price that this purchase was given off.
Intervals by bootstrap over households, all periods together.

`bandit`: the Open Bandit sample. It has no users, so what is weighed is what the channel of popularity counts: the clicks of each
item in the log of Bernoulli Thompson sampling, whose chances are logged. Judged on the log that drew items at random: the chance that
an impression with a click has a higher count than one without, in the same campaign; by bootstrap over the impressions of both logs.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from next_visit import LIMITS, origin

from ecom_pipeline import cleaning, sources
from ecom_pipeline.recommend.circumstances import Circumstances
from ecom_pipeline.recommend.interactions import EPOCH, Interactions, Visits, day_number, read_interactions
from ecom_pipeline.recommend.item_item import Neighbours
from ecom_pipeline.recommend.trials import blended_ndcg, choose_weighting
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting
from ecom_pipeline.sources.complete_journey import ADAPTER

N_ITEMS, N_TRIALS, N_MORE, N_DRAWS = 20_000, 24, 12, 2000
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0)
POWERS = (0.25, 0.5, 1.0)


def read_journey() -> dict[str, Interactions]:
    """Interactions whose promotion is the reach, and whose promotion is the discount."""
    db = duckdb.connect(config={"memory_limit": "4GB", "threads": 1})
    source, key = sources.find("complete-journey"), b"benchmark"
    for table in ("items", "events", "promotions"):
        source.land(db, table, hash_key=key)
    cleaning.clean_items(db)
    cleaning.settle_days(db, pd.Timestamp("2020-01-01").to_pydatetime())
    first, last = db.execute("select min(day), max(day) from raw_events").fetchall()[0]
    cleaning.clean_events(db, first, last, LIMITS)
    for table in ("campaigns", "campaign_users", "campaign_items"):
        source.land(db, table, hash_key=key)
    cleaning.clean_offers(db)
    acts = read_interactions(db, N_ITEMS, circumstances=True)
    given = acts.circumstances
    assert given is not None
    return {"reach": acts, "discount": replace(acts, circumstances=replace(given, promotion=discounts(db, acts, key)))}


def discounts(db: duckdb.DuckDBPyConnection, acts: Interactions, key: bytes) -> np.ndarray:
    """(n,) share of the shelf price that was given off on each row; NaN where the purchases of the day are not found."""
    from ecom_pipeline.sources.people import keyed_hash

    file = ADAPTER.folder() / "transactions.parquet"
    rows = db.execute(f"""
        select household_id::varchar as household, product_id::varchar as item_id, transaction_timestamp::date as day,
            sum(retail_disc + coupon_disc + coupon_match_disc) as off, sum(sales_value) as paid
        from read_parquet('{file}') group by all having paid + off > 0""").df()
    people = {one: keyed_hash(one, key) for one in rows.household.unique()}
    rows["user_id"] = rows.household.map(people)
    known = pd.DataFrame(
        {
            "user_id": acts.user_ids[acts.user].astype(str),
            "item_id": acts.item_ids[acts.item].astype(str),
            "day": pd.Timestamp(EPOCH) + pd.to_timedelta(acts.day, unit="D"),
        }
    )
    rows["day"] = pd.to_datetime(rows.day)
    share = known.merge(
        rows.assign(share=rows.off / (rows.paid + rows.off)), how="left", on=["user_id", "item_id", "day"]
    ).share
    return share.to_numpy(np.float32).clip(0, 1)


@dataclass(frozen=True)
class Judge:
    """Lists of some visits from what was known when their period began."""

    acts: Interactions
    known: Interactions
    together: Neighbours
    visits: Visits
    day: int

    @classmethod
    def of(cls, acts: Interactions, first: int, end: int) -> "Judge":
        """Next visits of a period."""
        known = acts.before(first)
        taken = known.matrix(np.ones(len(known), np.float32))
        taken.data[:] = 1
        return cls(acts, known, Neighbours.fit(taken, 100), acts.next_visits(first, end), first)

    def ndcg(self, weighting: Weighting) -> np.ndarray:
        """(blends, v)."""
        at, item = self.acts.taken(self.visits)
        truth = (at, item, np.bincount(at, minlength=len(self.visits)))
        return blended_ndcg(self.known.matrix(weighting.as_of(self.known, self.day)), self.together, self.visits, truth)


def judged(acts: Interactions, start: int, weightings: list[Weighting]) -> tuple[np.ndarray, np.ndarray]:
    """(w, v) nDCG@10 on the test visits, each with the share of other users' acts that was best before; and (v,) users."""
    that = origin(start)
    before, test = (
        Judge.of(acts, that.validation.first, that.validation.end),
        Judge.of(acts, that.test.first, that.test.end),
    )
    best = [
        int(np.nanmean(before.ndcg(one), axis=1)[:-1].argmax()) for one in weightings
    ]  # the last is of new items alone
    return np.stack([test.ndcg(one)[blend] for one, blend in zip(weightings, best, strict=True)]), test.visits.user


def interval(difference: np.ndarray, user: np.ndarray) -> str:
    """Mean and its 95 % interval over users."""
    valid = np.isfinite(difference)
    _, place = np.unique(user[valid], return_inverse=True)
    total, n = np.bincount(place, difference[valid]), np.bincount(place)
    draw = np.random.default_rng(0).multinomial(len(n), np.full(len(n), 1 / len(n)), size=N_DRAWS)
    low, high = np.quantile(draw @ total / (draw @ n), [0.025, 0.975])
    return f"{total.sum() / n.sum():+.4f} [{low:+.4f}, {high:+.4f}]"


def compare_promotion(periods: list[int], processes: int) -> None:
    """Print what is chosen, and what each factor does."""
    kinds = read_journey()
    for name, acts in kinds.items():
        share = acts.circumstances.promotion
        known = share[np.isfinite(share)]
        print(
            f"{name}: known of {len(known) / len(acts):.1%} of {len(acts):,} rows, above 0 in {(known > 0).mean():.1%}, mean {known.mean():.3f}"
        )
    rows: dict[tuple[str, str], list[np.ndarray]] = {}
    users = []
    for start in periods:
        that = origin(day_number(EPOCH.replace(year=2017)) + start)
        tried_on = [(one.first, one.end) for one in (that.train[-1], that.validation)]
        told = {"n_trials": N_TRIALS, "confidence": 0.95, "text": None, "seed": 0, "n_processes": processes}
        alone = choose_weighting(kinds["reach"], tried_on, **told)
        choice = choose_weighting(kinds["reach"], tried_on, **told, more_kinds=["promotion"], n_more=N_MORE)
        more = choice.trials[choice.trials.promoted_act != 1].sort_values("utility", ascending=False)
        base = alone.trials[alone.trials.chosen].iloc[0]
        print(f"\nday {start}: {alone.weighting} validation {base.utility:.4f}, gain at least {alone.gain_low:.4f}")
        print(f"  with {N_MORE} more: {choice.weighting}, gain at least {choice.gain_low:.4f}")
        print(more[["age_form", "half_life", "promoted_act", "utility"]].to_string(index=False), flush=True)
        tried = {"none": UNWEIGHTED, "chosen": alone.weighting, "chosen with more": choice.weighting}
        tried |= {f"promoted {factor:g}": replace(alone.weighting, promoted_act=factor) for factor in FACTORS}
        for name, acts in kinds.items():
            table, user = judged(acts, that.test.first, list(tried.values()))
            for label, figures in zip(tried, table, strict=True):
                rows.setdefault((name, label), []).append(figures)
        users.append(user)
    user = np.concatenate(users)
    print(f"\ntest: {len(user):,} visits of {len(np.unique(user)):,} households")
    for (name, label), parts in rows.items():
        figures, base = np.concatenate(parts), np.concatenate(rows[name, "chosen"])
        by_period = " ".join(f"{np.nanmean(a - b):+.4f}" for a, b in zip(parts, rows[name, "chosen"], strict=True))
        print(
            f"{name:<10}{label:<26} nDCG@10 {np.nanmean(figures):.4f}  less chosen {interval(figures - base, user)}  {by_period}"
        )


def compare_bandit(folder: Path) -> None:
    """Print what each weight does to the order of items by their clicks."""
    columns = ["behavior_policy", "campaign", "item_id", "position", "click", "propensity_score"]
    log = pd.read_parquet(folder / "obd_sample.parquet", columns=columns)
    logged, uniform = log[log.behavior_policy == "bts"], log[log.behavior_policy == "random"]
    clicks = logged[logged.click == 1]
    how = Circumstances(
        *(clicks[name].to_numpy(np.float32) for name in ("position", "propensity_score")),
        np.full(len(clicks), np.nan, np.float32),
    )
    usual = {"usual_position": float(np.median(how.position)), "usual_propensity": float(np.median(how.propensity))}
    tried = {"none": UNWEIGHTED}
    for power in POWERS:
        tried[f"propensity ** -{power:g}"] = Weighting(by_propensity=power, usual_propensity=usual["usual_propensity"])
        tried[f"rank ** {power:g}"] = Weighting(by_position=power, usual_position=usual["usual_position"])
    print(
        f"{len(logged):,} impressions with {len(clicks)} clicks weighed; {len(uniform):,} with {uniform.click.sum()} judge; {usual}"
    )
    draw = np.random.default_rng(0)
    codes, names = pd.factorize(
        pd.concat([logged, uniform]).pipe(lambda both: both.campaign + both.item_id.astype(str))
    )
    of_click, of_test = codes[: len(logged)][logged.click.to_numpy() == 1], codes[len(logged) :]
    campaign = pd.factorize(uniform.campaign)[0]
    weight = np.stack([one.by_circumstances(how) for one in tried.values()])
    found = []
    for n in range(N_DRAWS + 1):
        own = np.ones(len(clicks)) if n == 0 else draw.poisson(1, len(clicks)).astype(float)
        other = np.ones(len(uniform)) if n == 0 else draw.poisson(1, len(uniform)).astype(float)
        counts = np.stack([np.bincount(of_click, one * own, len(names)) for one in weight])
        found.append(ordered(counts[:, of_test], uniform.click.to_numpy() == 1, campaign, other))
    table = np.stack(found)
    for place, name in enumerate(tried):
        low, high = np.quantile(table[1:, place] - table[1:, 0], [0.025, 0.975])
        print(
            f"{name:<22} {table[0, place]:.4f}  less none {table[0, place] - table[0, 0]:+.4f} [{low:+.4f}, {high:+.4f}]"
        )


def ordered(score: np.ndarray, clicked: np.ndarray, campaign: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(w,) chance that an impression with a click is above one without, ties half, over all pairs of one campaign."""
    above, pairs = np.zeros(len(score)), 0.0
    for one in np.unique(campaign):
        yes, no = (np.flatnonzero((campaign == one) & (clicked == told) & (weight > 0)) for told in (True, False))
        pairs += weight[yes].sum() * weight[no].sum()
        for place, of in enumerate(score):
            values, at = np.unique(of[no], return_inverse=True)
            below = np.r_[0, np.cumsum(np.bincount(at, weight[no], len(values)))]
            lower, upper = (below[np.searchsorted(values, of[yes], side=side)] for side in ("left", "right"))
            above[place] += (weight[yes] * (lower + upper) / 2).sum()
    return above / pairs


def main() -> None:
    """Print one comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["promotion", "bandit"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--periods", type=int, nargs="+", default=[320, 270, 230])
    parser.add_argument("--processes", type=int, default=1)
    told = parser.parse_args()
    if told.what == "promotion":
        compare_promotion(told.periods, told.processes)
    else:
        compare_bandit(told.folder)


if __name__ == "__main__":
    main()
