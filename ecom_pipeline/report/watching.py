"""What has changed: figures of the last days that are farther from usual than ordinary days are; and what a day costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import page as html
from ecom_pipeline.watching.costs import by_day, costliest
from ecom_pipeline.watching.drift import Alarm, alarms

RECENT = 7
SHOWN = (("events", ""), ("users", ""), ("rejected", ""))  # a line each, so that one sees what an ordinary day is


@dataclass(frozen=True, slots=True)
class WatchedTold:
    """What is told of drift.

    Attributes:
        last: the last day that was watched.
        n_figures: that were judged on it.
        alarms: of the last seven days.
        series: rows of `drift` of the figures in `SHOWN`, by day.
        costs: a row a day on which anything was made, as `by_day` has them.
        costliest: steps that took longest on the last of them, by the assets that they make.
    """

    last: pd.Timestamp
    n_figures: int
    alarms: Sequence[Alarm]
    series: pd.DataFrame
    costs: pd.DataFrame
    costliest: pd.DataFrame


def gather(db: DuckDBPyConnection) -> WatchedTold | None:
    """What is known; None where no day was watched."""
    last, n_figures = db.execute(
        """select max(day), count(*) filter (verdict <> 'too early' and day = (select max(day) from drift)) from drift"""
    ).fetchall()[0]
    if last is None:
        return None
    series = db.execute(
        "select day, figure, part, value, usual, verdict from drift where family = 'events' and day > ? - 120 order by day",
        [last],
    ).df()
    return WatchedTold(pd.Timestamp(last), n_figures, alarms(db, RECENT), series, by_day(db), costliest(db))


def sentence(told: WatchedTold) -> str:
    """The main thing in words."""
    day = told.last.date()
    if not told.n_figures:
        return f"Until {day} too few days are known to say what is usual."
    if not told.alarms:
        return f"In the seven days to {day} nothing was unusual; {told.n_figures} figures were judged on the last one."
    return (
        f"In the seven days to {day}, {len(told.alarms)} figures were farther from usual than ordinary days are; "
        f"{told.n_figures} were judged on the last one."
    )


def cost_sentence(costs: pd.DataFrame) -> str:
    """What the last day took, beside the days before."""
    last, before = costs.iloc[-1], costs.iloc[:-1]
    gpu = f", a GPU for {last.gpu_seconds:,.0f} of them" if last.gpu_seconds else ""
    usual = f" The median of the {len(before)} days before was {before.seconds.median():,.0f} s." if len(before) else ""
    return (
        f"On {last.day.date()} all that was made took {last.seconds:,.0f} s{gpu}, and {last.n_rows:,.0f} rows were written; the "
        f"home holds {last.home_bytes / 2**30:.2f} GiB.{usual}"
    )


def for_template(told: WatchedTold) -> dict[str, Any]:
    """What `watching.html.j2` is given."""
    found: dict[str, Any] = {"watched": told, "watched_sentence": sentence(told), "watched_figure": _figure(told)}
    if not told.costs.empty:
        figure = _costs_figure(told.costs) if len(told.costs) > 1 else ""  # one day is no series
        found |= {"costs_sentence": cost_sentence(told.costs), "costs_figure": figure}
    return found


def _figure(told: WatchedTold) -> str:
    figure, panes = html.axes(len(SHOWN), height=2.2)
    for axes, (name, part) in zip(panes, SHOWN, strict=True):
        rows = told.series[(told.series.figure == name) & (told.series.part == part)]
        odd = rows[rows.verdict == "unusual"]
        axes.plot(rows.day, rows.usual, color=html.ORANGE, linewidth=1)
        axes.plot(rows.day, rows.value, color=html.BLUE, linewidth=1)
        axes.plot(odd.day, odd.value, "o", color=html.INK)
        axes.set(xlabel=f"{name} a day")
        axes.tick_params(axis="x", labelrotation=45)
    return html.svg(figure)


def _costs_figure(costs: pd.DataFrame) -> str:
    shown = (
        ("seconds", 1, "seconds a day"),
        ("n_rows", 1e6, "million rows written"),
        ("home_bytes", 2**30, "GiB at home"),
    )
    figure, panes = html.axes(len(shown), height=2.2)
    for axes, (column, unit, name) in zip(panes, shown, strict=True):
        axes.plot(costs.day, costs[column] / unit, "o-", color=html.BLUE, markersize=3, linewidth=1)
        axes.set(xlabel=name, ylim=(0, None))
        axes.tick_params(axis="x", labelrotation=45)
    return html.svg(figure)
