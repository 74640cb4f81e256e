"""What an experiment showed: the sample ratio first, then balance before, then effects with intervals of both kinds.

tea-tasting does means, ratios by the delta method and what the units' past explains (CUPED, Deng et al. 2013); confidence
sequences, quantiles, clusters and verdicts are ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ecom_pipeline.arrays import Floats
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments.plan import Experiment
from ecom_pipeline.experiments.sequences import LEVEL, fixed_half_width, half_width
from ecom_pipeline.experiments.units import OUTCOMES

SRM_LEVEL = 0.001  # below it, units were lost or drawn otherwise than planned
SRM_DOUBT = 0.01  # below it, they may have been
MAIN = "revenue, past taken out"
LEAST_UNITS = 20  # of an arm, below which no interval is to be believed
TWO_ARMS_SHARE = 0.01  # of units that met both arms, from which on nothing is to be believed
_TAIL = 0.99
_NO_RATIO = "no verdict: units are missing or were drawn otherwise than planned"


@dataclass(frozen=True, slots=True)
class Readout:
    """What was found.

    Attributes:
        rows: as the relation `experiment_readout`.
        sample_ratio_p: of the arms' numbers being as planned.
        tail_share: share of all revenue that the 1 % of units with the most have.
        verdict: a sentence.
        warnings: sentences that a reader must know.
    """

    rows: pd.DataFrame
    sample_ratio_p: float
    tail_share: float
    verdict: str
    warnings: tuple[str, ...]


def read_out(
    units: pd.DataFrame, experiment: Experiment, *, n_planned: float, n_in_two_arms: int = 0, over: bool = True
) -> Readout:
    """Compare each arm with the control.

    Args:
        units: a row a unit: arm, `OUTCOMES`, before_<outcome>; cluster_id where clusters were drawn. A column `forecast`,
            known before the exposure, is taken out beside the own past.
        experiment: whose units.
        n_planned: units expected before the start, for which the confidence sequence is narrowest.
        n_in_two_arms: units that met two arms, and are not among these.
        over: whether the last day has passed; else the verdict rests on the sequence alone.

    Raises:
        ExperimentError: if an arm has no or few units, or revenue is below 0.

    Cost: a few passes over the units.
    """
    _refuse(units, experiment)
    if experiment.unit == "cluster":
        units = _clusters(units)
    sizes = units.groupby("arm").size()
    p = _sample_ratio(sizes, experiment)
    two = n_in_two_arms / (n_in_two_arms + len(units))
    rows: list[dict] = []
    for arm in experiment.arms[1:]:
        pair = units[units.arm.isin([experiment.control.name, arm.name])]
        rows += _balance(pair, experiment, arm.name)
        found = _effects(pair, experiment, arm.name)
        main, *others = found  # what was settled beforehand needs no correction
        adjusted = stats.false_discovery_control([one["p_value"] for one in others])
        rows += [main | {"p_adjusted": main["p_value"]}]
        rows += [one | {"p_adjusted": float(q)} for one, q in zip(others, adjusted, strict=True)]
        rows += _by_segment(pair, experiment, arm.name)
    frame = pd.DataFrame(rows)
    n_share = frame.n_units / frame.n_units.max()
    now = (sizes.sum() * n_share).to_numpy(float)
    with_sequence = ~frame.metric.str.startswith("before") & frame.se.notna()
    width = np.where(with_sequence, half_width(frame.se.to_numpy(float), np.maximum(now, 1), n_planned), np.nan)
    frame["sequence_low"], frame["sequence_high"] = frame.effect - width, frame.effect + width
    trusted = p >= SRM_LEVEL and two <= TWO_ARMS_SHARE
    frame["verdict"] = [_verdict(row, trusted=trusted, over=over) for row in frame.itertuples()]
    warnings = _warnings(frame, units, experiment, n_in_two_arms=n_in_two_arms, two=two)
    if SRM_LEVEL <= p < SRM_DOUBT:
        warnings = (f"the arms' sizes are odd (p = {p:.2g}): see whether units are lost", *warnings)
    order = [
        *("experiment", "metric", "segment", "arm", "n_units", "value", "control_value", "effect", "ci_low", "ci_high"),
        *("sequence_low", "sequence_high", "p_value", "p_adjusted", "variance_taken", "verdict"),
    ]
    frame = frame.assign(experiment=experiment.name)[order]
    return Readout(frame, p, tail_share(units.revenue.to_numpy(float)), _sentence(frame, p, two), warnings)


def tail_share(revenue: Floats) -> float:
    """Share of the total that the 1 % of units with the most have; NaN where there is no total.

    >>> tail_share(np.r_[np.ones(99), 99.0])
    0.5
    """
    total = revenue.sum()
    n_top = max(1, round(len(revenue) / 100))
    return float(np.sort(revenue)[-n_top:].sum() / total) if total else float("nan")


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


def _refuse(units: pd.DataFrame, experiment: Experiment) -> None:
    whose = "cluster_id" if experiment.unit == "cluster" else "unit_id"
    if whose not in units or (whose == "cluster_id" and units.cluster_id.isna().any()):
        n = len(units) if whose not in units else int(units.cluster_id.isna().sum())
        raise ExperimentError(
            f"experiment {experiment.name!r}: {n} units have no {whose}. Its unit is a {experiment.unit}, so each must have "
            "one: bring it in exposures, or change the unit."
        )
    n_units = units.groupby("arm")[whose].nunique()
    few = {arm.name: int(n_units.get(arm.name, 0)) for arm in experiment.arms if n_units.get(arm.name, 0) < LEAST_UNITS}
    if few:
        first, n = next(iter(few.items()))
        raise ExperimentError(
            f"experiment {experiment.name!r}: {len(few)} of {len(experiment.arms)} arms have too few units; first: {first!r} with "
            f"{n}. Each must have {LEAST_UNITS} {experiment.unit}s or more that were exposed between {experiment.first_day} and "
            f"{experiment.last_day}: let it run on, or see whether exposures arrive."
        )
    below = units[units.revenue < 0]
    if len(below):
        raise ExperimentError(
            f"experiment {experiment.name!r}: {len(below)} units have a revenue below 0; first: {below.iloc[0].unit_id!r} with "
            f"{below.iloc[0].revenue:g}. What goes back is taken off its purchase, so none can be: bring prices >= 0."
        )


def _clusters(units: pd.DataFrame) -> pd.DataFrame:
    """A row a cluster: sums, and how many units; an arm's value is then a ratio, and users of a cluster are not taken as independent."""
    sums = [name for name in units if name in OUTCOMES or name.startswith("before_") or name == "forecast"]
    found = units.groupby(["arm", "cluster_id"], sort=True)[sums].sum()
    found["before_n_in_cluster"] = found["n_in_cluster"] = (
        units.groupby(["arm", "cluster_id"], sort=True).size().astype(float)
    )
    return found.reset_index().assign(unit_id=lambda frame: frame.cluster_id)


