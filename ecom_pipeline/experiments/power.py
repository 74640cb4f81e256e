"""Before the start: how many units will come, and the smallest effect that could be seen."""

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments.plan import Experiment
from ecom_pipeline.experiments.sequences import LEVEL
from ecom_pipeline.experiments.units import read_units

POWER = 0.8
UNPLANNED = 5000  # units for which a sequence is narrowest where no past tells how many will come


@dataclass(frozen=True, slots=True)
class Plan:
    """What an experiment could show, by as many days as it lasts before it.

    Attributes:
        first_day: of the days that were looked at.
        last_day: likewise.
        n_units: people who bought in them, times the experiment's part of the traffic.
        revenue: mean of a unit.
        tail_share: share of the revenue that the 1 % with the most have.
        explained: share of the variance that the own past takes out.
        smallest: relative effect of an arm on revenue that is found with `POWER`, past taken out.
        smallest_unadjusted: the same without the past.
    """

    first_day: date
    last_day: date
    n_units: int
    revenue: float
    tail_share: float
    explained: float
    smallest: float
    smallest_unadjusted: float


def expected_units(db: DuckDBPyConnection, experiment: Experiment) -> int:
    """Units that are expected, by those who acted in as many days before; `UNPLANNED` where nobody did."""
    first, last = _days_before(db, experiment)
    (n,) = db.execute(
        f"select count(distinct {identity.actor('e')}) from cleaned_interactions as e where day between ? and ?",
        [first, last],
    ).fetchall()[0]
    share = experiment.traffic[1] - experiment.traffic[0]
    return round(n * share) or UNPLANNED


def plan(db: DuckDBPyConnection, experiment: Experiment) -> Plan:
    """What could be seen, were the experiment's days as those before them.

    Args:
        db: a connection to a warehouse with `cleaned_interactions`.
        experiment: that has not begun, or whose past is looked at.

    Raises:
        ExperimentError: if nobody bought in as many days before.

    Source: tea-tasting solves the power of its own tests.
    """
    import tea_tasting as tt

    from ecom_pipeline.experiments.readout import tail_share

    first, last = _days_before(db, experiment)
    length = (last - first).days + 1
    pretended = replace(experiment, name="plan", first_day=first, last_day=last)
    db.execute("create or replace temp table everybody as select * from exposures limit 0")
    db.execute(
        f"""insert into everybody by name select 'plan' as experiment, ? as arm, {identity.actor("e")} as unit_id,
            min(day)::timestamp as exposed_at from cleaned_interactions as e where day between ? and ? group by all""",
        [experiment.control.name, first, last],
    )
    db.execute("update everybody set exposed_at = ?", [first])
    units = read_units(db, pretended, exposures="everybody").units
    db.execute("drop table everybody")
    if not units.revenue.any():
        raise ExperimentError(
            f"experiment {experiment.name!r}: nobody bought from {first} to {last}, the {length} days before it. What it could "
            "show is told by what was bought before: bring older events, or start later."
        )
    share = experiment.traffic[1] - experiment.traffic[0]
    n = max(round(len(units) * share), 4)
    least = min(arm.share for arm in experiment.arms[1:])
    ratio = least / experiment.control.share
    n_pair = max(round(n * (least + experiment.control.share)), 4)
    settings = {"alpha": LEVEL, "power": POWER, "ratio": ratio, "n_obs": n_pair}
    frame = units[["revenue", "before_revenue"]]
    smallest = [
        tt.Mean("revenue", past, **settings).solve_power(frame, "rel_effect_size")[0].rel_effect_size
        for past in ("before_revenue" if units.before_revenue.nunique() > 1 else None, None)
    ]
    revenue, before = units.revenue.to_numpy(float), units.before_revenue.to_numpy(float)
    explained = float(np.corrcoef(revenue, before)[0, 1] ** 2) if before.std() and revenue.std() else 0.0
    return Plan(
        first, last, n, float(revenue.mean()), tail_share(revenue), explained, *(float(one) for one in smallest)
    )


def _days_before(db: DuckDBPyConnection, experiment: Experiment) -> tuple[date, date]:
    """As many days as the experiment has, the last ones of the data before it starts."""
    (last,) = db.execute("select max(day) from cleaned_interactions where day < ?", [experiment.first_day]).fetchall()[
        0
    ]
    last = last or experiment.first_day - timedelta(days=1)
    return last - (experiment.last_day - experiment.first_day), last
