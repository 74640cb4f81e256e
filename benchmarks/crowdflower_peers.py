"""Flipped labels of CrowdFlower: our estimators beside cleanlab's and OpenDataVal's on the same features and labels.

    python benchmarks/crowdflower_peers.py ../shared/data --cache /tmp/weighting_map --peers PYTHON_WITH_OPENDATAVAL

20 % of the training and of the validation labels are turned over. cleanlab gets our out-of-fold probabilities (the same
heads for all); OpenDataVal gets our features (100 components and 5 matches), the validation split as its hold-out and
200 models a Data-OOB, once as they are and once with a column for each query, so that it may know of queries what our
group kernel knows. Figures are means with 95 % intervals over seeds.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from cleanlab.rank import get_label_quality_scores
from label_threshold import kept
from scipy.stats import t
from weighting_map import crowdflower, queries

from ecom_pipeline.benchmark.dataset import Dataset
from ecom_pipeline.benchmark.finding import found
from ecom_pipeline.benchmark.noise import corrupted
from ecom_pipeline.benchmark.values import evidence_of
from ecom_pipeline.importance.catalogue import named
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.preparation import prepared

OURS = (
    *("oof_confidence", "label_posterior", "stabilised_prediction_gap", "literal_prediction_gap", "data_oob"),
    *("leave_one_out_credibility", "group_kernel", "group_agreement", "rank_ensemble", "knn_shapley"),
)
CLEANLAB = (
    *(("self_confidence", False), ("self_confidence", True), ("normalized_margin", False), ("normalized_margin", True)),
    ("confidence_weighted_entropy", False),
)
THEIRS = ("KNNShapley(k=10)", "KNNShapley", "DataOob", "DataOob with neighbours", "DataOob with trees")


def ours(evidence: Evidence) -> Iterator[tuple[str, np.ndarray]]:
    """Our values, and cleanlab's of the same probabilities."""
    estimators = named(OURS)
    evidence, _ = prepared(evidence, estimators, 5)
    for estimator in estimators:
        yield estimator.name, estimator.fit(evidence).value
    score = evidence.oof_score.mean(1)
    for method, adjusted in CLEANLAB:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quality = get_label_quality_scores(evidence.observed, score, method=method, adjust_pred_probs=adjusted)
        yield f"cleanlab: {method}{', adjusted' if adjusted else ''}", quality


def theirs(python: str, dataset: Dataset, evidence: Evidence, held: np.ndarray, seed: int) -> Iterator[tuple]:
    """OpenDataVal's values of the same samples."""
    script = str(Path(__file__).with_name("peers_opendataval.py"))
    n_queries = int(dataset.train.rows.group.max()) + 1
    for query_columns in (False, True):
        x, held_x = evidence.features[:, :-1], dataset.validation.features[:, :-1]
        if query_columns:
            x = np.hstack([x, np.eye(n_queries, dtype=np.float32)[dataset.train.rows.group]])
            held_x = np.hstack([held_x, np.zeros((len(held_x), n_queries), np.float32)])
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = f"{folder}/samples.npz", f"{folder}/values.npz"
            np.savez(asked, features=x, label=evidence.label, holdout_features=held_x, holdout_label=one_hot(held))
            command = [python, script, asked, answered, "--seed", str(seed), "--share", "0.2", "--evaluators", *THEIRS]
            subprocess.run(command, check=True, capture_output=True)
            values = np.load(answered)
            for name in THEIRS:
                yield f"OpenDataVal: {name}{', query columns' if query_columns else ''}", values[name]


def main() -> None:
    """Print a line a method, the best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where features are kept between runs")
    parser.add_argument("--peers", help="interpreter that has OpenDataVal")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--peer-seeds", type=int, default=3)
    told = parser.parse_args()
    torch.set_num_threads(1)
    dataset = queries(kept(told.cache, "queries", lambda: crowdflower(told.folder)))
    figures: dict[str, list[dict[str, float]]] = {}
    for seed in range(told.seeds):
        draw = np.random.default_rng(seed)
        label, held = (
            corrupted(part.rows.label, part.item, "random", 0.2, draw) for part in (dataset.train, dataset.validation)
        )
        evidence = evidence_of(dataset, label, held, 2, "cpu")
        values = list(ours(evidence))
        if told.peers and seed < told.peer_seeds:
            values += theirs(told.peers, dataset, evidence, held, seed)
        for name, value in values:
            figures.setdefault(name, []).append(found(label != dataset.train.rows.label, value))
        show(figures)


def show(figures: dict[str, list[dict[str, float]]]) -> None:
    """One line a method."""
    print(f"\n{'method':<62}{'seeds':>6}{'AUROC':>26}{'average precision':>20}")
    for name, seen in sorted(figures.items(), key=lambda one: -np.mean([f["auroc"] for f in one[1]])):
        auroc, precision = (np.array([one[metric] for one in seen]) for metric in ("auroc", "average_precision"))
        half = t.ppf(0.975, len(seen) - 1) * auroc.std(ddof=1) / np.sqrt(len(seen)) if len(seen) > 1 else np.nan
        interval = f"{auroc.mean():.4f} [{auroc.mean() - half:.4f}, {auroc.mean() + half:.4f}]"
        print(f"{name:<62}{len(seen):>6}{interval:>26}{precision.mean():>20.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
