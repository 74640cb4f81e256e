"""How good were orders of users? Each later campaign is ordered by models of those that had ended before it began."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Floats
from ecom_pipeline.audiences.gains import FIGURES, Figure, calibration_error, calibration_noise, judged, qini
from ecom_pipeline.audiences.offers import FEATURES, Audience, Offer
from ecom_pipeline.audiences.response import HALF_LIVES, Settings, choose_settings, fit_model, fit_responder
from ecom_pipeline.audiences.uplift import effect_scores, naive_difference
from ecom_pipeline.errors import ExperimentError

MODEL, TWIN, USED, BEFORE, RFM, RANDOM = (
    "weighted model",
    "unweighted twin",
    "used offers before",
    "bought these items before",
    "recency, frequency, money",
    "random",
)
SIMPLE = (USED, BEFORE, RFM)
UPLIFT = "two models"
TESTED = 1 / 3  # of the campaigns that have ended, the last ones
_LEAST_GIVEN = 50  # users of a campaign that is tested on
COLUMNS = ("response", "model", "metric", "value", "ci_low", "ci_high", "n_offers", "n_users")


@dataclass(frozen=True, slots=True)
class Foretold:
    """Scores of the users of tested campaigns, by whom.

    Attributes:
        rows: places among the audience.
        scores: (rows,) by model; those of the models are probabilities.
        settings: that the weighted model chose before the first tested campaign.
    """

    rows: np.ndarray
    scores: Mapping[str, Floats]
    settings: str


def evaluate(audience: Audience, offers: Sequence[Offer]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Figures of every order, for what was redeemed, what was bought, and what campaigns added.

    Args:
        audience: of all campaigns.
        offers: these.

    Returns:
        Rows as `audience_evaluation`, and by response what was chosen, or why nothing is told.

    Cost: for each tested campaign a dozen small models; `gains.N_BOOTSTRAP` draws of each figure.
    """
    rows, told = [], {}
    for name in ("redeemed", "bought"):
        try:
            found = foretell(audience, offers, name)
        except ExperimentError as error:
            told[name] = str(error)
            continue
        told[name] = found.settings
        rows += _figures(audience, found, name)
    try:
        rows += _uplift(audience, offers, told)
    except ExperimentError as error:
        told["uplift"] = str(error)
    return pd.DataFrame(rows, columns=list(COLUMNS)), told


def foretell(audience: Audience, offers: Sequence[Offer], response: str) -> Foretold:
    """Order the users of each later campaign by what campaigns that had ended before it taught.

    Raises:
        ExperimentError: if too few campaigns have ended, too few users responded, or of the tested campaigns none or all did.
    """
    value = getattr(audience, response)
    usable = audience.given & np.isfinite(value)
    tested = tested_offers(audience, offers, usable)
    parts: list[dict[str, Floats]] = []
    places: list[np.ndarray] = []
    settings: dict[str, Settings] = {}
    for offer in tested:
        train = usable & ended_before(audience, offers, offer)
        here = np.flatnonzero(usable & (audience.offer == offer.name))
        teach = (audience.known[train], value[train], audience.offer[train], audience.age[train])
        if not settings:
            settings = {MODEL: choose_settings(*teach), TWIN: choose_settings(*teach, half_lives=HALF_LIVES[:1])}
        scores = {name: fit_responder(*teach, one).probability(audience.known[here]) for name, one in settings.items()}
        parts.append(scores | simple_orders(audience.known[here], seed=len(parts)))
        places.append(here)
    rows = np.concatenate(places)
    n_yes = int(value[rows].sum())
    if n_yes in (0, len(rows)):
        raise ExperimentError(
            f"audience: {n_yes} of {len(rows)} users of the {len(tested)} campaigns that are tested responded, the first of them "
            f"{tested[0].name!r}. Some must have, and some not, to judge an order: wait for more campaigns."
        )
    return Foretold(
        rows,
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        str(settings[MODEL]),
    )


def tested_offers(audience: Audience, offers: Sequence[Offer], usable: np.ndarray) -> list[Offer]:
    """The later third of the campaigns that have ended and were given to enough users.

    Raises:
        ExperimentError: if fewer than 3 have.
    """
    sizes = {offer.name: int((usable & (audience.offer == offer.name)).sum()) for offer in offers}
    known = [offer for offer in offers if sizes[offer.name] >= _LEAST_GIVEN]
    if len(known) < 3:
        raise ExperimentError(
            f"audience: {len(known)} of {len(offers)} campaigns have ended and were given to {_LEAST_GIVEN} users or more. There "
            "must be 3, to learn from the first and be judged on the last: wait, or bring older ones."
        )
    return known[-max(1, round(len(known) * TESTED)) :]


def ended_before(audience: Audience, offers: Sequence[Offer], offer: Offer) -> np.ndarray:
    """(n,) whether a row's campaign had ended when another began."""
    return np.isin(audience.offer, [one.name for one in offers if one.last_day < offer.first_day])


def simple_orders(known: Floats, *, seed: int) -> dict[str, Floats]:
    """Orders that need no learning."""
    column = {name: known[:, place] for place, name in enumerate(FEATURES)}
    ranks = [np.argsort(np.argsort(part)) for part in (-column["recency"], column["visits_84"], column["spend_84"])]
    return {
        USED: column["n_redeemed"] + column["own_days"] * 1e-3,
        BEFORE: column["own_days"] + column["class_84"] * 1e-6,
        RFM: np.sum(ranks, axis=0).astype(float),
        RANDOM: np.random.default_rng(seed).random(len(known)),
    }


