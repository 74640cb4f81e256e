"""Suspects as a rater sees them: a sample with its chance to be mislabelled, and what near samples say.

On the floor of `service`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.arrays import Ints, Singles
from ecom_pipeline.language.embeddings import sample_vectors
from ecom_pipeline.report import answers
from ecom_pipeline.report.doubts import suspects
from ecom_pipeline.samples import has_samples
from ecom_pipeline.schema.samples import SuspectOrder

N_SUSPECTS, N_NEAR = 500, 2
_FILE, _GRADES = "suspects.parquet", "grades.json"
_COLUMNS = [
    *(
        "sample_id",
        "item_id",
        "context_text",
        "title",
        "label",
        "relevance",
        "wrong_probability",
        "worth_of_asking",
        "why",
    ),
    *(f"by_{order}" for order in get_args(SuspectOrder)),
]


def write_suspects(folder: Path, db: DuckDBPyConnection) -> None:
    """Write the most doubtful samples, each with the nearest that agree and that disagree, and the grades in use.

    Near is what is like in query and item: the product of both cosines.

    Cost: for each suspect one look at every training sample's vectors.
    """
    if not has_samples(db):
        return
    orders = [suspects(db, N_SUSPECTS, order) for order in get_args(SuspectOrder)]
    found = pd.concat(orders).drop_duplicates("sample_id").reset_index(drop=True)
    for order, frame in zip(get_args(SuspectOrder), orders, strict=True):
        place = pd.Series(range(1, len(frame) + 1), index=frame.sample_id)
        found[f"by_{order}"] = found.sample_id.map(place)  # none: not among the first of this order
    train = db.sql("select * from training_samples where split = 'train' order by sample_id").df()
    place = pd.Index(train.sample_id).get_indexer(pd.Index(found.sample_id))
    context, item = sample_vectors(db, train)
    near = [_near(int(row), context, item, train.label.to_numpy()) for row in place]
    found["relevance"] = train.relevance.to_numpy()[place]
    shown = sorted({row for both in near for places in both for row in places.tolist()})
    told = dict(zip(shown, map(_told, train.iloc[shown].itertuples()), strict=True))
    for name, side in (("agreeing", 0), ("disagreeing", 1)):
        found[name] = [json.dumps([told[row] for row in both[side].tolist()]) for both in near]
    found[[*_COLUMNS, "agreeing", "disagreeing"]].to_parquet(folder / _FILE, index=False)
    in_use = "select distinct unnest([relevance, source_relevance]) as grade from judgments order by grade"
    grades = [grade for (grade,) in db.execute(in_use).fetchall() if grade is not None]
    (folder / _GRADES).write_text(json.dumps(grades or [0.0, 1.0]))


def read_suspects(folder: Path) -> tuple[pd.DataFrame, list[float]]:
    """As written; none, and no grades, where there are no samples."""
    if not (folder / _FILE).is_file():
        return pd.DataFrame(columns=["sample_id"]), []
    return pd.read_parquet(folder / _FILE), json.loads((folder / _GRADES).read_text())


def effect_of_answers(db: DuckDBPyConnection) -> dict[str, object]:
    """What raters' answers changed, and what that did to the ranker, under `rating_effect`; nothing where nobody answered."""
    told = answers.gather(db, db.execute("from evaluation").df()) if has_samples(db) else None
    if told is None:
        return {}
    found: dict[str, object] = {"n_rated": told.n_pairs, "n_changed": told.n_changed, "told": answers.sentences(told)}
    if told.effect is not None:
        row = told.effect
        found |= {"difference": float(row.value), "low": float(row.ci_low), "high": float(row.ci_high)}
    return {"rating_effect": found}


def _near(row: int, context: Singles, item: Singles, label: np.ndarray) -> tuple[Ints, Ints]:
    """Places of the nearest with the same label, and with another."""
    likeness = (context @ context[row]) * (item @ item[row])
    likeness[row] = -np.inf
    same = (label > 0.5) == (label[row] > 0.5)
    return _top(np.where(same, likeness, -np.inf)), _top(np.where(same, -np.inf, likeness))


def _top(likeness: Singles) -> Ints:
    best = np.argsort(-likeness, kind="stable")[:N_NEAR]
    return best[np.isfinite(likeness[best])]


def _told(row: Any) -> Mapping[str, object]:
    relevance = None if pd.isna(row.relevance) else float(row.relevance)
    return {"query": row.context_text, "title": row.title, "relevance": relevance}
