"""OpenSearch UBI: what lies in a log lands, whatever it lies in."""

import json

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sources import landed, write_lines


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def ubi_event(number, query_id="q1", **more):
    return {
        "action_name": "click",
        "query_id": query_id,
        "client_id": "c",
        "timestamp": f"2024-05-01T10:00:0{number}Z",
        "event_attributes": {"object": {"object_id": f"i{number}"}, "position": {"ordinal": number}},
    } | more


def test_ubi_lines_that_are_no_documents_are_rows_and_queries_are_not(db, tmp_path):
    query = {"query_id": "q1", "user_query": "mug", "client_id": "c", "timestamp": "2024-05-01T10:00:00Z"}
    mapping = {"ubi_events": {"mappings": {}}}
    write_lines(tmp_path / "ubi.ndjson", [query, "oh no", ubi_event(0), mapping, ubi_event(1)])
    rows = landed(db, tmp_path, "ubi")
    assert rows("events", "row_number", "item_id", "query", "position", "malformed") == [
        (2, None, None, None, "the line is no JSON"),
        (3, "i0", "mug", "1", None),
        (4, None, None, None, "it is neither an event with action_name nor a query with query_id"),
        (5, "i1", "mug", "2", None),
    ]
    assert rows("items", "item_id", "title") == [("i0", "i0"), ("i1", "i1")]


def test_ubi_ranks_that_cannot_be_read_are_left_for_the_rules_and_empty_ones_are_none(db, tmp_path):
    ranks = [1, "", None, "third", "2"]
    events = [
        ubi_event(n, event_attributes={"object": {"object_id": "i"}, "position": {"ordinal": r}})
        for n, r in enumerate(ranks)
    ]
    write_lines(tmp_path / "ubi.jsonl", events)
    assert [rank for (rank,) in landed(db, tmp_path, "ubi")("events", "position")] == ["1", None, None, "third", "2"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("ubi_queries.ndjson", "ubi_events.ndjson"), "mug"),
        (("ubi_queries-2024-05-01.ndjson", "ubi_events-2024-05-01.ndjson"), "mug"),
        (("ubi-2024-05-01.ndjson", "ubi-2024-05-02.ndjson"), "mug"),
        (("ubi_queries.ndjson", "ubi_events-2024-05-02.ndjson"), "mug"),
        (("ubi-2024-05-02.ndjson", "ubi-2024-05-01.ndjson"), None),  # a click before its query is none of it
    ],
)
def test_ubi_queries_are_found_in_the_files_that_may_hold_them(db, tmp_path, files, words):
    write_lines(tmp_path / files[0], [{"query_id": "q1", "user_query": "mug"}])
    write_lines(tmp_path / files[1], [ubi_event(1)])
    assert landed(db, tmp_path, "ubi")("events", "query") == [(words,)]


def test_ubi_judgments_are_read_whole(db, tmp_path):
    ratings = [{"docId": f"i{n}", "rating": f"{n}.000"} for n in range(3)]
    judged = {
        "name": "n",
        "judgmentRatings": [{"query": "mug", "ratings": ratings}, {"query": "cup", "ratings": ratings[:1]}],
    }
    (tmp_path / "ubi_judgments.json").write_text(json.dumps(judged, indent=1))
    write_lines(tmp_path / "ubi.ndjson", [ubi_event(1)])
    assert landed(db, tmp_path, "ubi")("judgments", "query", "item_id", "relevance") == [
        ("mug", "i0", "0.000"),
        ("mug", "i1", "1.000"),
        ("mug", "i2", "2.000"),
        ("cup", "i0", "0.000"),
    ]


@settings(max_examples=25)
@given(
    st.lists(
        st.sampled_from(["event", "query", "wordless", "action", "broken", "other", "blank"]), min_size=1, max_size=12
    )
)
def test_ubi_every_line_is_an_event_a_query_an_action_or_a_rejected_row(tmp_path_factory, kinds):
    lines = {
        "event": json.dumps(ubi_event(1)),
        "query": json.dumps({"query_id": "q1", "user_query": "mug"}),
        "wordless": json.dumps({"query_id": "q2", "client_id": "c"}),
        "action": json.dumps({"index": {"_id": "7"}}),
        "broken": "{broken",
        "other": json.dumps({"took": 3}),
        "blank": "",
    }
    folder = tmp_path_factory.mktemp("ubi")
    (folder / "ubi.ndjson").write_text("\n".join(lines[kind] for kind in kinds))
    with duckdb.connect() as db:
        read = landed(db, folder, "ubi")("events", "row_number", "malformed is not null")
    assert read == [
        (place, kind != "event") for place, kind in enumerate(kinds, 1) if kind in ("event", "broken", "other")
    ]
