"""One self-contained HTML page that a product manager can read, and the same figures as text.

On the floor above `benchmark`. It has two halves: lists of the whole catalogue, learnt from what users took, and search,
learnt from judged and searched pairs; a shop may lack either. matplotlib and Jinja2 are imported when a page is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import page as html
from ecom_pipeline.language.embeddings import IN_USE
from ecom_pipeline.recommend import backtest
from ecom_pipeline.report import audiences, demand, experiments, lists, search, watching
from ecom_pipeline.schema.inputs import COLUMNS

NO_LISTS = "Nobody took anything, so there is nothing to learn lists from."
NO_SEARCH = "Nothing was judged and nobody searched, so there is nothing to learn search from."


@dataclass(frozen=True, slots=True)
class Page:
    """What the page tells.

    Attributes:
        counts: rows in and rejected of each table, and texts read that are in use.
        rejected: a row a rule: source, rule, n_rows, first_reason.
        lists: what is told of the lists; None where nobody took anything.
        search: what is told of search; None where nothing was judged and nobody searched.
        experiments: what is told of experiments; None where none is defined.
        audiences: what is told of campaigns; None where there are none.
        demand: what is told of the weeks to come; None where there are too few weeks.
        watched: what is told of drift; None where no day was watched.
    """

    counts: Mapping[str, int]
    rejected: pd.DataFrame
    lists: lists.ListsTold | None
    search: search.SearchTold | None
    experiments: experiments.ExperimentsTold | None
    audiences: audiences.AudiencesTold | None
    demand: demand.DemandTold | None
    watched: watching.WatchedTold | None


def gather(db: DuckDBPyConnection, models: Path) -> Page:
    """Read what the page tells.

    Args:
        db: a connection to the warehouse.
        models: folder of all fine-tuned models.
    """
    counts = {}
    for table in COLUMNS:
        (counts[f"{table} in"],) = db.execute(f"select count(*) from raw_{table}").fetchall()[0]
        (counts[f"{table} rejected"],) = db.execute(
            "select count(*) from rejected_rows where source = ?", [table]
        ).fetchall()[0]
    (counts["texts read"],) = db.execute(f"select count(*) from embeddings where {IN_USE}").fetchall()[0]
    rejected = db.execute(
        """select source, rule, count(*) as n_rows, arg_min(reason, row_number) as first_reason
        from rejected_rows group by source, rule order by n_rows desc, source, rule"""
    ).df()
    return Page(
        counts,
        rejected,
        lists.gather(db),
        search.gather(db, models),
        experiments.gather(db),
        audiences.gather(db),
        demand.gather(db),
        watching.gather(db),
    )


def verdicts(page: Page) -> list[str]:
    """A sentence a half: did weights help? And one of experiments, where there are any."""
    told = [
        lists.verdict(page.lists) if page.lists else NO_LISTS,
        search.verdict(page.search) if page.search else NO_SEARCH,
    ]
    return [*told, experiments.verdict(page.experiments)] if page.experiments else told


def headline(page: Page) -> dict[str, float]:
    """The figures one would ask for first, by half."""
    halves = {
        "lists": backtest.headline(page.lists.evaluation) if page.lists else {},
        "search": search.headline(page.search) if page.search else {},
    }
    return {f"{half}_{name}": figure for half, figures in halves.items() for name, figure in figures.items()}


def lines(page: Page) -> list[str]:
    """The short tables that a terminal shows."""
    of_lists = lists.lines(page.lists) if page.lists else [NO_LISTS]
    of_search = search.lines(page.search) if page.search else [NO_SEARCH]
    of_sales = ["", experiments.verdict(page.experiments)] if page.experiments else []
    return [*_came(page), "", *of_lists, "", *of_search, *of_sales]


def _came(page: Page) -> list[str]:
    shown = []
    for table in COLUMNS:
        came, gone = page.counts[f"{table} in"], page.counts[f"{table} rejected"]
        if came:
            shown.append(f"{table.replace('_', ' '):<18}{came:>11,} in {came - gone:>11,} kept {gone:>9,} rejected")
    for row in page.rejected.head(6).itertuples():
        shown.append(f"  {row.source + ': ' + row.rule:<38}{row.n_rows:>9,}   {_short(row.first_reason, 90)}")
    if len(page.rejected) > 6:
        more = f"and {len(page.rejected) - 6} more rules"
        shown.append(f"  {more:<38}{page.rejected.n_rows[6:].sum():>9,}   see the report")
    return shown


def _short(text: str, width: int) -> str:
    """A text with its middle left out if it is long: both what must hold and what was there are told."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half:]}"


def markdown(page: Page) -> str:
    """The results as tables for Dagster's UI."""
    of_lists = lists.markdown(page.lists) if page.lists else NO_LISTS
    return "\n\n".join([of_lists, search.markdown(page.search) if page.search else NO_SEARCH])


def write(page: Page, path: Path) -> None:
    """Write the page, all or nothing."""
    halves = {
        "lists": None,
        "search": None,
        "experiments": None,
        "audiences": None,
        "demand": None,
        "watched": None,
        "no_lists": NO_LISTS,
        "no_search": NO_SEARCH,
    }
    if page.lists:
        halves |= lists.for_template(page.lists)
    if page.search:
        halves |= search.for_template(page.search)
    if page.experiments:
        halves |= experiments.for_template(page.experiments)
    if page.audiences:
        halves |= audiences.for_template(page.audiences)
    if page.demand:
        halves |= demand.for_template(page.demand)
    if page.watched:
        halves |= watching.for_template(page.watched)
    html.write("report.html.j2", path, page=page, verdicts=verdicts(page), **halves)
