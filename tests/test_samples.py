import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.prepare import SamplesConfig
from assets.publish import settings_of
from ecom_pipeline import schema
from ecom_pipeline.errors import SampleError
from ecom_pipeline.laws import LAWS
from ecom_pipeline.samples import NEW_VISITOR, SampleRules, build_samples, fold_of

RULES = settings_of(SamplesConfig())


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        for relation in (schema.ITEMS, schema.CLEANED_INTERACTIONS, schema.JUDGMENTS):
            relation.create(connection)
        connection.execute(
            "insert into items by name select 'i' || range as item_id, 'title ' || range as title, "
            "'title ' || range as item_text, 'c' || range % 3 || ' > x' as category from range(60)"
        )
        yield connection


def behave(db, n_users=12, n_days=10, action="purchase", query="null", per_day=2):
    db.execute(
        f"""insert into cleaned_interactions by name
        select 'e' || u || '-' || d || '-' || k as event_id, timestamp '2024-01-01' + to_days(d::int) + to_hours((u % 12)::int)
            as occurred_at, (timestamp '2024-01-01' + to_days(d::int))::date as day, 'u' || u as user_id, '{action}' as action,
            'i' || (u * 7 + d * 3 + k) % 60 as item_id, {query} as query
        from range({n_users}) as a(u), range({n_days}) as b(d), range({per_day}) as c(k)"""
    )


def judge(db, n_queries=30, grades=(0, 3)):
    db.execute(
        f"""insert into judgments by name
        select 'q' || q as query_id, 'query ' || q as query, 'i' || (q + k) % 60 as item_id,
            [{", ".join(map(str, grades))}][1 + k % {len(grades)}]::double as relevance
        from range({n_queries}) as a(q), range(8) as b(k)"""
    )


def build(db, **changes):
    return build_samples(db, SampleRules(**{**RULES, **changes}))


def broken(db):
    laws = [law for law in LAWS if law.relation == "training_samples"]
    db.execute("create table if not exists ledger (asset varchar, day date)")
    return {law.name for law in laws if db.execute(law.broken).fetchall()}


def test_samples_of_behaviour_keep_every_law_and_test_is_the_last_period(db):
    behave(db)
    build(db)
    assert broken(db) == set()
    late, early = db.execute(
        "select min(occurred_at) filter (where split = 'test'), max(occurred_at) filter (where split <> 'test') from training_samples"
    ).fetchone()
    assert early < late


def test_a_planted_context_from_the_future_is_found(db):
    behave(db)
    build(db)
    db.execute("update training_samples set context_until = occurred_at + interval 1 second where rowid = 5")
    assert broken(db) == {"no_context_is_later_than_its_sample"}


def test_a_planted_group_in_two_splits_is_found(db):
    behave(db)
    build(db)
    db.execute(
        "update training_samples set split = 'validation' where rowid = (select min(rowid) from training_samples where split = 'train')"
    )
    assert "no_group_is_in_two_splits" in broken(db)


def test_events_after_a_sample_change_nothing_of_its_context(db):
    behave(db)
    build(db)
    query = (
        "select sample_id, context_text from training_samples where occurred_at < '2024-01-04' and label = 1 order by 1"
    )
    before = db.execute(query).fetchall()
    db.execute("update cleaned_interactions set item_id = 'i59' where day > '2024-01-06'")
    build(db)
    after = db.execute(query).fetchall()
    assert set(before) & set(after) == set(before) | set(after)


def test_a_first_visit_has_no_history(db):
    behave(db)
    build(db)
    texts = db.execute("select distinct context_text from training_samples where occurred_at < '2024-01-02'").fetchall()
    assert texts == [(NEW_VISITOR,)]


def test_an_item_that_the_user_took_that_day_is_never_a_negative(db):
    behave(db, per_day=4)
    build(db)
    (n,) = db.execute(
        """select count(*) from training_samples as s join cleaned_interactions as e
        on s.group_id = 'visit:' || md5(concat_ws('|', e.user_id, e.day)) and e.item_id = s.item_id where s.label = 0"""
    ).fetchone()
    assert n == 0


def test_what_was_shown_and_not_taken_is_negative_where_there_are_impressions(db):
    behave(db, action="impression", query="'mug ' || u % 9", per_day=5)
    behave(db, action="click", query="'mug ' || u % 9", per_day=1)
    build(db)
    rows = db.execute("select origin, label, count(*) from training_samples group by all order by all").fetchall()
    assert {origin for origin, *_ in rows} == {"search"}
    (drawn,) = db.execute(
        "select count(*) from training_samples where label = 0 and item_id not in (select item_id from cleaned_interactions where action = 'impression')"
    ).fetchone()
    assert drawn == 0


def test_a_query_is_in_one_split_although_it_is_asked_in_all_periods(db):
    behave(db, query="'mug ' || u % 9", action="click")
    told = build(db)
    assert broken(db) == set()
    assert told["n_acts_left_out_to_keep_groups_whole"] > 0


def test_a_single_day_is_split_by_hash(db):
    behave(db, n_users=40, n_days=1)
    assert build(db)["split_rule"] == "hash of the group"
    assert broken(db) == set()


@pytest.mark.parametrize(
    ("grades", "relevant"), [((0, 1), {1}), ((1, 2, 3, 4), {3, 4}), ((0, 1, 2), {2}), ((0, 10, 100), {100})]
)
def test_the_upper_half_of_the_grades_is_relevant(db, grades, relevant):
    judge(db, grades=grades)
    build(db)
    rows = db.execute("select distinct relevance from training_samples where label = 1").fetchall()
    assert {int(grade) for (grade,) in rows} == relevant


def test_splits_that_a_source_gives_are_kept_and_what_it_lacks_is_cut_from_training(db):
    judge(db)
    db.execute("update judgments set split = case when query_id in ('q1', 'q2', 'q3') then 'test' else 'train' end")
    build(db)
    tests = db.execute("select distinct context_text from training_samples where split = 'test' order by 1").fetchall()
    assert tests == [("query 1",), ("query 2",), ("query 3",)]
    assert db.execute("select count(*) from training_samples where split = 'validation'").fetchone()[0] > 0


def test_judgments_and_behaviour_of_one_query_share_its_split(db):
    judge(db)
    behave(db, query="'query ' || u", action="click")
    build(db)
    assert broken(db) == set()
    (n,) = db.execute(
        "select count(*) from (select group_id from training_samples group by 1 having count(distinct origin) = 2)"
    ).fetchone()
    assert n > 0


def test_nothing_to_learn_from_is_an_error_that_says_what_to_bring(db):
    with pytest.raises(SampleError, match=r"3 of 3 splits have no sample; first: 'train'.*bring more"):
        build(db)


def test_one_label_alone_is_an_error_that_says_what_to_set(db):
    judge(db, grades=(3,))
    with pytest.raises(SampleError, match=r"all \d+ training samples have label 1.*relevant_from"):
        build(db)


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.integers(2, 10), st.integers(0, 3))
def test_a_fold_depends_on_the_group_alone(groups, n_folds, repeat):
    whole = fold_of(groups, n_folds, repeat)
    assert whole == [fold_of([group], n_folds, repeat)[0] for group in groups]
    assert all(0 <= fold < n_folds for fold in whole)


def test_the_fold_in_sql_is_the_fold_in_python(db):
    judge(db)
    build(db)
    rows = db.execute("select group_id, fold from training_samples").fetchall()
    assert fold_of([group for group, _ in rows], 5, 0) == [fold for _, fold in rows]
