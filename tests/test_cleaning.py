"""The rules: only sound rows make others repeated, a query is one whatever its spelling, returns give back what was kept."""

import random
from collections import defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline import cleaning, days
from ecom_pipeline.cleaning.catalogue import READ_LETTERS
from ecom_pipeline.cleaning.returns import Trade, match_returns
from ecom_pipeline.samples import SampleRules, build_samples
from ecom_pipeline.schema.inputs import COLUMNS

LIMITS = cleaning.Limits(near_seconds=5, actions_per_minute=30, actions_per_day=300, events_per_day=5000)
FIRST, LAST = date(2024, 1, 1), date(2024, 12, 31)
NOON = datetime(2024, 5, 1, 12)


def put(db: duckdb.DuckDBPyConnection, table: str, rows: list[dict], file: str = "") -> None:
    """A raw table as landing leaves it; a row may say which file it is of, and where in it."""
    columns = [*COLUMNS[table], "attributes", "malformed"]
    placed = [
        {"file": file or f"{table}.csv", "row_number": place, **dict.fromkeys(columns), **row}
        for place, row in enumerate(rows, 1)
    ]
    frame = pd.DataFrame(placed, columns=["file", "row_number", *columns])
    kept = ", ".join(f"{name}::varchar as {name}" for name in columns)
    dated = ", occurred_at::timestamp as instant, occurred_at::timestamp::date as day" if table == "events" else ""
    db.register("frame", frame)
    db.execute(
        f"create or replace table raw_{table} as select file::varchar as file, row_number::bigint as row_number, {kept}{dated} from frame"
    )
    if table == "events":
        days.create(db)
        db.execute("delete from event_days")
        days.record(db, "select distinct file from raw_events")


def shop(rows: list[dict], table: str = "events", items: str = "abc") -> duckdb.DuckDBPyConnection:
    db = duckdb.connect()
    put(db, "items", [{"item_id": name, "title": f"Item {name}"} for name in items])
    cleaning.clean_items(db)
    put(db, table, rows)
    return db


def clean(rows: list[dict], limits: cleaning.Limits = LIMITS) -> tuple[list[str], dict[str, str]]:
    """Ids of the events that are kept, and the rules that the ids of others broke."""
    with shop(rows) as db:
        cleaning.clean_events(db, FIRST, LAST, limits)
        kept = [name for (name,) in db.execute("select event_id from cleaned_interactions order by all").fetchall()]
        return kept, dict(db.execute("select raw ->> 'event_id', rule from rejected_rows").fetchall())


def event(event_id: str | None, hour: float = 0, action: str = "click", item: str = "a", **more: object) -> dict:
    at = (NOON + timedelta(hours=hour)).isoformat()
    return {"event_id": event_id, "occurred_at": at, "user_id": "u", "action": action, "item_id": item, **more}


def test_a_correction_of_a_rejected_row_is_kept():
    kept, rejected = clean([event("e1", position="0"), event("e1", 1, position="3")])
    assert kept == ["e1"]
    assert rejected == {"e1": "position_out_of_range"}


def test_a_row_repeated_on_another_day_is_rejected():
    kept, rejected = clean([event("e1"), event("e1", 30)])
    assert kept == ["e1"]
    assert rejected == {"e1": "event_id_repeated"}


def test_a_row_that_loses_its_id_makes_no_other_a_near_duplicate():
    rows = [event("e1"), event("e1", 1, item="b"), event("e2", 1 + 2 / 3600, item="b")]
    assert clean(rows) == (["e1", "e2"], {"e1": "event_id_repeated"})


def test_null_and_empty_fields_and_where_a_field_ends_make_other_events():
    rows = [
        event(None, query="a|b", session_id="s"),
        event(None, query="a", session_id="s|b"),
        event(None, query=None, rating="3", position=None, action="review"),
        event(None, query=None, rating=None, position="3", action="review"),
    ]
    kept, rejected = clean(rows, cleaning.Limits(0, None, None, None))
    assert rejected in ({}, {None: "near_duplicate"})
    assert len(set(kept)) == len(kept) >= 3


def test_a_user_and_a_session_of_one_number_do_not_act_together():
    user = {"user_id": "77", "session_id": None}
    session = {"user_id": None, "session_id": "77"}
    rows = [event("b", action="purchase", **user), event("r", 1, action="return", **session)]
    assert clean(rows) == (["b"], {"r": "return_without_purchase"})


