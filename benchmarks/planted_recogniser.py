"""A recogniser of wrong labels that learns from planted ones, beside the estimators that it reads; a negative result.

    python benchmarks/planted_recogniser.py ../shared/data --cache /tmp/weighting_map [--seeds 2]

CrowdFlower, labels made wrong as in `crowdflower_peers.py`. Nobody says which are wrong: a tenth of the labels that are there,
wrong ones among them, is turned over, all estimators are asked again, and a model learns from what they say which labels
were turned over; a fifth of the queries is judged by the model of the others. Logistic regression (of logits of rank shares, also
by label, with scores and what the query's other labels say) and small boosted trees. AUROC over the truth.
"""

import argparse
from pathlib import Path

import lightgbm
import numpy as np
import torch
from label_threshold import kept
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from weighting_map import crowdflower, queries

from ecom_pipeline.benchmark.dataset import Dataset
from ecom_pipeline.benchmark.noise import corrupted
from ecom_pipeline.benchmark.values import evidence_of
from ecom_pipeline.importance.catalogue import named
from ecom_pipeline.importance.preparation import prepared

READ = (
    *("oof_confidence", "group_kernel", "group_agreement", "leave_one_out_credibility", "neighbour_agreement"),
    *("knn_shapley", "aum", "el2n", "small_loss", "forgetting", "self_influence", "label_posterior", "graph_agreement"),
)
ENSEMBLE = ("oof_confidence", "group_kernel", "group_agreement")
PLANTED, N_PLANTS, N_FOLDS = 0.1, 2, 5


def columns(dataset: Dataset, label: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(n, c): rank shares of all estimators first."""
    evidence = evidence_of(dataset, label, held, 2, "cpu")
    estimators = named(READ)
    evidence, _ = prepared(evidence, estimators, 5)
    ranks = np.column_stack([rankdata(one.fit(evidence).value) for one in estimators]) / len(label)
    score, group = evidence.oof_score[:, :, 1], dataset.train.rows.group
    n = np.bincount(group)[group]
    others = (np.bincount(group, label)[group] - label + 0.5) / n
    return np.column_stack(
        [ranks, score.mean(1), score.std(1), label, n, others, np.where(label > 0.5, others, 1 - others)]
    )


def design(columns: np.ndarray) -> np.ndarray:
    """What both models read."""
    share = np.clip(columns[:, : len(READ)], 1e-4, 1 - 1e-4)
    logit = np.log(share / (1 - share))
    return np.column_stack([logit, logit * columns[:, [len(READ) + 2]], columns[:, len(READ) :]])


def main() -> None:
    """A line a kind of error and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where features are kept between runs")
    parser.add_argument("--seeds", type=int, default=2)
    told = parser.parse_args()
    torch.set_num_threads(1)
    dataset = queries(kept(told.cache, "queries", lambda: crowdflower(told.folder)))
    train, validation = dataset.train, dataset.validation
    fold = train.rows.group % N_FOLDS
    for kind, share in (("random", 0.2), ("random", 0.4), ("missing_positives", 0.3)):
        for seed in range(told.seeds):
            draw = np.random.default_rng(seed)
            label, held = (corrupted(one.rows.label, one.item, kind, share, draw) for one in (train, validation))
            found, wrong = columns(dataset, label, held), label != train.rows.label
            planted, turned = [], []
            for plant in range(N_PLANTS):
                draw = np.random.default_rng(1000 + plant)
                again = [corrupted(y, p.item, "random", PLANTED, draw) for y, p in ((label, train), (held, validation))]
                planted.append(design(columns(dataset, *again)))
                turned.append(again[0] != label)
            models = {
                "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
                "trees": lightgbm.LGBMClassifier(
                    n_estimators=150, num_leaves=4, learning_rate=0.05, min_child_samples=100, n_jobs=1, verbose=-1
                ),
            }
            doubt = {name: -found[:, READ.index(name)] for name in ENSEMBLE}
            doubt["their ensemble"] = np.mean(list(doubt.values()), axis=0)
            for name, model in models.items():
                doubt[name] = np.zeros(len(label))
                for one in range(N_FOLDS):
                    seen, judged = fold != one, fold == one
                    model.fit(np.vstack([x[seen] for x in planted]), np.concatenate([y[seen] for y in turned]))
                    doubt[name][judged] = model.predict_proba(design(found)[judged])[:, 1]
            figures = ", ".join(f"{name} {roc_auc_score(wrong, value):.4f}" for name, value in doubt.items())
            print(f"{kind} {share}, seed {seed}: {figures}", flush=True)


if __name__ == "__main__":
    main()
