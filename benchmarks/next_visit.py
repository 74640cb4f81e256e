"""What will a user take on the next visit? The whole catalogue is ranked; every way to weigh and to choose rows.

Protocol: a source after the cleaning of the pipeline; the catalogue is what was taken at least ten times. A test period
is 30 days. Of each, the first day on which a user takes something is the visit; a user needs a history before the period.
All that lies before the visit is known of the user, and all before the period of the shop. nDCG@10 has linear gain and an
ideal list cut at ten. Everything is chosen on the 28 days before a period, and learnt from the 84 days before those. For
Complete Journey, the default, the periods begin 230, 270 and 320 days after 2017-01-01.

    python benchmarks/next_visit.py [--source NAME | NAME:FOLDER] [--periods 320 270 230] [--length 28] [--visits 4000]
        [--rows 300000] [--draws 2] [--all-rows] [--out FILE]

A source is what the pipeline takes, such as online-retail:FOLDER or x-wines:FOLDER.
"""

import argparse
import json
import resource
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from ecom_pipeline import cleaning, sources
from ecom_pipeline.recommend.baselines import (
    EASE,
    ITEM_KNN,
    OWN,
    OWN_BY_AGE,
    POPULAR,
    TIFU,
    baseline_scores,
    tuned,
)
from ecom_pipeline.recommend.candidates import Candidates, Catalogue, Retrieval
from ecom_pipeline.recommend.catalogue import read_catalogue
from ecom_pipeline.recommend.evaluation import Lists, Truth, compare, dense_lists, figures_by_visit
from ecom_pipeline.recommend.interactions import Interactions, Visits, read_interactions
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.periods import Origin, Period
from ecom_pipeline.recommend.pilot import Chooser, RowChoice, joined, some
from ecom_pipeline.recommend.ranker import Ranker, TreeSearch, fit_ranker
from ecom_pipeline.recommend.trials import choose_weighting
from ecom_pipeline.recommend.weighting import UNWEIGHTED

N_VALIDATED = 1000  # visits on which the number of trees is chosen
LIMITS = cleaning.Limits(near_seconds=5, actions_per_minute=30, actions_per_day=300, events_per_day=5000)


def cleaned(name: str) -> duckdb.DuckDBPyConnection:
    """A warehouse in memory with a source's cleaned tables."""
    db = duckdb.connect(config={"memory_limit": "4GB", "threads": 2})
    source = sources.find(name)
    for table in ("items", "events"):
        source.land(db, table, hash_key=b"benchmark")
    cleaning.clean_items(db)
    cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
    first, last = db.execute("select min(day), max(day) from raw_events").fetchall()[0]
    cleaning.clean_events(db, first, last, LIMITS)
    return db


def origin(start: int, length: int = 28) -> Origin:
    """The test period that begins on a day, with what is chosen on and learnt from before it."""
    cuts = [start - length * n for n in range(5)]
    train = tuple(Period(cuts[n], cuts[n - 1]) for n in (4, 3, 2))
    return Origin(train, Period(cuts[1], start), Period(start, start + length + 2))


def evaluate(learner: Learner, origin_: Origin, score: np.ndarray, truth: Truth) -> dict:
    """Figures of a ranker's lists on the test visits."""
    asked = learner.asked(origin_.test)
    top = asked.lists(score, 300)
    new = asked.rows.column("own_days") == 0
    repeat, explore = asked.lists(score, 10, ~new), asked.lists(score, 300, new)
    return figures_by_visit(Lists(top, repeat, explore), truth, learner.acts.n_items)


def baselines(acts: Interactions, origin_: Origin, truth: Truth) -> dict[str, dict]:
    """Figures of every simple list, tuned on validation."""
    validation = origin_.validation
    settings = tuned(acts, acts.next_visits(validation.first, validation.end), validation.first)
    names = (POPULAR, OWN, OWN_BY_AGE, ITEM_KNN, EASE, TIFU)
    parts: dict[str, list] = {name: [] for name in names}
    for rows, scores in baseline_scores(acts, truth.visits, origin_.test.first, settings=settings, names=names):
        for name, table in scores.items():
            parts[name].append(dense_lists(table, truth, rows, acts.n_items))
    # a list that a shop of this size cannot have, such as TIFU-KNN above 8,000 users, has no parts
    return {name: figures_by_visit(Lists.joined(found), truth, acts.n_items) for name, found in parts.items() if found}


