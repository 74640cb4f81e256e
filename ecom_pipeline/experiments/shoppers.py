"""Who walks through a shop in a simulation: users of a home, with tastes and prices as their histories have them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.arrays import Floats
from ecom_pipeline.samples import TAKEN

_NEW = 0.2  # of the chance of what was had once: an item that a shopper never had
_ONCE = 0.5  # of a visit: drawn to it, a short history is no certainty


@dataclass(frozen=True, slots=True)
class Shoppers:
    """Users and what they want.

    Attributes:
        ids: keyed hashes.
        taste: (k,) probability that a shopper buys each of some items that he looks at.
        prices: of a piece, by item.
    """

    ids: tuple[str, ...]
    taste: Callable[[str, Sequence[str]], Floats]
    prices: dict[str, float]


def read_shoppers(db: DuckDBPyConnection, n: int, *, seed: int = 0) -> Shoppers:
    """Users of a home, drawn by chance; each wants what he took before as often as he took it, and of the rest what all take.

    Args:
        db: a connection to a warehouse with `cleaned_interactions`.
        n: how many, at most.
        seed: of the draw.

    Cost: a scan of what was taken.
    """
    actor = identity.actor("e")
    db.execute(f"""create or replace temp table had as
        select {actor} as user_id, item_id, count(distinct day) as days from cleaned_interactions as e
        where {TAKEN} and user_id is not null group by all""")
    users = dict(
        db.execute(
            f"""select {actor} as user_id, count(distinct day) as days from cleaned_interactions as e
            where {TAKEN} and user_id is not null group by all order by md5(user_id || ?) limit ?""",
            [str(seed), n],
        ).fetchall()
    )
    rows = db.execute(
        "select user_id, item_id, days from had where list_contains(?, user_id)", [list(users)]
    ).fetchall()
    had: dict[str, dict[str, float]] = {}
    for user, item, days in rows:
        had.setdefault(user, {})[item] = days / (users[user] + _ONCE)
    popular = dict(
        db.execute(
            "select item_id, count(*) / (select count(distinct user_id) from had) from had group by item_id"
        ).fetchall()
    )
    prices = dict(
        db.execute(
            "select item_id, median(price) from cleaned_interactions where action = 'purchase' and price > 0 group by item_id"
        ).fetchall()
    )
    db.execute("drop table had")

    def taste(shopper: str, items: Sequence[str]) -> Floats:
        own = had.get(shopper, {})
        return np.array([own.get(item, _NEW * popular.get(item, 0.0)) for item in items])

    return Shoppers(tuple(users), taste, prices)
