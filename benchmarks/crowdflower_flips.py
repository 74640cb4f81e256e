"""Flip a share of CrowdFlower's training labels: are the flips found, and do weights then help a linear ranker?

    python benchmarks/crowdflower_flips.py ../shared/data/crowdflower

The training split's labels (grade >= 3) are flipped at random. Found: AUROC of out-of-fold confidence. Helped: nDCG@10
and AUC on the untouched test split of a weighted head and its unweighted twin, each with its own penalty, chosen on
validation from the same grid; paired bootstrap over test queries, several seeds. `oracle` has weight 0 for the flips.
"""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from assets.prepare import SamplesConfig
from assets.publish import settings_of
from ecom_pipeline import cleaning, sources
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.frames import estimators
from ecom_pipeline.importance.heads import PENALTIES, Weighted, fit_heads
from ecom_pipeline.importance.weights import WeightMap
from ecom_pipeline.language import embeddings
from ecom_pipeline.language.features import Projection
from ecom_pipeline.ranking.evaluation import Rows, evaluate
from ecom_pipeline.ranking.metrics import ndcg_at_k
from ecom_pipeline.samples import SampleRules, build_samples, fold_of
from ecom_pipeline.sources.source import COLUMNS, land
from resources.warehouse import Warehouse

N_FOLDS, N_REPEATS, N_COMPONENTS = 5, 2, 100


def load(folder: str) -> tuple[pd.DataFrame, object]:
    """All samples of the set as the pipeline makes them, with their frozen features."""
    source = sources.find(folder)
    with tempfile.TemporaryDirectory() as home, Warehouse(path=str(Path(home) / "w.duckdb")).connect() as db:
        tables = source.adapter.tables(source.folder, db)
        for table in COLUMNS:
            land(db, table, tables.query(table), b"benchmark")
        cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
        cleaning.clean_items(db)
        cleaning.clean_judgments(db)
        build_samples(db, SampleRules(**settings_of(SamplesConfig())))
        embeddings.add(
            db,
            embeddings.embed(embeddings.missing_texts(db, "all-MiniLM-L6-v2", 96), "all-MiniLM-L6-v2", 96, 2048, "cpu"),
        )
        samples = db.sql("from training_samples order by sample_id").df()
        return samples, embeddings.sample_features(db, samples)


def main() -> None:
    """Print a table a share of flips."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    samples, features = load(arguments.folder)
    split = {name: (samples.split == name).to_numpy() for name in ("train", "validation", "test")}
    projection = Projection.fit(features.rows(split["train"]), N_COMPONENTS)
    x = {name: torch.as_tensor(projection.apply(features.rows(rows))) for name, rows in split.items()}
    rows = {name: _rows(samples[mask]) for name, mask in split.items()}
    groups = samples.group_id[split["train"]]
    fold = np.column_stack([fold_of(groups, N_FOLDS, repeat) for repeat in range(N_REPEATS)])
    for share in (0.0, 0.2, 0.4):
        found, scores, validated = {}, {}, {}
        for seed in range(arguments.seeds):
            flipped = np.random.default_rng(seed).random(len(groups)) < share
            label = np.where(flipped, 1 - rows["train"].label, rows["train"].label)
            oof = out_of_fold_scores(x["train"].numpy(), one_hot(label), fold, N_FOLDS, "cpu")
            scored = Evidence(label=one_hot(label), oof_score=oof.score, fold=oof.fold)
            candidates = {"unweighted": np.ones(len(label)), "oracle": (~flipped) / (~flipped).mean()}
            for estimator in estimators(0.05):
                value = estimator.fit(scored).value
                if share:
                    found.setdefault(estimator.name, []).append(roc_auc_score(flipped, -value))
                for power in (0.5, 1.0, 2.0):
                    for within in (True, False):
                        name = f"{estimator.name} ^{power:g}{' within label' if within else ''}"
                        candidates[name] = WeightMap(power, 0.99, within).weights(value, label)
            for name, weight in candidates.items():
                best, test = _tuned(x, rows, label, weight)
                validated.setdefault(name, []).append(best)
                scores.setdefault(name, []).append(test)
        _print(share, found, scores, validated, rows["test"])


def _rows(samples: pd.DataFrame) -> Rows:
    return Rows(
        np.unique(samples.group_id, return_inverse=True)[1], samples.label.to_numpy(), samples.relevance.to_numpy()
    )


def _tuned(x: dict, rows: dict, label: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Validation nDCG@10 of the best penalty, and the test scores under it."""
    y, w = (torch.as_tensor(values, dtype=torch.float32) for values in (one_hot(label), weight[:, None]))
    heads = fit_heads(x["train"], y, Weighted(w), PENALTIES)[:, 0, :, 0]
    held = rows["validation"]
    ndcg = [
        np.nanmean(ndcg_at_k(held.group, held.relevance, s, 10)) for s in (x["validation"] @ heads).double().numpy().T
    ]
    best = int(np.argmax(ndcg))
    return ndcg[best], torch.sigmoid(x["test"] @ heads[:, best]).double().numpy()


def _print(share: float, found: dict, scores: dict, validated: dict, test: Rows) -> None:
    stacked = {name: np.stack(values) for name, values in scores.items()}
    others = [name for name in stacked if name != "unweighted"]
    table = evaluate(
        test, stacked, {"all": np.ones(len(test.group), bool)}, [], [(o, "unweighted") for o in others], "test", 0
    )
    print(f"\n{share:.0%} of the training labels flipped, {len(next(iter(scores.values())))} seeds")
    for name, values in found.items():
        print(f"  AUROC of finding them, {name:<28} {np.mean(values):.4f} (sd {np.std(values, ddof=1):.4f})")
    for name in stacked:
        line = f"  {name:<44} validation {np.mean(validated[name]):.4f}  test"
        for metric in ("ndcg_at_10", "auc"):
            row = table[(table.model == name) & (table.metric == metric)].iloc[0]
            line += f" {metric} {row.value:.4f}"
            difference = table[(table.model == f"{name} - unweighted") & (table.metric == metric)]
            if len(difference):
                line += f" ({difference.value.iloc[0]:+.4f} [{difference.ci_low.iloc[0]:+.4f}, {difference.ci_high.iloc[0]:+.4f}])"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
