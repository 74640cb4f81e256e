"""How long do default values, the choice of weights and their storage take for many judged samples, in how much memory?

    python benchmarks/values_scale.py --samples 1000000

A shop is generated: queries and products with unit vectors of 384 numbers, `--group` products a query, grades that follow
a direction of how the two meet, what a query is like, and chance. From there on everything is as in the pipeline with its
defaults: out-of-fold scores, all default estimators, weightings on a tenth as many validation samples, a warehouse on disk.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from assets.importance import FoldConfig, TrialsConfig, ValuesConfig, WeightsConfig
from assets.publish import frame_type, settings_of
from ecom_pipeline import ledger, schema
from ecom_pipeline.importance import frames
from ecom_pipeline.importance.selection import Search
from ecom_pipeline.importance.weights import WeightMap
from ecom_pipeline.language.features import MATCH_NAMES, PairFeatures, row_blocks
from ecom_pipeline.ranking.weighting import try_weightings
from resources.warehouse import Warehouse

WIDTH = 384


def units(n: int, draw: np.random.Generator) -> np.ndarray:
    """(n, WIDTH) float32 vectors of length 1."""
    vectors = draw.standard_normal((n, WIDTH), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def shop(n: int, group_size: int, seed: int) -> tuple[pd.DataFrame, PairFeatures]:
    """Samples of judged queries, and their features."""
    draw = np.random.default_rng(seed)
    n_groups, n_items = max(2, n // group_size), max(2, n // 3)
    queries, items = units(n_groups, draw), units(n_items, draw)
    group, item = np.sort(draw.integers(0, n_groups, n)), draw.integers(0, n_items, n)
    meeting = np.empty((n, 2 * WIDTH), np.float32)
    for rows in row_blocks(n):
        ours, theirs = queries[group[rows]], items[item[rows]]
        meeting[rows, :WIDTH], meeting[rows, WIDTH:] = ours * theirs, np.abs(ours - theirs)
    match = draw.random((n, len(MATCH_NAMES)), dtype=np.float32)
    wanted = 3 * (match[:, 1] + match[:, 3] - 1) + draw.normal(size=n_groups)[group] / 2
    label = (wanted + draw.logistic(size=n) > 0).astype(float)
    samples = pd.DataFrame(
        {
            "sample_id": [f"{seed}{i:015x}" for i in range(n)],
            "group_id": np.char.mod("q%07d", group).astype(object),
            "item_id": np.char.mod("p%07d", item).astype(object),
            "label": label,
            "relevance": label,
            "fold": group % 5,
            "position": pd.array([pd.NA] * n, "Int64"),
            "propensity": np.nan,
            "occurred_at": pd.Timestamp("2024-01-01"),
            "origin": "judgment",
        }
    )
    return samples, PairFeatures(meeting, match)


@contextmanager
def told(what: str) -> Iterator[None]:
    """A line with seconds, processor seconds and the largest resident memory so far."""
    start, before = time.perf_counter(), time.process_time()
    yield
    seconds, busy = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:32} {seconds:7.1f} s {busy:7.1f} s of CPU, peak {peak:.2f} GiB", flush=True)


def stored(warehouse: Warehouse, relation: schema.Relation, frame: pd.DataFrame) -> None:
    """Checked, written and hashed, as the pipeline does."""
    assert frame_type(relation).type_check(None, frame).success
    with warehouse.transaction() as db:
        columns = ", ".join(f"{c.name}::{c.type} as {c.name}" for c in relation.columns)
        db.execute(f"create or replace table {relation.name} as select {columns} from frame")
        ledger.content(db, relation.name)


def main() -> None:
    """Print a line a stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--group", type=int, default=20)
    asked = parser.parse_args()
    values, trials = ValuesConfig(), settings_of(TrialsConfig())
    n_components, n_tried = trials.pop("n_components"), trials.pop("n_tried")
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse(path=str(Path(folder) / "w.duckdb"))
        with told("a shop"):
            seen, features = shop(asked.samples, asked.group, 1)
            held, held_features = shop(asked.samples // 10, asked.group, 2)
        with told("out-of-fold scores"):
            scored = frames.score(seen, features, **settings_of(FoldConfig()), device="cpu").frame
            stored(warehouse, schema.FOLD_PREDICTIONS, scored)
        with told("values"):
            scored = warehouse.read("fold_predictions")
            valued = frames.value(
                *(seen, features, scored, held, held_features, values.estimators, values.n_components, "cpu")
            )
        for name in values.estimators:
            print(f"    {name:28} {valued.figures[f'{name}/seconds']:7.1f} s")
        with told("values, stored"):
            stored(warehouse, schema.SAMPLE_VALUES, valued.frame)
            del valued, scored
        with told("weightings"):
            with warehouse.connect() as db:
                known = frames.read_values(db, len(seen))
            tried = try_weightings(
                *(seen, features, known, held, held_features),
                *(n_components, Search(**trials), "cpu"),
                n_tried=n_tried,
            )
        print(f"    {dict(tried.figures)}")
        del features, held_features
        with told("weights"):
            weight_map = WeightMap(**settings_of(WeightsConfig()))
            weighed = frames.weigh(seen, known, weight_map, tried.frame)
            stored(warehouse, schema.IMPORTANCE_WEIGHTS, weighed.frame)


if __name__ == "__main__":
    sys.exit(main())
