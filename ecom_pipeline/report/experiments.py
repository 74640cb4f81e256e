"""Does it sell more? What experiments showed, for the report and the terminal."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import page as html
from ecom_pipeline.experiments.effects import MAIN
from ecom_pipeline.experiments.readings import UNREAD

NO_EXPERIMENTS = "No experiment is defined, so nothing tells whether it sells more."


@dataclass(frozen=True, slots=True)
class ExperimentsTold:
    """What is told of experiments.

    Attributes:
        rows: as the relation `experiment_readout`.
    """

    rows: pd.DataFrame

    @property
    def names(self) -> list[str]:
        """Of the experiments, in order."""
        return sorted(self.rows.experiment.unique())

    def of(self, name: str) -> pd.DataFrame:
        """Rows of one experiment."""
        return self.rows[self.rows.experiment == name]


def gather(db: DuckDBPyConnection) -> ExperimentsTold | None:
    """What was read out; None where no experiment is defined."""
    rows = db.execute("select * from experiment_readout").df()
    return ExperimentsTold(rows) if len(rows) else None


def verdict(told: ExperimentsTold) -> str:
    """A sentence an experiment: the main figure, or why there is none."""
    return " ".join(f"Experiment {name}: {_main(told.of(name))}" for name in told.names)


def _main(rows: pd.DataFrame) -> str:
    if (rows.metric == UNREAD).any():
        return rows.verdict.iloc[0]
    main = rows[(rows.metric == MAIN) & (rows.segment == "all")]
    return (
        "; ".join(
            f"{row.arm} {percent(row.effect, row.control_value)} revenue a unit "
            f"[{percent(row.ci_low, row.control_value)}, {percent(row.ci_high, row.control_value)}], {row.verdict}"
            for row in main.itertuples()
        )
        + "."
    )


def percent(part: float, whole: float) -> str:
    """A part with its sign, as a share of a whole.

    >>> percent(-0.5, 10)
    '-5.0%'
    """
    return f"{part / whole:+.1%}" if whole and np.isfinite(part) else "not known"


def readout_lines(rows: pd.DataFrame) -> list[str]:
    """A table for the terminal: a line a figure."""
    shown = [f"{'':<62}{'control':>10}{'arm':>10}{'effect':>10}{'one look':>22}{'any look':>22}"]
    for row in rows.itertuples():
        name = f"{row.arm}: {row.metric}" + (f", {row.segment}" if row.segment != "all" else "")
        one, many = _interval(row.ci_low, row.ci_high), _interval(row.sequence_low, row.sequence_high)
        shown.append(
            f"{name:<62}{row.control_value:>10.4g}{row.value:>10.4g}{row.effect:>+10.3g}{one:>22}{many:>22}  {row.verdict}"
        )
    return shown


def _interval(low: float, high: float) -> str:
    return f"[{low:+.3g}, {high:+.3g}]" if np.isfinite(low) and np.isfinite(high) else ""


def for_template(told: ExperimentsTold) -> dict[str, Any]:
    """What `experiments.html.j2` is given."""
    return {
        "experiments": told,
        "experiments_verdict": _main,
        "experiments_percent": percent,
        "experiments_interval": _interval,
        "experiments_figure": {name: _figure(told.of(name)) for name in told.names},
        "experiments_unread": UNREAD,
    }


def _figure(rows: pd.DataFrame) -> str:
    """Effects as shares of the control's value, with the interval of one look."""
    shown = rows[~rows.metric.str.startswith("before") & rows.ci_low.notna() & (rows.control_value.abs() > 0)]
    if shown.empty:
        return ""
    scaled = pd.DataFrame(
        {
            "value": shown.effect / shown.control_value,
            "ci_low": shown.ci_low / shown.control_value,
            "ci_high": shown.ci_high / shown.control_value,
        }
    )
    several = shown.arm.nunique() > 1
    names = [
        (f"{row.arm}: " if several else "") + row.metric + (f", {row.segment}" if row.segment != "all" else "")
        for row in shown.itertuples()
    ]
    figure, (axes,) = html.axes(1, height=0.8 + 0.3 * len(names))
    html.forest(axes, names, list(scaled.itertuples()), zero=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    axes.set(xlabel="effect, as a share of the control's figure")
    return html.svg(figure)