@pytest.mark.parametrize(("limit", "n_kept"), [(30, 0), (None, 40)])
def test_ratings_that_a_machine_loaded_at_once_may_be_kept(limit, n_kept):
    rows = [event(f"e{n}", n / 3600, item="abc"[n % 3], action="review", rating="4") for n in range(40)]
    kept, _ = clean(rows, cleaning.Limits(0, limit, None, None))
    assert len(kept) == n_kept


def test_a_rating_of_1997_is_kept():
    with shop([{**event("old"), "occurred_at": "1997-09-20T10:00:00"}]) as db:
        assert cleaning.clean_events(db, date(1997, 1, 1), date(1997, 12, 31), LIMITS)["kept"] == 1


def bought(event_id: str, hour: float, quantity: float | None = None, **more: object) -> dict:
    return event(event_id, hour, "purchase", quantity=quantity, **more)


def back(event_id: str, hour: float, quantity: float | None = None, **more: object) -> dict:
    return event(event_id, hour, "return", quantity=quantity, **more)


def behaviour_by_definition(rows: list[dict], limits: cleaning.Limits) -> dict[str, str]:
    """The rule on behaviour that each event breaks, where any, by going through all of them for each."""
    broken = {}
    for row in rows:
        at = datetime.fromisoformat(row["occurred_at"])
        same = [one for one in rows if {**one, "event_id": None} == {**row, "event_id": None}]
        day = [
            one
            for one in rows
            if one["user_id"] == row["user_id"] and one["occurred_at"][:10] == row["occurred_at"][:10]
        ]
        counted = [one for one in day if one["action"] in ("click", "cart", "review")]
        minute = [one for one in counted if one["occurred_at"][:16] == row["occurred_at"][:16]]
        asked = (limits.actions_per_minute, minute), (limits.actions_per_day, counted), (limits.events_per_day, day)
        act = [one for one in rows if all(one[name] == row[name] for name in ("user_id", "action", "item_id"))]
        before = [one for one in act if (one["occurred_at"], one["event_id"]) < (row["occurred_at"], row["event_id"])]
        last = max((datetime.fromisoformat(one["occurred_at"]) for one in before), default=datetime.min)
        if row["event_id"] != min(one["event_id"] for one in same):
            broken[row["event_id"]] = "exact_duplicate"
        elif any(limit is not None and len(some) > limit for limit, some in asked):
            broken[row["event_id"]] = "bot_like"
        elif row["action"] != "purchase" and (at - last).total_seconds() <= limits.near_seconds:
            broken[row["event_id"]] = "near_duplicate"
    return broken


at_most = st.none() | st.integers(1, 5)
acts = st.tuples(
    st.integers(-15, 15),
    st.sampled_from("uv"),
    st.sampled_from(["click", "impression", "purchase"]),
    st.sampled_from("ab"),
)


crowds = st.lists(
    st.lists(acts, max_size=25), min_size=3, max_size=6
)  # most of the time goes into planning SQL: many at once


@settings(max_examples=15, deadline=None)
@given(crowds, st.sampled_from([0, 5, 60]), st.tuples(at_most, at_most, at_most))
def test_behaviour_is_what_its_rules_say_of_each_event(crowds, near_seconds, most):
    limits = cleaning.Limits(near_seconds, *most)
    midnight = NOON + timedelta(hours=12)
    rows = [(at, f"{user}{crowd}", *what) for crowd, some in enumerate(crowds) for at, user, *what in some]
    events = [
        event(
            f"e{n:03d}", 0, action, item, user_id=user, occurred_at=(midnight + timedelta(seconds=5 * at)).isoformat()
        )
        for n, (at, user, action, item) in enumerate(rows)
    ]
    kept, rejected = clean(events, limits)
    assert rejected == behaviour_by_definition(events, limits)
    assert kept == [row["event_id"] for row in events if row["event_id"] not in rejected]


def test_returns_share_a_purchase_until_it_is_used_up_and_the_reason_says_what_was_left():
    with shop([bought("b", 0, 3), back("r1", 24, 2), back("r2", 48, 2), back("r3", 72, 1)]) as db:
        cleaning.clean_events(db, FIRST, LAST, LIMITS)
        pairs = dict(db.execute("select event_id, return_of from cleaned_interactions").fetchall())
        rejected = db.execute("select rule, reason from rejected_rows").fetchall()
    assert pairs == {"b": None, "r1": "b", "r3": "b"}
    assert rejected == [
        (
            "return_of_too_much",
            "an earlier purchase of the same item by the same user must have as much left as goes back; "
            "it is 2.0 where at most 1.0 is left",
        )
    ]


