"""Documents are the same rows whatever they lie in, and a line that is none is a row that says so."""

import gzip
import json
from itertools import count

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline.sources.documents import documents, first_fields, records

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\x85"), max_size=20)
DOCUMENTS = st.lists(st.fixed_dictionaries({"name": TEXTS, "n": st.integers(-9, 9)}), min_size=1, max_size=6)
BROKEN = ["not json", '{"name": "a', "[1, 2]", "3", "null", '{"delete": {"_id": "7"}}', '{"update": {"_id": "7"}}']


@pytest.fixture(scope="module")
def db():
    with duckdb.connect() as connection:
        yield connection


def as_lines(rows, path):
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")


def as_marked_lines(rows, path):
    path.write_text("\r\n".join(map(json.dumps, rows)), encoding="utf-8-sig")


def as_zipped_lines(rows, path):
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def as_array(rows, path):
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


def as_dump(rows, path):
    path.write_text("\n".join(json.dumps({"_index": "i", "_id": "7", "_source": row}) for row in rows))


def as_bulk(rows, path):
    action = json.dumps({"index": {"_index": "ubi_events", "_id": "7"}})
    path.write_text("".join(f"{action}\n{json.dumps(row)}\n" for row in rows))


def as_parquet(rows, path):
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS = {
    as_lines: "ndjson",
    as_marked_lines: "jsonl",
    as_zipped_lines: "jsonl.gz",
    as_array: "json",
    as_dump: "ndjson",
    as_bulk: "ndjson",
    as_parquet: "parquet",
}


@pytest.mark.parametrize("write", WRITERS)
def test_documents_are_the_same_in_whatever_they_lie(write, db, tmp_path):
    numbers = count()

    @settings(max_examples=20)
    @given(DOCUMENTS)
    def check(rows):
        path = tmp_path / f"{next(numbers)}.{WRITERS[write]}"  # DuckDB remembers a file of the same second
        write(rows, path)
        read = db.execute(f"select document, malformed from ({documents(path)}) order by row_number").fetchall()
        assert [json.loads(document) for document, _ in read] == rows
        assert {malformed for _, malformed in read} == {None}
        assert first_fields(path) == ({"index"} if write is as_bulk else {"name", "n"})

    check()


@settings(max_examples=40)
@given(DOCUMENTS, st.lists(st.sampled_from(BROKEN), max_size=4), st.randoms())
def test_a_line_that_is_no_document_is_a_row_at_its_place(tmp_path_factory, rows, broken, random):
    lines = [json.dumps(row) for row in rows] + broken
    random.shuffle(lines)
    path = tmp_path_factory.mktemp("lines") / "a.ndjson"
    path.write_text("\n".join(lines))
    with duckdb.connect() as connection:
        read = connection.execute(f"select row_number, malformed from ({documents(path)}) order by all").fetchall()
    assert [place for place, _ in read] == list(range(1, len(lines) + 1))
    assert [place for place, malformed in read if malformed] == [n for n, line in enumerate(lines, 1) if line in BROKEN]


@pytest.mark.parametrize(
    ("line", "is_action"),
    [
        ('{"index": {}}', True),
        ('{"create": {"_index": "a", "routing": "b"}}', True),
        ('{"index": {"colour": "red"}}', False),
        ('{"index": 3}', False),
        ('{"index": {}, "name": "a"}', False),
    ],
)
def test_only_what_is_certainly_an_action_of_a_bulk_file_is_no_row(line, is_action, db, tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(line)
    assert len(db.execute(documents(path)).fetchall()) == (not is_action)


def test_lists_that_a_writer_of_parquet_wrapped_are_unwrapped(db):
    for text in (
        '[{"a":1,"b":{"c":"x"}},{"a":"2"}]',
        '{"list":[{"element":{"a":1,"b":{"c":"x"}}},{"element":{"a":2}}]}',
    ):
        (found,) = db.execute(f"select {records('t::json', 'a', 'b.c')} from (select ? as t)", [text]).fetchone()
        assert found == [{"a": "1", "b": {"c": "x"}}, {"a": "2", "b": None}]
    assert db.execute(f"select {records('null::json', 'a')}").fetchone() == ([],)
