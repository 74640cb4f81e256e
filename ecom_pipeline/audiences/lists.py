"""Users in the order in which to ask them: for a campaign, an item, or a category."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.audiences.evaluation import ended_before, two_models
from ecom_pipeline.audiences.gains import area, lift
from ecom_pipeline.audiences.offers import Audience, Offer, last_day_of, past_windows, read_audience
from ecom_pipeline.audiences.response import Responder, Settings, fit_responder
from ecom_pipeline.errors import ExperimentError, InputError

DAYS = 28
COLUMNS = ("audience", "user_id", "rank", "response_probability", "response", "uplift", "given")


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to ask.

    Attributes:
        users: user_id, response_probability; the likeliest first.
        told: how it was learnt, and how good the same was for the days before.
    """

    users: pd.DataFrame
    told: str


def aimed_offers(offers: Sequence[Offer], end: date) -> list[Offer]:
    """Campaigns that are running or to come on the last day of the data; where there is none, the last one."""
    return [offer for offer in offers if offer.last_day >= end] or list(offers[-1:])


def campaign_lists(audience: Audience, offers: Sequence[Offer], end: date) -> tuple[pd.DataFrame, dict[str, str]]:
    """Everybody in order, for each campaign that is running or to come; where there is none, for the last one.

    Args:
        audience: of all campaigns.
        offers: these, by first day.
        end: last day of the data.

    Returns:
        Rows as the relation `audiences`, and by campaign why it has none.

    Cost: a dozen small models a campaign.
    """
    frames, told = [], {}
    for offer in aimed_offers(offers, end):
        here = audience.offer == offer.name
        try:
            response, chance = _chances(audience, offers, offer)
        except ExperimentError as error:
            told[offer.name] = str(error)
            continue
        try:
            train = np.isfinite(audience.bought) & ended_before(audience, offers, offer)
            uplift = two_models(audience, train, audience.known[here])
        except ExperimentError as error:
            told[offer.name], uplift = f"lift only, no uplift: {error}", np.full(int(here.sum()), np.nan)
        frame = pd.DataFrame(
            {
                "audience": offer.name,
                "user_id": audience.user_id[here],
                "response_probability": chance,
                "response": response,
                "uplift": uplift,
                "given": audience.given[here],
            }
        ).sort_values(["response_probability", "user_id"], ascending=[False, True])
        frames.append(frame.assign(rank=np.arange(1, len(frame) + 1)))
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return rows.reindex(columns=list(COLUMNS)), told


def _chances(audience: Audience, offers: Sequence[Offer], offer: Offer) -> tuple[str, np.ndarray]:
    """What is foretold of a campaign, and each user's chance, by those that ended before it began."""
    here, before = audience.offer == offer.name, ended_before(audience, offers, offer)
    failed: ExperimentError | None = None
    for response in ("redeemed", "bought"):
        value = getattr(audience, response)
        train = audience.given & np.isfinite(value) & before
        try:
            model = fit_responder(audience.known[train], value[train], audience.offer[train], audience.age[train])
        except ExperimentError as error:
            failed = error
            continue
        return response, model.probability(audience.known[here])
    assert failed is not None
    raise failed


def item_list(db: DuckDBPyConnection, items: Sequence[str], *, days: int = DAYS) -> Asked:
    """Who buys one of some items in the days after the data end, the likeliest first.

    Learnt from stretches of as many days before, each with what was known when it began; the last of them is foretold from
    those before it, to tell how good that is.

    Args:
        db: a connection to a warehouse with purchases.
        items: of the catalogue.
        days: that are foretold.

    Raises:
        ExperimentError: if too few bought any of them in the past.

    Cost: one reading of what was bought, and some dozens of small models: seconds.
    """
    offers = past_windows(db, items, days=days)
    audience = read_audience(db, offers)
    now = audience.offer == offers[-1].name
    past = np.isfinite(audience.bought)
    model = _fitted(audience, past)
    frame = pd.DataFrame(
        {"user_id": audience.user_id[now], "response_probability": model.probability(audience.known_of_user[now])}
    )
    frame = frame.sort_values(["response_probability", "user_id"], ascending=[False, True]).reset_index(drop=True)
    return Asked(frame, f"{model.settings}; {_tested(audience, offers, model.settings)}")


