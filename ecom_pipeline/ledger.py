"""What every asset was last made from, kept in the same transaction as what it made.

The second lowest floor. A refresh compares this with what an asset would be made from now, and skips equals. Entries are only
ever added, so that steps of other processes, each of which adds its own, never contradict each other; the view `ledger` has
of each asset and day the last.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from duckdb import CatalogException, DuckDBPyConnection

from ecom_pipeline.schema.relation import tables

WHOLE = "1-01-01"  # the `day` of an asset without partitions: a key column cannot be null


@dataclass(frozen=True, slots=True)
class Entry:
    """One asset, or one day of it, as it was last written."""

    made_from: str
    content: str
    n_rows: int


def fingerprint(code_version: str, settings: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """A short hash that changes when the code, its settings or what it reads change.

    >>> fingerprint("1", {"k": 5}, {"a": "x"}) == fingerprint("1", {"k": 5}, {"a": "x"})
    True
    >>> fingerprint("1", {"k": 5}, {"a": "x"}) == fingerprint("1", {"k": 5}, {"a": "y"})
    False
    """
    told = json.dumps([code_version, dict(settings), dict(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def content(db: DuckDBPyConnection, relation: str, where: str = "true") -> tuple[str, int]:
    """A hash of a relation's rows, whatever their order, and their number.

    Cost: one scan.
    """
    row = db.execute(
        f"select coalesce(sum(hash(r)::hugeint), 0)::varchar, count(*) from {relation} as r where {where}"
    ).fetchone()
    assert row is not None
    return f"{row[0]}/{row[1]}", row[1]


def record(db: DuckDBPyConnection, asset: str, entry: Entry, day: str = WHOLE) -> None:
    """Remember how an asset was made; call it in the transaction that writes the asset."""
    _create(db)
    db.execute(
        f"insert into ledger_entries select $asset, $day::date, $made_from, $content, $n_rows, {_MOMENT}",
        {"asset": asset, "day": day, **asdict(entry)},
    )


def record_days(db: DuckDBPyConnection, asset: str, days: str) -> None:
    """Remember many days of an asset at once.

    Args:
        db: a connection inside the transaction that writes the asset.
        asset: whose days.
        days: a query that yields day, made_from, content, n_rows.
    """
    _create(db)
    db.execute(
        f"insert into ledger_entries select $asset, day, made_from, content, n_rows, {_MOMENT} from ({days})",
        {"asset": asset},
    )


def forget_days(db: DuckDBPyConnection, asset: str, kept: str) -> None:
    """Forget the days of an asset that a query does not yield."""
    _create(db)
    db.execute(f"{_FORGOTTEN} and day not in ({kept})", {"asset": asset})


def forget(db: DuckDBPyConnection, asset: str) -> None:
    """Forget how an asset was made: the next refresh makes it."""
    _create(db)
    db.execute(_FORGOTTEN, {"asset": asset})


def entries(db: DuckDBPyConnection, asset: str) -> dict[str, Entry]:
    """What is remembered of an asset: one entry a day, or one under `WHOLE`."""
    _create(db)
    rows = db.execute("select day::varchar, made_from, content, n_rows from ledger where asset = ?", [asset])
    return {day if day != "0001-01-01" else WHOLE: Entry(*rest) for day, *rest in rows.fetchall()}


def contents(db: DuckDBPyConnection) -> dict[str, str]:
    """The present content of every asset; of a partitioned one, of all its days together."""
    _create(db)
    query = "select asset, md5(string_agg(day || content, ',' order by day)) from ledger group by asset"
    return dict(db.execute(query).fetchall())


# later than all that is there of the asset, whatever the clock of this machine says
_MOMENT = """greatest(now()::timestamp, (select max(written_at) + interval 1 microsecond
    from ledger_entries where asset = $asset))"""
_FORGOTTEN = (
    f"insert into ledger_entries select asset, day, null, null, null, {_MOMENT} from ledger where asset = $asset"
)


def _create(db: DuckDBPyConnection) -> None:
    try:
        db.execute("""create view if not exists ledger as select * from (
            from ledger_entries qualify row_number() over (partition by asset, day order by written_at desc) = 1)
            where made_from is not null""")
    except CatalogException:
        if "ledger" in tables(db):  # of a home in which entries were replaced
            db.execute("alter table ledger rename to ledger_entries")
        db.execute(
            "create table if not exists ledger_entries (asset varchar, day date, made_from varchar, content varchar, "
            "n_rows bigint, written_at timestamp)"
        )
        _create(db)
