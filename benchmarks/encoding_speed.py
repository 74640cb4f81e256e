"""How fast are texts read on a processor, beside sentence-transformers and the fastest matrix product of the machine?

    python benchmarks/encoding_speed.py speed .ecom/warehouse.duckdb --threads 1 --out speed.json
    python benchmarks/encoding_speed.py loss .ecom/warehouse.duckdb --out loss.json

A source is a run's warehouse, or its `training_samples` as Parquet; give several. `speed`: texts of the samples, whole
batches of like length, so that there is as little padding on every side as there is with all texts; every side reads the
same in each round, one after the other in one process, so that a busy machine slows all of them. Ratios are taken within a round: median, and least and greatest. Beside wall time stands the processor's time of
this process, which other processes disturb less. Operations are those of the tokens that are there (padding is time
lost, not work): linear layers, and attention's two products. The peak is measured in the same rounds: torch.mm (MKL)
and oneDNN, for a square of 2048 and for the model's own shapes.

`loss`: nDCG@10 with vectors of fewer bits against fp32, on the test split, by cosine and by the tuned linear ranker
(fitted to each precision's own features); paired bootstrap over groups, 2000 draws.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

MAX_TOKENS, TOKEN_BUDGET = 96, 2048
PEER_BATCHES = (16, 32, 64)  # 32 is its default
PENALTIES = tuple(np.logspace(-3, 1.5, 10))
ROWS = 2048


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of each round."""

    wall: list[float]
    processor: list[float]

    def measure(self, function: Callable[[], object]) -> None:
        """Run it once."""
        wall, processor = time.perf_counter(), time.process_time()
        function()
        self.processor.append(time.process_time() - processor)
        self.wall.append(time.perf_counter() - wall)


def samples_of(source: Path) -> pd.DataFrame:
    """All samples of a run."""
    import duckdb

    if source.suffix == ".parquet":
        return pd.read_parquet(source)
    with duckdb.connect(str(source), read_only=True) as db:
        return db.sql("from training_samples order by sample_id").df()


def texts_of(samples: pd.DataFrame) -> list[str]:
    """Distinct texts, as they are embedded."""
    return sorted(set(samples.context_text) | set(samples.item_text))


def work_of(encoder: object, texts: Sequence[str]) -> float:
    """Operations of reading texts: what their own tokens need."""
    import torch

    from ecom_pipeline.language.encoder import tokenize

    lengths = np.array([len(ids) for ids in tokenize(encoder, texts)], float)
    weights = sum(m.weight.numel() for m in encoder.model.modules() if isinstance(m, torch.nn.Linear))
    attention = 4 * encoder.n_layers * encoder.n_dimensions * (lengths**2).sum()
    return float(2 * weights * lengths.sum() + attention)


def sides(encoder: object, texts: Sequence[str]) -> dict[str, Callable[[], object]]:
    """Ways to read the texts; each gives the vectors."""
    from dataclasses import replace

    import torch
    from sentence_transformers import SentenceTransformer

    from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
    from ecom_pipeline.language.models import find_model
    from ecom_pipeline.language.products import FEW, fast_products
    from ecom_pipeline.language.quantised import quantised

    peer = SentenceTransformer(str(find_model(PACKAGED).folder), device="cpu")
    peer.max_seq_length = MAX_TOKENS
    fewer_bits = quantised(encoder)
    torch_bf16 = replace(encoder, model=load_encoder(PACKAGED, MAX_TOKENS, "cpu").model.bfloat16())

    def ours(one: object) -> np.ndarray:
        with fast_products(FEW):
            return encode(one, texts, TOKEN_BUDGET).embedding

    def plain() -> np.ndarray:
        torch.backends.mkldnn.enabled = False
        try:
            return encode(encoder, texts, TOKEN_BUDGET).embedding
        finally:
            torch.backends.mkldnn.enabled = True

    found = {
        f"sentence-transformers, {size} a batch": lambda size=size: peer.encode(
            texts, batch_size=size, show_progress_bar=False
        )
        for size in PEER_BATCHES
    }
    return found | {
        "fp32, MKL": plain,
        "fp32, oneDNN": lambda: ours(encoder),
        "bf16, torch": lambda: ours(torch_bf16),
        "bf16, OpenVINO": lambda: ours(fewer_bits),
    }


def products(encoder: object) -> dict[str, tuple[float, Callable[[], object]]]:
    """Matrix products: operations, and the product."""
    import torch

    wide = encoder.model.config.intermediate_size
    found = {}
    for name, inner, outer in (
        ("square", ROWS, ROWS),
        ("attention's layers", encoder.n_dimensions, encoder.n_dimensions),
        ("layer up", encoder.n_dimensions, wide),
        ("layer down", wide, encoder.n_dimensions),
    ):
        x, weight = torch.randn(ROWS, inner), torch.randn(outer, inner)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        repeats = max(1, ROWS**2 // (inner * outer) // 2)
        work = 2.0 * ROWS * inner * outer * repeats
        found[f"MKL, {name}"] = work, lambda x=x, w=weight, n=repeats: [torch.mm(x, w.T) for _ in range(n)]
        found[f"oneDNN, {name}"] = (
            work,
            lambda x=x, w=packed, n=repeats: [
                torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "") for _ in range(n)
            ],
        )
    return found


