from datetime import date

import duckdb
import numpy as np
from crowd import interactions

from ecom_pipeline import schema
from ecom_pipeline.recommend.interactions import NEVER, Visits, day_number, read_interactions

ACTS = interactions([(0, 0, 1), (0, 1, 1), (0, 0, 5), (0, 2, 9), (1, 2, 5), (1, 2, 6)], 2, 3)


def test_a_visit_needs_a_history_and_is_a_users_day():
    visits = ACTS.visits(0, 10)
    assert list(zip(visits.user.tolist(), visits.day.tolist(), strict=True)) == [(0, 5), (1, 6), (0, 9)]


def test_next_visits_are_one_a_user_who_was_known_before():
    visits = ACTS.next_visits(5, 10)
    assert (visits.user.tolist(), visits.day.tolist()) == ([0], [5])


def test_a_history_holds_what_came_before_the_day_and_nothing_else():
    visits = Visits(np.array([1, 0]), np.array([6, 5]))
    at, row = ACTS.histories(visits)
    assert [(int(v), int(ACTS.item[r]), int(ACTS.day[r])) for v, r in zip(at, row, strict=True)] == [
        (0, 2, 5),
        (1, 0, 1),
        (1, 1, 1),
    ]


def test_what_was_taken_is_found_whatever_the_order_of_the_visits():
    visits = Visits(np.array([0, 1, 0]), np.array([9, 5, 1]))
    assert sorted(zip(*(a.tolist() for a in ACTS.taken(visits)), strict=True)) == [(0, 2), (1, 2), (2, 0), (2, 1)]


def test_reading_keeps_the_items_taken_most_often_and_knows_returns():
    with duckdb.connect() as db:
        schema.CLEANED_INTERACTIONS.create(db)

        def add(event: str, day: int, user: str, action: str, item: str, back: str | None = None) -> None:
            at = f"2024-01-{day:02} 12:00:00"
            db.execute(
                "insert into cleaned_interactions by name select ? as event_id, ?::timestamp as occurred_at, "
                "?::date as day, ? as user_id, ? as action, ? as item_id, 2 as quantity, 3.0 as price, ? as return_of",
                [event, at, at, user, action, item, back],
            )

        add("a", 1, "ann", "purchase", "tea")
        add("b", 2, "ann", "purchase", "cup")
        add("c", 3, "ann", "return", "cup", back="b")
        add("d", 3, "bob", "click", "tea")
        add("e", 3, "bob", "click", "pan")
        add("f", 4, "bob", "impression", "cup")
        add("g", 4, "bob", "click", "cup")
        acts = read_interactions(db, 2)
        early = read_interactions(db, 2, date(2024, 1, 3))
    assert acts.item_ids.tolist() == ["cup", "tea"]
    assert acts.user_ids.tolist() == ["ann", "bob"]
    first = day_number(date(2024, 1, 1))
    rows = list(zip(acts.user.tolist(), acts.item.tolist(), (acts.day - first).tolist(), strict=True))
    assert rows == [(0, 0, 1), (0, 1, 0), (1, 0, 3), (1, 1, 2)]
    assert acts.returned.tolist() == [first + 2, NEVER, NEVER, NEVER]
    assert acts.n_acts.tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert early.user_ids.tolist() == ["ann"]
