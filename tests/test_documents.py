"""Documents of a search engine are read as they are dumped, and what is no document is a row that says so."""

import json
import random
import re

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecom_pipeline import sources
from ecom_pipeline.errors import InputError

QUERY = {"application": "shop", "query_id": "q1", "client_id": "c", "user_query": "red mug"}
EVENTS = [
    {
        "application": "shop",
        "action_name": name,
        "query_id": "q1",
        "session_id": "s",
        "client_id": "c",
        "timestamp": "2024-12-10T00:01:29.378Z",
        "event_attributes": {"object": {"object_id": f"item-{n}"}, "position": {"ordinal": ordinal}},
    }
    for n, (name, ordinal) in enumerate([("impression", 0), ("click_through", ""), ("impression", None)])
]
DOCUMENTS = [QUERY, *EVENTS]


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def land(db, folder, content):
    (folder / "ubi.ndjson").write_bytes(content)
    return sources.find(f"ubi:{folder}").land(db, "events", hash_key=b"key").n_rows


def lines(documents):
    return "".join(json.dumps(document) + "\n" for document in documents).encode()


WRITTEN = {
    "one a line": lines(DOCUMENTS),
    "with a mark, and blank lines": b"\xef\xbb\xbf" + lines(DOCUMENTS).replace(b"\n", b"\r\n\r\n"),
    "under _source": lines({"_index": "ubi", "_id": str(n), "_source": one} for n, one in enumerate(DOCUMENTS)),
    "in an array": json.dumps(DOCUMENTS, indent=1).encode(),
    "in bulk": lines(line for one in DOCUMENTS for line in ({"index": {"_index": "ubi"}}, one)),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_log_is_read_however_it_was_dumped(db, tmp_path, how):
    assert land(db, tmp_path, WRITTEN[how]) == 3
    found = db.sql("select item_id, action, query, position from raw_events order by row_number").fetchall()
    assert found == [
        ("item-0", "impression", "red mug", "1"),
        ("item-1", "click", "red mug", None),
        ("item-2", "impression", "red mug", None),
    ]
    assert db.sql("select count(malformed), count(instant) from raw_events").fetchone() == (0, 3)


def test_what_is_no_document_is_a_row_that_names_its_line_and_nothing_else(db, tmp_path):
    broken = b'{"action_name": "click", "client_id": "secret\n' + b'[1]\n{"other": "secret"}\n'
    assert land(db, tmp_path, lines(DOCUMENTS[:2]) + broken) == 4
    assert db.sql(
        "select row_number, malformed from raw_events where malformed is not null order by all"
    ).fetchall() == [
        (3, "line 3 holds no object of JSON"),
        (4, "line 4 holds no object of JSON"),
        (5, "line 5 holds no event, no query and no bulk action"),
    ]
    assert "secret" not in str(db.sql("from raw_events").fetchall())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), how=st.sampled_from(sorted(WRITTEN)))
def test_a_damaged_log_is_read_or_refused(tmp_path, seed, how):
    draw, content = random.Random(seed), bytearray(WRITTEN[how])
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(content))
        content[at : at + draw.randrange(3)] = draw.choice([b"", b'"', b"{", b"\n", b"\0", b"\xff", b"\\u0000"])
    with duckdb.connect() as db:
        try:
            land(db, tmp_path, bytes(content))
        except InputError as error:
            refusal = str(error)
        else:
            refusal = "source: 'ubi.ndjson'. It must be: so."
        assert re.match(r"(?s)^\w+: .*'.*'.*\. .* must .*: .*\.$", refusal), refusal