def test_a_return_never_gives_back_a_purchase_that_is_rejected():
    rows = [bought("b", 0, rating="9"), back("r", 24)]
    assert clean(rows) == ([], {"b": "rating_out_of_range", "r": "return_without_purchase"})


def test_all_that_goes_back_on_its_day_was_never_bought_also_in_parts():
    rows = [bought("b", 0, 3), back("r1", 1, 2), back("r2", 2, 1), bought("c", 3, 2), back("r3", 4, 1)]
    kept, rejected = clean(rows)
    assert kept == ["c", "r3"]
    assert rejected == dict.fromkeys(("b", "r1", "r2"), "cancelled_same_day")


def test_days_cleaned_one_by_one_match_returns_as_all_days_at_once():
    rows = [bought("b", 0, 3), back("r1", 24, 2), back("r2", 48, 2), back("r3", 72, 1)]
    with shop(rows) as db:
        for day in range(1, 5):
            cleaning.clean_events(db, date(2024, 5, day), date(2024, 5, day), LIMITS)
        assert db.execute("select count(*) from cleaned_interactions").fetchone() == (3,)


def test_a_purchase_cleaned_late_makes_stale_the_day_of_its_return_and_no_other():
    with shop([bought("b", 0), back("r", 24), event("click", 48)]) as db:
        cleaning.clean_events(db, date(2024, 5, 2), date(2024, 5, 3), LIMITS)
        before = dict(db.execute(f"select day, content from ({days.inputs(FIRST, LAST)})").fetchall())
        cleaning.clean_events(db, date(2024, 5, 1), date(2024, 5, 1), LIMITS)
        after = dict(db.execute(f"select day, content from ({days.inputs(FIRST, LAST)})").fetchall())
        assert {day.day for day in after if after[day] != before[day]} == {2}
        cleaning.clean_events(db, date(2024, 5, 2), date(2024, 5, 2), LIMITS)
        assert db.execute("select return_of from cleaned_interactions where event_id = 'r'").fetchone() == ("b",)


trades = st.lists(
    st.tuples(st.integers(0, 60), st.booleans(), st.sampled_from([0, 1, 2, 3, 5])), min_size=1, max_size=12
).map(
    lambda rows: [
        Trade(f"e{place}", NOON + timedelta(hours=hour), is_return, Decimal(pieces))
        for place, (hour, is_return, pieces) in enumerate(rows)
    ]
)


@given(trades, st.randoms(use_true_random=False))
def test_returns_give_back_at_most_what_was_bought_before_whatever_the_order_of_arrival(rows, draw):
    fates = {fate.event_id: fate for fate in match_returns(rows)}
    by_id = {one.event_id: one for one in rows}
    went = defaultdict(Decimal)
    for name, fate in fates.items():
        if fate.return_of:
            went[fate.return_of] += by_id[name].pieces
            assert by_id[fate.return_of].instant <= by_id[name].instant
            assert not by_id[fate.return_of].is_return
    assert all(went[name] <= by_id[name].pieces for name in went)
    assert {one.event_id for one in rows if one.is_return} <= fates.keys()
    for fate in fates.values():
        if fate.most_left is not None:
            assert fate.most_left < by_id[fate.event_id].pieces
    assert {fate.event_id: fate for fate in match_returns(draw.sample(rows, len(rows)))} == fates


@settings(max_examples=15)
@given(rows=trades, seed=st.integers(0, 5))
def test_what_is_kept_does_not_depend_on_where_rows_lie(rows, seed):
    events = [
        event(
            one.event_id,
            (one.instant - NOON) / timedelta(hours=1),
            "return" if one.is_return else "purchase",
            quantity=one.pieces,
        )
        for one in rows
    ]
    shuffled = random.Random(seed).sample(events, len(events))
    assert clean(events) == clean(shuffled)


def judged(query: str, item: str = "a", relevance: object = 1, **more: object) -> dict:
    return {"query": query, "item_id": item, "relevance": relevance, **more}


def clean_judged(rows: list[dict]) -> tuple[set[tuple], list[tuple]]:
    """(query, item, relevance, split) kept, and (rule, reason) of those that are not."""
    with shop(rows, "judgments") as db:
        cleaning.clean_judgments(db)
        kept = db.execute("select query, item_id, relevance, split from judgments").fetchall()
        return set(kept), db.execute("select rule, reason from rejected_rows order by row_number").fetchall()


