"""What adapting the language model brings: recall@100 and the linear ranker's nDCG@10 on test, before and after.

`run` takes a copy of a finished home's warehouse and adapts under each variant and seed; what is finished is kept, one
file a variant and seed, so that a run may be broken off. `table` prints all that is kept. Both sides have the same
samples, features, penalties and tuning on validation; a variant is chosen by its figures on validation.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import torch

from ecom_pipeline.curves import untracked
from ecom_pipeline.language.adaptation import loop
from ecom_pipeline.language.adaptation.corpus import read_corpus
from ecom_pipeline.language.adaptation.retrieval import Retrieval, difference, read_retrieval, recall_of
from ecom_pipeline.language.adaptation.settings import Adaptation
from ecom_pipeline.language.encoder import PACKAGED, Encoder, encode, load_encoder
from ecom_pipeline.language.features import Projection, pair_features
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.linear import fit_linear
from ecom_pipeline.ranking.metrics import ndcg_at_k

AT = 100
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
N_COMPONENTS = 100
BASE = Adaptation(
    **{"n_steps": 40, "language": 0, "query": 0, "history": 0, "attribute": 0, "from_samples": False},
    **{"history_items": 8, "n_top": 6, "learning_rate": 5e-5, "batch_pairs": 64, "batch_texts": 64, "mask_share": 0.15},
    **{
        "temperature": 0.05,
        "correct_popularity": True,
        "hard_negatives": 0,
        "pool_items": 5000,
        "skipped": 5,
        "warmup_share": 0.1,
        "seed": 0,
    },
)
VARIANTS = {
    "none": {"n_steps": 0},
    "words": {"language": 1},
    "query": {"query": 1, "from_samples": True},
    "query, small": {
        **{"query": 1, "from_samples": True, "n_top": 2, "learning_rate": 2e-4, "n_steps": 20, "batch_pairs": 32}
    },
    "query, hard": {"query": 1, "from_samples": True, "hard_negatives": 1},
    "history": {"history": 1},
    "history, hard": {"history": 1, "hard_negatives": 1},
    "history, top 2": {"history": 1, "n_top": 2, "learning_rate": 2e-4},
    "history, small": {"history": 1, "n_top": 2, "learning_rate": 2e-4, "n_steps": 20, "batch_pairs": 32},
    "history, 160 steps": {"history": 1, "n_steps": 160},
    "attribute": {"attribute": 1},
    "mix": {"language": 1, "query": 1, "history": 2, "attribute": 1, "from_samples": True},
}


def main() -> None:
    """Run, or print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("warehouse", type=Path)
    run.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--max-tokens", type=int, default=96)
    run.add_argument("--items", type=int, default=0, help="texts of items to search among; 0: all")
    for verb in (run, verbs.add_parser("table")):
        verb.add_argument("--kept", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.verb == "table":
        print(table(arguments.kept).to_string(index=False))
        return
    arguments.kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(arguments.warehouse, Path(copy) / "w.duckdb")
        with duckdb.connect(str(Path(copy) / "w.duckdb")) as db:
            everything(db, arguments)


def everything(db: duckdb.DuckDBPyConnection, arguments: argparse.Namespace) -> None:
    """All variants and seeds that are not kept yet."""
    samples = db.sql("from training_samples order by sample_id").df()
    asked = {split: read_retrieval(db, split, arguments.items) for split in ("validation", "test")}
    for seed in range(arguments.seeds):
        for name in arguments.variants:
            settings = replace(BASE, **VARIANTS[name], seed=seed)
            file = arguments.kept / f"{name}-{seed}.npz"
            corpus = read_corpus(db, settings)
            possible = (name == "none" and seed == 0) or (settings.n_steps and corpus.shares(settings))
            if file.is_file() or not possible:
                continue
            torch.manual_seed(seed)
            encoder = load_encoder(PACKAGED, arguments.max_tokens, "cpu")
            seconds = 0.0
            if settings.n_steps:
                with tempfile.TemporaryDirectory() as folder, untracked(name, {}) as watch:
                    seconds = loop.adapt(encoder, corpus, settings, Path(folder) / "c.safetensors", watch).seconds
            np.savez(file.with_suffix(".part.npz"), seconds=seconds, **figures(encoder, samples, asked))
            os.replace(file.with_suffix(".part.npz"), file)
            print(file, f"{seconds:.0f} s", flush=True)


def figures(encoder: Encoder, samples: pd.DataFrame, asked: dict[str, Retrieval]) -> dict[str, np.ndarray]:
    """Recall of validation and test contexts, and test and validation nDCG@10 of the linear ranker; by group."""
    texts = sorted(
        {*samples.context_text, *samples.item_text, *(t for one in asked.values() for t in (*one.contexts, *one.items))}
    )
    place = {text: row for row, text in enumerate(texts)}
    vector = encode(encoder, texts, 2048).embedding

    def of(some) -> np.ndarray:
        return vector[[place[text] for text in some]]

    told = {f"recall_{split}": recall_of(of(one.contexts), of(one.items), one, AT) for split, one in asked.items()}
    features = pair_features(
        *(of(samples.context_text), of(samples.item_text), samples.context_text, samples.title, samples.item_text)
    )
    split = {name: np.flatnonzero(samples.split == name) for name in ("train", "validation", "test")}
    projection = Projection.fit(features.rows(split["train"]), N_COMPONENTS)
    x = {name: projection.apply(features.rows(rows)) for name, rows in split.items()}
    rows = {name: judged(samples.iloc[taken]) for name, taken in split.items()}
    weight = np.ones((len(split["train"]), 1))
    found = fit_linear(
        x["train"],
        rows["train"].label,
        weight,
        held_features=x["validation"],
        held=rows["validation"],
        penalties=PENALTIES,
        device="cpu",
    )
    told["ndcg_validation"] = found.ndcg[0, found.best[0]]
    told["ndcg_test"] = ndcg_at_k(rows["test"].group, rows["test"].relevance, x["test"] @ found.tuned[0], 10)
    return told


def judged(samples: pd.DataFrame) -> Rows:
    """Groups, labels and grades of samples."""
    group = np.unique(samples.group_id, return_inverse=True)[1]
    return Rows(group, samples.label.to_numpy(), samples.relevance.to_numpy())


def table(kept: Path) -> pd.DataFrame:
    """A row a variant and figure: the mean over seeds within a group, then the paired bootstrap over groups."""
    base = np.load(kept / "none-0.npz")
    rows = []
    for name in VARIANTS:
        files = [np.load(file) for file in sorted(kept.glob(f"{name}-?.npz"))]
        if not files or name == "none":
            continue
        for figure in ("recall_validation", "recall_test", "ndcg_validation", "ndcg_test"):
            after = np.mean([file[figure] for file in files], 0)
            known = np.isfinite(base[figure]) & np.isfinite(after)
            found = difference(base[figure][known], after[known], 0)
            (before, _, _), (value, _, _), (gain, low, high) = found.before, found.after, found.gain
            told = (before, value, f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]", found.n_groups, len(files))
            rows.append((name, figure, *told, float(np.mean([file["seconds"] for file in files]))))
    columns = ["variant", "figure", "before", "after", "gain", "groups", "seeds", "seconds"]
    return pd.DataFrame(rows, columns=columns).round(3)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
