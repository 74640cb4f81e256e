"""Everybody gets another pseudonym: the present one, hashed with one more key.

On the floor of `privacy`. A pseudonym cannot be turned back, and raw ids are nowhere in a home: so the new key is put on top.
"""

import re
from collections.abc import Callable, Collection

import pyarrow as pa
from duckdb import DuckDBPyConnection
from duckdb.func import PythonUDFType

from ecom_pipeline import days, forms
from ecom_pipeline.privacy.relations import text_columns
from ecom_pipeline.quoting import name
from ecom_pipeline.schema.inputs import PERSONAL
from ecom_pipeline.sources import people
from ecom_pipeline.sources.people import HashKey, key_name, keyed_hash, keys_of

_IDS = (
    "user_id",
    "session_id",
    "unit_id",
)  # columns that hold a pseudonym, or a session's after what says that it is one
_TOKEN = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_OF_A_KEY = re.compile(r'("((?:[^"\\]|\\.)*)"\s*:\s*")([0-9a-f]{32})(?=")')


def rehash(db: DuckDBPyConnection, known: Collection[str], *, before: HashKey, after: HashKey) -> dict[str, int]:
    """Give everybody in every relation the pseudonym under one more key, and note that rows were read with it.

    In columns of ids every pseudonym is hashed again; in other texts those of users are, and what stands in JSON under a key
    that names a person. Fingerprints of visits and samples stay until the next run makes them anew.

    Args:
        db: a connection inside a transaction.
        known: pseudonyms of all users, as they are.
        before: secret under which people are hashed.
        after: the same with one more key.

    Returns:
        Rows that were changed, by relation; those without are left out.

    Cost: a few scans of all texts of the warehouse; the users' pseudonyms are held in memory, 100 bytes each.
    """
    forms.make_macros(db, "events")
    people.make_macro(db, after)
    columns, last = text_columns(db), len(keys_of(after)) - 1
    db.create_function(
        "rehashed_text", _column(replacing(known, after)), ["VARCHAR"], "VARCHAR", type=PythonUDFType.ARROW
    )
    counts = {}
    for table, texts in columns.items():
        if table in ("ledger_entries", "touched_days"):
            continue
        counts[table] = sum(_rehash_column(db, table, column, last) for column in texts)
    if "landed_files" in columns:
        row = [key_name(after), key_name(before)]
        db.execute("update landed_files set read_key = ? where read_key = ?", row)
    if "raw_events" in columns:
        days.record(db, "select distinct file from raw_events")
    return {table: n for table, n in counts.items() if n}


def replacing(known: Collection[str], after: HashKey) -> Callable[[str], str]:
    """A function of texts: known pseudonyms in it, and those under keys of JSON that name persons, are hashed again."""
    newest = keys_of(after)[-1]

    def of_key(found: re.Match[str]) -> str:
        key, text = found[2], found[3]
        is_person = key in PERSONAL or people.are_of_persons(key)
        return found[1] + (keyed_hash(text, newest) if is_person and text not in known else text)

    def change(text: str) -> str:
        text = _OF_A_KEY.sub(of_key, text)
        return _TOKEN.sub(lambda found: keyed_hash(found[0], newest) if found[0] in known else found[0], text)

    return change


def users_of(db: DuckDBPyConnection) -> set[str]:
    """Pseudonyms of all users of all relations."""
    found: set[str] = set()
    for table, texts in text_columns(db).items():
        for column in ("user_id", "unit_id"):
            if column in texts:
                query = (
                    f"select distinct {column} from {name(table)} where regexp_full_match({column}, '[0-9a-f]{{32}}')"
                )
                found.update(one for (one,) in db.execute(query).fetchall())
    return found


def _rehash_column(db: DuckDBPyConnection, table: str, column: str, last: int) -> int:
    """Rows of a column that were changed."""
    quoted = name(column)
    if column in _IDS:
        query = f"""update {name(table)} set {quoted} = left({quoted}, -32) || {people.hash_sql(f"right({quoted}, 32)", last, last)}
            where regexp_full_match({quoted}, '(session:)?[0-9a-f]{{32}}')"""
    else:
        query = f"""update {name(table)} set {quoted} = rehashed_text({quoted}::varchar)
            where regexp_matches({quoted}::varchar, '[0-9a-f]{{32}}') and rehashed_text({quoted}::varchar) <> {quoted}::varchar"""
    return db.execute(query).fetchall()[0][0]


def _column(change: Callable[[str], str]) -> Callable[[pa.Array], pa.Array]:
    return lambda column: pa.array([None if one is None else change(one) for one in column.to_pylist()], pa.string())