def _sample_ratio(sizes: pd.Series, experiment: Experiment) -> float:
    """Chi-squared test that the arms' numbers are as planned."""
    seen = np.array([sizes.get(arm.name, 0) for arm in experiment.arms], float)
    return float(stats.chisquare(seen, [arm.share * seen.sum() for arm in experiment.arms]).pvalue)


def _balance(pair: pd.DataFrame, experiment: Experiment, arm: str) -> Iterator[dict]:
    """Before the exposure there is no effect: what differs then is chance, or a fault of the drawing."""
    for outcome in ("revenue", "purchases"):
        if pair[f"before_{outcome}"].any():
            yield _mean(pair, f"before_{outcome}", f"before: {outcome}", experiment, arm)


def _effects(pair: pd.DataFrame, experiment: Experiment, arm: str) -> list[dict]:
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


def _analysed(pair: pd.DataFrame, metric: object, experiment: Experiment, arm: str) -> Mapping:
    import tea_tasting as tt

    if pair[metric.value if hasattr(metric, "value") else metric.numer].nunique() < 2:  # type: ignore[attr-defined]
        level = float(pair[metric.value if hasattr(metric, "value") else metric.numer].iloc[0])  # type: ignore[attr-defined]
        return {"treatment": level, "control": level, "effect_size": 0.0, "low": np.nan, "high": np.nan, "pvalue": 1.0}
    columns = [name for name in pair if name == "arm" or pd.api.types.is_numeric_dtype(pair[name])]
    result = tt.Experiment({"metric": metric}, variant="arm").analyze(pair[columns], control=experiment.control.name)
    told = result["metric"]._asdict()
    return told | {"low": told["effect_size_ci_lower"], "high": told["effect_size_ci_upper"]}


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
        "variance_taken": np.nan if taken is None else taken,
        "se": half / float(fixed_half_width(1.0)),
    }


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


