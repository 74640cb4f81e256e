"""Whose lists a day makes anew: those of users of whom something new is known, and after some days everybody's.

On the floor above `lists`. A list that is kept stays as it was made, with the day for which it was made.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta

import pandas as pd
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline import identity, ledger
from ecom_pipeline.recommend.lists import NEW_VISITOR
from ecom_pipeline.schema import RECOMMENDATIONS

_KNOWN = "days of recommendations"  # in the ledger: what was known when lists were made
_OPEN_DAYS = 2  # the last days may still fill up: a file of a shop's own day has hours of two UTC days


@dataclass(frozen=True, slots=True)
class Known:
    """What lists were made from.

    Attributes:
        inputs: fingerprint of all but what users did.
        all_made_for: the day for which all lists were made last.
        made_for: the day for which any were.
        settled: hash of the days that are past.
        open: content of the last days, by day.
    """

    inputs: str
    all_made_for: str
    made_for: str
    settled: str
    open: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refresh:
    """Which lists are made.

    Attributes:
        known: what they are made from.
        only: users whose lists are made; None: all that get one.
        gone: users who had a list and get none.
    """

    known: Known
    only: frozenset[str] | None
    gone: frozenset[str]


def plan_refresh(
    db: DuckDBPyConnection, inputs: str, users: NDArray, *, made_for: date, full_every_days: int
) -> Refresh:
    """Whose lists have to be made.

    All have to where there are none yet, where anything but what users did has changed, where a day that was past has, or
    where the lists of those who did not come are `full_every_days` old.

    Args:
        db: a connection to the warehouse.
        inputs: fingerprint of all that lists are made from but what users did.
        users: ids of those who get a list.
        made_for: the day for which lists are made.
        full_every_days: 1: all lists, every day.

    Cost: a scan of the days that have changed, and of the ids in `recommendations`.
    """
    before, until = _read_known(db), made_for - timedelta(days=_OPEN_DAYS)
    known = Known(inputs, str(made_for), str(made_for), _hash_before(db, until), _days_from(db, until))
    touched = _touched_users(db, before, known, full_every_days) if before else None
    if touched is None or before is None:
        return Refresh(known, None, frozenset())
    rows = db.execute("select distinct user_id from recommendations where user_id <> ?", [NEW_VISITOR]).fetchall()
    listed, wanted = {user for (user,) in rows}, set(users.tolist())
    only = frozenset(wanted & touched | wanted - listed)
    return Refresh(replace(known, all_made_for=before.all_made_for), only, frozenset(listed - wanted))


def write_lists(db: DuckDBPyConnection, lists: pd.DataFrame, refresh: Refresh) -> None:
    """Put lists in the place of those of the same users, and remember what they were made from; others stay.

    Args:
        db: a connection inside the transaction that notes the relation in the ledger.
        lists: rows of `recommendations`, of the users that were asked for and of new visitors.
        refresh: as planned.

    Cost: what is written, and one scan of the ids.
    """
    if refresh.only is None:
        db.execute(f"create or replace table recommendations as select {RECOMMENDATIONS.cast} from lists")
    else:
        stale = sorted({NEW_VISITOR, *refresh.only, *refresh.gone})
        db.execute("delete from recommendations where user_id in (select unnest(?::varchar[]))", [stale])
        db.execute(f"insert into recommendations select {RECOMMENDATIONS.cast} from lists")
    entry = ledger.Entry(refresh.known.inputs, json.dumps(asdict(refresh.known)), lists.user_id.nunique())
    ledger.record(db, _KNOWN, entry)


def _read_known(db: DuckDBPyConnection) -> Known | None:
    """None before the first lists, and where those that are there are not to be trusted any more."""
    entry = ledger.entries(db, _KNOWN).get(ledger.WHOLE)
    made = ledger.WHOLE in ledger.entries(db, RECOMMENDATIONS.name)
    return Known(**json.loads(entry.content)) if entry and made else None


def _touched_users(db: DuckDBPyConnection, before: Known, now: Known, full_every_days: int) -> set[str] | None:
    """Users of the days that have changed since lists were made; None where all lists are to be made."""
    made_for, was, all_made_for = map(date.fromisoformat, (now.made_for, before.made_for, before.all_made_for))
    until = was - timedelta(days=_OPEN_DAYS)
    too_old = not 0 <= (made_for - all_made_for).days < full_every_days
    if too_old or before.inputs != now.inputs or _hash_before(db, until) != before.settled:
        return None
    found = _days_from(db, until)
    if before.open.keys() - found.keys():
        return None
    changed = [day for day, content in found.items() if before.open.get(day) != content]
    actors = f"""select distinct {identity.actor("e")} from cleaned_interactions as e
        where day in (select unnest(?::date[]))"""
    return {user for (user,) in db.execute(actors, [changed]).fetchall()}


def _hash_before(db: DuckDBPyConnection, until: date) -> str:
    rows = db.execute(
        """select coalesce(md5(string_agg(day || content, ',' order by day)), '') from ledger
        where asset = 'cleaned_interactions' and day < ?""",
        [until],
    ).fetchall()
    return rows[0][0]


def _days_from(db: DuckDBPyConnection, first: date) -> dict[str, str]:
    rows = db.execute(
        "select day::varchar, content from ledger where asset = 'cleaned_interactions' and day >= ?", [first]
    )
    return dict(rows.fetchall())
