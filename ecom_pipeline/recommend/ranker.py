"""The ranker of candidates: boosted trees over the rows that were chosen, or the linear pilot where that does as well.

On the floor above `pilot`. Everything is chosen on validation visits; a weighted ranker and its twin get the same search.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints
from ecom_pipeline.errors import ModelError
from ecom_pipeline.importance.sample_choice import Acceptance, LabelNoise
from ecom_pipeline.recommend.best import top_items
from ecom_pipeline.recommend.candidates import Candidates
from ecom_pipeline.recommend.metrics import hits, ndcg
from ecom_pipeline.recommend.pilot import Chooser, Linear, some

if TYPE_CHECKING:
    import lightgbm

log = logging.getLogger(__name__)
K = 10
LEAST_ROWS = 100  # that trees learn from


@dataclass(frozen=True, slots=True)
class TreeSearch:
    """What is tried for the boosted trees.

    Attributes:
        leaves: sizes of the trees; one fit each.
        rounds: numbers of trees, of every fit.
        learning_rate: of all.
        min_rows: of a leaf.
        n_threads: of a fit; with another number the last digits may differ. 0: all cores.
    """

    leaves: tuple[int, ...] = (63,)
    rounds: tuple[int, ...] = (100, 150, 200)
    learning_rate: float = 0.08
    min_rows: int = 100
    n_threads: int = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """Visits with their candidates, and all that was taken on them, retrieved or not.

    Attributes:
        rows: candidates; `visit` counts through all visits.
        n_visits: how many.
        taken: (k,) visit and (k,) item of everything taken.
        n_items: of the catalogue.
    """

    rows: Candidates
    n_visits: int
    taken: tuple[Ints, Ints]
    n_items: int

    def lists(self, score: Floats, k: int, only: Bools | None = None) -> Ints:
        """(v, k) the best of the candidates, or of some of them."""
        kept = slice(None) if only is None else only
        return top_items(self.rows.visit[kept], self.rows.item[kept], score[kept], n_visits=self.n_visits, k=k)

    def ndcg(self, score: Floats, k: int = K) -> Floats:
        """(v,) nDCG@k of the whole list."""
        n_taken = np.bincount(self.taken[0], minlength=self.n_visits)
        return ndcg(hits(self.lists(score, k), *self.taken, self.n_items), n_taken)


@dataclass(frozen=True, slots=True)
class Ranker:
    """A ranker of candidates.

    Attributes:
        chooser: the pilot, and how rows were kept.
        trees: LightGBM's text form; empty where the pilot alone ranks.
        trials: what was tried, with validation nDCG@10.
        n_rows: rows that the trees learnt from.
        seconds: of the fits, judged as they grow.
    """

    chooser: Chooser
    trees: str
    trials: tuple[Mapping[str, float | str], ...]
    n_rows: int
    seconds: float

    def score(self, rows: Candidates) -> Floats:
        """(n,) logits that a candidate is taken, as of all rows: the pilot's, and what the trees add to it."""
        logit = self.chooser.pilot.logit(rows)
        if not self.trees:
            return logit
        return logit + _booster(self.trees).predict(rows.known, raw_score=True)

    def to_json(self) -> dict:
        """Plain values; the trees are kept beside them."""
        acceptance = self.chooser.acceptance
        return {
            "pilot": self.chooser.pilot.to_json(),
            "acceptance": {
                "method": acceptance.method,
                "scale": [float(one) for one in acceptance.scale],
                "missed": acceptance.noise.missed,
                "invented": acceptance.noise.invented,
            },
            "trials": [dict(trial) for trial in self.trials],
            "n_rows": self.n_rows,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, plain: dict, trees: str) -> "Ranker":
        """From `to_json` and the trees."""
        told = plain["acceptance"]
        acceptance = Acceptance(told["method"], tuple(told["scale"]), LabelNoise(told["missed"], told["invented"]))
        chooser = Chooser(Linear.from_json(plain["pilot"]), acceptance)
        return cls(chooser, trees, tuple(plain["trials"]), plain["n_rows"], plain["seconds"])


