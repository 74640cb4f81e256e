"""Units of the weeks to come: what is chosen on past weeks, with intervals by the errors of those, made to add up.

Everything that is chosen or measured for a forecast as of a week was known before that week.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.demand.classical import METHODS, classical_forecasts
from ecom_pipeline.demand.global_model import (
    LOOK_BACK,
    GlobalModel,
    Weighing,
    levels,
    rows_of,
    text_components,
)
from ecom_pipeline.demand.intervals import QUANTILES, Conformal
from ecom_pipeline.demand.metrics import mase, scale
from ecom_pipeline.demand.weekly import HORIZON, Weekly

WEIGHINGS: tuple[Weighing, ...] = ("none", "recent", "stocked")
SHARES = (0.0, 0.5, 1.0)  # of the global model, or of the categories' own forecasts
YOUNG = 4  # weeks of sales, up to which an item is foretold by those whose words are alike
_STEP = 4  # weeks between past origins
_N_ORIGINS = 3
_FIRST = 10  # week from which on rows are learnt from
_NEAR = 10
_SURE = 2.24  # standard errors: 95 % for two weighings that are tried


@dataclass(frozen=True, slots=True)
class Settings:
    """How much work a forecast may be.

    Attributes:
        n_rows: that a model learns from, about.
        n_sample: items on which is chosen, and whose past errors make intervals, at most.
        seed: of all draws.
        n_processes: in which origins are foretold side by side.
    """

    n_rows: int = 60_000
    n_sample: int = 2_000
    seed: int = 0
    n_processes: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """What was best on past weeks.

    Attributes:
        weighing: of the global model's rows.
        method: the best of the classical ones.
        share: of the global model in the sum of both.
        top_share: of the categories' own forecasts, which items are scaled to.
        errors: mean scaled error of what was tried.
    """

    weighing: Weighing
    method: str
    share: float
    top_share: float
    errors: dict[str, float]

    def __str__(self) -> str:
        parts = [f"{self.share:.0%} one model of all items (rows weighed: {self.weighing})"] if self.share else []
        parts += [f"{1 - self.share:.0%} {self.method}"] if self.share < 1 else []
        top = f", {self.top_share:.0%} of the way to the categories' own" if self.top_share else ""
        return " and ".join(parts) + top


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected.

    Attributes:
        units: (n, HORIZON).
        quantiles: (n, HORIZON, 5) at `QUANTILES`.
        of_categories: (categories, HORIZON) sums of the items.
        category_quantiles: (categories, HORIZON, 5).
        young: (n,) whether an item was foretold by others that are like it.
        choice: what was chosen.
    """

    units: Floats
    quantiles: Floats
    of_categories: Floats
    category_quantiles: Floats
    young: np.ndarray
    choice: Choice


def forecast(
    weekly: Weekly, settings: Settings | None = None, *, weighings: Sequence[Weighing] = WEIGHINGS
) -> Forecast:
    """Foretell the weeks after the end of the series.

    Args:
        weekly: all items.
        settings: how much work it may be.
        weighings: of rows that are tried; ("none",): the unweighted twin.

    Cost: a dozen fits of `GlobalModel`, classical forecasts of a sample at three origins, and of all items once.
    """
    from joblib import Parallel, delayed

    settings = settings or Settings()
    text = text_components(weekly.text)
    origins = [weekly.n_weeks - HORIZON - _STEP * back for back in range(_N_ORIGINS - 1, -1, -1)]
    sample = _sample(weekly, settings)
    choice = choose(weekly, origins[:-1], sample, text, settings, weighings)
    known = [*(weekly.until(origin) for origin in origins), weekly]
    *pasts, (expected, young) = Parallel(n_jobs=settings.n_processes)(
        delayed(_expected)(one, choice, text, settings) for one in known
    )
    actual = [weekly.units[:, origin : origin + HORIZON].astype(float) for origin in origins]
    when = np.repeat(np.array(origins), [len(sample)] * len(origins))
    of_items = Conformal.fit(
        np.concatenate([one[sample] for one in actual]), np.concatenate([one[sample] for one, _ in pasts]), when
    )
    quantiles = of_items.quantiles(expected)
    launched = _launches(weekly, origins, actual, pasts)
    if launched is not None and young.any():
        quantiles[young] = launched.quantiles(expected[young])
    summed = [_by_category(one, weekly) for one in (*actual, *(one for one, _ in pasts))]
    n = len(origins)
    of_categories = Conformal.fit(
        np.concatenate(summed[:n]), np.concatenate(summed[n:]), np.repeat(np.array(origins), len(weekly.categories))
    )
    totals = _by_category(expected, weekly)
    return Forecast(expected, quantiles, totals, of_categories.quantiles(totals), young, choice)


