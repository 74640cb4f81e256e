"""Does capacity change the worth of weights? Fine-tuned rankers of rising capacity, with and without weights.

    python benchmarks/capacity_map.py run ../shared/data/crowdflower .ecom/warehouse.duckdb --kept /tmp/capacity
    python benchmarks/capacity_map.py table --kept /tmp/capacity

A two-tower ranker whose head starts as the tuned head on frozen features, then 1, 2 or 4 top layers learn, or low-rank
additions to all layers (LoRA), or everything. Labels are turned over in training and validation alike; 0 % is the data as
they are, with their natural noise. Sides: no weights, weights, and an oracle that leaves the wrong labels out. Each side
tries the same two learning rates (and penalties of the head) on the first seed's validation and keeps the better one for
all seeds; a seed is the wrong labels, the order and dropout. Weights: `leave_one_out_credibility`, squared within each
label, which was fixed beforehand by the table for linear rankers. Test labels are clean; nDCG@10 by test group is kept, so
that differences are paired; 95 % intervals by a bootstrap over groups, seeds averaged within.

The data are cut to what two cores can do: about 600 training, 400 validation and 1,500 test pairs in whole groups, texts
to 32 tokens.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ecom_pipeline.benchmark.noise import corrupted
from ecom_pipeline.importance.catalogue import named
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.weights import WeightMap, lifted
from ecom_pipeline.language.encoder import PACKAGED, Encoder, encode, load_encoder
from ecom_pipeline.language.features import PairFeatures, Projection, pair_features
from ecom_pipeline.language.frozen import FrozenStates, read_texts
from ecom_pipeline.ranking.design import Design, Learning
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.linear import fit_linear
from ecom_pipeline.ranking.metrics import ndcg_at_k
from ecom_pipeline.ranking.model import Pairs, make_ranker
from ecom_pipeline.ranking.training import TrainingSettings, train

CAPACITIES = {
    "top 1 layer": Learning("layers", 1),
    "top 2 layers": Learning("layers", 2),
    "top 4 layers": Learning("layers", 4),
    "LoRA": Learning("lora", 6),
    "full": Learning("full"),
}
NOISE = (0.0, 0.2, 0.4)
SIDES = ("unweighted", "weighted", "oracle")
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
MAP = WeightMap("power", 2.0, 0.99, "label")
VALUED_BY = "leave_one_out_credibility"
N_PAIRS = {"train": 600, "validation": 400, "test": 1500}  # about, in whole groups


@dataclass(frozen=True, slots=True)
class Shop:
    """A cut of the data: pairs and frozen features by split, and the texts."""

    name: str
    encoder: Encoder
    texts: list[str]
    pairs: dict[str, Pairs]
    features: dict[str, NDArray[np.float32]]
    projection: Projection
    item: NDArray[np.int64]  # of training samples


def samples_of(source: str) -> pd.DataFrame:
    """All samples, as the pipeline makes them."""
    if source.endswith(".duckdb"):
        with duckdb.connect(source, read_only=True) as db:
            return db.sql("from training_samples order by sample_id").df()
    from search_data import load

    return load(source)[0]


def cut(samples: pd.DataFrame, size: float) -> pd.DataFrame:
    """Some groups of each split, drawn once."""
    draw = np.random.default_rng(0)
    kept = []
    for split, n_pairs in N_PAIRS.items():
        part = samples[samples.split == split]
        groups = part.groupby("group_id").size().iloc[draw.permutation(part.group_id.nunique())]
        kept.append(part[part.group_id.isin(groups.index[groups.cumsum() <= size * n_pairs])])
    return pd.concat(kept).reset_index(drop=True)


def shop(name: str, samples: pd.DataFrame, encoder: Encoder) -> Shop:
    """The cut with its features under the encoder."""
    texts = sorted({*samples.context_text, *samples.item_text})
    row = {text: place for place, text in enumerate(texts)}
    vectors = encode(encoder, texts, 2048).embedding
    context, item = samples.context_text.map(row).to_numpy(), samples.item_text.map(row).to_numpy()
    found = pair_features(vectors[context], vectors[item], samples.context_text, samples.title, samples.item_text)
    features = PairFeatures(found.meeting, found.match[:, :5])
    masks = {split: (samples.split == split).to_numpy() for split in N_PAIRS}
    projection = Projection.fit(features.rows(masks["train"]), 100)
    pairs = {
        split: Pairs(
            np.column_stack([context, item])[mask],
            features.match[mask, 1:],
            np.unique(samples.group_id[mask], return_inverse=True)[1],
            samples.label[mask].to_numpy(float),
            samples.relevance[mask].to_numpy(float),
        )
        for split, mask in masks.items()
    }
    projected = {split: projection.apply(features.rows(mask)) for split, mask in masks.items()}
    items = np.unique(samples.item_id[masks["train"]], return_inverse=True)[1]
    return Shop(name, encoder, texts, pairs, projected, projection, items)


def noisy(pairs: Pairs, item: NDArray[np.int64], share: float, seed: int) -> Pairs:
    """The same pairs with labels turned over; grades that would tell the truth go."""
    if not share:
        return pairs
    label = corrupted((pairs.label >= 0.5) * 1.0, item, "random", share, np.random.default_rng(seed))
    return replace(pairs, label=label, relevance=label)


def weights(data: Shop, seen: Pairs, truth: Pairs, side: str, seed: int) -> NDArray[np.float64]:
    """(n,) of a side, mean 1."""
    if side == "unweighted":
        return np.ones(len(seen))
    if side == "oracle":
        right = (seen.label >= 0.5) == (truth.label >= 0.5)
        return right / right.mean()
    (estimator,) = named([VALUED_BY])
    evidence = Evidence(label=one_hot(seen.label), features=data.features["train"], group=seen.group)
    return MAP.weights(lifted(estimator.fit(evidence).value), seen.label)


def one(
    data: Shop, capacity: str, share: float, side: str, seed: int, rates: tuple[float, ...], store: Path
) -> tuple[float, float, list[float], list[float], float]:
    """Best rate, its validation figure, test nDCG@10 by group of the ranker and of its head before training, seconds."""
    started, learning = time.monotonic(), CAPACITIES[capacity]
    texts = read_texts(data.encoder, data.texts, learning.n_learning(data.encoder), 2048, store, 4)
    truth = data.pairs["train"]
    seen = noisy(truth, data.item, share, seed)
    held = noisy(data.pairs["validation"], np.zeros(len(data.pairs["validation"]), int), share, 1000 + seed)
    weight = weights(data, seen, truth, side, seed)
    rows = Rows(held.group, held.label, held.relevance)
    linear = fit_linear(
        data.features["train"],
        seen.label,
        weight[:, None],
        held_features=data.features["validation"],
        held=rows,
        penalties=PENALTIES,
        device="cpu",
    )
    design = Design("two_tower", learning, 100, 4)
    found = []
    for rate in rates:
        torch.manual_seed(seed)
        frozen = isinstance(texts, FrozenStates)
        ranker = make_ranker(design, data.encoder, data.projection, linear.tuned[0], frozen)
        settings = TrainingSettings(rate, 0.01, max_epochs=3, patience=1, batch_pairs=64)
        with tempfile.TemporaryDirectory() as folder:
            trained = train(ranker, texts, seen, weight, held, settings, seed, Path(folder) / "c.safetensors")
        found.append((trained.best_ndcg, rate, ranker))
    ndcg, rate, ranker = max(found, key=lambda trial: trial[0])
    by_group = tested(ranker.score(texts, data.pairs["test"], 4096), data)
    head = tested((data.features["test"] @ linear.tuned[0]).astype(float), data)
    return rate, ndcg, by_group, head, time.monotonic() - started


def tested(score: NDArray[np.float64], data: Shop) -> list[float]:
    """nDCG@10 of each test group on clean grades."""
    pairs = data.pairs["test"]
    return ndcg_at_k(pairs.group, pairs.relevance, score, 10).tolist()


def run(data: Shop, capacities: list[str], n_seeds: int, kept: Path) -> None:
    """All sides of all cells, seed by seed; what is there already is not done again."""
    for seed, share, capacity in itertools.product(range(n_seeds), NOISE, capacities):
        for side in SIDES if share else SIDES[:2]:
            first, path = (
                kept / f"{data.name}-{capacity.replace(' ', '_')}-{share:g}-{side}-{n}.json" for n in (0, seed)
            )
            if path.is_file():
                continue
            rates = (json.loads(first.read_text())["rate"],) if seed else CAPACITIES[capacity].usual_rates
            rate, ndcg, by_group, head, seconds = one(data, capacity, share, side, seed, rates, kept)
            told = {
                **{"set": data.name, "capacity": capacity, "share": share, "side": side, "seed": seed},
                **{"rate": rate, "validation": ndcg, "test": by_group, "head": head, "seconds": seconds},
            }
            path.write_text(json.dumps(told))
            print(path.stem, f"{np.nanmean(head):.4f} -> {np.nanmean(by_group):.4f}, {seconds:.0f} s", flush=True)


def interval(by_group: NDArray[np.float64], draws: NDArray[np.int64]) -> str:
    """Mean and 95 % interval over groups that have a figure."""
    valid = np.isfinite(by_group)
    means = draws @ np.where(valid, by_group, 0) / (draws @ valid)
    low, high = np.quantile(means, [0.025, 0.975])
    told = f"{np.nanmean(by_group):+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"**{told}**" if low > 0 else told


def table(kept: Path) -> None:
    """The rows of the map, as Markdown."""
    found = pd.DataFrame([json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))])
    for name in ("test", "head"):
        found[name] = found[name].map(np.array)
    print("| set | what learns | turned over | seeds | unweighted | minus its head | weights gain | oracle gains |")
    print("|---|---|---|---|---|---|---|---|")
    for (data, share, capacity), cell in sorted(
        found.groupby(["set", "share", "capacity"]), key=lambda kv: (kv[0][:2], [*CAPACITIES].index(kv[0][2]))
    ):
        sides = {side: part.set_index("seed") for side, part in cell.groupby("side")}
        plain = sides["unweighted"]
        n_groups = len(plain.test.iloc[0])
        draws = np.random.default_rng(0).multinomial(n_groups, np.full(n_groups, 1 / n_groups), 2000)
        cells = [f"{np.nanmean(np.stack(plain.test)):.3f}", interval(np.mean(plain.test - plain["head"]), draws)]
        for side in ("weighted", "oracle"):
            both = plain.index.intersection(sides[side].index) if side in sides else []
            cells.append(interval(np.mean((sides[side].test - plain.test).loc[both]), draws) if len(both) else "")
        print(f"| {data} | {capacity} | {share:.0%} | {len(plain)} | " + " | ".join(cells) + " |")


def main() -> None:
    """Run, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("sources", nargs="*", help="folders with judgments, or the warehouse that `make run` leaves")
    parser.add_argument("--kept", type=Path, required=True, help="folder of results; runs go on where they were")
    parser.add_argument("--capacities", nargs="*", default=list(CAPACITIES))
    parser.add_argument(
        "--size", type=float, default=1.0, help="times 600 training, 400 validation and 1,500 test pairs"
    )
    parser.add_argument("--seeds", type=int, default=3)
    told = parser.parse_args()
    told.kept.mkdir(parents=True, exist_ok=True)
    if told.what == "table":
        return table(told.kept)
    encoder = load_encoder(PACKAGED, 32, "cpu")
    for source in told.sources:
        name = "complete_journey" if source.endswith(".duckdb") else Path(source).name
        path = told.kept / f"{name}.parquet"
        if not path.is_file():
            cut(samples_of(source), told.size).to_parquet(path, index=False)
        run(shop(name, pd.read_parquet(path), encoder), told.capacities, told.seeds, told.kept)
    return None


if __name__ == "__main__":
    sys.exit(main())
