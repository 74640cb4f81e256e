"""Nobody reads in a warehouse who a user is, whatever the source's columns are called and whatever lies in them."""

import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import write_csv

from ecom_pipeline import cleaning, forms, sources
from ecom_pipeline.sources import people

SECRETS = {
    "user_id": "raw-user-77",
    "session_id": "raw-session-77",
    "customer_id": "4711-0815",
    "clientId": "GA1.2.345",
    "E-Mail": "ann@example.org",
    "ip": "10.1.2.3",
    "phone": "+49 170 1234567",
    "last name": "Lovelace",
    "shipping_address": "12 Long Lane",
    "note": "call bob.b@example.org or +44 20 7946 0958 from 192.168.7.9",
    "agent": "fe80::1ff:fe23:4567:890a",
    "paid_with": "4111 1111 1111 1111",
    "params": '{"user_name": "grace", "member-no": 991199, "page": 3}',
}
GONE = [*SECRETS.values(), "bob.b@example.org", "7946 0958", "192.168.7.9", "grace", "991199", "Lovelace", "4711-0815"]
EVENT = {"occurred_at": "2024-05-01T10:00:00Z", "action": "click", "item_id": "a", "shelf": "7", **SECRETS}


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_no_person_of_an_event_is_in_any_column_of_the_warehouse(db, tmp_path, ending):
    from datetime import date, datetime

    write_csv(tmp_path / "items.csv", [{"item_id": "a", "title": "A"}])
    write_csv(tmp_path / "events.csv", [EVENT, {**EVENT, "item_id": "unknown"}, {**EVENT, "occurred_at": "never"}])
    if ending == "parquet":
        nested = "{'device': {'ip': ip, 'kind': 'phone'}, 'mails': [\"E-Mail\"]} as context"
        db.execute(
            f"copy (select *, {nested} from read_csv('{tmp_path}/events.csv', all_varchar = true)) "
            f"to '{tmp_path}/events.parquet'"
        )
        (tmp_path / "events.csv").unlink()
    else:
        with (tmp_path / "events.csv").open("a") as file:
            file.write(",".join(SECRETS.values()) + '\n"ann@example.org" x,raw-user-77\n')
    for table in ("items", "events"):
        sources.find(str(tmp_path)).land(db, table, hash_key=b"key")
    cleaning.clean_items(db)
    cleaning.settle_days(db, datetime(2026, 1, 1))
    limits = cleaning.Limits(near_seconds=5, actions_per_minute=30, actions_per_day=300, events_per_day=5000)
    cleaning.clean_events(db, date(2024, 5, 1), date(2024, 5, 1), limits)
    tables = [name for (name,) in db.sql("select table_name from duckdb_tables()").fetchall()]
    assert {"raw_events", "cleaned_interactions", "rejected_rows"} <= set(tables)
    everything = "\n".join(str(db.sql(f"from {table}").fetchall()) for table in tables)
    assert [secret for secret in GONE if secret in everything] == []
    attributes = json.loads(db.sql("select attributes from cleaned_interactions").fetchall()[0][0])
    assert attributes["shelf"] == "7"
    assert attributes["customer_id"] == people.keyed_hash("4711-0815", b"key")
    assert "page" in attributes["params"]


@given(person=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12))
def test_the_macro_is_the_function(hashed, person):
    found, kept = hashed(person)
    assert found == (people.keyed_hash(kept, b"key") if kept else None)


@pytest.fixture(scope="module")
def hashed():
    with duckdb.connect() as connection:
        forms.make_macros(connection, "events")
        people.make_macro(connection, b"key")
        yield lambda text: connection.execute("select keyed_hash(?), filled(?)", [text, text]).fetchall()[0]


@pytest.mark.parametrize(
    "text", ["2024-05-01 10:33:53", "shelf 12.5", "1.10", "a:b:c", "1234567890123", "10 x 20 x 30", "v1.2.3"]
)
def test_what_tells_nobody_stays(hashed, text):
    with duckdb.connect() as connection:
        forms.make_macros(connection, "events")
        people.make_macro(connection, b"key")
        assert connection.execute("select masked(?)", [text]).fetchall() == [(text,)]


@pytest.mark.parametrize(
    "name", ["shelf", "product_name", "item_name", "campaign", "description", "tip", "shipping", "page_title"]
)
def test_a_column_of_things_is_not_of_persons(name):
    assert not people.are_of_persons(name)


@pytest.mark.parametrize(
    "told",
    [
        '{"user":{"id":"alice77"}}',
        '{"user_ids":["alice77"],"page":3}',
        '{"users":["alice77","b"]}',
        '{"x":"{\\"user_id\\":\\"alice77\\"}"}',
        'seen {"user_id": "alice77"}',
        '[{"buyer":{"name":["alice77"]}}]',
    ],
)
def test_what_json_says_of_persons_is_masked_however_deep(tmp_path, told):
    write_csv(tmp_path / "items.csv", [{"item_id": "a", "title": "A"}])
    row = {"occurred_at": "2024-05-01T10:00:00Z", "user_id": "u", "action": "click", "item_id": "a", "payload": told}
    write_csv(tmp_path / "events.csv", [row])
    with duckdb.connect() as db:
        for table in ("items", "events"):
            sources.find(str(tmp_path)).land(db, table, hash_key=b"key")
        (kept,) = db.execute("select attributes from raw_events").fetchone()
    assert "alice77" not in kept
    assert people.MASK in kept


def test_folders_and_judgments_do_not_tell_who_somebody_is(tmp_path):
    write_csv(tmp_path / "items.csv", [{"item_id": "a", "title": "A"}])
    folder = tmp_path / "events" / "user_id=alice77"
    folder.mkdir(parents=True)
    write_csv(folder / "x.csv", [{"occurred_at": "2024-05-01T10:00:00Z", "action": "click", "item_id": "a"}])
    write_csv(tmp_path / "judgments.csv", [{"query": "q", "item_id": "a", "relevance": 1, "rater_id": "alice77"}])
    with duckdb.connect() as db:
        for table in ("items", "events", "judgments"):
            assert sources.find(str(tmp_path)).land(db, table, hash_key=b"key").n_rows == 1
        hashed = people.keyed_hash("alice77", b"key")
        assert db.execute("select user_id, file from raw_events").fetchall() == [
            (hashed, f"events/user_id={hashed}/x.csv")
        ]
        for (table,) in db.execute("select table_name from duckdb_tables() where not temporary").fetchall():
            assert "alice77" not in str(db.execute(f'from "{table}"').fetchall())
