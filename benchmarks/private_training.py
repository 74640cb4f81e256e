"""What does private training cost in nDCG, and does an attack learn less of a user than is promised?

`lists`: the protocol of `next_visit.py` without weighting: three test periods of 30 days, the whole catalogue ranked for each user's
next visit, nDCG@10, intervals over users and periods, everything paired. The booster and its linear pilot learn as in the
pipeline's defaults (2,000 visits a period, 100,000 rows by gap). The private head learns by each epsilon with several draws of its
noise, of the system's own random numbers; a figure is the mean over draws. Beside it the same head without noise, and without
noise and norm.

`attack`: a user is planted whose rows say the opposite of everybody's along a direction of his own, and many rankers learn, half of
them with him, each with another half of the other users. The attacker knows the planted rows and the coefficients, and says from
their loss whether he was there; his threshold is chosen on one half of the rankers and tried on the other. What he reaches
bounds epsilon from below (Clopper and Pearson, 95 %): if that were above what is promised, the promise would be broken.

    python benchmarks/private_training.py lists [--source NAME] [--periods 320 270 230] [--epsilons 1 3 8] [--draws 3] [--out FILE]
    python benchmarks/private_training.py attack [--source NAME] [--users 100] [--rankers 400] [--epsilons 1 3 8] [--out FILE]
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from next_visit import cleaned, evaluate, origin
from scipy import stats

from ecom_pipeline.recommend.baselines import OWN_BY_AGE, Tuned, baseline_scores
from ecom_pipeline.recommend.candidates import Catalogue, Retrieval
from ecom_pipeline.recommend.catalogue import read_catalogue
from ecom_pipeline.recommend.evaluation import Lists, Truth, compare, dense_lists, figures_by_visit
from ecom_pipeline.recommend.interactions import Interactions, read_interactions
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.private.accounting import Releases
from ecom_pipeline.recommend.private.head import FARTHEST, within_visits
from ecom_pipeline.recommend.private.noise import SYSTEM
from ecom_pipeline.recommend.private.promise import PrivateTraining, Promise
from ecom_pipeline.recommend.private.rows import UserRows, user_rows
from ecom_pipeline.recommend.private.training import learn
from ecom_pipeline.recommend.ranker import TreeSearch
from ecom_pipeline.recommend.weighting import UNWEIGHTED

BOOSTER, PILOT, PLAIN, CLIPPED = "booster", "linear pilot", "same head, no privacy", "same head, norm alone"
ASKED = PrivateTraining(epsilon=1.0)
WITHOUT = replace(ASKED, clip_norm=np.inf, steps=150, learning_rate=2.0)  # longer steps do not settle without a norm
ROWS_EACH = 80  # of a user, in the attack


def shop_of(source: str) -> tuple[Interactions, Catalogue]:
    """What was taken at least ten times, after cleaning."""
    db = cleaned(source)
    (n_items,) = db.execute(
        "select count(*) from (select 1 from cleaned_interactions group by item_id having count(*) >= 10)"
    ).fetchall()[0]
    acts = read_interactions(db, n_items)
    return acts, read_catalogue(db, acts.item_ids)


def learner_of(acts: Interactions, catalogue: Catalogue) -> Learner:
    """As the pipeline's twin, with rows by gap; the test is asked whole."""
    return Learner(acts, catalogue, UNWEIGHTED, Retrieval(), RowChoice("gap", 100_000), n_visits=2000, n_asked=1500)


def run_period(acts: Interactions, catalogue: Catalogue, first: int, options: argparse.Namespace) -> dict:
    """Figures by model of one test period."""
    origin_ = origin(int(acts.day.min()) + first)
    truth = Truth.of(acts, acts.next_visits(origin_.test.first, origin_.test.end), origin_.test.first)
    learner, started = learner_of(acts, catalogue), time.monotonic()
    ranker = learner.fit(origin_, learner.chooser([origin_]), TreeSearch(n_threads=options.threads))
    print(f"day {first}: booster after {time.monotonic() - started:.0f} s", flush=True)
    rows = user_rows(learner, origin_.train, ASKED)
    print(f"  {rows.n_users} users, {len(rows.x)} rows after {time.monotonic() - started:.0f} s", flush=True)
    learner.n_asked = len(acts)
    asked = learner.asked(origin_.test)
    scores = {
        BOOSTER: [ranker.score(asked.rows)],
        PILOT: [ranker.chooser.pilot.logit(asked.rows)],
    }
    x = within_visits(asked.rows.known, asked.rows.names, asked.rows.visit)
    coefficients, notes = private_heads(rows, options)
    for name, draws in coefficients.items():
        scores[name] = [x @ one[:-1].astype(np.float32) + one[-1] for one in draws]
    found = {
        name: mean_of([evaluate(learner, origin_, score, truth) for score in draws]) for name, draws in scores.items()
    }
    found[OWN_BY_AGE] = own_by_age(acts, origin_, truth)
    for name, figures in found.items():
        print(f"  {name:<28}{np.nanmean(figures['all', 'ndcg_at_10']):.4f}", flush=True)
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
    return {"figures": found, "notes": notes, "user": truth.visits.user}


