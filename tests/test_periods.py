from acts_store import FIRST, store

from ecom_pipeline import schema
from ecom_pipeline.recommend.interactions import day_number, read_interactions
from ecom_pipeline.recommend.periods import origins_of, plan_periods

ASKED = {"n_train": 3, "n_test": 3, "length": None, "n_items": 100}


def add_act(db, day: str) -> None:
    db.execute(
        """insert into cleaned_interactions by name select 'new' || ?::varchar as event_id, 'u1' as user_id,
        'i1' as item_id, 'purchase' as action, ?::date as day, ?::timestamp as occurred_at""",
        [day, day, day],
    )


def test_rows_tell_the_same_origins_as_they_were_made_of():
    with store() as db:
        db.register("planned", plan_periods(db, **ASKED))
        schema.LEARNING_PERIODS.create(db)
        db.execute("insert into learning_periods by name select * from planned")
        origins = origins_of(db.execute("from learning_periods").df())
        assert [str(v) for v in schema.violations(db, schema.LEARNING_PERIODS) if v.n_rows] == []
    assert [origin.test is None for origin in origins] == [False, False, False, True]
    for origin in origins:
        assert len(origin.train) == 3
        assert origin.train[-1].end == origin.validation.first


def test_visits_are_counted_as_a_ranker_will_find_them():
    with store() as db:
        rows, acts = plan_periods(db, **ASKED), read_interactions(db, 100)
    for row in rows.itertuples():
        first, end = day_number(row.first_day), day_number(row.last_day) + 1
        visits = acts.visits(first, end) if row.role == "train" else acts.next_visits(first, end)
        assert row.n_visits == len(visits) > 0


def test_a_new_day_changes_nothing_and_a_late_act_changes_what_comes_after_it():
    with store(n_days=33) as db:
        before = plan_periods(db, **ASKED)
        last = before.last_day.max()
        add_act(db, str(last.replace(day=last.day + 1)))
        same = plan_periods(db, **ASKED)
        assert same.equals(before)
        add_act(db, str(FIRST.replace(day=12)))
        changed = plan_periods(db, **ASKED).content != before.content
    assert changed.tolist() == (before.last_day >= FIRST.replace(day=12)).tolist()
    assert changed.any()


def test_words_of_an_item_and_their_reader_are_part_of_what_was_learnt_from():
    with store() as db:
        before = plan_periods(db, **ASKED)
        db.execute("update items set item_text = 'another' where item_id = 'i1'")
        renamed = plan_periods(db, **ASKED)
        db.execute("insert into embeddings values ('x', 'reader', [1.0], now()::timestamp)")
        read = plan_periods(db, **ASKED)
        db.execute(
            "insert into embeddings select md5(item_text), 'reader', [1.0], now()::timestamp from items where item_id = 'i2'"
        )
        more = plan_periods(db, **ASKED)
    assert (before.content != renamed.content).all()
    assert (renamed.content != read.content).all()
    assert (read.content != more.content).all()


def test_with_few_days_there_are_fewer_periods_and_with_too_few_none():
    with store(n_users=60, n_days=6) as db:
        few = plan_periods(db, **ASKED)
    assert 2 <= few.origin.nunique() < 4
    with store(n_days=3) as db:
        assert plan_periods(db, **ASKED).empty


def test_what_is_taken_later_changes_neither_who_is_counted_nor_which_items_are_ranked():
    with store(n_days=33) as db:
        few = {**ASKED, "n_items": 4}
        before = plan_periods(db, **few)
        last = before.last_day.max()
        later = last.replace(day=last.day + 1)
        db.execute(
            """insert into cleaned_interactions by name select 'more' || i as event_id, 'u1' as user_id, item_id,
            'purchase' as action, ?::date as day, ?::timestamp as occurred_at
            from items, range(200) as t(i) where item_id in ('i7', 'i8')""",
            [later, later],
        )
        assert plan_periods(db, **few).equals(before)


def test_words_that_are_read_of_an_item_that_is_not_ranked_change_nothing():
    with store() as db:
        db.execute("insert into items by name select 'rare' as item_id, 'rare' as title, 'rare words' as item_text")
        db.execute(
            """insert into cleaned_interactions by name select 'once' as event_id, 'u1' as user_id, 'rare' as item_id,
            'purchase' as action, date '2024-01-02' as day, timestamp '2024-01-02' as occurred_at"""
        )
        asked = {**ASKED, "n_items": 9}
        before = plan_periods(db, **asked)
        db.execute("insert into embeddings values ('x', 'reader', [1.0], now()::timestamp)")
        unread = plan_periods(db, **asked)
        db.execute("insert into embeddings values (md5('rare words'), 'reader', [1.0], now()::timestamp)")
        assert plan_periods(db, **asked).equals(unread)
    assert (before.content != unread.content).all()  # another reader
