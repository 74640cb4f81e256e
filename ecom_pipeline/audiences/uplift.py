"""What an offer adds: a user's chance with it less his chance without.

Two models, one of those who got it and one of those who did not, and for judging them doubly robust scores, which need either
the models or the propensities to be right. Where the shop chose whom to give it, all this rests on what is known of them
having told the shop's reasons; only a drawn hold-out is free of that.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.audiences.response import fit_model
from ecom_pipeline.errors import ExperimentError

OVERLAP = (0.01, 0.99)  # propensities outside are trimmed: nobody alike got, or did not get, the offer
LEAST_OVERLAP = 0.2  # share of those who got it that must have somebody alike who did not
_LEAST = 50  # users on either side


@dataclass(frozen=True, slots=True)
class Effects:
    """Doubly robust scores of one or more offers.

    Attributes:
        score: (n,) of each user's effect; NaN where nobody is alike on the other side.
        uplift: (n,) predicted by models that did not see the user.
        overlap: share of those who got an offer that are kept.
        drawn: whether the comparison was drawn by chance.
    """

    score: Floats
    uplift: Floats
    overlap: float
    drawn: bool

    @property
    def average(self) -> tuple[float, float, float]:
        """Mean effect among those with a like, and its 95 % interval over users."""
        kept = self.score[np.isfinite(self.score)]
        half = 1.96 * kept.std(ddof=1) / np.sqrt(len(kept))
        return float(kept.mean()), float(kept.mean() - half), float(kept.mean() + half)


def effect_scores(
    known: Floats,
    response: Floats,
    given: Bools,
    user: np.ndarray,
    *,
    drawn_share: float | None = None,
    n_folds: int = 5,
) -> Effects:
    """Each user's effect by models that did not see him, and an unbiased score to judge them by.

    Args:
        known: (n, features) as of the day before.
        response: (n,) 0 or 1.
        given: (n,) who got the offer.
        user: (n,) ids, by which folds are made.
        drawn_share: share that got it, where that was drawn by chance; None: the shop chose, and propensities are modelled.
        n_folds: of users.

    Raises:
        ExperimentError: if either side has too few users, or too few of those who got it have a like who did not.

    Cost: three small models a fold. Source: Robins, Rotnitzky and Zhao 1994; Kennedy 2023 for ranking by such scores.
    """
    if min(given.sum(), (~given).sum()) < _LEAST:
        raise ExperimentError(
            f"uplift: {int(given.sum())} users got the offer and {int((~given).sum())} did not. Each side must have {_LEAST} or "
            "more to be compared: only lift can be told, or hold more users out."
        )
    fold = np.unique(user, return_inverse=True)[1] % n_folds
    uplift, with_it, without, chance = (np.full(len(response), np.nan) for _ in range(4))
    for held in range(n_folds):
        rows, train = fold == held, fold != held
        models = [_model(known[train & side], response[train & side]) for side in (given, ~given)]
        with_it[rows], without[rows] = (_chance(model, known[rows]) for model in models)
        chance[rows] = (
            drawn_share if drawn_share else _chance(_model(known[train], given[train].astype(float)), known[rows])
        )
    uplift = with_it - without
    kept = (chance >= OVERLAP[0]) & (chance <= OVERLAP[1]) | (drawn_share is not None)  # what was drawn needs no like
    overlap = float(kept[given].mean())
    if overlap < LEAST_OVERLAP:
        raise ExperimentError(
            f"uplift: only {overlap:.0%} of the {int(given.sum())} users who got the offer have a like who did not. There must be "
            f"{LEAST_OVERLAP:.0%} or more: only lift can be told; hold users out by chance the next time."
        )
    expected = np.where(given, with_it, without)
    share = np.where(kept, np.where(given, chance, 1 - chance), 1.0)
    score = uplift + np.where(given, 1, -1) * (response - expected) / share
    return Effects(np.where(kept, score, np.nan), uplift, overlap, drawn_share is not None)


def naive_difference(response: Floats, given: Bools) -> float:
    """Share of responses among those who got it less that among the others: what the shop's choice alone may make."""
    return float(response[given].mean() - response[~given].mean())


def _model(known: Floats, response: Floats) -> Any:
    """A number where all responded alike: then there is nothing to learn but that."""
    if response.min() == response.max():
        return float(response[0])
    return fit_model("logistic", 0.1, known, response, np.ones(len(response)))


def _chance(model: Any, known: Floats) -> Floats:
    return np.full(len(known), model) if isinstance(model, float) else model.predict_proba(known)[:, 1]
