"""One model of all items: boosted trees say by what factor an item's own level will change, from what is known of it.

A Poisson loss with the level as its start: an item of which nothing is learnt keeps its level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.demand.weekly import HORIZON, Weekly

Weighing = Literal["none", "recent", "stocked"]
FADE = 0.85  # of an item's level, a week
LOOK_BACK = 26
_LEVEL = 0.02  # under every level, so that it has a logarithm
_HALF_LIFE = 13.0  # weeks, of a recent row's weight
_DOUBT = 0.01  # chance of a run of zeros below which an item was probably not in stock
_N_TEXT = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """r rows, one an item, origin and week ahead.

    Attributes:
        known: (r, c) features.
        level: (r,) the item's own, as of the origin.
        actual: (r,) units that came.
        origin: (r,) week from which on nothing was known.
        out: (r,) whether the item was probably out of stock in the week that is foretold.
    """

    known: Singles
    level: Floats
    actual: Floats
    origin: Ints
    out: np.ndarray


def levels(units: Singles) -> Floats:
    """(n,) exponentially weighted mean of each series, the last week counting most."""
    weight = FADE ** np.arange(units.shape[1])[::-1]
    return units @ (weight / weight.sum()) + _LEVEL


def features(weekly: Weekly, ahead: Ints, text: Floats | None) -> Iterator[Singles]:
    """(n, c) for each of some weeks ahead, as of the end of the series."""
    units, t, n = weekly.units, weekly.n_weeks, len(weekly.units)
    level = levels(units)

    def mean(weeks: int) -> Floats:
        return units[:, -weeks:].mean(1) + _LEVEL

    sold = units > 0
    since = np.where(sold.any(1), sold[:, ::-1].argmax(1), t)
    totals = _by_category(weekly)
    shop = np.log((units[:, -4:].sum() + 1) / (units[:, -13:].sum() * 4 / min(13, t) + 1))
    own = [
        np.log(level),
        *(np.log(mean(weeks) / level) for weeks in (1, 2, 4, 8, 13, LOOK_BACK)),
        *(sold[:, -weeks:].mean(1) for weeks in (8, LOOK_BACK)),
        np.minimum(since, LOOK_BACK),
        np.minimum(t - weekly.first_sale, LOOK_BACK),
        units[:, -13:].std(1) / level,
        np.log(np.maximum(weekly.price, 1e-3)),
        totals,
        np.full(n, shop),
    ]
    if text is not None:
        own += list(text.T)
    promoted = list(weekly.promoted.values())
    before = [share[:, max(t - 13, 0) : t].mean(1) for share in promoted]
    last = [share[:, t - 1] for share in promoted]
    base = np.column_stack([*own, *before, *last]).astype(np.float32)
    for step in ahead:
        now = [share[:, t + step] for share in promoted]
        week = np.full(n, (weekly.monday(t + int(step)).timetuple().tm_yday // 7) if t > 60 else 0)
        yield np.column_stack([base, *now, np.full(n, step), week]).astype(np.float32)


def _by_category(weekly: Weekly) -> Floats:
    """(n,) logarithm of how a category's last four weeks compare with its last thirteen."""
    if not weekly.categories:
        return np.zeros(len(weekly.units))
    code, n = np.maximum(weekly.category, 0), len(weekly.categories)
    late, long = (np.bincount(code, weekly.units[:, -weeks:].mean(1), n) for weeks in (4, 13))
    return np.log((late + 0.1) / (long + 0.1))[code]


