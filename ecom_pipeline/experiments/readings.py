"""Experiments of a home, read from its warehouse: one with its warnings, or all as rows."""

from collections.abc import Sequence

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments.plan import Experiment
from ecom_pipeline.experiments.power import expected_units
from ecom_pipeline.experiments.readout import Readout, read_out
from ecom_pipeline.experiments.units import read_units
from ecom_pipeline.schema import EXPERIMENT_READOUT

UNREAD = "none"  # metric of the row of an experiment that cannot be read yet


def read_experiment(db: DuckDBPyConnection, experiment: Experiment) -> Readout:
    """What an experiment has shown until the last day of the data.

    Raises:
        ExperimentError: if too few units were exposed.
    """
    exposed = read_units(db, experiment)
    found = read_out(
        exposed.units,
        experiment,
        n_planned=expected_units(db, experiment),
        n_in_two_arms=exposed.n_in_two_arms,
        over=exposed.until is not None and exposed.until.date() >= experiment.last_day,
    )
    more = []
    if exposed.n_foreign:
        more.append(f"{exposed.n_foreign} units met an arm that is none of the experiment's and are left out")
    if exposed.n_unpriced:
        more.append(f"{exposed.n_unpriced} purchases have no price and count as no revenue")
    return Readout(found.rows, found.sample_ratio_p, found.tail_share, found.verdict, (*found.warnings, *more))


def every_readout(db: DuckDBPyConnection, experiments: Sequence[Experiment]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows of all experiments, and a sentence each; one that cannot be read yet has a row that says why."""
    frames, verdicts = [], {}
    for experiment in experiments:
        try:
            found = read_experiment(db, experiment)
        except ExperimentError as error:
            verdicts[experiment.name] = str(error)
            told = {"experiment": experiment.name, "metric": UNREAD, "segment": "all", "arm": experiment.control.name}
            frames.append(pd.DataFrame([told | {"n_units": 0, "verdict": str(error)}]))
            continue
        verdicts[experiment.name] = " ".join([found.verdict, *found.warnings])
        frames.append(found.rows)
    columns = EXPERIMENT_READOUT.column_names
    rows = [frame.reindex(columns=columns) for frame in frames]
    return (pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)), verdicts
