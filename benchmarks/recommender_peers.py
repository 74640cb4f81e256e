"""Next visits by RecTools' models and by ours: the same acts, visits, lists and cores; quality, seconds, memory.

    OMP_NUM_THREADS=1 python benchmarks/recommender_peers.py --peers PYTHON [--source NAME:FOLDER] [--start 320]
        [--length 28] [--minutes 20] [--out FILE]

Protocol of `next_visit.py`, one test period. Peers' settings are those of a grid that are best on the visits of the 28
days before; ours likewise. A peer runs in a process of its own, by the interpreter that peers.md makes; ours in a fork. One
thread each. Lists are made as of the first day of the period, for all visits of it; seconds are of the processor, with fit
and lists, at the settings that were chosen; memory is what came on top of the acts. Who takes over `--minutes` is stopped
and says so. Popularity of ours is of the 28 days before each visit, of the peers of those before the period.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from next_visit import cleaned, evaluate, origin

from ecom_pipeline.recommend.baselines import EASE, ITEM_KNN, OWN_BY_AGE, POPULAR, TIFU, baseline_scores, tuned
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.catalogue import read_catalogue
from ecom_pipeline.recommend.evaluation import Lists, Truth, compare, dense_lists, figures_by_visit, split_lists
from ecom_pipeline.recommend.interactions import Interactions, read_interactions
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.periods import Period
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.ranker import TreeSearch
from ecom_pipeline.recommend.trials import choose_weighting

GRID: dict[str, list[dict]] = {
    "popular": [{}],
    "item-kNN": [{"K": 50}, {"K": 200}],
    "EASE": [{"regularization": 50.0}, {"regularization": 300.0}],
    "iALS": [
        {"factors": 64, "alpha": 5.0, "regularization": 0.05, "iterations": 15},
        {"factors": 128, "alpha": 5.0, "regularization": 0.05, "iterations": 15},
        {"factors": 128, "alpha": 20.0, "regularization": 0.05, "iterations": 15},
    ],
    "SASRec": [
        {
            "n_factors": 64,
            "n_blocks": blocks,
            "n_heads": 1,
            "session_max_len": 100,
            "loss": "sampled_softmax",
            "n_negatives": 256,
            "epochs": 15,
            "batch_size": 32,
            "verbose": 0,
        }
        for blocks in (1, 2)
    ],
}
SYSTEM = "weighted and chosen"
Figures = dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class Asked:
    """A period's visits, what was taken on them, and the acts before it."""

    acts: Interactions
    period: Period
    truth: Truth

    @classmethod
    def of(cls, acts: Interactions, period: Period) -> "Asked":
        """The next visits of a period."""
        return cls(acts, period, Truth.of(acts, acts.next_visits(period.first, period.end), period.first))

    def write(self, path: Path) -> None:
        """What a peer reads."""
        known = self.acts.before(self.period.first)
        counts = np.ones(len(known), np.float32)
        np.savez(path, user=known.user, item=known.item, day=known.day, count=counts, asked=self.truth.visits.user)

    def figures(self, lists: Lists) -> Figures:
        """By visit."""
        return figures_by_visit(lists, self.truth, self.acts.n_items)


