"""What each day cost: a row an asset and run, kept for good, so that one sees growth before it hurts."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import datetime

import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.schema import RELATIONS


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took to make one asset; fields as the columns of `costs`."""

    run_id: str
    asset: str
    ended_at: datetime
    seconds: float
    n_rows: int
    gpu_seconds: float
    home_bytes: int


def note(db: DuckDBPyConnection, costs: Iterable[Cost]) -> int:
    """Add what is not noted yet, and return how much that was.

    Args:
        db: a connection inside the transaction that the asset writes in.
        costs: those known already are left as they are.
    """
    RELATIONS["costs"].create(db)
    known = set(db.execute("select run_id, asset from costs").fetchall())
    new = [astuple(one) for one in costs if (one.run_id, one.asset) not in known]
    if new:
        db.executemany("insert into costs values (?, ?, ?, ?, ?, ?, ?)", new)
    return len(new)


def noted_until(db: DuckDBPyConnection) -> datetime | None:
    """When the last asset ended that is noted; None before the first."""
    RELATIONS["costs"].create(db)
    return db.execute("select max(ended_at) from costs").fetchall()[0][0]


def by_day(db: DuckDBPyConnection, n_days: int = 120) -> pd.DataFrame:
    """The last days on which anything was made: day, seconds, n_rows, gpu_seconds, home_bytes."""
    return db.execute(
        """with steps as (
            select ended_at::date as day, run_id, ended_at, any_value(seconds) as seconds, sum(n_rows) as n_rows,
                any_value(gpu_seconds) as gpu_seconds, max(home_bytes) as home_bytes from costs group by all)
        select day, sum(seconds) as seconds, sum(n_rows) as n_rows, sum(gpu_seconds) as gpu_seconds,
            arg_max(home_bytes, ended_at) as home_bytes
        from steps group by day order by day desc limit ?""",
        [n_days],
    ).df()[::-1]


def costliest(db: DuckDBPyConnection, n: int = 5) -> pd.DataFrame:
    """Steps that took longest on the last day, beside their median on the days before: assets, seconds, usual."""
    return db.execute(
        """with steps as (
            select string_agg(asset, ', ' order by asset) as assets, ended_at::date as day, any_value(seconds) as seconds
            from costs group by run_id, ended_at),
        daily as (select assets, day, sum(seconds) as seconds from steps group by all)
        select assets, any_value(seconds) filter (day = last) as seconds, median(seconds) filter (day < last) as usual
        from daily, (select max(day) as last from daily) group by assets having seconds > 0
        order by seconds desc, assets limit ?""",
        [n],
    ).df()