@dataclass(frozen=True)
class Pool:
    """Every candidate of an origin's training visits under one weighting: all choices of rows draw from the same.

    Attributes:
        learner: retrieved them.
        origin: whose.
        parts: visits with their rows, by period.
        seconds: of the retrieval.
    """

    learner: Learner
    origin: Origin
    parts: list[tuple[Visits, Candidates]]
    seconds: float

    @classmethod
    def of(cls, learner: Learner, origin_: Origin) -> "Pool":
        """Cost: memory of all candidates, 0.3 GB a million."""
        started, parts = time.monotonic(), []
        for period in origin_.train:
            visits = learner.visits(period)
            rows = joined(
                replace(found, visit=found.visit + block.start)
                for block, found in learner.candidates(visits, period.first)
            )
            parts.append((visits, rows))
        learner.n_asked = N_VALIDATED  # of validation, which is kept; the test is asked whole
        learner.asked(origin_.validation)
        learner.n_asked = len(learner.acts)
        return cls(learner, origin_, parts, time.monotonic() - started)

    def ranker(self, choice: RowChoice, search: TreeSearch) -> Ranker:
        """The ranker of one draw: as `Learner.chooser`, `kept` and `fit`, from what was retrieved once."""
        self.learner.choice = choice  # whose coins are flipped
        visits, rows = self.parts[0]
        fold, coin = self._folds(visits, rows), self.learner.coins(visits, rows, pilot=True)
        order = np.random.default_rng([choice.seed, 1]).permutation(int(rows.visit[-1]) + 1)
        enough = np.cumsum(np.bincount(rows.visit)[order]) <= choice.pilot_rows
        shown = np.isin(rows.visit, order[enough])
        n = sum(len(part) for _, part in self.parts)
        chooser = Chooser.fit(some(rows, shown), fold[shown], choice, coin=coin[shown], n_rows_in_all=n)
        kept, probabilities = [], []
        for visits, rows in self.parts:
            places, probability, _ = chooser.choose(rows, self._folds(visits, rows), self.learner.coins(visits, rows))
            kept.append(some(rows, places))
            probabilities.append(probability[places])
        rows, probability = joined(kept), np.concatenate(probabilities)
        return fit_ranker(rows, probability, chooser, self.learner.asked(self.origin.validation), search=search)

    def _folds(self, visits: Visits, rows: Candidates) -> np.ndarray:
        return self.learner.folds[visits.user][rows.visit]


def run_period(acts: Interactions, catalogue: Catalogue, first: int, options: argparse.Namespace) -> dict:
    """All figures of one test period, by model, and what they took; a model's figure is the mean over its draws."""
    origin_ = origin(int(acts.day.min()) + first, options.length)
    truth = Truth.of(acts, acts.next_visits(origin_.test.first, origin_.test.end), origin_.test.first)
    found, notes = baselines(acts, origin_, truth), {}
    print(f"day {first}: {len(truth.visits)} visits; baselines done", flush=True)
    chosen_on = [(period.first, period.end) for period in (origin_.train[-1], origin_.validation)]
    started = time.monotonic()
    choice = choose_weighting(acts, chosen_on, n_trials=options.trials, confidence=0.95, text=None, seed=0)
    seconds = time.monotonic() - started
    notes["weighting"] = {**choice.weighting.settings(), "gain_low": choice.gain_low, "seconds": seconds}
    print(f"  {choice.weighting}, gain at least {choice.gain_low:.4f}, {seconds:.0f} s", flush=True)
    search = TreeSearch(n_threads=options.threads)
    unweighted = [("by gap", "gap"), ("at random", "random"), *([("all rows", "all")] if options.all_rows else [])]
    for name, weighting, methods in (
        ("weighted", choice.weighting, [("by gap", "gap")]),
        ("unweighted", UNWEIGHTED, unweighted),
    ):
        pool = Pool.of(Learner(acts, catalogue, weighting, Retrieval(), RowChoice(), options.visits), origin_)
        for told, method in methods:
            model = f"{name}, {told}"
            found |= _run_draws(pool, model, method, search=search, truth=truth, options=options, notes=notes)
    return {"figures": found, "notes": notes, "user": truth.visits.user}


