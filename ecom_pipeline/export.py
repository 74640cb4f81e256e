"""The weights that go out: of past acts, and of pairs by the estimator that the model in use was trained with.

On the floor of `report`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import ledger, schema
from ecom_pipeline.errors import InputError
from ecom_pipeline.importance.frames import AUTOMATIC
from ecom_pipeline.importance.selection import NONE
from ecom_pipeline.language.embeddings import sample_features
from ecom_pipeline.language.features import row_blocks

_PAIR = (
    *("split", "fold", "group_id", "context_text", "item_id", "title", "item_text", "origin", "label", "relevance"),
    *("sample_weight", "position", "propensity", "occurred_at"),
)
_BLOCK = 1 << 17  # pairs whose embeddings are looked at together


def weights_in_use(db: DuckDBPyConnection, models: Path) -> str:
    """The estimator that the model in use was trained with; the automatic choice where no model is there yet."""
    entry = ledger.entries(db, "fine_tuned_model").get(ledger.WHOLE)
    manifest = models / entry.content / "manifest.json" if entry else None
    if manifest is None or not manifest.is_file():
        return AUTOMATIC
    return json.loads(manifest.read_text())["inputs"]["estimator"]


def weights_of(db: DuckDBPyConnection, estimator: str) -> pd.DataFrame:
    """All that another trainer needs: the pairs of all splits with one estimator's weights, and what is known of each.

    Returns:
        A row a pair, in the order of split, group and id, so that the rows of a group are neighbours; `sample_weight` is null
        for pairs held out. What is known of a pair stands in columns that begin with `feature_`.

    Raises:
        InputError: if that estimator has no weights.

    Cost: reads the embeddings of all samples' texts, block by block.
    """
    known = [name for (name,) in db.execute("select distinct estimator from importance_weights order by 1").fetchall()]
    if estimator not in known:
        raise InputError(
            f"--estimator: 1 name is unknown: {estimator!r}. It must be one of {', '.join(known)}: choose one."
        )
    pairs = db.execute(
        f"""select sample_id, {", ".join(_PAIR)}
        from training_samples left join (from importance_weights where estimator = ?) using (sample_id)
        order by list_position(?, split), group_id, sample_id""",
        [estimator, list(schema.SPLITS)],
    ).df()
    return pd.concat([pairs.drop(columns="title"), _features(db, pairs)], axis=1)


def _features(db: DuckDBPyConnection, pairs: pd.DataFrame) -> pd.DataFrame:
    blocks = [sample_features(db, pairs[rows]) for rows in row_blocks(len(pairs), _BLOCK)]
    values = np.concatenate([block.match for block in blocks])
    return pd.DataFrame(values, columns=[f"feature_{name}" for name in blocks[0].names])


def weights_of_acts(db: DuckDBPyConnection) -> pd.DataFrame:
    """The weights of past acts and their factors, with who did what when; as many rows as `interaction_weights`."""
    return db.execute(
        """select event_id, user_id, item_id, day, action, interaction_weights.* exclude (event_id)
        from interaction_weights join cleaned_interactions using (event_id) order by event_id"""
    ).df()


def weights_told(db: DuckDBPyConnection, estimator: str) -> str:
    """What the weights are of: a name, what was chosen, or that none was."""
    if estimator != AUTOMATIC:
        return f"of {estimator}"
    (chosen,) = db.execute("select estimator from weighting_trials where chosen").fetchall()[0]
    if chosen == NONE:
        return "that are all 1, as the automatic choice is none: no weighting was certain to help on validation"
    return f"of the automatic choice, {chosen}"