def choose(
    weekly: Weekly,
    origins: Sequence[int],
    sample: Ints,
    text: Floats | None,
    settings: Settings,
    weighings: Sequence[Weighing] = WEIGHINGS,
) -> Choice:
    """The weighing, the classical method, their mix and how far to go to the categories' own, by scaled errors of past weeks.

    Args:
        weekly: of which the weeks after each origin are the test.
        origins: weeks.
        sample: (k,) items that are judged.
        text: (n, d) of their words.
        settings: of the work.
        weighings: that are tried; another than the first only where its gain is certain.
    """
    from joblib import Parallel, delayed

    errors: dict[str, list[float]] = {}
    tried = Parallel(n_jobs=settings.n_processes)(
        delayed(_tried)(weekly.until(origin), sample, text, settings, weighings) for origin in origins
    )
    models = {origin: fitted for origin, (fitted, _) in zip(origins, tried, strict=True)}
    kept = {origin: found for origin, (_, found) in zip(origins, tried, strict=True)}
    for origin, found in kept.items():
        for name, table in found.items():
            errors.setdefault(name, []).append(_error(weekly, origin, sample, table))
    mean = {name: float(np.mean(values)) for name, values in errors.items()}
    weighing = _certain(weekly, weighings, kept, sample)
    method = min(METHODS, key=lambda name: mean[name])
    mixes = {
        share: float(
            np.mean(
                [
                    _error(
                        weekly, origin, sample, share * found[f"all items, {weighing}"] + (1 - share) * found[method]
                    )
                    for origin, found in kept.items()
                ]
            )
        )
        for share in SHARES
    }
    share = min(mixes, key=lambda one: mixes[one])
    mean |= {f"{part:.0%} all items, {1 - part:.0%} {method}": value for part, value in mixes.items()}
    base = Choice(weighing, method, share, 0.0, {})
    tops = {top: 0.0 for top in SHARES}
    for origin in origins if weekly.categories else []:
        base_table, _ = _expected(weekly.until(origin), base, text, settings, models[origin][weighing])
        for top, error in _top_errors(weekly, origin, base_table).items():
            tops[top] += error / len(origins)
    top = min(tops, key=lambda one: tops[one])
    mean |= {f"{part:.0%} of the way to the categories' own": value for part, value in tops.items()}
    return Choice(weighing, method, share, top, mean)


def _tried(
    known: Weekly, sample: Ints, text: Floats | None, settings: Settings, weighings: Sequence[Weighing]
) -> tuple[dict[Weighing, GlobalModel], dict[str, Singles]]:
    """A model of all items by weighing, and (k, HORIZON) of the sample by whatever is tried, after the end of the series."""
    rows = rows_of(known, _learnt(known.n_weeks), text, n_rows=settings.n_rows, seed=settings.seed)
    models = {kind: GlobalModel.fit(rows, kind, seed=settings.seed) for kind in weighings}
    some, own = known.only(sample), None if text is None else text[sample]
    found = {f"all items, {kind}": model.forecast(some, own) for kind, model in models.items()}
    return models, found | classical_forecasts(known.units[sample], HORIZON, METHODS)


def _certain(
    weekly: Weekly, weighings: Sequence[Weighing], kept: Mapping[int, Mapping[str, Singles]], sample: Ints
) -> Weighing:
    """The weighing whose gain over the first is largest, if it is more than luck over items; else the first.

    More than luck: more than `_SURE` standard errors of the items' mean gains over the origins.
    """
    plain, *others = weighings
    best, found = 0.0, plain
    for kind in others:
        gains = [
            _errors(weekly, origin, sample, tables[f"all items, {plain}"])
            - _errors(weekly, origin, sample, tables[f"all items, {kind}"])
            for origin, tables in kept.items()
        ]
        of_item = np.mean(gains, axis=0)
        of_item = of_item[np.isfinite(of_item)]
        if len(of_item) < 2:
            continue
        gain = float(of_item.mean())
        if gain > max(best, _SURE * float(of_item.std(ddof=1) / np.sqrt(len(of_item)))):
            best, found = gain, kind
    return found


def _sample(weekly: Weekly, settings: Settings) -> Ints:
    """Items that were sold before the first past origin, drawn by chance: all sizes as they come."""
    begun = weekly.first_sale < weekly.n_weeks - HORIZON - _STEP * (_N_ORIGINS - 1) - YOUNG
    there = np.flatnonzero(begun & weekly.units[:, -LOOK_BACK - HORIZON :].any(1))
    if len(there) <= settings.n_sample:
        return there
    return np.sort(np.random.default_rng(settings.seed).choice(there, settings.n_sample, replace=False))


def _learnt(origin: int) -> list[int]:
    return list(range(min(_FIRST, origin - HORIZON), origin - 1, 2))


def _errors(weekly: Weekly, origin: int, sample: Ints, table: np.ndarray) -> Floats:
    """(k,) scaled error of each item; NaN where it never changed."""
    by = scale(weekly.units[sample, :origin].astype(float))
    kept = by > 0
    actual = weekly.units[sample, origin : origin + HORIZON].astype(float)
    found = np.full(len(sample), np.nan)
    found[kept] = mase(actual[kept], table[kept], by[kept])
    return found


def _error(weekly: Weekly, origin: int, sample: Ints, table: np.ndarray) -> float:
    """Their mean; 0 where there is none."""
    each = _errors(weekly, origin, sample, table)
    return float(np.nanmean(each)) if np.isfinite(each).any() else 0.0