def _fitted(audience: Audience, rows: np.ndarray, settings: Settings | None = None) -> Responder:
    return fit_responder(
        audience.known_of_user[rows],
        audience.bought[rows],
        audience.offer[rows],
        audience.age[rows],
        settings,
        fold_by=audience.user_id[rows],
    )


def _tested(audience: Audience, offers: Sequence[Offer], settings: Settings) -> str:
    *earlier, last, _ = [offer.name for offer in offers] if len(offers) > 1 else ["", ""]
    held = audience.offer == last
    try:
        model = _fitted(audience, np.isin(audience.offer, earlier), settings)
    except ExperimentError:
        return "too little is known to test it on the days before"
    score, truth, weight = (
        model.probability(audience.known_of_user[held]),
        audience.bought[held],
        np.ones(int(held.sum())),
    )
    return (
        f"of the {int(truth.sum())} of {len(truth)} users who bought one in the days before, AUC {area(score, truth, weight):.2f}, "
        f"lift of the best 10 % {lift(0.1)(score, truth, weight):.1f}, expected {score.sum():.0f}"
    )


def items_of(db: DuckDBPyConnection, *, item: str = "", category: str = "") -> list[str]:
    """An item, or the items of a category, whose path begins so.

    Raises:
        InputError: if the catalogue has none.
    """
    if item:
        found = db.execute("select item_id from items where item_id = ?", [item]).fetchall()
    else:
        found = db.execute(
            "select item_id from items where lower(category) = lower(?) or starts_with(lower(category), lower(?) || ' > ') order by 1",
            [category, category],
        ).fetchall()
    if not found:
        column = "item_id" if item else "category"
        n, first = db.execute(f"select count(distinct {column}), min({column}) from items").fetchall()[0]
        raise InputError(
            f"audience: 1 {column} is unknown: {item or category!r}. It must be one of the {n:,} of the catalogue, the first "
            f"{first!r}: look it up in the relation items."
        )
    return [name for (name,) in found]


def list_of(db: DuckDBPyConnection, campaign: str) -> pd.DataFrame:
    """A campaign's users as the relation `audiences` has them, by rank.

    Raises:
        InputError: if there is no such campaign, or it has no list; it says why.
    """
    users = db.execute(
        "select user_id, response_probability, response, uplift, given from audiences where audience = ? order by rank",
        [campaign],
    ).df()
    if users.empty:
        raise InputError(_why_no_list(db, campaign))
    return users


def _why_no_list(db: DuckDBPyConnection, campaign: str) -> str:
    n, first = db.execute("select count(*), min(campaign_id) from campaigns").fetchall()[0]
    if not n:
        return (
            f"audience: 0 campaigns are known, so {campaign!r} is not. They must be in the source's table campaigns: bring it, or "
            "ask for an item or a category."
        )
    known = db.execute("select last_day from campaigns where campaign_id = ?", [campaign]).fetchall()
    if not known:
        return f"audience: 1 campaign is unknown: {campaign!r}. It must be one of the {n:,}, the first {first!r}: name one of them."
    (items,) = db.execute("select count(*) from campaign_items where campaign_id = ?", [campaign]).fetchall()[0]
    if not items:
        return (
            f"audience: campaign {campaign!r} has 0 items. It must have 1 or more, for what is bought of them tells who answers: "
            "bring campaign_items."
        )
    n_listed, listed = db.execute("select count(distinct audience), min(audience) from audiences").fetchall()[0]
    if known[0][0] < last_day_of(db):
        return (
            f"audience: campaign {campaign!r} ended on {known[0][0]}; {n_listed} have lists, the first {listed!r}. It must be "
            "running or to come when the data end: name one that is."
        )
    return (
        f"audience: campaign {campaign!r} has no list, for too few users answered campaigns that had ended before it; {n_listed} "
        "have lists. Some must have ended, with items and users: the log of `audiences` counts them."
    )


def until(db: DuckDBPyConnection, days: int) -> str:
    """The days that are foretold, in words."""
    first = last_day_of(db) + timedelta(days=1)
    return f"{first} to {first + timedelta(days=days - 1)}"
