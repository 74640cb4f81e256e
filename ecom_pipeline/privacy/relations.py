"""A person and the relations of the warehouse: which rows are his, and how they go.

On the floor of `privacy`. No list of tables is kept: a row that names him in any column is his, in a relation of today or
of tomorrow, and so is one of an event or a sample that was his.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from ecom_pipeline import days, identity
from ecom_pipeline.privacy.search import Wanted, by_chance
from ecom_pipeline.quoting import literal, name
from ecom_pipeline.sources import changes, people
from ecom_pipeline.sources.people import MASK

# what is kept of files, days and assets; who acted is at most in the name of a file
_BOOKS = ("ledger_entries", "landed_files", "event_days", "touched_days", "file_forms")
_FILE = "file"
_NO_WORD = r"[^\p{L}\p{N}]"


@dataclass(frozen=True, slots=True)
class Person:
    """Who is to be forgotten.

    Attributes:
        actor: pseudonym of the user.
        mark: tombstone, which takes his place in names of files.
        raw: the shop's id; empty where only the pseudonym is known.
        sessions: pseudonyms of sessions in which he and nobody else was known.
    """

    actor: str
    mark: str
    raw: str = ""
    sessions: tuple[str, ...] = ()


def text_columns(db: DuckDBPyConnection) -> dict[str, list[str]]:
    """Columns that may hold a text, however deep in lists and structures, of every relation that has one."""
    rows = db.execute("""select table_name, column_name from duckdb_columns()
        where database_name = current_database() and (contains(data_type, 'VARCHAR') or data_type = 'JSON')
            and table_name in (select table_name from duckdb_tables() where database_name = current_database())
        order by table_name, column_index""").fetchall()
    found: dict[str, list[str]] = {}
    for table, column in rows:
        found.setdefault(table, []).append(column)
    return found


def naming(columns: Sequence[str], text: str) -> str:
    """An SQL condition: whether a text stands in one of some columns."""
    return " or ".join(f"coalesce(contains({name(column)}::varchar, {literal(text)}), false)" for column in columns)


def own_sessions(db: DuckDBPyConnection, actor: str) -> set[str]:
    """Sessions in which a user was known and nobody else.

    Cost: one scan of the ids of events and of exposures.
    """
    tables = [table for table in ("raw_events", "raw_exposures") if table in text_columns(db)]
    if not tables:
        return set()
    rows = " union all ".join(f"select session_id, user_id from {table}" for table in tables)
    query = f"""select session_id from ({rows}) where user_id is not null and session_id is not null
        group by session_id having bool_and(user_id = ?)"""
    return {session for (session,) in db.execute(query, [actor]).fetchall()}


def n_users(db: DuckDBPyConnection) -> int:
    """How many users there are among the events that landed."""
    if "raw_events" not in text_columns(db):
        return 0
    return db.execute("select count(distinct user_id) from raw_events").fetchall()[0][0]


def n_named(db: DuckDBPyConnection, wanted: Wanted) -> dict[str, int]:
    """Rows that name somebody, by relation; those of none are left out. Cost: one scan of all texts.

    A raw id that stands elsewhere by chance is looked for as a whole value in columns of persons.
    """
    counts = {}
    for table, columns in text_columns(db).items():
        test = naming(columns, wanted.actor)
        if wanted.raw:
            told = [column for column in columns if people.are_of_persons(column)]
            values = [f"coalesce({name(one)}::varchar = {literal(wanted.raw)}, false)" for one in told]
            texts = [_has_word(one, wanted.raw) for one in columns]
            test = " or ".join([test, *(values if by_chance(wanted.raw) else texts)])
        counts[table] = db.execute(f"select count(*) from {name(table)} where {test}").fetchall()[0][0]
    return {table: n for table, n in counts.items() if n}


def _has_word(column: str, text: str) -> str:
    """An SQL condition: whether a text stands in a column and is no part of a longer word."""
    text, column = literal(text), f"{name(column)}::varchar"
    return f"coalesce(contains({column}, {text}) and regexp_matches({column}, {_word(text)}), false)"


def _word(text: str) -> str:
    return f"'(^|{_NO_WORD})' || regexp_escape({text}) || '($|{_NO_WORD})'"


def take_out(db: DuckDBPyConnection, person: Person) -> dict[str, int]:
    """Take all rows of a person out of every relation, and his name out of the names of files.

    The days on which he acted, and those that read his events, are to be cleaned again.

    Args:
        db: a connection inside a transaction.
        person: who.

    Returns:
        Rows that went, by relation; those that lost none are left out.

    Cost: a few scans of all texts of the warehouse.
    """
    db.execute(
        "create or replace temp table own_sessions as select unnest(?::varchar[]) as session", [[*person.sessions]]
    )
    columns = text_columns(db)
    _find_derived(db, person, columns)
    counts = {}
    if "raw_events" in columns:
        counts["raw_events"] = _take_events(db, person, columns["raw_events"])
    for table, texts in columns.items():
        if table not in ("raw_events", *_BOOKS):
            counts[table] = _delete(db, table, _is_his(person, table, texts))
            if counts[table] and table.startswith("raw_"):
                _count_again(db, table)
    _rename_files(db, person, columns)
    _mask_raw(db, person, columns)
    return {table: n for table, n in counts.items() if n}


def _is_his(person: Person, table: str, columns: Sequence[str]) -> str:
    """An SQL condition: whether a row of a relation is of a person."""
    texts = [column for column in columns if column != _FILE]
    tests = [naming(texts, person.actor)] if texts else []
    if {"user_id", "session_id"} <= {*columns}:
        tests.append("user_id is null and session_id in (from own_sessions)")
    elif table == "rejected_rows":
        tests.append("raw ->> 'user_id' is null and (raw ->> 'session_id') in (from own_sessions)")
    visitor = f"'{identity.actors_of('')[1]}' || session"
    tests += [
        f"{name(column)} in (select {visitor} from own_sessions)"
        for column in texts
        if column in ("user_id", "unit_id")
    ]
    if not table.startswith("raw_"):
        derived = {"event_id": "own_events", "sample_id": "own_samples"}
        tests += [f"{column} in (from {ids})" for column, ids in derived.items() if column in columns]
    return " or ".join(f"({test})" for test in tests) or "false"


def _find_derived(db: DuckDBPyConnection, person: Person, columns: Mapping[str, Sequence[str]]) -> None:
    """Ids of a person's events, and of the samples that were made of his searches."""
    for table, column in (("own_events", "event_id"), ("own_samples", "sample_id")):
        db.execute(f"create or replace temp table {table} ({column} varchar)")
    if "cleaned_interactions" not in columns:
        return
    his = f"from cleaned_interactions as e where user_id = {literal(person.actor)} or (user_id is null and session_id in (from own_sessions))"
    db.execute(f"insert into own_events select event_id {his}")
    sample = identity.search_sample_id(identity.visit_id(identity.actor("e"), "query", "day"), "item_id")
    db.execute(f"insert into own_samples select distinct {sample} from (select * {his}) as e where query is not null")


