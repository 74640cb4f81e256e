"""What keeping the frozen layers' states is worth: epochs an hour, with and without, and the same ranking.

    python benchmarks/frozen_cut.py .ecom/warehouse.duckdb --threads 2

Top 2 of 6 layers learn on the training samples of the warehouse that `make run` leaves. Three loops, epoch by epoch in
turn: from the states on disk; the same loop from tokens, whose frozen layers are computed each time; and a plain loop as
one writes it first, which besides tokenizes and reads both texts of every pair, however often they recur. An epoch is a
pass over the training samples and the validation figure after it. The time that the store takes to be filled is told
apart, as it is paid once.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import torch
from numpy.typing import NDArray

from ecom_pipeline.language.encoder import PACKAGED, Encoder, encode, load_encoder, padded, tokenize
from ecom_pipeline.language.features import PairFeatures, Projection, pair_features
from ecom_pipeline.language.frozen import FrozenStates, Texts, read_texts
from ecom_pipeline.ranking.design import Design, Learning
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.linear import fit_linear
from ecom_pipeline.ranking.model import Pairs, Ranker, make_ranker
from ecom_pipeline.ranking.training import TrainingSettings, train

SETTINGS = TrainingSettings(3e-5, 0.01, max_epochs=1, patience=1)


@dataclass(frozen=True, slots=True)
class PlainTexts:
    """Texts that are tokenized whenever they are read."""

    encoder: Encoder
    texts: list[str]

    def length(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some texts."""
        return np.array([len(ids) for ids in tokenize(self.encoder, [self.texts[row] for row in rows])])

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> dict[str, torch.Tensor]:
        """Token ids and mask."""
        return padded(self.encoder, tokenize(self.encoder, [self.texts[row] for row in rows]))


class PlainRanker:
    """Reads both texts of every pair, as often as they come."""

    @staticmethod
    def logits(ranker: Ranker, texts: Texts, pairs: Pairs, rows: NDArray[np.int64]) -> torch.Tensor:
        """(b,) of some pairs."""
        vectors = [ranker.tower(texts.batch(column, torch.device("cpu"))) for column in pairs.texts[rows].T]
        return ranker.judge(vectors, torch.as_tensor(pairs.given[rows]))


@contextmanager
def as_plain(plain: bool) -> Iterator[None]:
    """While open, rankers read as a plain loop does."""
    kept = Ranker.logits
    if plain:
        Ranker.logits = lambda self, *rest: PlainRanker.logits(self, *rest)
    try:
        yield
    finally:
        Ranker.logits = kept


def load(path: str, encoder: Encoder) -> tuple[list[str], dict[str, Pairs], Projection, NDArray[np.float32]]:
    """Texts, pairs of both splits, projection and the head to start from."""
    with duckdb.connect(path, read_only=True) as db:
        samples = db.sql("from training_samples where split <> 'test' order by sample_id").df()
    texts = sorted({*samples.context_text, *samples.item_text})
    row = {text: place for place, text in enumerate(texts)}
    vectors = encode(encoder, texts, 2048).embedding
    rows = np.column_stack([samples.context_text.map(row), samples.item_text.map(row)]).astype(np.int64)
    features = pair_features(
        vectors[rows[:, 0]], vectors[rows[:, 1]], samples.context_text, samples.title, samples.item_text
    )
    masks = {split: (samples.split == split).to_numpy() for split in ("train", "validation")}
    projection = Projection.fit(features.rows(masks["train"]), 100)
    pairs = {split: _pairs(samples[mask], rows[mask], features.rows(mask)) for split, mask in masks.items()}
    seen, held = (projection.apply(features.rows(mask)) for mask in masks.values())
    judged = Rows(pairs["validation"].group, pairs["validation"].label, pairs["validation"].relevance)
    one = np.ones((len(seen), 1))
    linear = fit_linear(
        seen,
        pairs["train"].label,
        one,
        held_features=held,
        held=judged,
        penalties=(0.03, 0.1, 0.3, 1.0, 3.0),
        device="cpu",
    )
    return texts, pairs, projection, linear.tuned[0]


def _pairs(samples, rows: NDArray[np.int64], features: PairFeatures) -> Pairs:
    group = np.unique(samples.group_id, return_inverse=True)[1]
    return Pairs(rows, features.match[:, 1:], group, samples.label.to_numpy(float), samples.relevance.to_numpy(float))


def main() -> None:
    """Time the loops in turn and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("warehouse")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    encoder = load_encoder(PACKAGED, 96, "cpu")
    texts, pairs, projection, head = load(told.warehouse, encoder)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        states = read_texts(encoder, texts, 2, 4096, Path(folder), 100)
        filling = time.monotonic() - started
        assert isinstance(states, FrozenStates)
        size = states.file.stat().st_size / 2**20
        tokens = read_texts(encoder, texts, 2, 4096, Path(folder), 0)
        loops: dict[str, tuple[Texts, bool]] = {
            "states on disk": (states, False),
            "the same from tokens": (tokens, False),
            "plain": (PlainTexts(encoder, texts), True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        ndcg: dict[str, list[float]] = {name: [] for name in loops}
        for seed in range(told.rounds):
            for name, (read, plain) in loops.items():
                found = epoch(lambda r=read, p=plain, s=seed: _train(encoder, r, pairs, projection, head, p, s, folder))
                seconds[name].append(found[0])
                ndcg[name].append(found[1])
                print(f"seed {seed}, {name}: {found[0]:.1f} s, nDCG@10 after the epoch {found[1]:.5f}", flush=True)
    print(f"store: {size:.0f} MiB for {len(texts)} texts, filled in {filling:.1f} s; {told.threads} threads")
    for name in list(loops)[1:]:
        ratios = np.array(seconds[name]) / np.array(seconds["states on disk"])
        apart = np.abs(np.array(ndcg[name]) - np.array(ndcg["states on disk"])).max()
        print(
            f"epochs an hour, states over {name}: {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f});"
        )
        print(f"  nDCG@10 differs by at most {apart:.5f}")


def epoch(run: Callable[[], float]) -> tuple[float, float]:
    """Seconds, and what it gives."""
    started = time.monotonic()
    found = run()
    return time.monotonic() - started, found


def _train(
    encoder: Encoder,
    texts: Texts,
    pairs: dict[str, Pairs],
    projection: Projection,
    head: NDArray[np.float32],
    plain: bool,
    seed: int,
    folder: str,
) -> float:
    design = Design("two_tower", Learning("layers", 2), 100, 100)
    ranker = make_ranker(design, encoder, projection, head, isinstance(texts, FrozenStates))
    one = np.ones(len(pairs["train"]))
    with as_plain(plain):
        trained = train(
            ranker, texts, pairs["train"], one, pairs["validation"], SETTINGS, seed, Path(folder) / "c.safetensors"
        )
    return trained.history[1]


if __name__ == "__main__":
    sys.exit(main())
