"""What users took, as arrays: one row a user, item and day, sorted so that a user's history is one slice.

On the lowest floor of `recommend`. An act is something taken: a click, a cart, a purchase, a review that is not bad.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import scipy.sparse as sparse
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline import feedback, identity
from ecom_pipeline.arrays import Bools, Ints, Singles
from ecom_pipeline.purchases import gone_back
from ecom_pipeline.recommend.circumstances import Circumstances, read_promotion
from ecom_pipeline.samples import TAKEN

KINDS = ("click", "cart", "purchase", "review")
EPOCH = date(1970, 1, 1)
NEVER = np.iinfo(np.int32).max  # a day that does not come
_DAYS = 1 << 17  # more than there are from 1970 on


def day_number(day: date) -> int:
    """Days since 1970.

    >>> day_number(date(1970, 1, 3))
    2
    """
    return (day - EPOCH).days


def day_of(number: int) -> date:
    """The day of a number.

    >>> day_of(2)
    datetime.date(1970, 1, 3)
    """
    return EPOCH + timedelta(days=int(number))


@dataclass(frozen=True, slots=True)
class Visits:
    """What is asked: what will these users take on these days?

    Attributes:
        user: (v,) codes.
        day: (v,) days; what a user did on the day itself or later is not known.
    """

    user: Ints
    day: Ints

    def __len__(self) -> int:
        return len(self.user)

    def only(self, rows: NDArray | slice) -> "Visits":
        """Some of them."""
        return Visits(self.user[rows], self.day[rows])

    def blocks(self, size: int) -> Iterator[slice]:
        """Consecutive rows, so many at a time."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@dataclass(frozen=True, slots=True)
class Interactions:
    """n rows, one a user, item and day, sorted by user, item and day.

    Attributes:
        user: (n,) codes, places in `user_ids`.
        item: (n,) codes, places in `item_ids`.
        day: (n,) days since 1970.
        n_acts: (n, 4) how many acts of each of `KINDS`.
        quantity: (n,) pieces bought; 0 where nothing was bought or pieces are not known.
        returned: (n,) the day on which all of it went back; `NEVER` where it was kept.
        price: (n,) mean price of a piece; NaN where it is not known.
        user_ids: sorted.
        item_ids: sorted; every item of the catalogue that is ranked.
        shown: (s,) `place_in_time` of each showing by a list, sorted.
        circumstances: of the n rows; None where they were not read.
    """

    user: Ints
    item: Ints
    day: Ints
    n_acts: Singles
    quantity: Singles
    returned: Ints
    price: Singles
    user_ids: NDArray
    item_ids: NDArray
    shown: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    circumstances: Circumstances | None = None

    def __len__(self) -> int:
        return len(self.user)

    @property
    def n_users(self) -> int:
        """How many users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """How many items."""
        return len(self.item_ids)

    def only(self, rows: Bools | Ints) -> "Interactions":
        """Some rows; users and items keep their codes."""
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            day=self.day[rows],
            n_acts=self.n_acts[rows],
            quantity=self.quantity[rows],
            returned=self.returned[rows],
            price=self.price[rows],
            circumstances=self.circumstances and self.circumstances.only(rows),
        )

    def before(self, day: int) -> "Interactions":
        """What was known when a day began."""
        return self.only(self.day < day)

    def place_in_time(self, user: Ints | int, item: Ints | int, day: NDArray | int) -> Any:
        """(k,) numbers by which a pair's days are together and in order."""
        return (user * self.n_items + item) * _DAYS + day

    def times_shown(self, day: NDArray | int) -> Ints:
        """(n,) how often a list has shown each row's item to its user after the row's day and before a day."""
        ends = (self.place_in_time(self.user, self.item, one) for one in (day, self.day + 1))
        until, since = (np.searchsorted(self.shown, end) for end in ends)
        return np.maximum(until - since, 0)

    def pairs(self) -> tuple[Ints, Ints]:
        """(k,) user * items + item of each distinct pair, sorted, and (n,) the place of each row among them."""
        return np.unique(self.user * self.n_items + self.item, return_inverse=True)

    def matrix(self, value: NDArray) -> sparse.csr_matrix:
        """(users, items) sums of a value of each row; a pair that is there is there, whatever its sum."""
        table = sparse.csr_matrix((value, (self.user, self.item)), shape=(self.n_users, self.n_items))
        table.sum_duplicates()
        return table

    def visits(self, first: int, end: int) -> Visits:
        """Every day from `first` to before `end` on which a user with a history took something, by day, then user."""
        inside = (self.day >= first) & (self.day < end)
        begun = np.full(self.n_users, NEVER, np.int64)
        np.minimum.at(begun, self.user, self.day)
        key = np.unique(self.day[inside] * self.n_users + self.user[inside])
        user, day = key % self.n_users, key // self.n_users
        return Visits(user, day).only(begun[user] < day)

    def next_visits(self, first: int, end: int) -> Visits:
        """The first of `visits` of each user who has a history before `first`: what a list made then is judged by."""
        visits = self.visits(first, end)
        _, place = np.unique(visits.user, return_index=True)
        begun = np.full(self.n_users, NEVER, np.int64)
        np.minimum.at(begun, self.user, self.day)
        found = visits.only(np.sort(place))
        return found.only(begun[found.user] < first)

    def taken(self, visits: Visits) -> tuple[Ints, Ints]:
        """(k,) place of the visit and (k,) item of everything taken on the visits."""
        span = int(self.day.max(initial=0)) + 2
        wanted = visits.user * span + visits.day
        order = np.argsort(wanted, kind="stable")
        key = self.user * span + self.day
        place = np.searchsorted(wanted[order], key)
        place = np.minimum(place, len(wanted) - 1) if len(wanted) else place
        match = wanted[order][place] == key if len(wanted) else np.zeros(len(key), bool)
        return order[place[match]], self.item[match]

    def histories(self, visits: Visits) -> tuple[Ints, Ints]:
        """(k,) place of the visit and (k,) row of everything that its user took before its day.

        Rows come by visit, item and day. Cost: the histories' total length.
        """
        first = np.searchsorted(self.user, visits.user)
        length = np.searchsorted(self.user, visits.user, side="right") - first
        visit = np.repeat(np.arange(len(visits)), length)
        start = np.cumsum(length) - length
        row = np.arange(len(visit)) - np.repeat(start - first, length)
        known = self.day[row] < visits.day[visit]
        return visit[known], row[known]