def _top_errors(weekly: Weekly, origin: int, table: Floats) -> dict[float, float]:
    """Mean logarithm of 1 + the scaled error over categories, of sums that go some of the way to the categories' own forecasts.

    Of categories that hardly ever sold the scaled error has no bound: its logarithm lets them count as one of many.
    """
    summed = _by_category(table, weekly)
    history = _by_category(weekly.units[:, :origin].astype(float), weekly)
    own = classical_forecasts(history.astype(np.float32), HORIZON, ("ETS",))["ETS"]
    by = scale(history)
    kept = by > 0
    actual = _by_category(weekly.units[:, origin : origin + HORIZON].astype(float), weekly)

    def error(top: float) -> float:
        each = mase(actual[kept], ((1 - top) * summed + top * own)[kept], by[kept])
        return float(np.log1p(each).mean()) if kept.any() else 0.0

    return {top: error(top) for top in SHARES}


def _expected(
    weekly: Weekly, choice: Choice, text: Floats | None, settings: Settings, model: GlobalModel | None = None
) -> tuple[Floats, np.ndarray]:
    """(n, HORIZON) after the end of the series, and which items were foretold by others."""
    table = np.zeros((len(weekly.units), HORIZON))
    if choice.share:
        if model is None:
            rows = rows_of(weekly, _learnt(weekly.n_weeks), text, n_rows=settings.n_rows, seed=settings.seed)
            model = GlobalModel.fit(rows, choice.weighing, seed=settings.seed)
        table += choice.share * model.forecast(weekly, text)
    if choice.share < 1:
        classical = classical_forecasts(weekly.units, HORIZON, (choice.method,))[choice.method]
        table += (1 - choice.share) * classical
    table[~weekly.units.any(1)] = 0.0
    young = weekly.n_weeks - weekly.first_sale < YOUNG
    if young.any():
        table[young] = _like_others(weekly, np.flatnonzero(young))[:, None]
    if choice.top_share and weekly.categories:
        table = _towards(weekly, table, choice.top_share)
    return table, young


def _towards(weekly: Weekly, table: Floats, share: float) -> Floats:
    """Items scaled so that their sums go some of the way to the categories' own forecasts."""
    summed = _by_category(table, weekly)
    history = _by_category(weekly.units.astype(float), weekly).astype(np.float32)
    own = classical_forecasts(history, HORIZON, ("ETS",))["ETS"]
    factor = np.ones_like(summed)
    np.divide((1 - share) * summed + share * own, summed, out=factor, where=summed > 0)
    return np.where((weekly.category >= 0)[:, None], table * np.clip(factor, 0.2, 5)[weekly.category], table)


def _like_others(weekly: Weekly, young: Ints) -> Floats:
    """(k,) weekly units of items without a history: the median level of the nearest that share words, else their category's mean."""
    old = np.flatnonzero(weekly.n_weeks - weekly.first_sale >= 13)
    rate = levels(weekly.units)
    if not len(old):
        return np.zeros(len(young))
    code = np.maximum(weekly.category, 0)
    n = len(weekly.categories) + 1
    total, count = np.bincount(code[old], rate[old], n), np.bincount(code[old], minlength=n)
    mean = np.where(count > 0, total / np.maximum(count, 1), rate[old].mean())
    found = np.where(weekly.category[young] >= 0, mean[code[young]], rate[old].mean())
    if weekly.text is None:
        return found
    k = min(_NEAR, len(old))
    for begin in range(0, len(young), 512):
        near = weekly.text[young[begin : begin + 512]] @ weekly.text[old].T
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        alike = np.take_along_axis(near, best, axis=1) > 0  # what shares nothing is no neighbour, however few there are
        some = np.flatnonzero(alike.any(1))
        found[begin + some] = np.nanmedian(np.where(alike, rate[old][best], np.nan)[some], axis=1)
    return found


def _launches(
    weekly: Weekly, origins: Sequence[int], actual: Sequence[Floats], pasts: Sequence[tuple[Floats, np.ndarray]]
) -> Conformal | None:
    """Errors of items that were as young at a past origin, and were sold after it or before; None where there were hardly any."""
    came, told, when = [], [], []
    for origin, truth, (expected, young) in zip(origins, actual, pasts, strict=True):
        rows = young & (weekly.first_sale < origin + HORIZON)
        came.append(truth[rows])
        told.append(expected[rows])
        when.append(np.full(int(rows.sum()), origin))
    if sum(map(len, when)) < 100:
        return None
    return Conformal.fit(np.concatenate(came), np.concatenate(told), np.concatenate(when))


def _by_category(table: np.ndarray, weekly: Weekly) -> Floats:
    """(categories, k) sums of items."""
    result = np.zeros((len(weekly.categories), table.shape[1]))
    kept = weekly.category >= 0
    np.add.at(result, weekly.category[kept], table[kept])
    return result


LEVELS = dict(zip(("low_95", "low_80", "high_80", "order_for_95", "high_95"), range(len(QUANTILES)), strict=True))
