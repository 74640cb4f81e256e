"""The test that a publication must pass before it serves: it loads, answers, and answers as the pipeline did.

On the floor of `service`.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from ecom_pipeline.errors import PublicationError
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.recommend.lists import NEW_VISITOR
from ecom_pipeline.service.live import Live
from ecom_pipeline.service.published import PublishedModel

N_ASKED = 10
LEAST_FOUND = (
    0.5  # of items whose own texts are asked for: texts that differ in a size find each other; a wrong index, none
)
LEAST_SAME = 0.9  # of the items of lists


def smoke_test(folder: Path, listed: pd.DataFrame) -> dict[str, float]:
    """Open a publication as a service does, and ask it what is known.

    Args:
        folder: of the publication.
        listed: user_id and item_id of the pipeline's own lists, by rank.

    Returns:
        share_of_texts_found, share_of_lists_as_made: figures of the test; and of each graph of items its recall_at_10.

    Raises:
        PublicationError: if a score is not finite, texts of items do not find them, or lists are not those of the pipeline.
    """
    model = PublishedModel.read(folder)
    found = _texts(model)
    same = _lists(model, listed)
    if found < LEAST_FOUND or same < LEAST_SAME:
        raise PublicationError(
            f"published model: 1 of 2 figures or both are too low: of texts asked for {found:.0%} find an item of that text,"
            f" and {same:.0%} of the items in lists are those that the pipeline listed. They must be {LEAST_FOUND:.0%} and "
            f"{LEAST_SAME:.0%} at least: look for what changed between the lists and the publication, and run again."
        )
    graphs = model.told.get("graphs", {})
    recall = {f"recall_at_10_of_{name}": told["recall_at_10"] for name, told in graphs.items()}
    return {"share_of_texts_found": found, "share_of_lists_as_made": same, **recall}


def _texts(model: PublishedModel) -> float:
    """Share of known queries, the texts of some items, that find an item of that text among the first ten."""
    asked = np.linspace(0, len(model.items) - 1, min(N_ASKED, len(model.items))).astype(int)
    hits = []
    for place in asked:
        text = str(model.search.texts[place])
        found = model.search.find(text, top=10, allowed=None, by="weighted")
        _require_finite("search", found.score)
        hits.append(text in {str(model.search.texts[item]) for item in found.item})
    return float(np.mean(hits)) if hits else 1.0


def _lists(model: PublishedModel, listed: pd.DataFrame) -> float:
    """Share of the items of some users' lists that are in the pipeline's lists too."""
    live = Live(model, datetime.now(UTC))
    users = [user for user in listed.user_id.unique() if user != NEW_VISITOR]
    shares = []
    for user in users[:: max(1, len(users) // N_ASKED)][:N_ASKED] if "weighted" in model.makers else []:
        expected = listed.item_id[listed.user_id == user].tolist()
        found = live.lists(user, "weighted", ListRules(len(expected)))
        _require_finite("lists", found.score.to_numpy())
        shares.append(
            len({model.items.item_id.iat[item] for item in found.item} & set(expected)) / max(len(expected), 1)
        )
    return float(np.mean(shares)) if shares else 1.0


def _require_finite(what: str, score: np.ndarray) -> None:
    wrong = int((~np.isfinite(score)).sum())
    if wrong:
        raise PublicationError(
            f"published model: {wrong} of {len(score)} scores of {what} are not finite; first: {score[~np.isfinite(score)][0]}. "
            "Every score must be a number: look at the ranker's inputs, and run again."
        )
