import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.prepare import SamplesConfig
from assets.publish import settings_of
from ecom_pipeline import schema
from ecom_pipeline.errors import SampleError
from ecom_pipeline.laws import LAWS
from ecom_pipeline.samples import SampleRules, build_samples, fold_of

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
        select uuid()::varchar as event_id, timestamp '2024-01-01' + to_days(d::int) + to_hours((u % 12)::int)
            as occurred_at, (timestamp '2024-01-01' + to_days(d::int))::date as day, 'u' || u as user_id, '{action}' as action,
            'i' || (u * 7 + d * 3 + k) % 60 as item_id, {query} as query
        from range({n_users}) as a(u), range({n_days}) as b(d), range({per_day}) as c(k)"""
    )


def search(db, query="'mug ' || u % 9", **more):
    """Each visit is shown five items and clicks the first."""
    behave(db, action="impression", query=query, per_day=5, **more)
    behave(db, action="click", query=query, per_day=1, **more)


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


def test_samples_of_searches_keep_every_law_and_test_is_the_last_period(db):
    search(db, query="'mug ' || u || ' of ' || d")
    build(db)
    assert broken(db) == set()
    late, early = db.execute(
        "select min(occurred_at) filter (where split = 'test'), max(occurred_at) filter (where split <> 'test') from training_samples"
    ).fetchone()
    assert early < late


def test_a_planted_group_in_two_splits_is_found(db):
    search(db)
    build(db)
    db.execute(
        "update training_samples set split = 'validation' where rowid = (select min(rowid) from training_samples where split = 'train')"
    )
    assert "no_group_is_in_two_splits" in broken(db)


def test_what_was_shown_and_not_taken_is_negative_and_nothing_else_is(db):
    search(db)
    build(db)
    rows = db.execute("select origin, label, count(*) from training_samples group by all order by all").fetchall()
    assert [(origin, label) for origin, label, _ in rows] == [("search", 0), ("search", 1)]
    (n_not_shown,) = db.execute(
        "select count(*) from training_samples where item_id not in (select item_id from cleaned_interactions where query = context_text)"
    ).fetchone()
    assert n_not_shown == 0


def test_what_was_taken_without_a_query_makes_no_sample(db):
    search(db)
    told = build(db)
    behave(db, action="cart")
    assert build(db) == told


def test_visits_that_refused_nothing_or_took_nothing_are_left_out_and_counted(db):
    search(db, n_days=9)
    wanted = build(db)["n_samples_train"]
    behave(db, query="'all taken ' || u", n_days=2, n_users=5)
    behave(db, action="impression", query="'none taken ' || u", n_days=3, n_users=7)
    told = build(db)
    assert told["n_samples_train"] == wanted
    assert told["n_search_visits"] == 12 * 9 + 2 * 5 + 3 * 7
    assert told["n_search_visits_that_refused_nothing"] == 10
    assert told["n_search_visits_that_took_nothing"] == 21


def test_purchases_alone_leave_the_samples_empty_and_that_is_said(db):
    behave(db)
    told = build(db)
    assert db.execute("select count(*) from training_samples").fetchone() == (0,)
    assert db.sql("from training_samples").columns == schema.TRAINING_SAMPLES.column_names
    assert told["split_rule"] == "none: nothing was judged and nobody searched"
    assert told["n_samples_train"] == told["n_search_visits"] == 0


def test_relations_below_may_be_empty_only_where_there_are_no_samples(db):
    judge(db)
    build(db)
    laws = [law for law in LAWS if law.name == "empty_only_without_samples"]
    for law in laws:
        schema.RELATIONS[law.relation].create(db)
    assert len(laws) == 5
    assert all(db.execute(law.broken).fetchall() for law in laws)
    schema.TRAINING_SAMPLES.clear(db)
    assert not any(db.execute(law.broken).fetchall() for law in laws)


def test_searches_that_rank_nothing_are_an_error_that_says_why(db):
    behave(db, query="'mug ' || u")
    with pytest.raises(SampleError, match=r"120 search visits, of which 0 took nothing and 120 refused nothing"):
        build(db)


def test_an_item_met_under_two_spellings_of_a_query_is_one_sample(db):
    search(db, query="'mug ' || u || ' of ' || d")
    db.execute("update cleaned_interactions set query = upper(query) where action = 'click'")
    told = build(db)
    assert told["n_search_visits"] == 120
    assert db.execute("select count(*), count(distinct sample_id) from training_samples").fetchone() == (600, 600)


def test_a_query_is_in_one_split_although_it_is_asked_in_all_periods(db):
    search(db)
    told = build(db)
    assert broken(db) == set()
    assert told["n_acts_left_out_to_keep_groups_whole"] > 0


def test_a_single_day_is_split_by_hash(db):
    search(db, query="'mug ' || u", n_users=40, n_days=1)
    assert build(db)["split_rule"] == "hash of the query"
    assert broken(db) == set()


def test_all_groups_and_rows_are_kept_unless_a_limit_is_set(db):
    judge(db)
    assert build(db)["n_samples_train"] + build(db)["n_samples_test"] + build(db)["n_samples_validation"] == 30 * 8
    told = build(db, train_groups=5, rows_per_group=3)
    assert told["n_groups_train"] == 5
    assert told["n_samples_train"] <= 15


@pytest.mark.parametrize(
    ("grades", "relevant"), [((0, 1), {1}), ((1, 2, 3, 4), {3, 4}), ((0, 1, 2), {2}), ((0, 10, 100), {100})]
)
def test_the_upper_half_of_the_grades_is_relevant(db, grades, relevant):
    judge(db, grades=grades)
    build(db)
    rows = db.execute("select distinct relevance from training_samples where label = 1").fetchall()
    assert {int(grade) for (grade,) in rows} == relevant


@pytest.mark.parametrize(
    "change", ["split = case when relevance > 0 then 'train' else 'test' end", "query = 'Same', item_id = 'i1'"]
)
def test_a_query_in_two_splits_or_twice_with_an_item_is_found(db, change):
    judge(db)
    (law,) = [law for law in LAWS if law.name == "a_query_has_one_split_and_one_grade_an_item"]
    assert db.execute(law.broken).fetchall() == []
    db.execute(f"update judgments set {change}")
    assert db.execute(law.broken).fetchall()


def test_a_query_given_as_test_in_one_spelling_is_test_in_all(db):
    judge(db)
    db.execute("update judgments set split = 'train'")
    db.execute(
        "update judgments set query = upper(query), split = 'test' where query_id in ('q1', 'q2') and item_id > 'i5'"
    )
    build(db)
    rows = db.execute(
        "select split from training_samples where lower(context_text) in ('query 1', 'query 2')"
    ).fetchall()
    assert {split for (split,) in rows} == {"test"}


def test_splits_that_a_source_gives_are_kept_and_what_it_lacks_is_cut_from_training(db):
    judge(db)
    db.execute("update judgments set split = case when query_id in ('q1', 'q2', 'q3') then 'test' else 'train' end")
    build(db)
    tests = db.execute("select distinct context_text from training_samples where split = 'test' order by 1").fetchall()
    assert tests == [("query 1",), ("query 2",), ("query 3",)]
    assert db.execute("select count(*) from training_samples where split = 'validation'").fetchone()[0] > 0


def test_judgments_and_behaviour_of_one_query_share_its_split(db):
    judge(db)
    search(db, query="'query ' || u")
    build(db)
    assert broken(db) == set()
    (n,) = db.execute(
        "select count(*) from (select group_id from training_samples group by 1 having count(distinct origin) = 2)"
    ).fetchone()
    assert n > 0


def test_nothing_to_learn_from_is_an_error_that_says_what_to_bring(db):
    with pytest.raises(SampleError, match=r"0 of 0 events took anything, and 0 pairs were judged.*bring events.csv or"):
        build(db)


def test_too_few_queries_are_an_error_that_says_what_to_bring(db):
    judge(db, n_queries=1)
    with pytest.raises(SampleError, match=r"2 of 3 splits have no sample; first: .*8 judged pairs.*bring more days"):
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