def rows_of(weekly: Weekly, origins: Sequence[int], text: Floats | None, *, n_rows: int, seed: int) -> Rows:
    """Rows to learn from: items that had been sold, origins, and weeks ahead, drawn by chance.

    Args:
        weekly: of which no week after its end is looked at.
        origins: weeks; what is learnt of each lies after it.
        text: (n, d) what is known of the items' words.
        n_rows: about.
        seed: of the draw.
    """
    draw = np.random.default_rng(seed)
    parts = []
    for origin in origins:
        known = weekly.until(origin)
        there = np.flatnonzero(weekly.first_sale < origin)
        there = there[known.units[there, -LOOK_BACK:].any(1)]
        reach = min(HORIZON, weekly.n_weeks - origin)
        n = max(1, n_rows // max(len(origins) * reach, 1))
        rate = levels(known.units)
        for step, table in zip(range(reach), features(known, np.arange(reach), text), strict=True):
            rows = draw.choice(there, min(n, len(there)), replace=False) if len(there) else there
            out = _out_of_stock(weekly.units[rows], rate[rows], origin + step)
            parts.append(
                Rows(
                    table[rows],
                    rate[rows],
                    weekly.units[rows, origin + step].astype(float),
                    np.full(len(rows), origin),
                    out,
                )
            )
    return Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__dataclass_fields__})


def _out_of_stock(units: Singles, rate: Floats, week: int) -> np.ndarray:
    """(r,) whether a week lies in a run of zeros that a Poisson demand of this rate hardly ever makes."""
    zero = units == 0
    length = np.zeros(len(units))
    for direction in (range(week, -1, -1), range(week + 1, units.shape[1])):
        going = zero[:, week].copy()
        for place in direction:
            going &= zero[:, place]
            length += going
    return np.exp(-rate * length) < _DOUBT * zero[:, week]


@dataclass(frozen=True, slots=True)
class GlobalModel:
    """Boosted trees over all items.

    Attributes:
        trees: LightGBM's.
        weighing: of rows.
    """

    trees: Any
    weighing: Weighing

    @classmethod
    def fit(cls, rows: Rows, weighing: Weighing = "none", *, n_trees: int = 120, seed: int = 0) -> "GlobalModel":
        """Learn by what factor levels change.

        Args:
            rows: to learn from.
            weighing: none: all rows alike, but for the items' sizes; recent: half as much every quarter; stocked: none of
                weeks in which an item was probably out of stock.
            n_trees: of 31 leaves.
            seed: of the trees.

        Cost: 2 s for 80,000 rows on one core; several threads wait for each other where others compute.
        """
        import lightgbm

        assert weighing in get_args(Weighing)
        weight = 1 / (1 + rows.level)  # else few items that sell most are all that is learnt
        if weighing == "recent":
            weight = weight * 0.5 ** ((rows.origin.max() - rows.origin) / _HALF_LIFE)
        if weighing == "stocked":
            weight = weight * ~rows.out
        data = lightgbm.Dataset(
            rows.known, rows.actual, weight=weight, init_score=np.log(rows.level), free_raw_data=True
        )
        settings = {
            "objective": "poisson",
            "boost_from_average": False,
            "learning_rate": 0.05,
            "num_leaves": 31,
            "min_data_in_leaf": 200,
            "num_threads": 1,
            "deterministic": True,
            "seed": seed,
            "verbose": -1,
        }
        return cls(lightgbm.train(settings, data, n_trees), weighing)

    def forecast(self, weekly: Weekly, text: Floats | None, horizon: int = HORIZON) -> Singles:
        """(n, horizon) expected units after the end of the series."""
        level = levels(weekly.units)
        steps = [
            level * np.exp(np.clip(self.trees.predict(table, raw_score=True), -5, 3))
            for table in features(weekly, np.arange(horizon), text)
        ]
        return np.column_stack(steps).astype(np.float32) if len(level) else np.zeros((0, horizon), np.float32)


def text_components(text: Singles | None) -> Floats | None:
    """(n, `_N_TEXT`) main directions of the items' words, as features."""
    if text is None or not text.any() or min(text.shape) <= _N_TEXT:
        return None
    from sklearn.utils.extmath import randomized_svd

    left, strength, _ = randomized_svd(text, _N_TEXT, random_state=0)
    return left * strength
