"""Acts that are not their user's own, planted so that one knows which they are.

On the floor above `columns`. What is planted copies real acts in all that it does not make wrong: a stranger's act has the time of
one real act and the item, pieces and price of another.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.arrays import Bools, Ints
from ecom_pipeline.recommend.interactions import Interactions
from ecom_pipeline.samples import TAKEN

PlantKind = Literal["strangers", "popular strangers", "bots", "resellers", "doubled month"]
PLANTED = "planted-"  # begins the event_id of what is planted
_ACTS_OF_A_BOT, _ACTS_OF_A_RESELLER = 2000, 1500
_HEAD_START = 6  # seconds after an act from which cleaning does not take the next for the same


def draw_strangers(user: Ints, item: Ints, n: int, *, popular: bool, draw: np.random.Generator) -> tuple[Ints, Ints]:
    """(<= n,) rows whose user and time, and rows whose item: each together a pair that does not occur, and once.

    Args:
        user: (r,) codes of real rows.
        item: (r,) likewise.
        n: how many are drawn; pairs that occur fall away.
        popular: whether items are drawn by how often they are taken; else each is as likely.
        draw: of everything.

    Cost: two sorts of the rows.
    """
    who, what = draw.integers(len(user), size=n), draw.integers(len(user), size=n)
    if not popular:
        order = np.argsort(item, kind="stable")
        start = np.flatnonzero(np.r_[True, np.diff(item[order]) > 0])
        length = np.diff(np.r_[start, len(order)])
        one = draw.integers(len(start), size=n)
        what = order[start[one] + (draw.random(n) * length[one]).astype(np.int64)]
    n_items = int(item.max(initial=0)) + 1
    pair = user[who] * n_items + item[what]
    _, first = np.unique(pair, return_index=True)
    kept = np.sort(first[~np.isin(pair[first], user * n_items + item)])
    return who[kept], what[kept]


def with_strangers(acts: Interactions, n: int, draw: np.random.Generator) -> tuple[Interactions, Bools]:
    """Interactions with n planted rows, at most, half at any item and half at popular ones; and which they are."""
    parts = [draw_strangers(acts.user, acts.item, n // 2, popular=one, draw=draw) for one in (False, True)]
    who, what = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    rows = np.r_[np.arange(len(acts)), what]
    all_rows = replace(
        acts.only(rows),
        user=np.r_[acts.user, acts.user[who]],
        day=np.r_[acts.day, acts.day[who]],
    )
    order = np.lexsort((all_rows.day, all_rows.item, all_rows.user))
    return all_rows.only(order), (np.arange(len(rows)) >= len(acts))[order]


def plant(db: DuckDBPyConnection, kind: PlantKind, share: float, *, seed: int) -> int:
    """Put false acts into `cleaned_interactions`; the event_id of each begins with `PLANTED`.

    Args:
        db: a connection to a warehouse of one's own.
        kind: "strangers": users at items that they never took, each item as likely. "popular strangers": likewise, items by
            how often they are taken. "bots": accounts that walk through the catalogue in one hour of each night, an act
            every so many seconds. "resellers": accounts that buy 10 to 60 pieces of this and that on working days.
            "doubled month": everything of one month again after 6 to 90 seconds, whatever the share.
        share: planted acts over real ones, about.
        seed: of everything.

    Returns:
        Acts planted.

    Cost: the acts in memory, some sorts of them.
    """
    draw = np.random.default_rng(seed)
    real = db.execute(
        f"""select event_id, {identity.actor("e")} as actor, user_id, session_id, item_id, occurred_at, action, quantity,
            price, rating from cleaned_interactions as e where {TAKEN} order by event_id"""
    ).df()
    n = int(share * len(real))
    if kind == "doubled month":
        rows = _doubled(real, draw)
    elif kind in ("bots", "resellers"):
        rows = _accounts(real, n, kind, draw)
    else:
        user, item = (pd.factorize(real[name], sort=True)[0].astype(np.int64) for name in ("actor", "item_id"))
        who, what = draw_strangers(user, item, n, popular=kind == "popular strangers", draw=draw)
        rows = real.iloc[what].reset_index(drop=True)
        rows[["user_id", "session_id", "occurred_at"]] = real.iloc[who][
            ["user_id", "session_id", "occurred_at"]
        ].to_numpy()
    rows = rows.drop(columns="actor").assign(event_id=[f"{PLANTED}{number}" for number in range(len(rows))])
    rows["occurred_at"] = pd.to_datetime(rows.occurred_at)
    rows["day"] = rows.occurred_at.dt.date
    db.register("planted_rows", rows)
    db.execute("insert into cleaned_interactions by name select * from planted_rows")
    db.unregister("planted_rows")
    return len(rows)


def _doubled(real: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    month = real.occurred_at.dt.to_period("M")
    whole = month.value_counts().sort_index().index[1:-1]
    rows = real[month == whole[len(whole) // 2]]
    later = pd.to_timedelta(draw.integers(_HEAD_START, 91, size=len(rows)), unit="s")
    return rows.assign(occurred_at=rows.occurred_at + later)


def _accounts(real: pd.DataFrame, n: int, kind: str, draw: np.random.Generator) -> pd.DataFrame:
    each = min(_ACTS_OF_A_BOT if kind == "bots" else _ACTS_OF_A_RESELLER, max(n, 1))
    days = np.sort(real.occurred_at.dt.normalize().unique())
    parts = []
    for number in range(max(1, round(n / each))):
        rows = real.iloc[draw.integers(len(real), size=each)].reset_index(drop=True)
        night = kind == "bots"
        if night:
            order = np.unique(real.item_id.to_numpy(str))
            rows["item_id"] = order[(draw.integers(len(order)) + np.arange(each)) % len(order)]
            of_day, hour = np.arange(each) * len(days) // each, int(draw.integers(1, 5))
            nth = np.arange(each) - np.searchsorted(of_day, of_day)
            seconds = hour * 3600 + nth * int(draw.integers(31, 120))
        else:
            working = days[pd.DatetimeIndex(days).dayofweek < 5]
            days_of = working if len(working) else days
            of_day = np.sort(draw.integers(len(days_of), size=each))
            seconds = draw.integers(9 * 3600, 17 * 3600, size=each)
            rows["quantity"] = draw.integers(10, 61, size=each).astype(float)
        base = days if night else days_of
        times = pd.DatetimeIndex(base[np.minimum(of_day, len(base) - 1)]) + pd.to_timedelta(seconds, unit="s")
        parts.append(rows.assign(user_id=f"{PLANTED}{kind}-{number}", session_id=None, occurred_at=times))
    return pd.concat(parts, ignore_index=True).assign(actor="")