def fit_ranker(
    rows: Candidates,
    probability: Floats,
    chooser: Chooser,
    validation: Asked,
    *,
    search: TreeSearch,
    weight: Floats | None = None,
) -> Ranker:
    """Trees of every size that is tried, each cut where validation says; or the pilot, where no trees do better.

    The trees learn what must be added to the pilot's logit. Where they begin, each kept row stands at that logit less
    `Acceptance.offset` of the probability by which it was kept, so what they learn holds for all rows, exactly: the
    offset is known for each row, though the trees know neither the user's fold nor the probability.

    Args:
        rows: the candidates kept.
        probability: (n,) the pilot's, by which they were kept.
        chooser: that kept them.
        validation: visits to choose on.
        search: what is tried.
        weight: (n,) of the rows in the loss; None: all alike.

    Cost: one LightGBM fit a size; deterministic for one number of threads and kind of processor.
    """
    from time import monotonic

    judged_from, label = chooser.pilot.logit(validation.rows), rows.taken
    learnt_from = chooser.pilot.logit(rows) - chooser.acceptance.offset(probability)
    linear = _mean(validation.ndcg(judged_from))
    trials: list[dict[str, float | str]] = [{"kind": "linear", "ndcg": linear}]
    best, trees, started = linear, "", monotonic()
    for leaves in search.leaves if 0 < label.sum() < len(label) else ():
        booster, found = _boost(rows, learnt_from, weight, validation, judged_from, leaves=leaves, search=search)
        trials += [{"kind": "trees", "leaves": leaves, "rounds": n, "ndcg": quality} for n, quality in found.items()]
        rounds = max(found, key=found.__getitem__)
        if found[rounds] > best:
            best, trees = found[rounds], booster.model_to_string(num_iteration=rounds)
    log.info("%d rows; validation nDCG@10 %.4f (linear %.4f)", len(label), best, trials[0]["ndcg"])
    return Ranker(chooser, trees, tuple(trials), len(label), monotonic() - started)


def _boost(
    rows: Candidates,
    learnt_from: Floats,
    weight: Floats | None,
    validation: Asked,
    judged_from: Floats,
    *,
    leaves: int,
    search: TreeSearch,
) -> tuple["lightgbm.Booster", dict[int, float]]:
    """A booster, and validation nDCG@10 by number of trees.

    Judged when it has grown: to keep the answers of far more validation rows up to date with every tree costs more than to
    give them all once.
    """
    booster = _grown(rows, learnt_from, weight, leaves=leaves, search=search)
    logit, found, n_before = judged_from.copy(), {}, 0
    for n in sorted(set(search.rounds)):
        added = booster.predict(
            validation.rows.known,
            start_iteration=n_before,
            num_iteration=n - n_before,
            raw_score=True,
            num_threads=search.n_threads,
        )
        logit += np.asarray(added)
        found[n], n_before = _mean(validation.ndcg(logit)), n
    return booster, found


def _grown(
    rows: Candidates, learnt_from: Floats, weight: Floats | None, *, leaves: int, search: TreeSearch
) -> "lightgbm.Booster":
    import lightgbm

    settings = {
        "objective": "binary",
        "metric": "None",
        "learning_rate": search.learning_rate,
        "num_leaves": leaves,
        "min_data_in_leaf": min(search.min_rows, max(1, len(rows) // 50)),
        "feature_fraction": 0.7,
        "lambda_l2": 1.0,
        "num_threads": search.n_threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": 0,
        "verbose": -1,
    }
    label = rows.taken.astype(np.float32)
    data = lightgbm.Dataset(rows.known, label, weight=weight, init_score=learnt_from, params={"verbose": -1})
    return lightgbm.train(settings, data, max(search.rounds))


def rows_within(seconds: float, rows: Candidates, search: TreeSearch) -> int:
    """From how many rows like some the trees of a search learn in so many seconds of one core of this machine.

    Args:
        seconds: of a ranker, all sizes of trees together.
        rows: by which it is tried: all of them, and a quarter.
        search: what is tried.

    Raises:
        ModelError: if that is less than 100 rows.

    Cost: two fits. Time is the thread's own, so that others at work change little; two calls differ by some percent.
    """
    from time import thread_time

    if len(rows) < LEAST_ROWS:  # however little time there is, such a shop has no more
        return LEAST_ROWS
    sizes, took = (len(rows) // 4, len(rows)), []
    for n in sizes:
        some_rows, began = some(rows, np.linspace(0, len(rows) - 1, n).astype(np.int64)), thread_time()
        for leaves in search.leaves:
            _grown(some_rows, np.zeros(n), None, leaves=leaves, search=replace(search, n_threads=1))
        took.append(thread_time() - began)
    of_a_row = max((took[1] - took[0]) / (sizes[1] - sizes[0]), 1e-9)
    found = sizes[1] + (seconds - took[1]) / of_a_row
    if found < LEAST_ROWS:
        raise ModelError(
            f"ranker: 1 budget is too small, fit_seconds: in {seconds:g} s trees learn from {max(found, 0):.0f} rows; "
            f"{sizes[1]:,} took {took[1]:.1f} s. It must be enough for {LEAST_ROWS} rows: ask for more, or set n_rows instead."
        )
    return int(found)


@lru_cache(maxsize=8)
def _booster(trees: str) -> "lightgbm.Booster":
    import lightgbm

    return lightgbm.Booster(model_str=trees)


def _mean(by_visit: Sequence[float] | Floats) -> float:
    values = np.asarray(by_visit)
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else 0.0