def private_heads(rows: UserRows, options: argparse.Namespace) -> tuple[dict[str, list], dict]:
    """Coefficients by model and draw, and what was promised."""
    found = {PLAIN: [learn(rows, WITHOUT, 0.0, SYSTEM)], CLIPPED: [learn(rows, ASKED, 0.0, SYSTEM)]}
    notes = {}
    for epsilon in options.epsilons:
        asked = replace(ASKED, epsilon=epsilon)
        promise = Promise.of(asked, rows.n_users, noise=SYSTEM.name)
        started = time.monotonic()
        found[private_name(epsilon)] = [
            learn(rows, asked, promise.noise_multiplier, SYSTEM) for _ in range(options.draws)
        ]
        notes[epsilon] = {**promise.to_json(), "seconds": (time.monotonic() - started) / options.draws}
    return found, notes


def private_name(epsilon: float) -> str:
    """Of a model."""
    return f"private, epsilon {epsilon:g}"


def own_by_age(acts: Interactions, origin_: object, truth: Truth) -> dict:
    """The simple list of what each user took, by age."""
    parts = [
        dense_lists(scores[OWN_BY_AGE], truth, rows, acts.n_items)
        for rows, scores in baseline_scores(
            acts, truth.visits, origin_.test.first, settings=Tuned(), names=(OWN_BY_AGE,)
        )
    ]
    return figures_by_visit(Lists.joined(parts), truth, acts.n_items)


def mean_of(draws: list[dict]) -> dict:
    """Figures, each the mean over draws."""
    return {key: np.mean([one[key] for one in draws], axis=0) for key in draws[0]}


def lists(options: argparse.Namespace) -> dict:
    """All periods together."""
    acts, catalogue = shop_of(options.source)
    print(f"{len(acts)} rows, {acts.n_users} users, {acts.n_items} items", flush=True)
    runs = [run_period(acts, catalogue, first, options) for first in options.periods]
    models = list(runs[0]["figures"])
    keys = [("all", "ndcg_at_10"), ("explore", "ndcg_at_10"), ("all", "recall_at_100")]
    by_model = {m: {key: np.concatenate([run["figures"][m][key] for run in runs]) for key in keys} for m in models}
    user = np.concatenate([run["user"] for run in runs])
    period = np.repeat(np.arange(len(runs)), [len(run["user"]) for run in runs])
    private = [private_name(epsilon) for epsilon in options.epsilons]
    pairs = [(name, other) for name in private for other in (PLAIN, BOOSTER, OWN_BY_AGE)]
    table = compare(by_model, user, period, [*pairs, (PLAIN, PILOT), (PLAIN, BOOSTER), (PILOT, BOOSTER)], seed=0)
    for row in table[table.slice.isin(("all", "explore"))].itertuples():
        print(f"{row.model:<52}{row.slice:<10}{row.metric:<15}{row.value:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}]")
    return {"rows": table.to_dict("records"), "notes": [run["notes"] for run in runs]}


def attack(options: argparse.Namespace) -> dict:
    """For no privacy and each epsilon: how often the attacker is right, and what that says of epsilon."""
    acts, catalogue = shop_of(options.source)
    learner = learner_of(acts, catalogue)
    rows = fewer_rows(user_rows(learner, origin(int(acts.day.min()) + 320).train, ASKED), options.users)
    planted = planted_user(rows)
    asked = replace(ASKED, n_trainings=1)
    tried = {"none": (replace(asked, clip_norm=np.inf), 0.0), "norm alone": (asked, 0.0)}
    for epsilon in options.epsilons:
        tried[f"{epsilon:g}"] = (asked, Releases(asked.steps).noise_multiplier(epsilon, asked.delta))
    found = {}
    for name, (one, multiplier) in tried.items():
        started, draw = time.monotonic(), np.random.default_rng(1)
        losses = np.array(
            [
                [
                    planted_loss(
                        learn(half_of(rows, draw, planted if there else None), one, multiplier, SYSTEM), planted
                    )
                    for there in (False, True)
                ]
                for _ in range(options.rankers)
            ]
        )
        found[name] = what_was_learnt(losses[:, 0], losses[:, 1], asked.delta)
        print(f"epsilon {name}: {found[name]}, {time.monotonic() - started:.0f} s", flush=True)
    return found