def _take_events(db: DuckDBPyConnection, person: Person, columns: Sequence[str]) -> int:
    condition = _is_his(person, "raw_events", columns)
    files = f"select distinct file from raw_events where {condition}"
    db.execute(f"create or replace temp table own_files as {files}")
    changes.begin(db)
    changes.note(db, condition, came=False)
    n_rows = _delete(db, "raw_events", condition)
    days.record(db, "select file from own_files")
    changes.touch(db)
    if n_rows:
        _count_again(db, "raw_events")
    return n_rows


def _delete(db: DuckDBPyConnection, table: str, condition: str) -> int:
    return db.execute(f"delete from {name(table)} where {condition}").fetchall()[0][0]


def _count_again(db: DuckDBPyConnection, table: str) -> None:
    """The record of files says how many rows they have now."""
    db.execute(
        f"""update landed_files set n_rows = (select count(*) from {name(table)} as r where r.file = landed_files.file)
        where relation = ?""",
        [table.removeprefix("raw_")],
    )


def _rename_files(db: DuckDBPyConnection, person: Person, columns: Mapping[str, Sequence[str]]) -> None:
    for table in (table for table, texts in columns.items() if _FILE in texts):
        db.execute(
            f"update {name(table)} set file = replace(file, ?, ?) where contains(file, ?)",
            [person.actor, person.mark, person.actor],
        )


def _mask_raw(db: DuckDBPyConnection, person: Person, columns: Mapping[str, Sequence[str]]) -> None:
    """The shop's id, where somebody wrote it into a text, and where it is long enough to be no chance; files keep names."""
    if not person.raw or by_chance(person.raw):
        return
    word = _word(literal(person.raw))
    for table, texts in columns.items():
        for column in (column for column in texts if table not in _BOOKS and column != _FILE):
            once = f"regexp_replace({name(column)}, {word}, '\\1{MASK}\\2', 'g')"
            both = once.replace(name(column), once, 1)  # of two side by side the second is seen then
            db.execute(f"update {name(table)} set {name(column)} = {both} where {_has_word(column, person.raw)}")
