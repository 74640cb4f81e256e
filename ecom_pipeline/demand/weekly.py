"""Units of each item and week, and what is known of the weeks to come."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.purchases import KEPT

HORIZON = 8  # weeks that are foretold
LEAST_WEEKS = 16  # whole weeks, to learn from
PROMOTIONS = ("display", "mailer", "price", "other")


@dataclass(frozen=True, slots=True)
class Weekly:
    """n items and T whole weeks.

    Attributes:
        item_ids: (n,) those sold most first, in the weeks that were looked at for that.
        first_week: Monday of the first.
        units: (n, T) pieces bought and kept; 0 where nothing was.
        first_sale: (n,) week of the first sale; T where there was none.
        money: (n, T) what was paid for them, as far as it is known.
        category: (n,) code of its path; -1 where it has none.
        categories: names of the codes.
        promoted: (n, T + HORIZON) share of the shop's places, by kind.
        text: (n, d) of what its words mean; None where nothing was read.
    """

    item_ids: np.ndarray
    first_week: date
    units: Singles
    first_sale: Ints
    money: Singles
    category: Ints
    categories: tuple[str, ...]
    promoted: Mapping[str, Singles]
    text: Singles | None = None

    @property
    def price(self) -> Floats:
        """(n,) what a piece has cost until now, in the mean; 0 where that is unknown."""
        pieces = self.units.sum(1)
        return np.where(pieces > 0, self.money.sum(1) / np.maximum(pieces, 1e-9), 0.0)

    @property
    def n_weeks(self) -> int:
        """T."""
        return self.units.shape[1]

    def monday(self, week: int) -> date:
        """The day on which a week begins."""
        return self.first_week + timedelta(days=7 * week)

    def until(self, week: int) -> "Weekly":
        """As it was known when a week began; promotions of the weeks from it on were known too."""
        return replace(
            self,
            units=self.units[:, :week],
            money=self.money[:, :week],
            first_sale=np.minimum(self.first_sale, week),
            promoted={kind: share[:, : week + HORIZON] for kind, share in self.promoted.items()},
        )

    def only(self, rows: np.ndarray) -> "Weekly":
        """Some items."""
        return replace(
            self,
            item_ids=self.item_ids[rows],
            units=self.units[rows],
            first_sale=self.first_sale[rows],
            money=self.money[rows],
            category=self.category[rows],
            promoted={kind: share[rows] for kind, share in self.promoted.items()},
            text=None if self.text is None else self.text[rows],
        )


def read_weekly(db: DuckDBPyConnection, *, n_items: int | None = None, n_tested: int = 0) -> Weekly:
    """Units of each item and whole week.

    A purchase counts as far as it was kept, in its own week.

    Args:
        db: a connection to a warehouse with `cleaned_interactions`, `items` and `promotions`.
        n_items: those sold most, at most; None: all of the catalogue.
        n_tested: weeks at the end that are to be foretold, and so may not say which items are sold most.

    Raises:
        ExperimentError: if there are fewer than `LEAST_WEEKS` whole weeks.

    Cost: a scan of what was bought; 4 (T + 5 (T + 8)) bytes an item.
    """
    first, last = db.execute(
        "select min(day), max(day) from cleaned_interactions where action = 'purchase'"
    ).fetchall()[0]
    if first is None:
        raise ExperimentError(
            "demand: 0 purchases are known. What will be bought is foretold by what was: bring events with purchases."
        )
    monday = first + timedelta(days=-first.weekday() % 7)
    n_weeks = max(((last + timedelta(days=1)) - monday).days // 7, 0)
    if n_weeks < LEAST_WEEKS:
        raise ExperimentError(
            f"demand: {n_weeks} whole weeks lie between {first} and {last}. There must be {LEAST_WEEKS}, to learn from the first and "
            "be tested on the last: wait, or bring older purchases."
        )
    end = monday + timedelta(days=7 * n_weeks)
    db.execute(f"""create or replace temp table sold as
        select item_id, ((day - date '{monday}') // 7)::integer as week, sum(pieces) as units, sum(price * pieces) as money
        from ({KEPT}) where day >= date '{monday}' and day < date '{end}' group by all""")
    limit = f"limit {n_items}" if n_items else ""
    db.execute(f"""create or replace temp table forecast_items as
        select item_id, category, row_number() over (order by n desc, item_id) - 1 as code from (
            select item_id, any_value(items.category) as category,
                coalesce(sum(units) filter (where week < {n_weeks - n_tested}), 0) as n
            from items left join sold using (item_id) group by item_id)
        order by n desc, item_id {limit}""")
    items = db.execute("select * from forecast_items order by code").df()
    rows = db.execute("select code, week, units, money from sold join forecast_items using (item_id)").fetchnumpy()
    units = np.zeros((len(items), n_weeks), np.float32)
    units[np.asarray(rows["code"], int), np.asarray(rows["week"], int)] = np.asarray(rows["units"], np.float32)
    money = np.zeros_like(units)
    money[np.asarray(rows["code"], int), np.asarray(rows["week"], int)] = np.nan_to_num(
        np.ma.filled(rows["money"], 0)
    ).round(2)
    category, names = pd.factorize(items.category, sort=True)
    promoted = _promoted(db, len(items), n_weeks, monday)
    db.execute("drop table sold; drop table forecast_items")
    sold = units > 0
    return Weekly(
        item_ids=items.item_id.to_numpy(str),
        first_week=monday,
        units=units,
        first_sale=np.where(sold.any(1), sold.argmax(1), n_weeks),
        money=money,
        category=category.astype(np.int64),
        categories=tuple(names),
        promoted=promoted,
    )


def _promoted(db: DuckDBPyConnection, n_items: int, n_weeks: int, monday: date) -> dict[str, Singles]:
    """Share of each week's days times reach, by kind; kinds that nobody else uses are one."""
    known = ", ".join(f"'{kind}'" for kind in PROMOTIONS[:-1])
    rows = db.execute(f"""
        with weeks as (select range as week, date '{monday}' + (7 * range)::integer as first from range({n_weeks + HORIZON}))
        select code, week, case when kind in ({known}) then kind else 'other' end as kind,
            least(sum(reach * (least(last_day, first + 6) - greatest(first_day, first) + 1) / 7), 1) as share
        from promotions join forecast_items using (item_id) join weeks on first_day <= first + 6 and last_day >= first
        group by all""").fetchnumpy()
    kind = np.asarray(rows["kind"], str)
    found = {}
    for name in PROMOTIONS:
        here = kind == name
        if here.any():
            share = np.zeros((n_items, n_weeks + HORIZON), np.float32)
            place = (np.asarray(rows["code"], int)[here], np.asarray(rows["week"], int)[here])
            share[place] = np.asarray(rows["share"], np.float32)[here]
            found[name] = share
    return found


def content(weekly: Weekly) -> str:
    """A hash of all that forecasts are made from: it changes when a whole week has passed, or the past was corrected."""
    found = hashlib.sha256()
    for part in (weekly.units, weekly.money, weekly.category, *weekly.promoted.values(), weekly.text):
        found.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    found.update(repr((weekly.item_ids.tolist(), weekly.first_week, weekly.categories)).encode())
    return found.hexdigest()[:32]