def fewer_rows(rows: UserRows, n_users: int) -> UserRows:
    """The first rows of the first users."""
    ends = rows.start[:-1] + np.minimum(np.diff(rows.start), ROWS_EACH)
    pairs = list(zip(rows.start[:-1], ends, strict=True))[:n_users]
    place = np.concatenate([np.arange(first, end) for first, end in pairs])
    lengths = [end - first for first, end in pairs]
    return UserRows(rows.x[place], rows.taken[place], np.r_[0, np.cumsum(lengths)], rows.names)


def planted_user(rows: UserRows) -> UserRows:
    """A user whose rows lie as far out as any may, along the direction in which the others' vary least, half of them taken."""
    varies = np.flatnonzero(rows.x.std(0) > 0.1)
    _, vectors = np.linalg.eigh(np.cov(rows.x[:, varies].T))
    side = np.repeat([1.0, -1.0], ROWS_EACH // 2)
    x = np.zeros((len(side), rows.x.shape[1]))
    x[:, varies] = FARTHEST * side[:, None] * vectors[:, 0] / np.abs(vectors[:, 0]).max()
    return UserRows(x, side > 0, np.array([0, len(x)]), rows.names)


def half_of(rows: UserRows, draw: np.random.Generator, planted: UserRows | None) -> UserRows:
    """About half of the users, and the planted one or nobody in his place."""
    users = np.flatnonzero(draw.random(rows.n_users) < 0.5)
    place = np.concatenate([np.arange(rows.start[user], rows.start[user + 1]) for user in users])
    lengths = [rows.start[user + 1] - rows.start[user] for user in users]
    x, taken = rows.x[place], rows.taken[place]
    if planted:
        x, taken = np.concatenate([x, planted.x]), np.concatenate([taken, planted.taken])
    n_planted = len(planted.x) if planted else 0
    return UserRows(x, taken, np.r_[0, np.cumsum([*lengths, n_planted])], rows.names)


def planted_loss(coefficients: np.ndarray, planted: UserRows) -> float:
    """Mean logistic loss of the planted rows."""
    logit = planted.x @ coefficients[:-1] + coefficients[-1]
    return float(np.logaddexp(0, np.where(planted.taken, -logit, logit)).mean())


def what_was_learnt(out: np.ndarray, there: np.ndarray, delta: float) -> dict[str, float]:
    """Of losses without and with the user: AUC, and a bound of epsilon from below by the best threshold of the other half."""
    half = len(out) // 2
    cuts = np.unique(np.r_[out[:half], there[:half]])
    bounds = [bound_of(out[:half], there[:half], cut, delta) for cut in cuts]
    cut = cuts[int(np.argmax(bounds))]
    auc = stats.mannwhitneyu(out, there).statistic / (len(out) * len(there))
    se = np.sqrt((len(out) + len(there) + 1) / (12 * len(out) * len(there)))  # as if nothing were learnt
    return {
        "auc": round(float(auc), 3),
        "auc_error": round(float(1.96 * se), 3),
        "right": round(float(((there[half:] <= cut).mean() + (out[half:] > cut).mean()) / 2), 3),
        "epsilon_at_least": round(max(bound_of(out[half:], there[half:], cut, delta), 0.0), 2),
        "epsilon_that_could_be_seen": round(highest_bound(len(out) - half, delta), 2),
    }


def bound_of(out: np.ndarray, there: np.ndarray, cut: float, delta: float) -> float:
    """The epsilon that both rates together exclude, each at 97.5 %."""
    n, m = len(there), len(out)
    hits, alarms = int((there <= cut).sum()), int((out <= cut).sum())
    found = [
        (at_least(hits, n) - delta) / at_most(alarms, m),
        (at_least(m - alarms, m) - delta) / at_most(n - hits, n),
    ]
    return float(np.log(max(*found, 1e-9)))


def highest_bound(n: int, delta: float) -> float:
    """What an attacker who is always right would show."""
    return float(np.log((at_least(n, n) - delta) / at_most(0, n)))


def at_least(k: int, n: int) -> float:
    """Lower end of a rate, 97.5 %."""
    return float(stats.beta.ppf(0.025, k, n - k + 1)) if k else 0.0


def at_most(k: int, n: int) -> float:
    """Upper end of a rate, 97.5 %."""
    return float(stats.beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0


def main() -> None:
    """Run one of the two, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["lists", "attack"])
    parser.add_argument("--source", default="complete-journey")
    parser.add_argument("--periods", type=int, nargs="+", default=[320, 270, 230])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1, 3, 8])
    parser.add_argument("--draws", type=int, default=3, help="of the noise")
    parser.add_argument("--users", type=int, default=100, help="of whom half are in each ranker of the attack")
    parser.add_argument("--rankers", type=int, default=400, help="with the planted user, and as many without")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {"lists": lists, "attack": attack}[options.what](options)
    if options.out:
        options.out.write_text(json.dumps(found, default=str, indent=1))


if __name__ == "__main__":
    main()
