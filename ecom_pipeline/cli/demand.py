"""`ecom demand`: what to order."""

from pathlib import Path
from typing import Annotated

import typer

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, finished, writing
from ecom_pipeline.errors import InputError


@app.command()
def demand(
    home: HomeOption = DEFAULT_HOME,
    item: Annotated[str, typer.Option(help="An item_id.")] = "",
    category: Annotated[str, typer.Option(help="The path of a category.")] = "",
    csv: Annotated[Path | None, typer.Option(help="Write all forecasts, or those asked for, to this file.")] = None,
) -> None:
    """Print the units that are expected in the weeks to come, with intervals and how many are enough in 95 of 100 weeks."""
    if bool(item) == bool(category) and not (csv and not item):
        raise InputError(
            f"demand: {2 if item else 0} of --item and --category are given; first: {item!r}. Exactly 1 must be, or none with --csv: "
            "say what is ordered."
        )
    level, name = ("item", item) if item else ("category", category)
    with finished(home, "demand_forecast") as db:
        where = "true" if not name else "level = ? and lower(name) = lower(?)"
        rows = db.execute(
            f"select * from demand_forecast where {where} order by level, name, week", [level, name] if name else []
        ).df()
        if rows.empty:
            n, first = db.execute(
                "select count(distinct name), min(name) from demand_forecast where level = ?", [level]
            ).fetchall()[0]
            raise InputError(
                f"demand: 1 {level} has no forecast: {name!r}. It must be one of the {n:,} that are foretold, the first {first!r}: "
                "look it up in the relation demand_forecast, or foretell more by n_items."
            )
    if csv:
        writing(csv, lambda: rows.to_csv(csv, index=False))
        print(f"{len(rows):,} rows: {csv}")
        return
    print(f"{name}: {rows.method.iloc[0]}")
    print(f"{'week':<12}{'units':>10}{'order for 95 %':>16}{'80 %':>22}{'95 %':>22}")
    for row in rows.itertuples():
        inner, outer = (
            f"{low:.1f} to {high:.1f}" for low, high in ((row.low_80, row.high_80), (row.low_95, row.high_95))
        )
        print(f"{row.week:%Y-%m-%d}  {row.units:>10.2f}{row.order_for_95:>16.1f}{inner:>22}{outer:>22}")
