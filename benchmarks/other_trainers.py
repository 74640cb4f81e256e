"""Boosted trees on judged search data: a weight a row, a weight a pair, and LightGBM's own ranking objective.

    python benchmarks/other_trainers.py ../shared/data --cache /tmp/weighting_map

CrowdFlower, as it is and with labels turned over in training and validation alike. Queries are cut into five parts: three to
train on, one for validation, one for test, in turn, so that every query is tested once. All methods see the same features and
labels and have as many trials of the same random settings, each with five numbers of trees, chosen by validation nDCG@10;
a trial of a weighted method draws an estimator and a map as well. Test grades are the raters'. Intervals are 95 % of a paired
bootstrap over test queries.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
from label_threshold import kept
from numpy.typing import NDArray
from weighting_map import crowdflower, queries

from ecom_pipeline.benchmark.dataset import Dataset
from ecom_pipeline.benchmark.noise import corrupted
from ecom_pipeline.benchmark.training import MAPS
from ecom_pipeline.benchmark.values import evidence_of, valued
from ecom_pipeline.importance.catalogue import named
from ecom_pipeline.importance.weights import lifted
from ecom_pipeline.ranking.evaluation import Rows, evaluate
from ecom_pipeline.ranking.metrics import ndcg_at_k
from ecom_pipeline.ranking.weighted_pairs import pairwise_objective
from ecom_pipeline.samples import fold_of

N_PARTS = 5
DIVISION = 9  # a division of its own: estimators use the first ones for their folds
ESTIMATORS = ("oof_confidence", "group_kernel", "rank_ensemble", "stabilised_prediction_gap")
ROUNDS = (20, 40, 80, 120, 160)
POINTWISE, LAMBDARANK, PAIRWISE, OUR_WEIGHTS = "pointwise", "lambdarank", "pairwise", ", weighted"
METHODS = [objective + weights for objective in (POINTWISE, LAMBDARANK, PAIRWISE) for weights in ("", OUR_WEIGHTS)]
PAIRS = [
    *((objective + OUR_WEIGHTS, objective) for objective in (POINTWISE, LAMBDARANK, PAIRWISE)),
    *((PAIRWISE, POINTWISE), (PAIRWISE, LAMBDARANK), (PAIRWISE + OUR_WEIGHTS, LAMBDARANK)),
    (PAIRWISE + OUR_WEIGHTS, LAMBDARANK + OUR_WEIGHTS),
]


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings of the trees, and which weights where there are any."""

    trees: dict[str, float]
    estimator: str
    map_number: int


def drawn(n_trials: int) -> list[Trial]:
    """The same for every method."""
    draw = np.random.default_rng(0)
    return [
        Trial(
            {
                "num_leaves": int(draw.choice([4, 7, 15, 31])),
                "learning_rate": float(draw.choice([0.03, 0.06, 0.1])),
                "min_data_in_leaf": int(draw.choice([5, 20, 50])),
                "feature_fraction": float(draw.choice([0.3, 0.7, 1.0])),
                "lambda_l2": float(draw.choice([0.0, 1.0, 10.0])),
            },
            str(draw.choice(ESTIMATORS)),
            int(draw.integers(len(MAPS))),
        )
        for _ in range(n_trials)
    ]


def parts(told: dict[str, NDArray]) -> Iterator[Dataset]:
    """The set with every part as the test once."""
    part = np.array(fold_of(told["group_id"], N_PARTS, DIVISION))
    for turn in range(N_PARTS):
        split = np.select([part == turn, part == (turn + 1) % N_PARTS], ["test", "validation"], "train")
        yield queries({**told, "split": split})