def read_interactions(
    db: DuckDBPyConnection,
    n_items: int,
    until: date | None = None,
    *,
    untaken: bool = False,
    circumstances: bool = False,
) -> Interactions:
    """What was taken, of the items that were taken most often.

    Args:
        db: a connection to the warehouse.
        n_items: items to keep, at most; what was taken of others is left out here.
        until: the first day that is not read; None: all days are.
        untaken: whether items that nobody took are kept too, where there is room.
        circumstances: whether it is read how acts came about.

    Cost: one scan of `cleaned_interactions`, some sorts; 60 bytes a user, item and day.
    """
    end = f"day < '{until}'" if until else "true"
    db.execute(f"""
        create or replace temp table taken as
        with taken as (
            select {identity.actor("e")} as actor, item_id, day, occurred_at, action, quantity, price, event_id,
                position, propensity
            from cleaned_interactions as e where {TAKEN} and {end})
        select taken.* exclude (occurred_at) from taken
            anti join ({feedback.dismissed(end)}) as said
            on said.actor = taken.actor and said.item_id = taken.item_id and occurred_at <= dismissed_at""")
    others = "union all select item_id, 0 from items" if untaken else ""
    db.execute(f"""
        create or replace temp table ranked_items as
        select item_id, row_number() over (order by item_id) - 1 as code from (
            select item_id from (select item_id, count(*) as n from taken group by item_id {others})
            group by item_id order by max(n) desc, item_id limit {n_items})""")
    db.execute("""
        create or replace temp table actors as
        select actor, row_number() over (order by actor) - 1 as code from (
            select distinct actor from taken semi join ranked_items using (item_id))""")
    counted = ", ".join(f"count(*) filter (where action = '{kind}') as n_{kind}" for kind in KINDS)
    rows = db.execute(f"""
        with back as ({gone_back(until)})
        select a.code as user, i.code as item, taken.day - date '1970-01-01' as day, {counted},
            coalesce(sum(quantity), 0) as quantity, avg(price) as price,
            avg(position) as position, avg(propensity) as propensity,
            case when count(*) = count(back.day) then max(back.day) - date '1970-01-01' else {NEVER} end as returned
        from taken join actors as a using (actor) join ranked_items as i using (item_id)
            left join back using (event_id)
        group by all order by 1, 2, 3""").fetchnumpy()
    shown = db.execute(f"""
        select a.code as user, i.code as item, day - date '1970-01-01' as day from ({feedback.left_alone(end)})
            join actors as a using (actor) join ranked_items as i using (item_id)""").fetchnumpy()
    user_ids, item_ids = (
        db.execute(f"select {name} from {table} order by code").fetchnumpy()[name].astype(str)
        for name, table in (("actor", "actors"), ("item_id", "ranked_items"))
    )
    db.execute("drop table taken; drop table ranked_items; drop table actors")
    user, item, day, returned = (np.asarray(rows[name], np.int64) for name in ("user", "item", "day", "returned"))
    n_acts = np.column_stack([np.asarray(rows[f"n_{kind}"], np.float32) for kind in KINDS])
    quantity = np.nan_to_num(_known(rows["quantity"]))
    acts = Interactions(user, item, day, n_acts, quantity, returned, _known(rows["price"]), user_ids, item_ids)
    places = acts.place_in_time(*(np.asarray(shown[name], np.int64) for name in ("user", "item", "day")))
    acts = replace(acts, shown=np.sort(places))
    if not circumstances:
        return acts
    promotion = read_promotion(db, item_ids[item], day)
    return replace(acts, circumstances=Circumstances(_known(rows["position"]), _known(rows["propensity"]), promotion))


def _known(column: NDArray) -> Singles:
    return np.ma.filled(np.ma.asarray(column, np.float32), np.nan)
