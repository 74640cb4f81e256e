"""Who responds: a model of earlier offers, chosen on the later ones among them, whose probabilities are calibrated.

Rows of recent offers may weigh more; whether they do is chosen likewise, and the twin without weights has the same budget.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.errors import ExperimentError

HALF_LIVES = (None, 60.0, 180.0)  # of an offer's weight, in days
_KINDS = (("logistic", 0.01), ("logistic", 0.1), ("logistic", 1.0), ("trees", 4), ("trees", 8))
_LEAST = 20  # responses, and offers' users who did not respond, that a model learns from


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model of responses learns.

    Attributes:
        name: logistic or trees.
        size: inverse penalty, or leaves.
        half_life: of an offer's weight in days; None: all weigh alike.
    """

    name: str
    size: float
    half_life: float | None = None

    def weight(self, age: Floats) -> Floats:
        """(n,) mean 1, of rows whose offers ended so many days ago: however old all are, a penalty is as strong."""
        if self.half_life is None:
            return np.ones(len(age))
        weight = 0.5 ** ((age - age.min()) / self.half_life)
        return weight / weight.mean()

    def __str__(self) -> str:
        weighed = f"offers half as heavy every {self.half_life:g} days" if self.half_life else "all offers alike"
        return f"{self.name} ({self.size:g}), {weighed}"


USUAL = Settings("logistic", 0.1)


@dataclass(frozen=True, slots=True)
class Responder:
    """A model of who responds.

    Attributes:
        model: has predict_proba.
        slope: of the calibration, on the model's logit.
        shift: likewise.
        settings: with which it learnt.
    """

    model: Any
    slope: float
    shift: float
    settings: Settings

    def probability(self, known: Floats) -> Floats:
        """(n,) that each user responds."""
        return 1 / (1 + np.exp(-(self.slope * _logit(self.model, known) + self.shift)))


def choose_settings(
    known: Floats, response: Floats, offer: np.ndarray, age: Floats, *, half_lives: Sequence[float | None] = HALF_LIVES
) -> Settings:
    """The settings whose probabilities are best for the later third of the offers, learnt from the earlier ones.

    Args:
        known: (n, features) as of the day before each offer.
        response: (n,) 0 or 1.
        offer: (n,) name.
        age: (n,) days since each offer.
        half_lives: of an offer's weight that are tried; (None,): no weights.

    Returns:
        The best; the usual ones where one of the thirds has none who responded, or none who did not.

    Raises:
        ExperimentError: if there is too little to learn from.

    Cost: a fit for each setting.
    """
    _refuse(response, offer)
    names, first = np.unique(offer, return_index=True)
    by_age = names[np.argsort(age[first], kind="stable")]
    later = np.isin(offer, by_age[: max(1, len(names) // 3)])
    if any(len(np.unique(response[side])) < 2 for side in (later, ~later)):
        return USUAL
    found = []
    for half_life in half_lives:
        for name, size in _KINDS:
            settings = Settings(name, size, half_life)
            weight = settings.weight(age[~later])
            logit = _logit(fit_model(name, size, known[~later], response[~later], weight), known[later])
            loss = float(np.mean(np.log1p(np.exp(-np.where(response[later] > 0, logit, -logit)))))
            found.append((loss, settings))
    return min(found, key=lambda one: one[0])[1]


def fit_responder(
    known: Floats,
    response: Floats,
    offer: np.ndarray,
    age: Floats,
    settings: Settings | None = None,
    *,
    fold_by: np.ndarray | None = None,
) -> Responder:
    """Learn who responds, and calibrate on rows that a model did not see.

    Args:
        known: (n, features) as of the day before each offer.
        response: (n,) 0 or 1.
        offer: (n,) name.
        age: (n,) days since each offer.
        settings: as chosen; None: they are chosen on these rows.
        fold_by: (n,) a row is calibrated by a model that saw none that has the same here; None: of its offer.

    Raises:
        ExperimentError: if there is too little to learn from.

    Cost: six fits, and those of `choose_settings`. Source: Platt 1999, for the calibration.
    """
    _refuse(response, offer)
    settings = settings or choose_settings(known, response, offer, age)
    weight = settings.weight(age)
    logit = _logits_of_others(known, response, weight, offer if fold_by is None else fold_by, settings)
    slope, shift = _calibration(logit, response, weight)
    model = fit_model(settings.name, settings.size, known, response, weight)
    return Responder(model, slope, shift, settings)


def _refuse(response: Floats, offer: np.ndarray) -> None:
    n_yes, n_no = int(response.sum()), int((1 - response).sum())
    if min(n_yes, n_no) < _LEAST or len(np.unique(offer)) < 2:
        raise ExperimentError(
            f"audience: {n_yes} responses and {n_no} refusals of {len(np.unique(offer))} past offers are known. There must be "
            f"{_LEAST} of each, of 2 offers or more, to learn who responds: wait for more, or ask about what neither nobody nor everybody buys."
        )


def _logits_of_others(
    known: Floats, response: Floats, weight: Floats, fold_by: np.ndarray, settings: Settings
) -> Floats:
    """(n,) logits by models that saw nothing of the row's group; where all others did the same, by how many they are."""
    logit = np.zeros(len(response))
    for train, held in _folds(fold_by):
        if response[train].min() < response[train].max():
            model = fit_model(settings.name, settings.size, known[train], response[train], weight[train])
            logit[held] = _logit(model, known[held])
        else:
            n_yes = response[train].sum()
            logit[held] = np.log((n_yes + 0.5) / (train.sum() - n_yes + 0.5))
    return logit


def _folds(group: np.ndarray) -> Iterator[tuple[Bools, Bools]]:
    names, place = np.unique(group, return_inverse=True)
    n = min(5, len(names))
    for fold in range(n):
        held = place % n == fold
        yield ~held, held


def fit_model(name: str, size: float, known: Floats, response: Floats, weight: Floats) -> Any:
    """A small model with predict_proba: logistic on logarithms with an inverse penalty, or trees with so many leaves."""
    if name == "logistic":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

        within = MinMaxScaler(clip=True)  # what lies beyond all that was seen counts as the furthest that was
        classifier = LogisticRegression(C=size, solver="newton-cholesky")
        steps = make_pipeline(FunctionTransformer(_logs), within, StandardScaler(), classifier)
        return steps.fit(known, response, logisticregression__sample_weight=weight)
    from lightgbm import LGBMClassifier

    trees = LGBMClassifier(
        n_estimators=150,
        learning_rate=0.05,
        num_leaves=int(size),
        min_child_samples=30,
        n_jobs=1,
        deterministic=True,
        random_state=0,
        verbose=-1,
    )
    return trees.fit(known, response, sample_weight=weight)


def _logs(known: Floats) -> Floats:
    """Counts and days as their logarithms: twice as many is one step, wherever one starts."""
    return np.log1p(np.maximum(known, 0))


def _logit(model: Any, known: Floats) -> Floats:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="X does not have valid feature names"
        )  # of arrays, to a fit on arrays
        chance = np.clip(model.predict_proba(known)[:, 1], 1e-6, 1 - 1e-6)
    return np.log(chance / (1 - chance))


def _calibration(logit: Floats, response: Floats, weight: Floats) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e3, solver="newton-cholesky").fit(logit[:, None], response, weight)
    return float(max(fitted.coef_[0, 0], 0.0)), float(fitted.intercept_[0])