def main() -> None:
    """Print a table a share of wrong labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where features are kept between runs")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.0, 0.2, 0.4], help="of labels turned over")
    parser.add_argument("--trials", type=int, default=12)
    asked = parser.parse_args()
    told = kept(asked.cache, "queries", lambda: crowdflower(asked.folder))
    order = np.argsort(told["group_id"], kind="stable")  # groups as neighbours, as LightGBM wants them
    told = {name: values[order] for name, values in told.items()}
    for share in asked.shares:
        started = time.monotonic()
        tested = [scores_of(dataset, share, drawn(asked.trials), turn) for turn, dataset in enumerate(parts(told))]
        show(share, [rows for rows, _ in tested], [scores for _, scores in tested])
        print(f"{time.monotonic() - started:.0f} s", flush=True)


def scores_of(dataset: Dataset, share: float, trials: list[Trial], seed: int) -> tuple[Rows, dict[str, NDArray]]:
    """The test rows, and each method's scores of them by the trial that is best on validation."""
    draw = np.random.default_rng(seed)
    label, held = (
        corrupted(part.rows.label, part.item, "random", share, draw) for part in (dataset.train, dataset.validation)
    )
    grades = dataset.validation.rows.relevance if share == 0 else held  # grades say more, where they are right
    values = valued(evidence_of(dataset, label, held, 2, "cpu"), named(ESTIMATORS), dataset.n_folds)
    ones = np.ones(len(label))
    best: dict[str, tuple[float, NDArray]] = {}
    for trial in trials:
        weight = MAPS[trial.map_number].weights(lifted(values[trial.estimator].value), label)
        for method in METHODS:
            objective, weighted, _ = method.partition(OUR_WEIGHTS)
            booster = fitted(dataset, label, weight if weighted else ones, objective, trial.trees)
            for rounds in ROUNDS:
                validated = booster.predict(dataset.validation.features, num_iteration=rounds, raw_score=True)
                figure = float(np.nanmean(ndcg_at_k(dataset.validation.rows.group, grades, validated, 10)))
                if method not in best or figure > best[method][0]:
                    best[method] = figure, booster.predict(dataset.test.features, num_iteration=rounds, raw_score=True)
    return dataset.test.rows, {method: scores for method, (_, scores) in best.items()}


def fitted(
    dataset: Dataset, label: NDArray, weight: NDArray, objective: str, trees: dict[str, float]
) -> lightgbm.Booster:
    """A booster of the most rounds that are tried."""
    group = dataset.train.rows.group
    settings = {**trees, "verbose": -1, "num_threads": 1, "max_bin": 63, "seed": 0, "deterministic": True}
    settings["objective"] = {
        POINTWISE: "binary",
        LAMBDARANK: "lambdarank",
        PAIRWISE: pairwise_objective(label, weight, group),
    }[objective]
    sizes = np.bincount(group) if objective == LAMBDARANK else None
    data = lightgbm.Dataset(dataset.train.features, label, weight=weight, group=sizes)
    return lightgbm.train(settings, data, max(ROUNDS))


def show(share: float, rows: list[Rows], scores: list[dict[str, NDArray]]) -> None:
    """Means and differences over all test queries."""
    first = np.cumsum([0, *(part.group.max() + 1 for part in rows[:-1])])
    group = np.concatenate([part.group + start for part, start in zip(rows, first, strict=True)])
    label, relevance = (np.concatenate([getattr(part, name) for part in rows]) for name in ("label", "relevance"))
    together = {method: np.concatenate([part[method] for part in scores])[None] for method in METHODS}
    table = evaluate(Rows(group, label, relevance), together, {"all": np.ones(len(group), bool)}, [], PAIRS, "test", 0)
    table = pd.DataFrame(table[table.metric == "ndcg_at_10"])
    print(f"\n{share:.0%} of labels turned over, {table.n_groups.iloc[0]} test queries: nDCG@10")
    for row in table.itertuples():
        signed = "+" if " - " in row.model else ""
        print(
            f"{row.model:<48}{row.value:{signed}.4f} [{row.ci_low:{signed}.4f}, {row.ci_high:{signed}.4f}]", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
