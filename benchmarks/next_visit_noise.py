"""Do rows chosen by prediction gap still teach more than rows at random where labels are wrong? Errors are planted.

    python benchmarks/next_visit_noise.py [--period 200] [--noise 0.05 0.2 0.4] [--visits 2000] [--rows 100000] [--draws 2]

Protocol of `next_visit`, histories without weights. Of the training rows' labels a share is made wrong: "missed": that
share of what was taken counts as not taken; "invented": so many candidates that were not taken count as taken, in shares
of what was. Histories, validation and test stay as they are. "believed" is told the shares that were planted.
"""

import argparse
from dataclasses import replace

import numpy as np
from next_visit import Pool, cleaned, evaluate, origin
from numpy.typing import NDArray

from ecom_pipeline.importance.sample_choice import LabelNoise
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.catalogue import read_catalogue
from ecom_pipeline.recommend.evaluation import Truth, compare
from ecom_pipeline.recommend.interactions import read_interactions
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.ranker import TreeSearch
from ecom_pipeline.recommend.weighting import UNWEIGHTED

N_ITEMS = 20_000
METHODS = {"by gap": ("gap", False), "by gap, believed": ("gap", True), "at random": ("random", False)}


def planted(pool: Pool, kind: str, share: float, seed: int) -> tuple[Pool, LabelNoise]:
    """The pool with wrong labels, and what one would rightly believe of them."""
    taken = np.concatenate([rows.taken for _, rows in pool.parts])
    rate = float(taken.mean())
    noise = LabelNoise(missed=share) if kind == "missed" else LabelNoise(invented=share * rate / (1 - rate))
    draw = np.random.default_rng([seed, 3])

    def wrong(label: NDArray[np.bool_]) -> NDArray[np.bool_]:
        flipped = draw.random(len(label)) < np.where(label, noise.missed, noise.invented)
        return label ^ flipped

    return replace(pool, parts=[(visits, replace(rows, taken=wrong(rows.taken))) for visits, rows in pool.parts]), noise


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--period", type=int, default=200)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.2, 0.4])
    parser.add_argument("--visits", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    db = cleaned("complete-journey")
    acts = read_interactions(db, N_ITEMS)
    catalogue = read_catalogue(db, acts.item_ids)
    origin_ = origin(int(acts.day.min()) + options.period)
    truth = Truth.of(acts, acts.next_visits(origin_.test.first, origin_.test.end), origin_.test.first)
    pool = Pool.of(Learner(acts, catalogue, UNWEIGHTED, Retrieval(), RowChoice(), options.visits), origin_)
    asked, search = pool.learner.asked(origin_.test), TreeSearch(n_threads=options.threads)
    for kind, share in [("missed", 0.0), *((kind, one) for kind in ("missed", "invented") for one in options.noise)]:
        found = {}
        for name, (method, believed) in METHODS.items():
            draws = []
            for seed in range(options.draws):
                noisy, noise = planted(pool, kind, share, seed)
                choice = RowChoice(method, options.rows, noise=noise if believed else LabelNoise(), seed=seed)
                ranker = noisy.ranker(choice, search)
                draws.append(evaluate(pool.learner, origin_, ranker.score(asked.rows), truth))
            found[name] = {key: np.mean([one[key] for one in draws], axis=0) for key in draws[0]}
        pairs = [("by gap", "at random"), ("by gap, believed", "by gap")]
        table = compare(found, truth.visits.user, np.zeros(len(truth.visits), int), pairs, seed=0)
        for row in table[(table.metric == "ndcg_at_10") & (table.slice == "all")].itertuples():
            print(
                f"{kind} {share:<6.2f}{row.model:<40}{row.value:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}]",
                flush=True,
            )


if __name__ == "__main__":
    main()
