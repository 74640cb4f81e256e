"""Flat files of foreign layouts: fields are what stands between the marks, and a line that has others says so."""

import csv
import gzip

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.sources.flat import first_line, first_of, header, plain_table, quoted_table

FIELDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=8)


@settings(max_examples=40)
@given(st.lists(st.lists(FIELDS, min_size=1, max_size=4), max_size=6), st.integers(0, 2), st.booleans())
def test_a_plain_line_is_its_fields_or_says_how_many_it_has(tmp_path_factory, rows, skip, zipped):
    path = tmp_path_factory.mktemp("plain") / ("a.tsv.gz" if zipped else "a.tsv")
    text = "".join("\t".join(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if zipped else text)
    expected = [
        (*row, place, None) if len(row) == 2 else (None, None, place, f"it has {len(row)} fields and must have 2")
        for place, row in enumerate(rows, 1 - skip)
        if place > 0 and "\t".join(row).strip(" ")
    ]
    with duckdb.connect() as db:
        assert db.execute(plain_table(path, ("a", "b"), "\t", skip=skip)).fetchall() == expected


@settings(max_examples=40)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=6), st.sampled_from([",", "\t"]))
def test_a_quoted_table_is_what_pythons_csv_reads(tmp_path_factory, rows, mark):
    path = tmp_path_factory.mktemp("quoted") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=mark, quoting=csv.QUOTE_ALL).writerows([["name", "it's"], *rows])
    assert header(path, mark) == ["name", "it's"]
    with duckdb.connect() as db:
        read = db.execute(quoted_table(db, path, mark)).fetchall()
    assert [tuple(field or "" for field in row[:2]) for row in read] == rows
    assert [row[2:] for row in read] == [(place, None) for place in range(1, len(rows) + 1)]


def test_the_first_line_of_what_cannot_be_read_is_empty(tmp_path):
    (tmp_path / "a.csv.gz").write_text("no zip")
    (tmp_path / "b.csv").mkdir()
    assert [first_line(tmp_path / name) for name in ("a.csv.gz", "b.csv", "absent.csv")] == ["", "", ""]
    assert header(tmp_path / "a.csv.gz") == []


def test_the_first_column_that_is_there_is_taken_and_blanks_are_nothing():
    with duckdb.connect() as db:
        rows = db.execute(
            f"select {first_of(['b', 'c'], 'a', 'c', 'b')}, {first_of(['b'], 'a')} from (select 'x' as b, ' ' as c)"
        )
        assert rows.fetchall() == [(None, None)]
        assert db.execute(f"select {first_of(['b'], 'a', 'b')} from (select ' x ' as b)").fetchall() == [("x",)]
