"""The weights that go out: of past acts, and of pairs by the estimator that the model in use was trained with.

On the floor of `report`.
"""

import json
from pathlib import Path

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import ledger
from ecom_pipeline.errors import InputError
from ecom_pipeline.importance.frames import AUTOMATIC
from ecom_pipeline.importance.selection import NONE


def weights_in_use(db: DuckDBPyConnection, models: Path) -> str:
    """The estimator that the model in use was trained with; the automatic choice where no model is there yet."""
    entry = ledger.entries(db, "fine_tuned_model").get(ledger.WHOLE)
    manifest = models / entry.content / "manifest.json" if entry else None
    if manifest is None or not manifest.is_file():
        return AUTOMATIC
    return json.loads(manifest.read_text())["inputs"]["estimator"]


def weights_of(db: DuckDBPyConnection, estimator: str) -> pd.DataFrame:
    """One estimator's weights, with the ids of the pairs.

    Raises:
        InputError: if that estimator has no weights.
    """
    known = [name for (name,) in db.execute("select distinct estimator from importance_weights order by 1").fetchall()]
    if estimator not in known:
        raise InputError(
            f"--estimator: 1 name is unknown: {estimator!r}. It must be one of {', '.join(known)}: choose one."
        )
    return db.execute(
        """select sample_id, sample_weight, origin, group_id, context_text, item_id, label
        from importance_weights join training_samples using (sample_id) where estimator = ? order by sample_id""",
        [estimator],
    ).df()


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
