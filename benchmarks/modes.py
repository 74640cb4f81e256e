"""What popularity, category and price add to the texts; what few labels give; how items fare that training never saw.

    ecom run --source DIR --home HOME        # or any run that reached `embeddings`
    python benchmarks/modes.py HOME/warehouse.duckdb ... --out rows.parquet

All with the linear ranker, on validation and test. Each mode is added alone to the texts, and then all; penalties are chosen on validation, intervals are a paired bootstrap
over groups. `taken before` are the samples whose item somebody took before the visit. Few labels and cold items are as in
the report.
The warehouses stay as they are.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from search_data import N_COMPONENTS

from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.language.attributes import MODES, build_attributes, columns_of
from ecom_pipeline.language.embeddings import Items, item_embeddings, sample_features
from ecom_pipeline.language.features import MATCH_NAMES, Projection
from ecom_pipeline.ranking.ablation import Part, Parts, score_steps
from ecom_pipeline.ranking.cold import BORROWED, look_at_cold
from ecom_pipeline.ranking.evaluation import evaluate
from ecom_pipeline.ranking.learning_curve import learning_curve
from ecom_pipeline.ranking.linear import fit_linear
from ecom_pipeline.report.search import popularity
from ecom_pipeline.samples import TAKEN
from resources.warehouse import Warehouse

TEXT = "text"
TAKEN_BEFORE = f"""
    select sample_id from training_samples join (
        select item_id, min(occurred_at) as first_at from cleaned_interactions where {TAKEN} group by item_id) using (item_id)
    where first_at < occurred_at"""


@dataclass(frozen=True, slots=True)
class Shop:
    """The three splits with all that is known of them, the samples whose item was taken before, and the items."""

    parts: dict[str, Part]
    taken_before: set[str]
    test_items: Items
    known: Items
    popularity: dict[str, int]


def read(path: Path) -> Shop:
    """What a warehouse holds."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)
        with Warehouse(path=str(copy)).connect() as db:
            build_attributes(db, list(MODES))
            parts = {}
            for split in ("train", "validation", "test"):
                samples = db.sql(f"from training_samples where split = '{split}' order by sample_id").df()
                parts[split] = Part(samples, sample_features(db, samples))
            taken_before = {name for (name,) in db.execute(TAKEN_BEFORE).fetchall()}
            items = (item_embeddings(db, split) for split in ("test", "train"))
            return Shop(parts, taken_before, *items, popularity(db))


def variants(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Columns of each ranker: the texts, the texts and one mode, all."""
    found = {TEXT: MATCH_NAMES}
    for mode in MODES:
        own = columns_of(mode, names)
        if own:
            found[f"{TEXT} + {mode}"] = (*MATCH_NAMES, *own)
    if "taken_before" in names:
        found[f"{TEXT} + how often this user took it"] = (*MATCH_NAMES, "taken_before")
    return found | ({"everything": names} if len(found) > 1 else {})


def judge(parts: dict[str, Part], taken_before: set[str]) -> pd.DataFrame:
    """Rows as those of `evaluation`, on validation and test."""
    scores: dict[str, dict[str, np.ndarray]] = {"validation": {}, "test": {}}
    for name, columns in variants(parts["train"].features.names).items():
        seen = {split: part.features.only(columns) for split, part in parts.items()}
        projection = Projection.fit(seen["train"], N_COMPONENTS)
        x = {split: projection.apply(features) for split, features in seen.items()}
        train, held = parts["train"].rows, parts["validation"].rows
        equal = np.ones((len(train.label), 1))
        head = fit_linear(
            x["train"], train.label, equal, held_features=x["validation"], held=held, penalties=PENALTIES, device="cpu"
        ).tuned[0]
        for split, of_split in scores.items():
            of_split[name] = (x[split] @ head)[None].astype(float)
    found = []
    for split, of_split in scores.items():
        samples = parts[split].samples
        slices = {"all": np.ones(len(samples), bool)}
        if taken_before:
            slices["taken before"] = samples.sample_id.isin(taken_before).to_numpy()
        pairs = [(name, TEXT) for name in of_split if name != TEXT]
        found.append(evaluate(parts[split].rows, of_split, slices, [], pairs, split, 0))
    return pd.concat(found)


def few_and_cold(shop: Shop) -> pd.DataFrame:
    """Rows of `evaluation` for the learning curve, and for items that training never saw."""
    parts = Parts(shop.parts["train"], shop.parts["validation"], shop.parts["test"])
    curve = learning_curve(parts, N_COMPONENTS, "cpu", np.random.default_rng(0))
    samples = parts.test.samples
    cold = look_at_cold(samples.item_id, shop.test_items, shop.known, shop.popularity)
    if cold is None or not cold.slices:
        return curve
    scores = {
        "linear": list(score_steps(parts, N_COMPONENTS, "cpu").values())[-1],
        "text_similarity": parts.test.features.match[None, :, 0].astype(float),
        "popularity": samples.item_id.map(shop.popularity).fillna(0).to_numpy(float)[None],
        BORROWED: cold.borrowed[None],
    }
    slices = cold.slices | {"cold items": np.logical_or.reduce(list(cold.slices.values()))}
    pairs = [(BORROWED, "popularity"), (BORROWED, "text_similarity")]
    return pd.concat([curve, evaluate(parts.test.rows, scores, slices, [], pairs, "test", 0)])


def main() -> None:
    """Judge each warehouse, print nDCG@10 and write all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("warehouses", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="Parquet file of all rows")
    told = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for path in told.warehouses:
        shop = read(path)
        sizes = ", ".join(f"{len(part.samples):,} {split}" for split, part in shop.parts.items())
        print(f"{path}: {sizes}", flush=True)
        rows = pd.concat([judge(shop.parts, shop.taken_before), few_and_cold(shop)]).assign(warehouse=str(path))
        found.append(rows)
        shown = rows[rows.metric == "ndcg_at_10"]
        for row in shown.itertuples():
            figure = f"{row.value:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}] {row.n_groups} groups"
            print(f"  {row.split:<11}{row.slice:<40}{row.model:<52}{figure}", flush=True)
    if told.out:
        pd.concat(found).to_parquet(told.out, index=False)


if __name__ == "__main__":
    sys.exit(main())
