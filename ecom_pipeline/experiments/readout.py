"""What an experiment showed: the sample ratio first, then balance before, then effects with intervals of both kinds.

Who counts, which figures are asked together, and what may be said of them; the figures themselves are in `effects`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ecom_pipeline.arrays import Floats
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments.effects import LEAST_UNITS, MAIN, balance, by_segment, effects
from ecom_pipeline.experiments.plan import Experiment
from ecom_pipeline.experiments.sequences import LEVEL, half_width
from ecom_pipeline.experiments.units import OUTCOMES

SRM_LEVEL = 0.001  # below it, units were lost or drawn otherwise than planned
SRM_DOUBT = 0.01  # below it, they may have been
TWO_ARMS_SHARE = 0.01  # of units that met both arms, from which on nothing is to be believed
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
    whole, two = _of_one_arm(units, experiment), n_in_two_arms / max(n_in_two_arms + len(units), 1)
    _refuse(whole, experiment)
    n_split = 0
    if experiment.unit == "cluster":
        n_clusters = units.cluster_id.nunique()
        whole = _clusters(whole)
        n_split = n_clusters - len(whole)
        two = max(two, n_split / n_clusters)
    sizes = whole.groupby("arm").size()
    p = _sample_ratio(sizes, experiment)
    frame = _figures(whole, experiment)
    n_share = frame.n_units / frame.n_units.max()
    now = np.maximum((sizes.sum() * n_share).to_numpy(float), 1)
    se = frame.se.where(~frame.metric.str.startswith("before")).to_numpy(float)
    width = half_width(se, now, n_planned)
    frame["sequence_low"], frame["sequence_high"] = frame.effect - width, frame.effect + width
    frame["beyond_sequence"] = frame.effect.abs() > half_width(
        se, now, n_planned, level=LEVEL / frame.n_together.to_numpy(float)
    )
    trusted = p >= SRM_LEVEL and two <= TWO_ARMS_SHARE
    frame["verdict"] = [_verdict(row, trusted=trusted, over=over) for row in frame.itertuples()]
    warnings = _warnings(frame, whole, experiment, n_in_two_arms=n_in_two_arms, n_split=n_split)
    if SRM_LEVEL <= p < SRM_DOUBT:
        warnings = (f"the arms' sizes are odd (p = {p:.2g}): see whether units are lost", *warnings)
    order = [
        *("experiment", "metric", "segment", "arm", "n_units", "value", "control_value", "effect", "ci_low", "ci_high"),
        *("sequence_low", "sequence_high", "p_value", "p_adjusted", "variance_taken", "verdict"),
    ]
    frame = frame.assign(experiment=experiment.name)[order]
    return Readout(frame, p, tail_share(whole.revenue.to_numpy(float)), _sentence(frame, p, two), warnings)


def tail_share(revenue: Floats) -> float:
    """Share of the total that the 1 % of units with the most have; NaN where there is no total.

    >>> tail_share(np.r_[np.ones(99), 99.0])
    0.5
    """
    total = revenue.sum()
    n_top = max(1, round(len(revenue) / 100))
    return float(np.sort(revenue)[-n_top:].sum() / total) if total else float("nan")


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


def _of_one_arm(units: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Without the clusters in which both arms were met; that was no drawing of clusters."""
    if experiment.unit != "cluster" or "cluster_id" not in units:
        return units
    return units[~(units.groupby("cluster_id").arm.transform("nunique") > 1)]


def _figures(units: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """All figures of all arms; p-values hold for all that are asked together.

    What was settled beforehand, the main figure, is corrected for the number of arms alone (Holm), segments for arms and
    segments (Holm), and the others, which only show where to look, by their false discoveries (Benjamini and Hochberg).
    """
    before: list[dict] = []
    main: list[dict] = []
    others: list[dict] = []
    segments: list[dict] = []
    for arm in experiment.arms[1:]:
        pair = units[units.arm.isin([experiment.control.name, arm.name])]
        before += balance(pair, experiment, arm.name)
        first, *rest = effects(pair, experiment, arm.name)
        main.append(first)
        others += rest
        segments += by_segment(pair, experiment, arm.name)
    for rows, adjust in ((main, holm), (others, stats.false_discovery_control), (segments, holm)):
        adjusted = adjust(np.array([row["p_value"] for row in rows])) if rows else []
        for row, q in zip(rows, adjusted, strict=True):
            row |= {"p_adjusted": float(q), "n_together": len(rows)}
    return pd.DataFrame([*before, *main, *others, *segments])


def holm(p: Floats) -> Floats:
    """P-values that hold for all of them together, whatever depends on what.

    >>> holm(np.array([0.01, 0.5, 0.02])).tolist()
    [0.03, 0.5, 0.04]
    """
    order = np.argsort(p)
    reached = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return reached[np.argsort(order)]


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


def _verdict(row: Any, *, trusted: bool, over: bool) -> str:
    if row.metric.startswith("before"):
        return "differs before the exposure" if row.p_value < SRM_LEVEL else "balanced"
    if not trusted:
        return _NO_RATIO
    at_the_end = np.isfinite(row.ci_low) and row.p_adjusted < LEVEL
    if not (at_the_end if over else row.beyond_sequence and row.se > 0):
        return "no difference is shown"
    return "higher" if row.effect > 0 else "lower"


def _warnings(
    frame: pd.DataFrame, units: pd.DataFrame, experiment: Experiment, *, n_in_two_arms: int, n_split: int
) -> tuple[str, ...]:
    told = []
    if n_in_two_arms:
        told.append(f"{n_in_two_arms} users met two arms and are left out")
    if n_split:
        told.append(f"{n_split} clusters met two arms and are left out")
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
