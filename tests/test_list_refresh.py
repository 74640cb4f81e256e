from datetime import date

import numpy as np
import pandas as pd
import pytest
from acts_store import store

from ecom_pipeline import ledger, schema
from ecom_pipeline.recommend.list_refresh import plan_refresh, write_lists
from ecom_pipeline.recommend.lists import NEW_VISITOR

DAY = date(2024, 1, 31)
USERS = np.array([f"u{n}" for n in range(12)])
CAME = {"u1", "u2"}


def lists_of(users, made_for, item="i1"):
    rows = pd.DataFrame({"user_id": [*users, NEW_VISITOR], "rank": 1, "item_id": item, "score": 0.5})
    return rows.assign(channel="own", reason="taken on one day before", made_for=made_for)[
        schema.RECOMMENDATIONS.column_names
    ]


def note_days(db, changed: str = "false", content: str = "'other'"):
    """What the ledger says of each day; of those of a condition, something else."""
    ledger.record_days(
        db,
        "cleaned_interactions",
        f"""select day, 'code' as made_from, case when {changed} then {content} else 'as it was' end as content,
            count(*) as n_rows from cleaned_interactions group by day""",
    )


def plan(db, made_for=DAY, inputs="ranker", users=USERS, full_every_days=7):
    return plan_refresh(db, inputs, users, made_for=made_for, full_every_days=full_every_days)


def come(db, day, users=CAME):
    """Some users take something on a day."""
    for user in sorted(users):
        db.execute(
            """insert into cleaned_interactions by name select ? as event_id, ? as user_id, 'i2' as item_id,
                'purchase' as action, ?::date as day, ?::timestamp as occurred_at""",
            [f"{user} {day}", user, day, day],
        )
    note_days(db)


@pytest.fixture
def db():
    with store() as connection:
        connection.execute("delete from cleaned_interactions where day >= ?", [DAY])
        schema.RECOMMENDATIONS.create(connection)
        note_days(connection)
        refresh = plan(connection)
        assert refresh.only is None
        write_lists(connection, lists_of(USERS, DAY), refresh)
        ledger.record(connection, "recommendations", ledger.Entry("", "", 0))
        yield connection


def test_a_day_makes_the_lists_of_those_who_came_and_leaves_the_others(db):
    come(db, DAY)
    refresh = plan(db, date(2024, 2, 1))
    assert refresh.only == CAME
    write_lists(db, lists_of(CAME, date(2024, 2, 1), item="i5"), refresh)
    rows = db.execute("select user_id, item_id, made_for::varchar from recommendations").fetchall()
    assert len(rows) == len(USERS) + 1
    for user, *rest in rows:
        assert rest == (["i5", "2024-02-01"] if user in {*CAME, NEW_VISITOR} else ["i1", "2024-01-31"])
    assert plan(db, date(2024, 2, 1)).only == frozenset()


def test_days_in_turn_touch_those_of_each_until_all_lists_are_as_old_as_they_may_be(db):
    for n in range(1, 7):
        day = date(2024, 1, 30 + n) if n == 1 else date(2024, 2, n - 1)
        user = {f"u{n}"}
        come(db, day, user)
        refresh = plan(db, date(2024, 2, n))
        assert refresh.only == user
        write_lists(db, lists_of(user, date(2024, 2, n)), refresh)
    come(db, date(2024, 2, 6))
    assert plan(db, date(2024, 2, 7)).only is None


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": "another ranker"},
        {"full_every_days": 1},
        {"made_for": date(2024, 2, 7)},
        {"made_for": date(2024, 1, 30)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_lists_are_made_where_those_that_are_kept_would_be_wrong_or_old(db, change):
    come(db, DAY)
    assert plan(db, **{"made_for": date(2024, 2, 1), **change}).only is None


def test_a_past_day_that_was_corrected_or_went_makes_all_lists(db):
    come(db, DAY)
    note_days(db, "day = '2024-01-05'")
    assert plan(db, date(2024, 2, 1)).only is None
    note_days(db)
    assert plan(db, date(2024, 2, 1)).only == CAME
    ledger.forget_days(db, "cleaned_interactions", "select day from cleaned_interactions where day <> '2024-01-30'")
    assert plan(db, date(2024, 2, 1)).only is None


def test_hours_of_the_last_day_that_come_with_the_next_touch_the_users_of_both(db):
    come(db, DAY)
    note_days(db, "day = '2024-01-30'")
    late = {
        user for (user,) in db.execute("select user_id from cleaned_interactions where day = '2024-01-30'").fetchall()
    }
    assert plan(db, date(2024, 2, 1)).only == CAME | late < set(USERS)


def test_who_gets_a_list_no_more_loses_it_and_who_gets_one_again_has_it_made(db):
    come(db, DAY)
    refresh = plan(db, date(2024, 2, 1), users=np.array(["u1", "u3", "new"]))
    assert refresh.only == {"u1", "new"}
    write_lists(db, lists_of(["u1", "new"], date(2024, 2, 1)), refresh)
    users = db.execute("select user_id from recommendations order by 1").fetchall()
    assert [user for (user,) in users] == ["new", NEW_VISITOR, "u1", "u3"]


def test_lists_that_were_forgotten_are_all_made(db):
    ledger.forget(db, "recommendations")
    assert plan(db).only is None
