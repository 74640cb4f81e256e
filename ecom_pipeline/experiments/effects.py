"""What one arm of an experiment did beside its control: means, ratios, quantiles, with the past taken out.

tea-tasting does means, ratios by the delta method and what the units' past explains (CUPED, Deng et al. 2013); quantiles
and segments are ours.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ecom_pipeline.arrays import Floats
from ecom_pipeline.experiments.plan import Experiment
from ecom_pipeline.experiments.sequences import LEVEL, fixed_half_width

MAIN = "revenue, past taken out"
LEAST_UNITS = 20  # of an arm, below which no interval is to be believed
_TAIL = 0.99
_NO_SPREAD = 1e-9  # of the largest figure: what rounding leaves where nothing varies


def balance(pair: pd.DataFrame, experiment: Experiment, arm: str) -> Iterator[dict]:
    """Before the exposure there is no effect: what differs then is chance, or a fault of the drawing."""
    for outcome in ("revenue", "purchases"):
        if pair[f"before_{outcome}"].any():
            yield _mean(pair, f"before_{outcome}", f"before: {outcome}", experiment, arm)


def effects(pair: pd.DataFrame, experiment: Experiment, arm: str) -> list[dict]:
    """The figures that are asked of an arm, the main one first; all with what `EXPERIMENT_READOUT` has of a figure, and `se`."""
    capped = pair.assign(
        revenue=pair.revenue.clip(upper=pair.revenue.quantile(_TAIL)), converted=(pair.purchases > 0).astype(float)
    )
    found = [
        _mean(pair, "revenue", MAIN, experiment, arm, past=_past(pair)),
        _mean(pair, "revenue", "revenue", experiment, arm),
        _mean(capped, "revenue", "revenue, the highest 1 % cut", experiment, arm),
        _mean(pair, "purchases", "purchases, past taken out", experiment, arm, past=["before_purchases"]),
        _mean(pair, "purchases", "purchases", experiment, arm),
    ]
    if experiment.unit != "cluster":
        found.append(_mean(capped, "converted", "share that bought", experiment, arm))
        found.append(_quantile(pair, experiment, arm))
    if all(group.visits.any() for _, group in pair.groupby("arm")):
        found.append(_ratio(pair, "revenue", "visits", "revenue a visit", experiment, arm))
    return found


def by_segment(pair: pd.DataFrame, experiment: Experiment, arm: str) -> list[dict]:
    """The main effect among those who did nothing before, little, and much."""
    if experiment.unit == "cluster" or not pair.before_purchases.any():
        return []
    middle = pair.before_purchases[pair.before_purchases > 0].median()
    code = np.where(pair.before_purchases == 0, 0, np.where(pair.before_purchases <= middle, 1, 2))
    names = ("nothing before", f"up to {middle:g} purchases before", f"more than {middle:g} before")
    rows = []
    for number, name in enumerate(names):
        part = pair[code == number]
        sizes = part.groupby("arm").size()
        if len(sizes) == 2 and sizes.min() >= LEAST_UNITS:
            past = _past(part) if number else None
            rows.append(_mean(part, "revenue", MAIN, experiment, arm, past=past) | {"segment": name})
    return rows


def quantile_effect(treated: Floats, control: Floats, q: float) -> tuple[float, float, float]:
    """Difference of a quantile, its standard error, and the control's quantile.

    The error is by order statistics: the ranks between which the quantile lies with 95 % in each arm.

    Source: Price and Bonett 2002, for the variance from order statistics.
    """
    found = []
    for values in (treated, control):
        ordered, n = np.sort(values), len(values)
        reach = stats.norm.ppf(1 - LEVEL / 2) * np.sqrt(n * q * (1 - q))
        low, high = (int(np.clip(round(n * q + side * reach), 0, n - 1)) for side in (-1, 1))
        se = (ordered[high] - ordered[low]) / (2 * stats.norm.ppf(1 - LEVEL / 2))
        found.append((float(np.quantile(values, q)), float(se)))
    (value, se), (base, se_base) = found
    return value - base, float(np.hypot(se, se_base)), base


def _past(pair: pd.DataFrame) -> list[str]:
    return ["before_revenue", *(["forecast"] if "forecast" in pair else [])]


def _mean(
    pair: pd.DataFrame, outcome: str, metric: str, experiment: Experiment, arm: str, past: list[str] | None = None
) -> dict:
    """A mean a unit, of which the past is taken out where it is named; of clusters, sum over sum."""
    if experiment.unit == "cluster":
        return _ratio(pair, outcome, "n_in_cluster", metric, experiment, arm, past=past)
    frame, taken = pair, None
    if past:
        if past != [past[0]]:  # several columns become the one that foretells best
            frame = pair.assign(**{past[0]: _foretold(pair, outcome, past)})
        taken = _explained(frame, outcome, past[0])
    import tea_tasting as tt

    covariate = past[0] if past and frame[past[0]].nunique() > 1 else None
    found = _analysed(frame, tt.Mean(outcome, covariate), experiment, arm)
    return _row(metric, arm, found, n=int((pair.arm == arm).sum()), taken=taken)


def _ratio(
    pair: pd.DataFrame,
    numerator: str,
    denominator: str,
    metric: str,
    experiment: Experiment,
    arm: str,
    past: list[str] | None = None,
) -> dict:
    import tea_tasting as tt

    covariates = {}
    if past and pair[past[0]].nunique() > 1:
        covariates = {"numer_covariate": past[0], "denom_covariate": f"before_{denominator}"}
    found = _analysed(pair, tt.RatioOfMeans(numerator, denominator, **covariates), experiment, arm)
    return _row(metric, arm, found, n=int((pair.arm == arm).sum()), taken=None)


def _analysed(pair: pd.DataFrame, metric: Any, experiment: Experiment, arm: str) -> Mapping:
    """By tea-tasting, but where nothing is left to vary within the arms: then there is no error to tell, and no interval."""
    import tea_tasting as tt

    level, value = _levels(pair, metric.numer, metric.denom)
    base, known = _levels(pair, metric.numer_covariate, metric.denom_covariate)
    slope = float(value @ known / (known @ known)) if known.any() else 0.0
    control = experiment.control.name
    if np.abs(value - slope * known).max() <= _NO_SPREAD * (1 + pair[metric.numer].abs().max()):
        effect = level[arm] - level[control] - slope * (base[arm] - base[control])
        told = {"treatment": level[control] + effect, "control": level[control], "effect_size": effect, "pvalue": 1.0}
        return told | {"low": np.nan, "high": np.nan}
    columns = [name for name in pair if name == "arm" or pd.api.types.is_numeric_dtype(pair[name])]
    told = tt.Experiment({"metric": metric}, variant="arm").analyze(pair[columns], control=control)["metric"]._asdict()
    return told | {"low": told["effect_size_ci_lower"], "high": told["effect_size_ci_upper"]}


def _levels(pair: pd.DataFrame, numerator: str | None, denominator: str | None) -> tuple[pd.Series, Floats]:
    """Mean or ratio of each arm, and what each unit is off it."""
    y = pair[numerator] if numerator else pd.Series(0.0, pair.index)
    per = pair[denominator] if denominator else pd.Series(1.0, pair.index)
    level = y.groupby(pair.arm).sum() / per.groupby(pair.arm).sum()
    return level, (y - pair.arm.map(level).astype(float) * per).to_numpy(float)


def _quantile(pair: pd.DataFrame, experiment: Experiment, arm: str) -> dict:
    treated, control = (pair.revenue[pair.arm == name].to_numpy(float) for name in (arm, experiment.control.name))
    effect, se, base = quantile_effect(treated, control, 0.9)
    half = float(fixed_half_width(se))
    p = 1.0 if not se else float(2 * stats.norm.sf(abs(effect) / se))
    found = {"treatment": base + effect, "control": base, "effect_size": effect, "pvalue": p}
    return _row(
        "revenue, 90 % quantile", arm, found | {"low": effect - half, "high": effect + half}, n=len(treated), taken=None
    )


def _explained(pair: pd.DataFrame, outcome: str, past: str) -> float:
    """Squared correlation within the arms: what taking the past out does to the variance."""
    within = pair[[outcome, past]] - pair.groupby("arm")[[outcome, past]].transform("mean")
    value, known = within[outcome].to_numpy(float), within[past].to_numpy(float)
    scale = np.sqrt((value**2).sum() * (known**2).sum())
    return float((value @ known / scale) ** 2) if scale else 0.0


def _foretold(pair: pd.DataFrame, outcome: str, past: list[str]) -> Floats:
    """Several columns as the one that foretells the outcome best within the arms; drawing does not touch it."""
    within = pair[[outcome, *past]] - pair.groupby("arm")[[outcome, *past]].transform("mean")
    weight, *_ = np.linalg.lstsq(within[past].to_numpy(float), within[outcome].to_numpy(float), rcond=None)
    return pair[past].to_numpy(float) @ weight


def _row(metric: str, arm: str, found: Mapping, *, n: int, taken: float | None, segment: str = "all") -> dict:
    half = (found["high"] - found["low"]) / 2
    return {
        "metric": metric,
        "segment": segment,
        "arm": arm,
        "n_units": n,
        "value": found["treatment"],
        "control_value": found["control"],
        "effect": found["effect_size"],
        "ci_low": found["low"],
        "ci_high": found["high"],
        "p_value": found["pvalue"],
        "p_adjusted": np.nan,
        "n_together": 1,
        "variance_taken": np.nan if taken is None else taken,
        "se": half / float(fixed_half_width(1.0)),
    }