def _by_segment(pair: pd.DataFrame, experiment: Experiment, arm: str) -> list[dict]:
    """The main effect among those who did nothing before, little, and much; p-values hold for all three together (Holm)."""
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
    order = np.argsort([row["p_value"] for row in rows])
    reached = 0.0
    for rank, place in enumerate(order):
        reached = max(reached, min(1.0, (len(rows) - rank) * rows[place]["p_value"]))
        rows[place]["p_adjusted"] = reached
    return rows


def _verdict(row: object, *, trusted: bool, over: bool) -> str:
    if row.metric.startswith("before"):  # type: ignore[attr-defined]
        return "differs before the exposure" if row.p_value < SRM_LEVEL else "balanced"  # type: ignore[attr-defined]
    if not trusted:
        return _NO_RATIO
    low, high = (row.ci_low, row.ci_high) if over else (row.sequence_low, row.sequence_high)  # type: ignore[attr-defined]
    certain = np.isfinite(row.p_adjusted) and row.p_adjusted >= LEVEL and over  # type: ignore[attr-defined]
    if not np.isfinite(low) or low <= 0 <= high or certain:
        return "no difference is shown"
    return "higher" if low > 0 else "lower"


def _warnings(
    frame: pd.DataFrame, units: pd.DataFrame, experiment: Experiment, *, n_in_two_arms: int, two: float
) -> tuple[str, ...]:
    told = []
    if n_in_two_arms:
        told.append(f"{n_in_two_arms} units met two arms ({two:.1%}) and are left out")
    odd = frame[frame.verdict == "differs before the exposure"]
    told += [f"{row.arm} differs from the control in {row.metric}: {row.effect:+.3g}" for row in odd.itertuples()]
    if not units.before_revenue.any():
        told.append(f"nobody bought in the {experiment.days_before} days before: no past can be taken out")
    share = tail_share(units.revenue.to_numpy(float))
    if share > 0.25:
        told.append(f"1 % of the units have {share:.0%} of the revenue: see the figure with the highest 1 % cut")
    return tuple(told)


def _sentence(frame: pd.DataFrame, p: float, two: float) -> str:
    if p < SRM_LEVEL:
        return f"No verdict: the arms' sizes are not as planned (p = {p:.1g}); find where units are lost."
    if two > TWO_ARMS_SHARE:
        return f"No verdict: {two:.1%} of the units met two arms; find why."
    main = frame[(frame.metric == MAIN) & (frame.segment == "all")]
    told = []
    for row in main.itertuples():
        relative = f" ({row.effect / row.control_value:+.1%})" if row.control_value else ""
        interval = (
            f"[{row.ci_low:+.3g}, {row.ci_high:+.3g}]; at any look [{row.sequence_low:+.3g}, {row.sequence_high:+.3g}]"
        )
        told.append(f"{row.arm}: revenue a unit {row.effect:+.3g}{relative} {interval}: {row.verdict}.")
    return " ".join(told)
