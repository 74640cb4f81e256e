"""What was offered to whom: rows are kept once or rejected with a reason, whatever comes, and as they come from Complete Journey."""

from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cleaning import put, shop

from ecom_pipeline import cleaning, schema, sources
from ecom_pipeline.laws import LAWS
from ecom_pipeline.schema import violations
from ecom_pipeline.schema.inputs import COLUMNS, OFFERS

DAYS = {"first_day": "2024-05-01", "last_day": "2024-05-08"}


def offered(**tables: list[dict]):
    db = shop([], "campaigns")
    for table in (*OFFERS, "exposures"):
        put(db, table, tables.get(table, []))
    cleaning.clean_offers(db)
    cleaning.clean_exposures(db)
    return db


def rejected(db) -> list[tuple]:
    return db.execute("select source, rule, reason from rejected_rows order by source, row_number").fetchall()


def test_the_first_redemption_of_all_rows_of_a_user_is_kept():
    users = [
        {"campaign_id": "c", "user_id": "u", "redeemed_at": "2024-05-07"},
        {"campaign_id": "c", "user_id": "u", "redeemed_at": "2024-05-03T10:00:00Z"},
        {"campaign_id": "c", "user_id": "u", "redeemed_at": "2024-05-01", "held_out": "maybe"},
    ]
    with offered(campaigns=[{"campaign_id": "c", **DAYS}], campaign_users=users) as db:
        assert db.execute("select * from campaign_users").fetchall() == [("c", "u", False, datetime(2024, 5, 3, 10))]
        assert [rule for _, rule, _ in rejected(db)] == ["campaign_user_repeated", "held_out_unreadable"]


def test_a_promotion_without_reach_reaches_all_and_one_of_a_reversed_stretch_is_rejected():
    promotions = [
        {"item_id": "a", "kind": "Display ", **DAYS},
        {"item_id": "b", "kind": "mailer", "first_day": "2024-05-08", "last_day": "2024-05-01"},
    ]
    with offered(promotions=promotions) as db:
        assert db.execute("select * from promotions").fetchall() == [
            ("a", "display", date(2024, 5, 1), date(2024, 5, 8), 1.0)
        ]
        ((source, rule, reason),) = rejected(db)
    assert (source, rule) == ("promotions", "days_reversed")
    assert reason == "last_day must not lie before first_day; it is 2024-05-01 and 2024-05-08"


def test_the_first_time_that_a_unit_met_an_arm_holds_and_two_arms_are_both_kept():
    rows = [
        {"experiment": "e", "arm": "new", "user_id": "u", "exposed_at": "2024-05-03T00:00:00Z"},
        {"experiment": "e", "arm": "new", "user_id": "u", "exposed_at": "2024-05-02T00:00:00Z"},
        {"experiment": "e", "arm": "old", "user_id": "u", "exposed_at": "2024-05-04T00:00:00Z"},
        {"experiment": "e", "arm": "old", "session_id": "u", "exposed_at": "2024-05-05T00:00:00Z"},
    ]
    with offered(exposures=rows) as db:
        kept = db.execute("select arm, unit_id, exposed_at from exposures order by exposed_at").fetchall()
        assert [rule for _, rule, _ in rejected(db)] == ["exposed_again"]
    assert kept == [
        ("new", "u", datetime(2024, 5, 2)),
        ("old", "u", datetime(2024, 5, 4)),
        ("old", "session:u", datetime(2024, 5, 5)),
    ]


odd = st.sampled_from(
    ["a", "b", "z", "", None, "2024-05-01", "2024-04-01", "0.5", "7", "true", "no", "-1", "NaN", "é\t"]
)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_row_is_kept_once_or_rejected_and_what_is_kept_keeps_its_promises(data):
    tables = {
        table: data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS[table], odd)), max_size=8), label=table)
        for table in (*OFFERS, "exposures")
    }
    with offered(**tables) as db:
        for table in tables:
            assert [str(v) for v in violations(db, schema.RELATIONS[table]) if v.n_rows] == []
            (law,) = [law for law in LAWS if law.relation == table]
            assert db.execute(law.broken).fetchall() == []


@pytest.fixture(scope="module")
def journey():
    with shop([], "campaigns") as db:
        source = sources.find("complete-journey")
        for table in ("items", *OFFERS):
            db.execute(f"drop table if exists raw_{table}")
            source.land(db, table, hash_key=b"key")
        cleaning.clean_items(db)
        yield db, cleaning.clean_offers(db)


def test_complete_journey_brings_its_campaigns_coupons_and_promotions(journey):
    db, counts = journey
    assert counts == {
        "campaigns": {"kept": 27},
        "campaign_users": {"kept": 6589},
        "campaign_items": {"kept": 103_851, "item_unknown": 160},
        "promotions": {"kept": 1_303_047, "item_unknown": 806},
    }
    assert db.execute("select count(redeemed_at) from campaign_users").fetchone() == (792,)
    # each redemption lies in the days of its campaign, and each promotion is of a whole week from Monday on
    assert db.execute(
        "select count(*) from campaign_users join campaigns using (campaign_id) "
        "where redeemed_at::date not between first_day and last_day"
    ).fetchone() == (0,)
    assert db.execute(
        "select count(*) from promotions where isodow(first_day) <> 1 or last_day - first_day <> 6 or reach <= 0"
    ).fetchone() == (0,)