def test_a_query_under_two_ids_and_spellings_has_one_grade_an_item():
    rows = [
        judged("Red Mug", query_id="1"),
        judged("red  mug", query_id="2", relevance=0),
        judged("RED MUG", query_id="3"),
    ]
    kept, rejected = clean_judged(rows)
    assert kept == {("Red Mug", "a", 1.0, None)}
    assert [rule for rule, _ in rejected] == ["grades_conflict", "exact_duplicate"]
    assert rejected[0][1].endswith("it is 0.0 for red mug, which has 1.0")


def test_a_query_given_as_test_and_as_train_is_test_and_the_reason_names_it():
    rows = [
        judged("Mug", split="train"),
        judged("mug", split="test"),
        judged("mug", "b"),
        judged("cup", "b", split="train"),
    ]
    kept, rejected = clean_judged(rows)
    assert kept == {("mug", "a", 1.0, "test"), ("mug", "b", 1.0, "test"), ("cup", "b", 1.0, "train")}
    assert [(rule, reason.split("; it is ")[1]) for rule, reason in rejected] == [
        ("query_in_two_splits", "train of Mug, which is in test")
    ]


def test_a_row_that_breaks_a_rule_makes_no_other_a_conflict():
    rows = [judged("mug", relevance="high", split="test"), judged("mug", split="train")]
    kept, rejected = clean_judged(rows)
    assert kept == {("mug", "a", 1.0, "train")}
    assert [rule for rule, _ in rejected] == ["relevance_out_of_range"]


spellings = st.sampled_from(["mug", "Mug", "MUG ", "cup", "Cup", "tin", "box"])
given_rows = st.tuples(spellings, st.sampled_from("abc"), st.integers(0, 1), st.sampled_from([None, "train", "test"]))


@settings(max_examples=25)
@given(st.lists(given_rows, max_size=20), st.integers(0, 3))
def test_nothing_given_as_test_is_ever_trained_on(rows, seed):
    safe = [("only train", item, grade, "train") for item, grade in (("a", 0), ("b", 1))]
    safe += [("only test", item, grade, "test") for item, grade in (("a", 0), ("b", 1))]
    safe += [("only validation", "a", 1, "validation")]
    rows = random.Random(seed).sample([*rows, *safe], len(rows) + len(safe))
    with shop([judged(query, item, grade, split=split) for query, item, grade, split in rows], "judgments") as db:
        cleaning.clean_judgments(db)
        build_samples(db, SampleRules(5, 1, None, None, None, None, 0.15, 0.15))
        made = db.execute("select context_text, item_id, split from training_samples").fetchall()
    tests = {query.strip().lower() for query, _, _, split in rows if split == "test"}
    assert not [row for row in made if row[0].lower() in tests and row[2] != "test"]
    assert len({(query.lower(), item) for query, item, _ in made}) == len(made)


def test_a_corrected_item_is_kept_and_texts_are_read_to_a_length():
    rows = [{"item_id": "a", "title": "<b></b>"}, {"item_id": "a", "title": "x" * 1000, "brand": "y" * 1000}]
    with duckdb.connect() as db:
        put(db, "items", rows)
        assert cleaning.clean_items(db) == {"kept": 1, "title_blank": 1}
        title, read = db.execute("select title, item_text from items").fetchone()
    assert len(title) == 1000
    assert read == f"{'x' * READ_LETTERS}. {'y' * READ_LETTERS}"


def test_an_item_that_comes_makes_stale_the_days_whose_ids_its_events_share():
    with shop([event("e1", item="z"), event("e1", 24), event("e2", 48)]) as db:
        cleaning.clean_events(db, FIRST, LAST, LIMITS)
        before = dict(db.execute(f"select day, content from ({days.inputs(FIRST, LAST)})").fetchall())
        put(db, "items", [{"item_id": name, "title": "x"} for name in "abcz"])
        cleaning.clean_items(db)
        after = dict(db.execute(f"select day, content from ({days.inputs(FIRST, LAST)})").fetchall())
        assert {day.day for day in after if after[day] != before[day]} == {1, 2}
        cleaning.clean_events(db, FIRST, LAST, LIMITS)
        assert db.execute("select event_id, item_id from cleaned_interactions order by 1").fetchall() == [
            ("e1", "z"),
            ("e2", "a"),
        ]
