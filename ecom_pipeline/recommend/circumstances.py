"""How past acts came about: at which rank, and with which chance, their items were shown, and how widely promoted these were.

On the lowest floor of `recommend`. Most sources know none of it, and then nothing is read and nothing is weighed by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Ints, Singles
from ecom_pipeline.errors import InputError

KINDS = ("position", "propensity", "promotion")  # by which acts can be weighed


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Of n rows of interactions; NaN where it is not known.

    Attributes:
        position: (n,) mean rank at which the item was shown, of the acts that know it, from 1.
        propensity: (n,) mean logged chance of showing it, of the acts that know it, in (0, 1].
        promotion: (n,) share of the shop's places in which the item was promoted on the day, in any one way, in [0, 1].
    """

    position: Singles
    propensity: Singles
    promotion: Singles

    @classmethod
    def joined(cls, parts: Sequence["Circumstances"]) -> "Circumstances":
        """Rows one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def only(self, rows: Bools | Ints | NDArray) -> "Circumstances":
        """Some rows."""
        return Circumstances(*(getattr(self, field.name)[rows] for field in fields(self)))

    def means(self, start: Ints) -> "Circumstances":
        """One row for each group of rows: means of what is known, in which each row counts once.

        Args:
            start: where each group begins; the first at 0.
        """
        found = []
        for field in fields(self):
            value = getattr(self, field.name)
            known = np.isfinite(value)
            total = np.add.reduceat(np.where(known, value, 0), start)
            n = np.add.reduceat(known.astype(np.float32), start)
            found.append(np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32))
        return Circumstances(*found)

    def tells(self, kind: str) -> bool:
        """Whether rows can be told apart by it: at least two different values are known."""
        value = getattr(self, kind)
        known = value[np.isfinite(value)]
        return len(known) > 1 and bool(known.min() < known.max())


def require_kinds(kinds: Sequence[str]) -> None:
    """Let `KINDS` pass.

    Raises:
        InputError: if there are others.
    """
    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong:
        raise InputError(
            f"more_kinds: {len(wrong)} of {len(kinds)} are unknown; first: {wrong[0]!r}. Each must be one of "
            f"{', '.join(KINDS)}: correct it, or leave it out."
        )


def promoted() -> str:
    """A query on `promotions`: item_id, day and the share of the shop's places, `promoted`, by the way that reaches most."""
    return """
        select item_id, day, max(reach) as promoted from (
            select item_id, reach, unnest(range(first_day, last_day + 1, interval 1 day))::date as day from promotions)
        group by all"""


def promotions_known() -> str:
    """A query on `promotions`: the first and the last day, `known_from` and `known_to`, of which the source tells; null: of none.

    On a day between them what is not promoted is known not to be; of other days nothing is known.
    """
    return "select min(first_day) as known_from, max(last_day) as known_to from promotions"


def read_promotion(db: DuckDBPyConnection, item_id: NDArray, day: Ints) -> Singles:
    """(n,) share of the shop's places in which an item was promoted on a day; NaN where nothing is known.

    Args:
        db: a connection to the warehouse.
        item_id: (n,).
        day: (n,) days since 1970.

    Cost: a row for each item and day of a promotion, and a hash join.
    """
    asked = pd.DataFrame({"n": np.arange(len(day)), "item_id": item_id.astype(str), "day_number": day})
    db.register("asked", asked)
    found = db.execute(f"""
        with dated as (select n, item_id, date '1970-01-01' + day_number::integer as day from asked)
        select case when day between known_from and known_to then coalesce(promoted, 0) end as share
        from dated left join ({promoted()}) using (item_id, day), ({promotions_known()}) order by n""").fetchnumpy()
    db.unregister("asked")
    return np.ma.filled(np.ma.asarray(found["share"], np.float32), np.nan)