def ratio(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Median, least and greatest of a quotient within rounds."""
    found = np.array(of) / np.array(to)
    return [round(float(v), 3) for v in (np.median(found), found.min(), found.max())]


def drawn(encoder: object, texts: Sequence[str], n_batches: int) -> list[str]:
    """Texts of some batches of like length, evenly spaced among those of all texts, in random order."""
    from ecom_pipeline.language.encoder import batches, tokenize

    whole = list(batches([len(ids) for ids in tokenize(encoder, texts)], TOKEN_BUDGET))
    chosen = [whole[int((place + 0.5) * len(whole) / n_batches)] for place in range(n_batches)]
    rows = np.random.default_rng(0).permutation([row for batch in chosen for row in batch])
    return [texts[row] for row in rows]


def speed(source: Path, n_batches: int, n_rounds: int) -> dict[str, object]:
    """All sides on texts of one source."""
    import torch

    from ecom_pipeline.language.encoder import PACKAGED, load_encoder

    encoder = load_encoder(PACKAGED, MAX_TOKENS, "cpu")
    texts = drawn(encoder, texts_of(samples_of(source)), n_batches)
    ways, peaks = sides(encoder, texts), products(encoder)
    time_of = {name: Timed([], []) for name in (*ways, *peaks)}
    vectors = {name: way() for name, way in ways.items()}  # warm
    with torch.inference_mode():
        for _ in range(n_rounds):
            for name, way in ways.items():
                time_of[name].measure(way)
            for name, (_, product) in peaks.items():
                time_of[name].measure(product)
    work, peer, exact = work_of(encoder, texts), "sentence-transformers, 32 a batch", vectors["fp32, MKL"]
    rate = {name: float(np.median(np.divide(w, time_of[name].processor))) / 1e9 for name, (w, _) in peaks.items()}
    rate |= {name: work / float(np.median(time_of[name].processor)) / 1e9 for name in ways}
    return {
        "source": source.stem,
        "texts": len(texts),
        "rounds": n_rounds,
        "billion operations a processor second": {name: round(value, 1) for name, value in rate.items()},
        "times as fast as sentence-transformers' default": {
            name: {
                "wall": ratio(time_of[peer].wall, time_of[name].wall),
                "processor": ratio(time_of[peer].processor, time_of[name].processor),
                "greatest difference": float(np.abs(vectors[name] - exact).max()),
            }
            for name in ways
        },
    }


def loss(source: Path) -> list[dict[str, object]]:
    """What fewer bits cost on the test split of one source."""
    from dataclasses import replace

    from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
    from ecom_pipeline.language.products import FEW, fast_products
    from ecom_pipeline.language.quantised import quantised
    from ecom_pipeline.ranking.evaluation import evaluate

    samples = samples_of(source)
    texts = texts_of(samples)
    encoder = load_encoder(PACKAGED, MAX_TOKENS, "cpu")
    torch_bf16 = replace(encoder, model=load_encoder(PACKAGED, MAX_TOKENS, "cpu").model.bfloat16())
    scores: dict[str, dict[str, np.ndarray]] = {"cosine": {}, "tuned linear ranker": {}}
    for name, one in {"fp32": encoder, "bf16, torch": torch_bf16, "bf16, OpenVINO": quantised(encoder)}.items():
        with fast_products(FEW):
            vectors = encode(one, texts, TOKEN_BUDGET).embedding
        for ranker, score in test_scores(samples, dict(zip(texts, vectors, strict=True))).items():
            scores[ranker][name] = score[None]
    rows = rows_of(samples[samples.split == "test"])
    found = []
    for ranker, by_precision in scores.items():
        pairs = [("fp32", name) for name in by_precision if name != "fp32"]
        table = evaluate(rows, by_precision, {"all": np.ones(len(rows.group), bool)}, (), pairs, "test", 0)
        kept = table[table.metric == "ndcg_at_10"][["model", "value", "ci_low", "ci_high", "n_groups"]]
        found += [{"source": source.stem, "ranker": ranker, **row} for row in kept.to_dict("records")]
    return found


def rows_of(samples: pd.DataFrame) -> object:
    """What is judged."""
    from ecom_pipeline.ranking.evaluation import Rows

    group = np.unique(samples.group_id, return_inverse=True)[1]
    return Rows(group, samples.label.to_numpy(float), samples.relevance.to_numpy(float))


def test_scores(samples: pd.DataFrame, vector: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores of the test samples by both rankers."""
    from ecom_pipeline.language.features import Projection, pair_features
    from ecom_pipeline.ranking.linear import fit_linear

    context, item = (np.stack([vector[t] for t in samples[name]]) for name in ("context_text", "item_text"))
    pairs = pair_features(context, item, samples.context_text, samples.title, samples.item_text)
    place = {split: np.flatnonzero(samples.split == split) for split in ("train", "validation", "test")}
    projection = Projection.fit(pairs.rows(place["train"]), 100)
    x = {split: projection.apply(pairs.rows(rows)) for split, rows in place.items()}
    label = samples.label.to_numpy(float)[place["train"]]
    held = rows_of(samples.iloc[place["validation"]])
    linear = fit_linear(
        x["train"],
        label,
        np.ones((len(label), 1)),
        held_features=x["validation"],
        held=held,
        penalties=PENALTIES,
        device="cpu",
    )
    return {
        "cosine": pairs.match[place["test"], 0].astype(float),
        "tuned linear ranker": (x["test"] @ linear.tuned[0]).astype(float),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "loss"])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, default=3, help="of 2048 tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    # before torch and the tokenizer start their threads
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(told.threads)))
    import torch

    torch.set_num_threads(told.threads)
    found = []
    for source in told.sources:
        found += loss(source) if told.what == "loss" else [speed(source, told.batches, told.rounds)]
        told.out.write_text(json.dumps({"threads": told.threads, "found": found}, indent=2))
    print(told.out.read_text())


if __name__ == "__main__":
    sys.exit(main())
