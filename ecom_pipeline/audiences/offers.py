"""Offers, and what is known of a user before an offer's first day; what happens later changes none of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.purchases import gone_back

OF_USERS = (
    *("recency", "tenure", "visits_28", "visits_84", "spend_84", "n_items"),
    *("own_days", "own_recency", "own_84", "own_spend_84", "class_84", "class_recency"),
)
FEATURES = (*OF_USERS, "n_given", "n_redeemed", "offer_length", "offer_items", "offer_base", "other_now")
_NEVER = 400.0  # days since what never was
_SEASON, _MONTH = 84, 28


@dataclass(frozen=True, slots=True)
class Offer:
    """Some items on some days; a campaign, or days that are looked at as if they were one.

    Attributes:
        name: of the offer.
        first_day: UTC.
        last_day: UTC.
        campaign_id: whose users got it; None: nobody did.
    """

    name: str
    first_day: date
    last_day: date
    campaign_id: str | None = None


@dataclass(frozen=True, slots=True)
class Audience:
    """n rows, one a user and offer.

    Attributes:
        offer: (n,) name.
        user_id: (n,) keyed hash.
        known: (n, features) as `FEATURES`, as of the day before the offer's first; of one to come, as of the data's last.
        given: (n,) whether the user got it.
        held_out: (n,) whether he was drawn not to get it.
        bought: (n,) whether one of its items was bought, and kept, on its days; NaN while they are to come.
        redeemed: (n,) whether the offer was used on its days; NaN likewise.
        age: (n,) days from the offer's last day to that of the data.
    """

    offer: np.ndarray
    user_id: np.ndarray
    known: Floats
    given: Bools
    held_out: Bools
    bought: Floats
    redeemed: Floats
    age: Floats

    def __len__(self) -> int:
        return len(self.offer)

    @property
    def compared(self) -> Bools:
        """(n,) whom an offer's effect is told by: where users were held out, they and those who got it; else everybody."""
        drawn = np.isin(self.offer, np.unique(self.offer[self.held_out]))
        return ~drawn | self.given | self.held_out

    @property
    def known_of_user(self) -> Floats:
        """(n, features) as `OF_USERS`: of few offers, what differs between them is not learnt from."""
        return self.known[:, : len(OF_USERS)]

    @property
    def content(self) -> str:
        """A hash of all that is learnt from; a day on which no campaign begins or ends leaves it as it was, unless one is still to come.

        Ages count from the least, as weights take them. Sums of money are rounded: threads add in any order.
        """
        told = hashlib.sha256()
        for name in ("offer", "user_id"):
            told.update("\n".join(getattr(self, name).tolist()).encode())
        age = self.age - self.age.min(initial=np.inf)
        for values in (self.known, self.given, self.held_out, self.bought, self.redeemed, age):
            told.update(np.ascontiguousarray(np.round(values.astype(float), 4)).tobytes())
        return told.hexdigest()[:16]

    def only(self, rows: Bools) -> "Audience":
        """Some rows."""
        return Audience(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def read_campaigns(db: DuckDBPyConnection) -> list[Offer]:
    """Campaigns that have items, by first day; their items lie in the table `offer_items` afterwards."""
    db.execute("create or replace temp table offer_items as select campaign_id as offer, item_id from campaign_items")
    rows = db.execute(
        """select campaign_id, first_day, last_day from campaigns
        where campaign_id in (select campaign_id from campaign_items) order by first_day, campaign_id"""
    ).fetchall()
    return [Offer(name, first, last, name) for name, first, last in rows]


def last_day_of(db: DuckDBPyConnection) -> date:
    """The last day on which something was bought.

    Raises:
        ExperimentError: if nothing was.
    """
    (last,) = db.execute("select max(day) from cleaned_interactions where action = 'purchase'").fetchall()[0]
    if last is None:
        raise ExperimentError(
            "audience: 0 purchases are known. Who answers an offer is learnt from what was bought: bring events with purchases."
        )
    return last


def past_windows(db: DuckDBPyConnection, items: Sequence[str], *, days: int, n: int = 6) -> list[Offer]:
    """Stretches of days before the end of the data, and the one after it, as offers of some items; the last comes last.

    Args:
        db: a connection to a warehouse.
        items: what would be offered.
        days: of a stretch.
        n: stretches before the end, at most; those with as many days of history before them.

    Returns:
        Offers, and in the table `offer_items` their items.
    """
    end = last_day_of(db) + timedelta(days=1)
    (first,) = db.execute("select min(day) from cleaned_interactions where action = 'purchase'").fetchall()[0]
    starts = [end - timedelta(days=days * back) for back in range(n, -1, -1)]
    offers = [
        Offer(str(start), start, start + timedelta(days=days - 1))
        for start in starts
        if start == end or (start - first).days >= days
    ]
    frame = pd.DataFrame([(offer.name, item) for offer in offers for item in items], columns=["offer", "item_id"])
    db.register("asked_items", frame)
    db.execute("create or replace temp table offer_items as select * from asked_items")
    db.unregister("asked_items")
    return offers


def read_audience(db: DuckDBPyConnection, offers: Sequence[Offer]) -> Audience:
    """Everybody who had bought something before an offer began, and whoever got it; what was known then, and what came.

    Args:
        db: a connection to a warehouse with purchases and campaigns, and the table `offer_items`.
        offers: which.

    Cost: some joins of what was bought with the offers, by user and day.
    """
    last = last_day_of(db)
    frame = pd.DataFrame(
        [(offer.name, offer.first_day, offer.last_day, offer.campaign_id) for offer in offers],
        columns=["offer", "first_day", "last_day", "campaign_id"],
    )
    db.register("asked_offers", frame)
    db.execute(
        f"""create or replace temp table offers as select offer, first_day::date as first_day, last_day::date as last_day,
            campaign_id::varchar as campaign_id, least(first_day::date, date '{last}' + 1) as as_of from asked_offers"""
    )
    db.unregister("asked_offers")
    db.execute(f"""create or replace temp table bought as
        select {identity.actor("e")} as user_id, item_id, day, coalesce(price * coalesce(quantity, 1), 0) as money, event_id
        from cleaned_interactions as e where action = 'purchase' and user_id is not null""")
    db.execute("""create or replace temp table of_users as
        select user_id, day, sum(money) as money, count(*) as n from bought group by all""")
    rows = db.execute(_KNOWN.format(gone=gone_back(), last=last)).df()
    for table in ("offers", "bought", "of_users", "offer_items"):
        db.execute(f"drop table {table}")
    return Audience(
        offer=rows.offer.to_numpy(str),
        user_id=rows.user_id.to_numpy(str),
        known=rows[list(FEATURES)].to_numpy(float),
        given=rows.given.to_numpy(bool),
        held_out=rows.held_out.to_numpy(bool),
        bought=rows.bought.to_numpy(float),
        redeemed=rows.redeemed.to_numpy(float),
        age=rows.age.to_numpy(float),
    )


_KNOWN = f"""
    with seen as (
        select offer, user_id, as_of - max(day) as recency, as_of - min(day) as tenure,
            count(*) filter (where day >= as_of - {_MONTH}) as visits_28,
            count(*) filter (where day >= as_of - {_SEASON}) as visits_84,
            coalesce(sum(money) filter (where day >= as_of - {_SEASON}), 0) as spend_84, sum(n) as n_items
        from offers join of_users on day < as_of group by offer, user_id, as_of),
    given as (
        select offer, user_id, not held_out as given, held_out, redeemed_at
        from offers join campaign_users using (campaign_id)),
    people as (
        select offer, user_id from seen union select offer, user_id from given),
    own as (
        select offer, user_id, count(distinct day) as own_days, as_of - max(day) as own_recency,
            count(*) filter (where day >= as_of - {_SEASON}) as own_84,
            coalesce(sum(money) filter (where day >= as_of - {_SEASON}), 0) as own_spend_84
        from offers join offer_items using (offer) join bought on bought.item_id = offer_items.item_id and day < as_of
        group by offer, user_id, as_of),
    classes as (
        select distinct offer, category from offer_items join items using (item_id) where category is not null),
    of_class as (
        select offer, user_id, count(*) as class_84, as_of - max(day) as class_recency
        from offers join classes using (offer) join items using (category)
            join bought on bought.item_id = items.item_id and day < as_of and day >= as_of - {_SEASON}
        group by offer, user_id, as_of),
    before as (
        select o.offer, u.user_id, count(*) as n_given, count(redeemed_at) filter (where redeemed_at < o.as_of) as n_redeemed
        from offers as o join campaigns as c on c.first_day < o.as_of
            join campaign_users as u on u.campaign_id = c.campaign_id and not held_out
        group by all),
    now as (
        select o.offer, u.user_id, count(*) as other_now
        from offers as o join campaigns as c
                on c.first_day < o.as_of and c.last_day >= o.as_of and c.campaign_id is distinct from o.campaign_id
            join campaign_users as u on u.campaign_id = c.campaign_id and not held_out
        group by all),
    base as (
        select offer, count(distinct user_id)::double / (select count(distinct user_id) from seen where seen.offer = offers.offer)
            as offer_base
        from offers join offer_items using (offer)
            join bought on bought.item_id = offer_items.item_id and day < as_of and day >= as_of - {_MONTH}
        group by offer),
    size as (select offer, count(*) as offer_items from offer_items group by offer),
    kept as (
        select distinct offer, user_id
        from offers join offer_items using (offer)
            join (from bought anti join ({{gone}}) as back using (event_id)) as b
                on b.item_id = offer_items.item_id and day between first_day and last_day)
    select people.offer, people.user_id,
        coalesce(recency, {_NEVER}) as recency, coalesce(tenure, 0) as tenure, coalesce(visits_28, 0) as visits_28,
        coalesce(visits_84, 0) as visits_84, coalesce(spend_84, 0) as spend_84, coalesce(n_items, 0) as n_items,
        coalesce(own_days, 0) as own_days, coalesce(own_recency, {_NEVER}) as own_recency, coalesce(own_84, 0) as own_84,
        coalesce(own_spend_84, 0) as own_spend_84, coalesce(class_84, 0) as class_84,
        coalesce(class_recency, {_NEVER}) as class_recency, coalesce(n_given, 0) as n_given,
        coalesce(n_redeemed, 0) as n_redeemed, offers.last_day - offers.first_day + 1 as offer_length,
        coalesce(size.offer_items, 0) as offer_items, coalesce(offer_base, 0) as offer_base,
        coalesce(other_now, 0) as other_now,
        coalesce(given, false) as given, coalesce(held_out, false) as held_out,
        case when offers.last_day <= date '{{last}}' then (kept.user_id is not null)::double end as bought,
        case when offers.last_day <= date '{{last}}' and campaign_id is not null
            then (redeemed_at is not null and redeemed_at::date between first_day and offers.last_day)::double end as redeemed,
        date '{{last}}' - offers.last_day as age
    from people join offers using (offer) left join seen using (offer, user_id) left join given using (offer, user_id)
        left join own using (offer, user_id) left join of_class using (offer, user_id)
        left join before using (offer, user_id) left join now using (offer, user_id)
        left join base using (offer) left join size using (offer) left join kept using (offer, user_id)
    order by offers.first_day, people.offer, people.user_id"""