def _run_draws(
    pool: Pool,
    model: str,
    method: str,
    *,
    search: TreeSearch,
    truth: Truth,
    options: argparse.Namespace,
    notes: dict,
) -> dict[str, dict]:
    asked = pool.learner.asked(pool.origin.test)
    drawn, pilots, notes[model] = [], [], []
    for seed in range(1 if method == "all" else options.draws):
        choice = RowChoice(method, 10**12 if method == "all" else options.rows, seed=seed)
        started = time.monotonic()
        ranker = pool.ranker(choice, search)
        drawn.append(evaluate(pool.learner, pool.origin, ranker.score(asked.rows), truth))
        if model == "weighted, by gap":
            probability = ranker.chooser.pilot.logit(asked.rows)
            pilots.append(evaluate(pool.learner, pool.origin, probability, truth))
        note = {
            "ndcg_at_10": float(np.nanmean(drawn[-1]["all", "ndcg_at_10"])),
            "n_rows": ranker.n_rows,
            "n_retrieved": sum(len(rows) for _, rows in pool.parts),
            "retrieve_seconds": pool.seconds,
            "fit_seconds": ranker.seconds,
            "seconds": time.monotonic() - started,
            "trials": ranker.trials,
        }
        notes[model].append(note)
        print(
            f"  {model}, draw {seed}: nDCG@10 {note['ndcg_at_10']:.4f}, {note['n_rows']} of {note['n_retrieved']} rows, "
            f"retrieved in {pool.seconds:.0f} s, fit in {ranker.seconds:.1f} s of {note['seconds']:.0f} s",
            flush=True,
        )
    found = {model: _mean(drawn)}
    return found | {f"{model}: pilot alone": _mean(pilots)} if pilots else found


def _mean(draws: list[dict]) -> dict:
    return {key: np.mean([one[key] for one in draws], axis=0) for key in draws[0]}


def main() -> None:
    """Run the periods, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="complete-journey")
    parser.add_argument(
        "--periods", type=int, nargs="+", default=[320, 270, 230], help="days after the first of the data"
    )
    parser.add_argument(
        "--length", type=int, default=28, help="of a period of training and of validation; test: 2 more"
    )
    parser.add_argument("--visits", type=int, default=4000, help="of each of the three training periods")
    parser.add_argument("--rows", type=int, default=300_000, help="that a ranker learns from")
    parser.add_argument("--draws", type=int, default=2, help="of the pilot's rows and of the rows to learn from")
    parser.add_argument("--trials", type=int, default=24, help="weightings of interactions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--all-rows", action="store_true", help="also learn from every row")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    db = cleaned(options.source)
    (n_items,) = db.execute(
        "select count(*) from (select 1 from cleaned_interactions group by item_id having count(*) >= 10)"
    ).fetchall()[0]
    acts = read_interactions(db, n_items)
    catalogue = read_catalogue(db, acts.item_ids)
    print(f"{len(acts)} rows, {acts.n_users} users, {acts.n_items} items", flush=True)
    runs = {first: run_period(acts, catalogue, first, options) for first in options.periods}
    table = compared(runs)
    shown = table[table.metric == "ndcg_at_10"]
    for row in shown.itertuples():
        print(f"{row.model:<52}{row.slice:<44}{row.metric:<15}{row.value:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}]")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory {peak:.1f} GiB")
    if options.out:
        notes = {first: run["notes"] for first, run in runs.items()}
        options.out.write_text(json.dumps({"rows": table.to_dict("records"), "notes": notes}, default=str, indent=1))


def compared(runs: dict[int, dict]) -> pd.DataFrame:
    """Every figure and difference of some test periods, over all of them and in each."""
    models = list(next(iter(runs.values()))["figures"])
    keys = list(next(iter(runs.values()))["figures"][models[0]])
    by_model = {m: {k: np.concatenate([run["figures"][m][k] for run in runs.values()]) for k in keys} for m in models}
    user = np.concatenate([run["user"] for run in runs.values()])
    period = np.repeat(np.arange(len(runs)), [len(run["user"]) for run in runs.values()])
    pairs = [
        ("weighted, by gap", "unweighted, at random"),
        ("weighted, by gap", "unweighted, by gap"),
        ("unweighted, by gap", "unweighted, at random"),
        ("weighted, by gap", OWN_BY_AGE),
        ("weighted, by gap", "weighted, by gap: pilot alone"),
        ("weighted, by gap", TIFU),
        ("unweighted, by gap", "unweighted, all rows"),
        ("unweighted, at random", "unweighted, all rows"),
        ("weighted, by gap", "unweighted, all rows"),
    ]
    return compare(by_model, user, period, pairs, seed=0)


if __name__ == "__main__":
    main()
