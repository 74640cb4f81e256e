"""What to order: forecasts of items and categories, for the report."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import page as html
from ecom_pipeline.demand.classical import METHODS
from ecom_pipeline.demand.evaluation import CHOSEN, TWIN

METRICS = ("MASE", "scaled pinball", "inside 80 %", "inside 95 %", "enough by order_for_95")
N_SHOWN = 10


@dataclass(frozen=True, slots=True)
class DemandTold:
    """What is told of demand.

    Attributes:
        figures: as the relation `demand_evaluation`.
        next_week: of the items sold most: name, title, week, units, low_95, high_95, order_for_95.
        n_items: that are foretold.
    """

    figures: pd.DataFrame
    next_week: pd.DataFrame
    n_items: int

    def row(self, method: str, metric: str, slice_: str = "all") -> Any:
        """One figure; None where there is none."""
        found = self.figures
        match = found[(found.method == method) & (found.metric == metric) & (found.slice == slice_)]
        return next(match.itertuples(), None)

    @property
    def strongest(self) -> str:
        """The best classical method, by scaled errors of the test, in its favour."""
        known = {method: self.row(method, "MASE") for method in METHODS}
        return min((method for method in METHODS if known[method] is not None), key=lambda one: known[one].value)


def gather(db: DuckDBPyConnection) -> DemandTold | None:
    """What is known; None where nothing is foretold."""
    rows = db.execute(
        f"""select name, title, week, units, low_95, high_95, order_for_95 from demand_forecast join items on item_id = name
        where level = 'item' and week = (select min(week) from demand_forecast) order by units desc, name limit {N_SHOWN}"""
    ).df()
    (n_items,) = db.execute("select count(distinct name) from demand_forecast where level = 'item'").fetchall()[0]
    return DemandTold(db.execute("select * from demand_evaluation").df(), rows, n_items) if n_items else None


def sentences(told: DemandTold) -> list[str]:
    """What the figures say, the main one first."""
    row = told.row(CHOSEN, "MASE")
    if row is None:
        return ["There are too few weeks to test forecasts on past ones."]
    best, twin = (told.row(f"{CHOSEN} - {other}", "MASE") for other in (told.strongest, TWIN))
    inner, outer, enough = (told.row(CHOSEN, metric) for metric in METRICS[2:])
    return [
        f"Forecasts of past weeks were off by {row.value:.3f} of a naive forecast's steps [{row.ci_low:.3f}, {row.ci_high:.3f}], "
        f"{best.value:+.3f} [{best.ci_low:+.3f}, {best.ci_high:+.3f}] against the strongest classical method, {told.strongest}, picked "
        f"on the test in its favour; choosing weights of rows {twin.value:+.4f} [{twin.ci_low:+.4f}, {twin.ci_high:+.4f}] against none; "
        f"over {row.n_items:,} items.",
        f"Of what came, {inner.value:.1%} lay inside the 80 % and {outer.value:.1%} inside the 95 % intervals, and the order for 95 % "
        f"was enough in {enough.value:.1%} of the weeks.",
    ]


def for_template(told: DemandTold) -> dict[str, Any]:
    """What `demand.html.j2` is given."""
    return {
        "demand": told,
        "demand_sentences": sentences(told),
        "demand_metrics": METRICS,
        "demand_methods": (CHOSEN, TWIN, *METHODS),
        "demand_cell": _cell,
        "demand_figure": _figure(told),
    }


def _cell(row: Any) -> str:
    return "" if row is None else f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"


def _figure(told: DemandTold) -> str:
    """Scaled errors of all methods, by kind of demand."""
    methods = [method for method in (CHOSEN, TWIN, *METHODS) if told.row(method, "MASE") is not None]
    if not methods:
        return ""
    figure, panes = html.axes(3, height=2.4)
    for axes, slice_ in zip(panes, ("all", "smooth", "intermittent"), strict=True):
        shown = [(method, told.row(method, "MASE", slice_)) for method in methods]
        shown = [(method, row) for method, row in shown if row is not None]
        html.forest(
            axes, [method for method, _ in shown] if slice_ == "all" else [""] * len(shown), [row for _, row in shown]
        )
        axes.set(xlabel=f"MASE, {slice_}")
    return html.svg(figure)