def _figures(audience: Audience, found: Foretold, response: str) -> list[dict]:
    truth, offer, user = (
        getattr(audience, response)[found.rows],
        audience.offer[found.rows],
        audience.user_id[found.rows],
    )
    sizes = {"n_offers": len(np.unique(offer)), "n_users": len(np.unique(user))}
    rows, drawn = [], {}
    for model, score in found.scores.items():
        figures: dict[str, Figure] = dict(FIGURES)
        if model in (MODEL, TWIN):
            figures |= {"calibration error": calibration_error, "calibration error by chance": calibration_noise}
        for metric, figure in figures.items():
            drawn[model, metric] = judged(figure, score, truth, offer, user)
            rows.append(
                {"response": response, "model": model, "metric": metric, **_interval(*drawn[model, metric]), **sizes}
            )
    strongest = max(SIMPLE, key=lambda one: drawn[one, "AUC"][0])  # picked on what it is tested on, in its favour
    for other in (TWIN, strongest):
        for metric in FIGURES:
            (value, one), (base, two) = drawn[MODEL, metric], drawn[other, metric]
            told = _interval(value - base, one - two)
            rows.append({"response": response, "model": f"{MODEL} - {other}", "metric": metric, **told, **sizes})
    return rows


def _interval(value: float, drawn: Floats) -> dict[str, float]:
    kept = drawn[np.isfinite(drawn)]
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
    return {"value": value, "ci_low": float(low), "ci_high": float(high)}


def _uplift(audience: Audience, offers: Sequence[Offer], told: dict[str, str]) -> list[dict]:
    """Do two models of earlier campaigns find whom a later one moves? Judged by doubly robust scores."""
    usable = np.isfinite(audience.bought) & audience.compared
    parts: list[dict[str, np.ndarray]] = []
    effects, naive, refused = [], [], []
    for offer in tested_offers(audience, offers, usable & audience.given):
        here = usable & (audience.offer == offer.name)
        drawn = bool(audience.held_out[here].any())
        rows = np.flatnonzero(here)
        given = audience.given[rows]
        try:
            found = effect_scores(
                audience.known[rows],
                audience.bought[rows],
                given,
                audience.user_id[rows],
                drawn_share=float(given.mean()) if drawn else None,
            )
        except ExperimentError as error:
            refused.append(f"{offer.name}: {error}")
            continue
        train = usable & ended_before(audience, offers, offer)
        kept = np.isfinite(found.score)
        known = audience.known[rows][kept]
        parts.append(
            {
                "effect": found.score[kept],
                "offer": audience.offer[rows][kept],
                "user": audience.user_id[rows][kept],
                UPLIFT: two_models(audience, train, known),
                BEFORE: simple_orders(known, seed=0)[BEFORE],
                RANDOM: np.random.default_rng(len(parts)).random(len(known)),
            }
        )
        effects.append(found)
        naive.append(naive_difference(audience.bought[rows], given))
    if not parts:
        raise ExperimentError(refused[0] if refused else "uplift: no campaign can be compared")
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    sizes = {"n_offers": len(parts), "n_users": len(np.unique(table["user"]))}
    told["uplift"] = (
        (
            "a comparison that was drawn"
            if all(one.drawn for one in effects)
            else "compared with users whom the shop did not choose"
        )
        + f", {np.mean([one.overlap for one in effects]):.0%} of those who got one have a like who did not"
        + (f"; {len(refused)} campaigns cannot be compared, {refused[0]}" if refused else "")
    )

    def mean_effect(_: Floats, effect: Floats, weight: Floats) -> Floats:
        n = weight.sum(-1)
        return np.where(n > 0, (weight * effect).sum(-1) / np.maximum(n, 1), np.nan)

    figures = [
        {"response": "effect", "model": name, "metric": "Qini", **_interval(*_judged(qini, table, name)), **sizes}
        for name in (UPLIFT, BEFORE, RANDOM)
    ]
    average = _interval(*_judged(mean_effect, table, RANDOM))
    figures.append(
        {"response": "effect", "model": "doubly robust", "metric": "share that buys more", **average, **sizes}
    )
    plain = {"value": float(np.mean(naive)), "ci_low": np.nan, "ci_high": np.nan}
    figures.append(
        {"response": "effect", "model": "plain difference", "metric": "share that buys more", **plain, **sizes}
    )
    return figures


def _judged(figure: Figure, table: Mapping[str, np.ndarray], name: str) -> tuple[float, Floats]:
    return judged(figure, table[name], table["effect"], table["offer"], table["user"])


def two_models(audience: Audience, train: np.ndarray, known: Floats) -> Floats:
    """(n,) chance of buying with an offer less that without, by a model of each.

    Raises:
        ExperimentError: if nobody of the past is on one of the sides.
    """
    chances = []
    for side in (audience.given, ~audience.given):
        rows = train & side & audience.compared
        if not rows.any() or audience.bought[rows].min() == audience.bought[rows].max():
            raise ExperimentError(
                f"uplift: the {int(rows.sum())} users of earlier campaigns on one side all did the same. There must be some who "
                "bought and some who did not, with the offer and without: wait for more campaigns."
            )
        model = fit_model("logistic", 0.1, audience.known[rows], audience.bought[rows], np.ones(int(rows.sum())))
        chances.append(model.predict_proba(known)[:, 1])
    return chances[0] - chances[1]
