"""What the whole column of a file tells of its form: found once, when the file has landed, and kept beside its rows."""

import logging
from collections.abc import Mapping
from datetime import datetime

from duckdb import DuckDBPyConnection

from ecom_pipeline.days import FIRST_DAY
from ecom_pipeline.forms import prices, times
from ecom_pipeline.quoting import literal, mapping

log = logging.getLogger(__name__)

# optional columns that cost no row: how they are read; null is what cannot be
READ: dict[str, dict[str, str]] = {
    "items": {
        "price": "nonnegative(read_price(price, file))",
        "currency": "read_currency(currency)",
    },
    "events": {"price": "nonnegative(read_price(price, file))", "quantity": "read_number(quantity)"},
    "judgments": {"rater_std": "nonnegative(read_number(rater_std))"},
    "campaigns": {},
    "campaign_users": {"redeemed_at": times.inline("redeemed_at")},
    "campaign_items": {},
    "promotions": {"reach": "nonnegative(read_number(reach))"},
    "exposures": {},
}


def create(db: DuckDBPyConnection) -> None:
    """Make the empty record where there is none: one row a file and column whose form is not the usual one."""
    db.execute(
        "create table if not exists file_forms (relation varchar, file varchar, column_name varchar, form varchar, "
        "n_unread bigint, first_unread varchar)"
    )


def forms(db: DuckDBPyConnection, table: str, column: str) -> dict[str, str]:
    """The form of a column, by file, where it is not the usual one."""
    create(db)
    query = (
        "select file, form from file_forms where relation = ? and column_name = ? and form is not null order by file"
    )
    return dict(db.execute(query, [table, column]).fetchall())


def of_file(db: DuckDBPyConnection, table: str, file: str) -> dict[str, str]:
    """The forms of one file's columns, by column, where they are not the usual ones."""
    create(db)
    query = "select column_name, form from file_forms where relation = ? and file = ? and form is not null"
    return dict(db.execute(query, [table, file]).fetchall())


def unread(db: DuckDBPyConnection, table: str) -> dict[str, str]:
    """Values of optional columns that could not be read and are null, by column: how many, and the first."""
    create(db)
    rows = db.execute(
        "select column_name, sum(n_unread)::bigint, arg_min(first_unread, file), min(file) from file_forms "
        "where relation = ? and n_unread > 0 group by column_name order by column_name",
        [table],
    ).fetchall()
    return {f"unread_{column}": f"{n}; first: {first!r} in {file}" for column, n, first, file in rows}


def settle(db: DuckDBPyConnection, table: str, file: str, now: datetime) -> None:
    """Find the forms of a file that has just landed, and what of it cannot be read; times are set where ISO did not.

    Args:
        db: a connection inside the transaction that landed it.
        table: one of `schema.inputs.COLUMNS`.
        file: its name in the raw table.
        now: UTC, without zone; what happens later is not yet of any day.

    Raises:
        SourceError: if day and month can be exchanged in its times.

    Cost: a scan of the file's optional columns; more of them where they are not plain numbers or ISO times.
    """
    forget(db, table, file)
    rows = f"(select * from raw_{table} where file = {literal(file)})"
    if table == "events":
        _settle_times(db, file, now)
    if "price" in READ[table]:
        _settle_prices(db, table, file, rows)
    for column, reading in READ[table].items():
        lost = f"case when {column} is not null and {reading} is null then filled({column}) is not null end"
        n, first = db.execute(f"select count(*), arg_min({column}, row_number) from {rows} where {lost}").fetchall()[0]
        if n:
            log.warning("%s: %d values of %s cannot be read and are null; first: %r", file, n, column, first)
            _note(db, table, file, column, n_unread=n, first=first)


def forget(db: DuckDBPyConnection, table: str, file: str) -> None:
    """Take a file out of the record."""
    create(db)
    db.execute("delete from file_forms where relation = ? and file = ?", [table, file])


def rename(db: DuckDBPyConnection, table: str, moves: Mapping[str, str]) -> None:
    """Files have other names now: the new one of each, by the former."""
    create(db)
    names = mapping(moves)
    db.execute(
        f"update file_forms set file = map_extract_value({names}, file) where relation = ? and map_contains({names}, file)",
        [table],
    )


def _settle_times(db: DuckDBPyConnection, file: str, now: datetime) -> None:
    of_file = f"file = {literal(file)}"
    n_read, n_open = db.execute(
        f"select count(instant), count(*) filter (where instant is null) from raw_events "
        f"where {of_file} and occurred_at is not null"
    ).fetchall()[0]
    if not n_open:
        return
    # what most are is the form of all; forms exclude each other, so half is enough
    regular = n_read >= n_open
    found = times.iso() if regular else times.form(db, file, f"select occurred_at as t from raw_events where {of_file}")
    log.info("%s: the form of its times is %s", file, found.name)
    _note(db, "events", file, "occurred_at", form=found.name)
    db.execute(f"create or replace temp macro read_time(t) as {found.instant}")
    db.execute(
        f"update raw_events set instant = read_time(occurred_at) where {of_file} {'and instant is null' if regular else ''}"
    )
    db.execute(
        f"update raw_events set day = case when instant between '{FIRST_DAY}' and '{now}' then instant::date end "
        f"where {of_file}"
    )


def _settle_prices(db: DuckDBPyConnection, table: str, file: str, rows: str) -> None:
    prices.make_macros(db, forms(db, table, "price"))
    odd = db.execute(f"select 1 from {rows} where price is not null and try_cast(price as double) is null limit 1")
    if odd.fetchall():
        ((form,),) = db.execute(f"select {prices.EVIDENCE} from (select price as t from {rows})").fetchall()
        if form != "plain":
            log.info("%s: the form of its prices is %s", file, form)
            _note(db, table, file, "price", form=form)
    prices.make_macros(db, forms(db, table, "price"))


def _note(
    db: DuckDBPyConnection,
    table: str,
    file: str,
    column: str,
    *,
    form: str | None = None,
    n_unread: int = 0,
    first: str | None = None,
) -> None:
    db.execute("insert into file_forms values (?, ?, ?, ?, ?, ?)", [table, file, column, form, n_unread, first])
