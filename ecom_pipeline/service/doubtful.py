"""Suspects as a rater sees them: a sample with its chance to be mislabelled, and what near samples say.

On the floor of `service`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.arrays import Ints, Singles
from ecom_pipeline.language.embeddings import sample_vectors
from ecom_pipeline.report.doubts import suspects
from ecom_pipeline.samples import has_samples

N_SUSPECTS, N_NEAR = 500, 2
_FILE, _GRADES = "suspects.parquet", "grades.json"


def write_suspects(folder: Path, db: DuckDBPyConnection) -> None:
    """Write the most doubtful samples, each with the nearest that agree and that disagree, and the grades in use.

    Near is what is like in query and item: the product of both cosines.

    Cost: for each suspect one look at every training sample's vectors.
    """
    if not has_samples(db):
        return
    found = suspects(db, N_SUSPECTS)
    train = db.sql("select * from training_samples where split = 'train' order by sample_id").df()
    place = pd.Index(train.sample_id).get_indexer(pd.Index(found.sample_id))
    context, item = sample_vectors(db, train)
    near = [_near(int(row), context, item, train.label.to_numpy()) for row in place]
    found["relevance"] = train.relevance.to_numpy()[place]
    for name, side in (("agreeing", 0), ("disagreeing", 1)):
        found[name] = [json.dumps([_told(train.iloc[row]) for row in both[side]]) for both in near]
    columns = ["sample_id", "item_id", "context_text", "title", "label", "relevance", "wrong_probability", "why"]
    found[[*columns, "agreeing", "disagreeing"]].to_parquet(folder / _FILE, index=False)
    grades = [grade for (grade,) in db.execute("select distinct relevance from judgments order by 1").fetchall()]
    (folder / _GRADES).write_text(json.dumps(grades or [0.0, 1.0]))


def read_suspects(folder: Path) -> tuple[pd.DataFrame, list[float]]:
    """As written; none, and no grades, where there are no samples."""
    if not (folder / _FILE).is_file():
        return pd.DataFrame(columns=["sample_id"]), []
    return pd.read_parquet(folder / _FILE), json.loads((folder / _GRADES).read_text())


def _near(row: int, context: Singles, item: Singles, label: np.ndarray) -> tuple[Ints, Ints]:
    """Places of the nearest with the same label, and with another."""
    likeness = (context @ context[row]) * (item @ item[row])
    likeness[row] = -np.inf
    same = (label > 0.5) == (label[row] > 0.5)
    return _top(np.where(same, likeness, -np.inf)), _top(np.where(same, -np.inf, likeness))


def _top(likeness: Singles) -> Ints:
    best = np.argsort(-likeness, kind="stable")[:N_NEAR]
    return best[np.isfinite(likeness[best])]


def _told(row: pd.Series) -> Mapping[str, object]:
    relevance = None if pd.isna(row.relevance) else float(row.relevance)
    return {"query": row.context_text, "title": row.title, "relevance": relevance}
