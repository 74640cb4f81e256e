"""The relation `drift`, kept up to date: what has not changed since is not counted again."""

from datetime import date

from duckdb import DuckDBPyConnection

from ecom_pipeline import ledger
from ecom_pipeline.schema import RELATIONS
from ecom_pipeline.watching import figures
from ecom_pipeline.watching.drift import Limits, judged

_COUNTED = "days of drift"  # in the ledger: what each day's figures were counted from


def watch(db: DuckDBPyConnection, limits: Limits, today: date, *, code: str) -> dict[str, int]:
    """Count the days that are new or have changed, note what this run made, and judge all of them.

    A day that lasts still is left out: half of a day has half of its events. So is one without events after the last one.

    Args:
        db: a connection inside the transaction that the asset writes in.
        limits: when a day is told.
        today: UTC.
        code: version of the code that counts; another one counts all days anew.

    Returns:
        How many days were counted, and how many are unusual.

    Cost: a scan of the days that changed and of the 28 before each; the judging is of some hundred values a day.
    """
    RELATIONS["drift"].create(db)
    whole = f"day < date '{today}'"
    days = f"""select day, md5(content || '{code}') as made_from, content, n_rows from ledger
        where asset = 'cleaned_interactions' and {whole}"""
    known = f"select day, made_from from ledger where asset = '{_COUNTED}'"
    db.execute(
        f"""create or replace temp table changed_days as select day from ({days}) as d full join ({known}) as k using (day)
        where d.made_from is distinct from k.made_from"""
    )
    reached = f"""select t.day from (
            select unnest(generate_series(min(day), max(day), interval 1 day))::date as day from ({days})) as t
        where exists (from changed_days as c where t.day between c.day and c.day + {figures.RECENT_DAYS})"""
    db.execute(f"create or replace temp table counted_days as {reached}")
    db.execute(f"create or replace temp table watched {figures.VALUES}")
    figures.of_days(db, "from counted_days", into="watched")
    (last,) = db.execute(f"select coalesce(max(day), date '{today}') from ({days})").fetchall()[0]
    figures.of_run(db, last, into="watched")
    gone = f"""day in (from counted_days) or day < (select min(day) from ({days})) or day > date '{last}'"""
    db.execute(
        f"""insert into watched select day, family, figure, part, kind, value from drift
        where case family when 'events' then not coalesce({gone}, false) else day <> date '{last}' end"""
    )
    cast = RELATIONS["drift"].cast
    db.execute(f"create or replace table drift as select {cast} from ({judged('watched', limits)}) order by all")
    ledger.record_days(db, _COUNTED, days)
    ledger.forget_days(db, _COUNTED, f"select day from ({days})")
    n_changed, n_unusual = db.execute(
        """select (select count(*) from changed_days), count(distinct day) filter (verdict = 'unusual') from drift"""
    ).fetchall()[0]
    return {"n_days_counted": n_changed, "n_days_unusual": n_unusual}
