"""What each unit of an experiment did before it was exposed, and after."""

from dataclasses import dataclass

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.experiments.plan import Experiment
from ecom_pipeline.purchases import KEPT

OUTCOMES = ("revenue", "purchases", "pieces", "visits")

_KEPT = f"select {identity.actor('e')} as unit_id, occurred_at, day, price, pieces from ({KEPT}) as e"


@dataclass(frozen=True, slots=True)
class Exposed:
    """Units of an experiment.

    Attributes:
        units: a row a unit: unit_id, arm, cluster_id, exposed_at, the `OUTCOMES` after the exposure, and the same of the
            days before it under before_<outcome>.
        n_in_two_arms: units that met two arms and are left out.
        n_foreign: units whose arm is none of the experiment's, and that are left out.
        n_unpriced: purchases after an exposure without a price; they count as no revenue.
        until: last day of the data, or of the experiment if that is earlier; None: nobody was exposed.
    """

    units: pd.DataFrame
    n_in_two_arms: int
    n_foreign: int
    n_unpriced: int
    until: pd.Timestamp | None


def read_units(db: DuckDBPyConnection, experiment: Experiment, *, exposures: str = "exposures") -> Exposed:
    """Who was exposed in an experiment's days, and what they bought from then to its last day.

    Args:
        db: a connection to a warehouse with `exposures` and `cleaned_interactions`.
        experiment: which.
        exposures: a relation like it, to ask what would have been.

    Cost: a scan of both.
    """
    arms = [arm.name for arm in experiment.arms]
    db.execute(
        f"""create or replace temp table exposed as
        select unit_id, min(arm) as arm, min(cluster_id) as cluster_id, min(exposed_at) as exposed_at,
            count(distinct arm) as n_arms, list_contains(?, min(arm)) as known
        from {exposures} where experiment = ? and exposed_at::date between ? and ? group by unit_id""",
        [arms, experiment.name, experiment.first_day, experiment.last_day],
    )
    n_two, n_foreign = db.execute(
        "select count(*) filter (where n_arms > 1), count(*) filter (where n_arms = 1 and not known) from exposed"
    ).fetchall()[0]
    after = f"occurred_at >= exposed_at and k.day <= date '{experiment.last_day}'"
    before = f"occurred_at < exposed_at and occurred_at >= exposed_at - interval {experiment.days_before} day"
    sums = ", ".join(
        f"coalesce({what} filter (where {when}), 0)::double as {prefix}{name}"
        for prefix, when in (("", after), ("before_", before))
        for name, what in zip(
            OUTCOMES,
            ("sum(pieces * price)", "count(*)", "sum(pieces)", "count(distinct k.day)"),
            strict=True,
        )
    )
    units = db.execute(
        f"""with kept as ({_KEPT})
        select unit_id, arm, cluster_id, exposed_at, {sums}
        from exposed left join (from kept where pieces > 0) as k using (unit_id)
        where n_arms = 1 and known group by all order by unit_id"""
    ).df()
    (n_unpriced,) = db.execute(
        f"with kept as ({_KEPT}) select count(*) from kept as k join exposed using (unit_id) "
        f"where price is null and {after}"
    ).fetchall()[0]
    (until,) = db.execute("select least(max(day), ?) from cleaned_interactions", [experiment.last_day]).fetchall()[0]
    db.execute("drop table exposed")
    return Exposed(units, n_two, n_foreign, n_unpriced, pd.Timestamp(until) if until else None)
