"""How good were forecasts of past weeks? As of several past weeks, each with what was known then, beside classical methods."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.demand.classical import METHODS, classical_forecasts
from ecom_pipeline.demand.forecast import LEVELS, Settings, forecast
from ecom_pipeline.demand.intervals import QUANTILES, Conformal
from ecom_pipeline.demand.metrics import mase, pinball, scale
from ecom_pipeline.demand.weekly import HORIZON, Weekly

CHOSEN, TWIN = "chosen", "unweighted twin"
N_ORIGINS = 2
N_TESTED = N_ORIGINS * HORIZON  # weeks at the end that are foretold
COLUMNS = ("method", "slice", "metric", "value", "ci_low", "ci_high", "n_items")
_N_BOOTSTRAP = 1000
_INTERMITTENT = 1.32  # weeks between sales, from which on demand is called so (Syntetos, Boylan and Croston 2005)


def test_origins(weekly: Weekly, least: int) -> list[int]:
    """Weeks as of which is foretold, so that no two have a week in common; fewer where the series are short."""
    found = [weekly.n_weeks - HORIZON * back for back in range(N_ORIGINS, 0, -1)]
    return [origin for origin in found if origin >= least]


def evaluate(
    weekly: Weekly, settings: Settings | None = None, *, least: int = 34
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Figures of what is chosen, its twin without weights, and classical methods, over past origins together.

    Args:
        weekly: all items.
        settings: of the forecasts.
        least: weeks before the first origin.

    Returns:
        Rows as `demand_evaluation`, and by origin what was chosen as of it.

    Cost: two forecasts an origin, and the classical ones of a sample.
    """
    from joblib import Parallel, delayed

    settings = settings or Settings()
    origins = test_origins(weekly, least)
    if not origins:
        return pd.DataFrame(columns=list(COLUMNS)), {
            "without": f"{weekly.n_weeks} weeks are too few to test on past ones"
        }
    alone = replace(settings, n_processes=1)  # each origin is a process already
    found = Parallel(n_jobs=settings.n_processes)(delayed(_as_of)(weekly, origin, alone) for origin in origins)
    parts, told = zip(*found, strict=True)
    names = [str(weekly.monday(origin)) for origin in origins]
    return _figures(pd.concat(parts, ignore_index=True)), dict(zip(names, told, strict=True))


def _as_of(weekly: Weekly, origin: int, settings: Settings) -> tuple[pd.DataFrame, str]:
    """Errors by item as of one origin, and what was chosen."""
    known = weekly.until(origin)
    chosen = forecast(known, settings)
    # where no weighing was chosen, the twin is the same forecast
    twin = chosen if chosen.choice.weighing == "none" else forecast(known, settings, weighings=("none",))
    tables = {name: (one.units, one.quantiles) for name, one in {CHOSEN: chosen, TWIN: twin}.items()}
    return errors_by_item(weekly, origin, tables, settings), str(chosen.choice)


def errors_by_item(
    weekly: Weekly, origin: int, made: Mapping[str, tuple[Floats, Floats]], settings: Settings
) -> pd.DataFrame:
    """Each item's figures by each method and by the classical ones, as of one origin.

    Args:
        weekly: all items, with the weeks after the origin.
        origin: week.
        made: (n, HORIZON) units and (n, HORIZON, 5) quantiles by method.
        settings: of which `n_sample` bounds how many items are tested.

    Returns:
        A row an item, method and metric: item, method, intermittent, metric, value.

    Cost: the classical forecasts of the tested items at two origins.
    """
    units = weekly.units[:, :origin].astype(float)
    by = scale(units)
    tested = np.flatnonzero(
        (by > 0) & (weekly.first_sale < origin - HORIZON) & weekly.units[:, origin - 26 : origin].any(1)
    )
    if len(tested) > settings.n_sample:
        tested = np.sort(np.random.default_rng(settings.seed + 1).choice(tested, settings.n_sample, replace=False))
    actual = weekly.units[tested, origin : origin + HORIZON].astype(float)
    tables = {name: (expected[tested], quantiles[tested]) for name, (expected, quantiles) in made.items()}
    tables |= _classical(weekly, origin, tested)
    gap = origin / np.maximum((units[tested] > 0).sum(1), 1)
    frames = []
    for method, (expected, quantiles) in tables.items():
        found = _each(actual, expected, quantiles, by[tested])
        frames.append(
            pd.DataFrame(found).assign(item=weekly.item_ids[tested], method=method, intermittent=gap >= _INTERMITTENT)
        )
    return pd.concat(frames, ignore_index=True).melt(["item", "method", "intermittent"], var_name="metric")


def _classical(weekly: Weekly, origin: int, tested: np.ndarray) -> dict[str, tuple[Floats, Floats]]:
    """Each classical method with intervals by its own errors of eight weeks earlier."""
    before = classical_forecasts(weekly.units[tested, : origin - HORIZON], HORIZON)
    now = classical_forecasts(weekly.units[tested, :origin], HORIZON)
    past = weekly.units[tested, origin - HORIZON : origin].astype(float)
    when = np.full(len(tested), origin - HORIZON)
    return {
        name: (
            now[name].astype(float),
            Conformal.fit(past, before[name].astype(float), when).quantiles(now[name].astype(float)),
        )
        for name in METHODS
    }


def _each(actual: Floats, expected: Floats, quantiles: Floats, by: Floats) -> dict[str, Floats]:
    """(k,) figures of each item."""
    low, high = (quantiles[:, :, LEVELS[name]] for name in ("low_95", "high_95"))
    inner = [quantiles[:, :, LEVELS[name]] for name in ("low_80", "high_80")]
    loss = np.mean([pinball(actual, quantiles[:, :, place], level) for place, level in enumerate(QUANTILES)], axis=0)
    return {
        "MASE": mase(actual, expected, by),
        "scaled pinball": loss.mean(1) / by,
        "inside 95 %": ((actual >= low) & (actual <= high)).mean(1),
        "inside 80 %": ((actual >= inner[0]) & (actual <= inner[1])).mean(1),
        "enough by order_for_95": (actual <= quantiles[:, :, LEVELS["order_for_95"]]).mean(1),
    }


def _figures(rows: pd.DataFrame) -> pd.DataFrame:
    slices: dict[str, Bools] = {
        "all": np.ones(len(rows), bool),
        "intermittent": rows.intermittent.to_numpy(bool),
        "smooth": ~rows.intermittent.to_numpy(bool),
    }
    found = []
    for name, kept in slices.items():
        for metric, part in rows[kept].groupby("metric", sort=False):
            table = part.pivot_table(index="item", columns="method", values="value", aggfunc="mean")
            draw = np.random.default_rng(0)
            weight = draw.multinomial(len(table), np.full(len(table), 1 / len(table)), _N_BOOTSTRAP) / len(table)
            drawn = pd.DataFrame(weight @ table.to_numpy(), columns=table.columns)
            mean = table.mean()
            for method in table:
                found.append(_row(str(method), name, str(metric), mean[method], drawn[method], len(table)))
            if metric in ("MASE", "scaled pinball"):
                strongest = min(METHODS, key=lambda one: mean[one])
                for other in (TWIN, strongest):
                    difference = drawn[CHOSEN] - drawn[other]
                    label = f"{CHOSEN} - {other}"
                    found.append(_row(label, name, str(metric), mean[CHOSEN] - mean[other], difference, len(table)))
    return pd.DataFrame(found, columns=list(COLUMNS))


def _row(method: str, name: str, metric: str, value: float, drawn: pd.Series, n: int) -> tuple:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return method, name, metric, float(value), float(low), float(high), n