def of_peer(python: str, asked: Asked, told: dict, minutes: float) -> tuple[Figures | None, dict]:
    """A peer's figures and what they took; None where it was stopped or failed."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "acts.npz", Path(folder) / "lists.npz"
        asked.write(source)
        command = [
            python,
            str(Path(__file__).with_name("peers_rectools.py")),
            str(source),
            str(target),
            json.dumps(told),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes, cwd=folder)
        except subprocess.TimeoutExpired:
            return None, {"stopped": f"after {minutes:.0f} minutes"}
        if done.returncode:
            return None, {
                "stopped": done.stderr.strip().splitlines()[-1][:200] if done.stderr else str(done.returncode)
            }
        found = np.load(target)
        new = split_lists(found["all"], asked.truth, asked.acts.n_items, 100)
        return asked.figures(Lists(found["all"], new.repeat, found["new"])), json.loads(str(found["note"]))


def in_a_fork(work: Callable[[], Figures]) -> tuple[Figures, dict]:
    """Figures of ours, with seconds of the processor and memory on top of what was there."""

    def child(pipe) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu = time.process_time()
        found = work()
        seconds = time.process_time() - cpu
        gib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024**2
        pipe.send((found, {"cpu": seconds, "gib": gib}))

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    there.close()
    answer = here.recv()
    process.join()
    return answer


def simple(asked: Asked, name: str, settings) -> Figures:
    """Figures of one of our baselines."""
    scores = baseline_scores(asked.acts, asked.truth.visits, asked.period.first, settings=settings, names=[name])
    parts = [dense_lists(table[name], asked.truth, rows, asked.acts.n_items) for rows, table in scores]
    return asked.figures(Lists.joined(parts))


def main() -> None:
    """Choose on validation, then the test's table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", required=True, help="interpreter that has RecTools")
    parser.add_argument("--source", default="complete-journey")
    parser.add_argument("--start", type=int, default=320)
    parser.add_argument("--length", type=int, default=28)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--models", nargs="*", default=list(GRID))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    db = cleaned(options.source)
    (n_items,) = db.execute(
        "select count(*) from (select 1 from cleaned_interactions group by item_id having count(*) >= 10)"
    ).fetchall()[0]
    acts = read_interactions(db, n_items)
    catalogue = read_catalogue(db, acts.item_ids)
    origin_ = origin(int(acts.day.min()) + options.start, options.length)
    validation, test = Asked.of(acts, origin_.validation), Asked.of(acts, origin_.test)
    print(f"{len(acts)} rows, {acts.n_users} users, {acts.n_items} items, {len(test.truth.visits)} visits", flush=True)
    found: dict[str, Figures] = {}
    notes: dict[str, dict] = {}

    def keep(name: str, answer: tuple[Figures | None, dict]) -> None:
        notes[name] = answer[1]
        if answer[0] is not None:
            found[name] = answer[0]
            of_all = float(np.nanmean(answer[0]["all", "ndcg_at_10"]))
            print(f"{name}: nDCG@10 {of_all:.4f} {answer[1]}", flush=True)
        else:
            print(f"{name}: {answer[1]}", flush=True)

    for name in options.models:
        told = [{"model": name, **settings} for settings in GRID[name]]
        tried = [(of_peer(options.peers, validation, one, options.minutes), one) for one in told if len(told) > 1]
        sound = [(float(np.nanmean(one["all", "ndcg_at_10"])), told) for (one, _), told in tried if one is not None]
        print(name, sound, [note for (one, note), _ in tried if one is None], flush=True)
        best = max(sound, key=lambda pair: pair[0])[1] if sound else told[0]
        keep(f"RecTools {name}", of_peer(options.peers, test, best, options.minutes))

    settings = tuned(acts, validation.truth.visits, validation.period.first)
    for name in (POPULAR, OWN_BY_AGE, ITEM_KNN, EASE, TIFU):
        if name != TIFU or acts.n_users <= 8000:
            keep(name, in_a_fork(lambda name=name: simple(test, name, settings)))

    def system() -> Figures:
        chosen_on = [(period.first, period.end) for period in (origin_.train[-1], origin_.validation)]
        choice = choose_weighting(acts, chosen_on, n_trials=24, confidence=0.95, text=None, seed=0)
        learner = Learner(acts, catalogue, choice.weighting, Retrieval(), RowChoice("gap", 300_000), 4000)
        ranker = learner.fit(origin_, learner.chooser([origin_]), TreeSearch(n_threads=1))
        asked = learner.asked(origin_.test)
        return evaluate(learner, origin_, ranker.score(asked.rows), test.truth)

    keep(SYSTEM, in_a_fork(system))
    pairs = [(SYSTEM, name) for name in found if name != SYSTEM]
    table = compare(found, test.truth.visits.user, np.zeros(len(test.truth.visits)), pairs, seed=0).set_index(
        ["model", "slice", "metric"]
    )
    columns = (("all", "ndcg_at_10"), ("all", "recall_at_100"), ("explore", "ndcg_at_10"))
    print(
        "\n| model | " + " | ".join(" ".join(one) for one in columns) + " | seconds | GiB |\n|---|---|---|---|---|---|"
    )
    for name in dict.fromkeys(table.index.get_level_values(0)):
        rows = [table.loc[(name, *one)] if (name, *one) in table.index else None for one in columns]
        told = [f"{row.value:.4f} [{row.ci_low:.4f}, {row.ci_high:.4f}]" if row is not None else "" for row in rows]
        note = notes.get(name, {})
        seconds = note.get("cpu", note.get("fit_cpu", np.nan) + note.get("lists_cpu", np.nan))
        print(f"| {name} | " + " | ".join(told) + f" | {seconds:.1f} | {note.get('gib', np.nan):.2f} |")
    if options.out:
        options.out.write_text(json.dumps({"rows": table.reset_index().to_dict("records"), "notes": notes}, indent=1))


if __name__ == "__main__":
    main()
