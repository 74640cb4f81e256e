"""The validator of relations: a repeated key is named, whatever the key is made of."""

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline import schema
from ecom_pipeline.schema import Column, Relation, violations

KEYS = {n: tuple(f"k{place}" for place in range(n)) for n in (1, 2, 3)}
maybe = st.sampled_from([None, "", "a", "b"])


def relation(n_columns: int) -> Relation:
    columns = tuple(Column(name, "VARCHAR", "part of the key", required=False) for name in KEYS[n_columns])
    return Relation("planted", "row", KEYS[n_columns], columns)


def filled(one: Relation, rows: list[tuple]) -> duckdb.DuckDBPyConnection:
    db = duckdb.connect()
    one.create(db)
    db.executemany(f"insert into {one.name} values ({', '.join('?' * len(one.columns))})", rows)
    return db


def key_of(one: Relation, db: duckdb.DuckDBPyConnection) -> schema.Violation:
    return violations(db, one)[-1]


@given(data=st.data(), n_columns=st.sampled_from(sorted(KEYS)))
@settings(max_examples=60)
def test_repeated_keys_are_counted_and_the_first_is_named_whatever_they_are_made_of(data, n_columns):
    rows = data.draw(st.lists(st.tuples(*[maybe] * n_columns), min_size=1, max_size=8))
    with filled(relation(n_columns), rows) as db:
        found = key_of(relation(n_columns), db)
    assert found.n_rows == len(rows) - len(set(rows))
    repeated = [row for row in rows if rows.count(row) > 1]
    named = {
        ", ".join(f"{name} {value!r}" for name, value in zip(KEYS[n_columns], row, strict=True)) for row in repeated
    }
    assert found.first in (named or {""})


@pytest.mark.parametrize("one", schema.RELATIONS.values(), ids=list(schema.RELATIONS))
def test_the_gate_of_every_relation_names_a_planted_repeated_key(one):
    """The same row twice, all of it null: nulls in a key are one value."""
    with duckdb.connect() as db:
        one.create(db)
        db.execute(f"insert into {one.name} select {', '.join(['null'] * len(one.columns))} from range(2)")
        found = key_of(one, db)
    assert found.n_rows == 1
    assert found.first == ", ".join(f"{name} None" for name in one.key)


def test_an_empty_relation_breaks_nothing():
    with filled(relation(1), [("a",)]) as db:
        db.execute("delete from planted")
        assert not any(found.n_rows for found in violations(db, relation(1)))


def test_a_broken_range_names_the_first_row_by_key_and_what_it_had():
    one = Relation("planted", "row", ("k",), (Column("k", "INTEGER", "key"), Column("x", "DOUBLE", "share", maximum=1)))
    with filled(one, [(3, 2.0), (1, 0.5), (2, 7.0)]) as db:
        found = {v.promise: v for v in violations(db, one)}
    assert str(found["x is present and lies in [-inf, 1]"]) == (
        "x is present and lies in [-inf, 1]: 2 rows; first: k 2, x 7.0"
    )
