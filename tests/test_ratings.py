"""What raters answer stands above the source's grade; nothing is lost, and no answer moves a split or the scale."""

import json
import random
from collections import defaultdict
from datetime import datetime, timedelta

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cleaning import judged, put, shop

from ecom_pipeline import cleaning, schema
from ecom_pipeline.laws import LAWS
from ecom_pipeline.samples import SampleRules, build_samples

START = datetime(2026, 5, 1, 9)
RULES = SampleRules(5, None, None, None, None, None, 0.15, 0.15)
ROW = "select query, item_id, relevance, source_relevance, n_raters, split, query_id from judgments order by all"


def rating(query: str, item: str, grade: object, rater: str | None = "ann", minute: int = 0, **more: object) -> dict:
    """A row as landing leaves it of a journal."""
    told = {"rater": rater, "rated_at": str(START + timedelta(minutes=minute)), "rating_id": "r", "sample_id": "s"}
    row = judged(query, item, grade, attributes=json.dumps(told), file="journal/ratings-1-2.parquet")
    return {**row, **more}


def cleaned(rows: list[dict]) -> duckdb.DuckDBPyConnection:
    db = shop(rows, "judgments")
    cleaning.clean_judgments(db)
    return db


def rules_broken(db: duckdb.DuckDBPyConnection) -> list[str]:
    return [rule for (rule,) in db.execute("select rule from rejected_rows order by file, row_number").fetchall()]


def test_an_answer_stands_above_the_sources_grade_in_any_spelling_and_its_split_stays():
    rows = [
        judged("Red Mug", "a", 3, split="test", query_id="7", rater_std=0.5),
        judged("red mug", "b", 0, split="test", query_id="7"),
        rating("red  mug", "a", 1),
    ]
    with cleaned(rows) as db:
        assert db.execute(ROW).fetchall() == [
            ("red mug", "a", 1.0, 3.0, 1, "test", "7"),
            ("red mug", "b", 0.0, 0.0, 0, "test", "7"),
        ]
        rejected = db.execute("select rule, reason from rejected_rows").fetchall()
    assert rejected == [
        (
            "overruled_by_rater",
            "a grade of the source holds only where no rater has answered; it is 3.0 for Red Mug, for which 1 raters say 1.0",
        )
    ]


def test_of_a_raters_answers_the_last_counts_and_of_raters_the_lower_middle_one():
    rows = [
        judged("mug", "a", 0),
        judged("cup", "a", 3),
        rating("mug", "a", 3, "ann", 5),
        rating("Mug", "a", 0, "ann", 1),
        rating("mug", "a", 2, "bob", 2),
        rating("mug", "a", 1, "cy", 3),
        rating("mug", "a", 1, "dee", 9),
    ]
    with cleaned(rows) as db:
        grade, n_raters, spread = db.execute(
            "select relevance, n_raters, rater_std from judgments where query <> 'cup'"
        ).fetchone()
        assert (grade, n_raters) == (1, 4)
        assert spread == pytest.approx(0.829, abs=1e-3)  # of 3, 2, 1, 1
        assert rules_broken(db) == [
            *("answers_pooled", "answered_again", "answers_pooled", "answers_pooled"),
            "overruled_by_rater",
        ]


def test_a_pair_that_nobody_judged_becomes_a_judged_pair():
    with cleaned([rating("mug", "a", 1)]) as db:
        assert [row[:6] for row in db.execute(ROW).fetchall()] == [("mug", "a", 1.0, None, 1, None)]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (rating("mug", "a", 1, rater=None), "rater_missing"),
        (rating("mug", "a", 1, attributes='{"rater": "ann", "rated_at": "soon"}'), "rated_at_unreadable"),
        (rating("mug", "a", 4), "grade_off_the_scale"),
        (rating("mug", "a", 0), "grade_off_the_scale"),
        (rating("mug", "a", "good"), "relevance_out_of_range"),
        (rating("mug", "z", 1), "item_unknown"),
    ],
)
def test_an_answer_that_cannot_stand_overrules_nothing(row, rule):
    with cleaned([judged("mug", "a", 3), judged("mug", "b", 1), row]) as db:
        assert rules_broken(db) == [rule]
        assert db.execute("select relevance, n_raters from judgments where item_id = 'a'").fetchall() == [(3, 0)]


def test_a_source_that_has_one_grade_alone_can_be_told_that_an_item_is_irrelevant():
    with cleaned([judged("mug", "a", 1), judged("mug", "b", 1), rating("mug", "a", 0)]) as db:
        assert rules_broken(db) == ["overruled_by_rater"]


def test_a_judged_pair_of_a_source_is_named_journal_by_its_folder_alone():
    with cleaned([judged("mug", "a", 1, file="judgments/journal/x.csv")]) as db:
        assert db.execute("select n_raters from judgments").fetchall() == [(0,)]


def test_answers_do_not_move_the_middle_of_the_scale_and_say_what_the_source_would_teach():
    rows = [judged(f"query {q}", item, grade) for q in range(20) for item, grade in (("a", 1), ("b", 2))]
    rows += [judged("query 0", "c", 4), rating("query 0", "c", 2)]  # the only 4 is gone: the middle stays 2.5
    rows += [judged("query 1", "c", 3), rating("query 2", "c", 3)]
    with cleaned(rows) as db:
        build_samples(db, SampleRules(5, None, None, None, None, None, 0.15, 0.15))
        made = db.execute(
            "select context_text, item_id, label, source_label from training_samples "
            "where label = 1 or label is distinct from source_label order by all"
        ).fetchall()
    assert made == [("query 0", "c", 0, 1), ("query 1", "c", 1, 1), ("query 2", "c", 1, None)]


def test_judgments_of_an_older_home_get_the_columns_and_keep_their_rows():
    with duckdb.connect() as db:
        db.execute(
            "create table judgments as select '1' as query_id, 'mug' as query, 'a' as item_id, 3.0::double as relevance"
        )
        schema.JUDGMENTS.create(db)
        assert db.sql("from judgments").columns == schema.JUDGMENTS.column_names
        assert db.execute("select query, relevance, n_raters from judgments").fetchall() == [("mug", 3.0, None)]


queries, grades = st.sampled_from(["mug", "Mug", "cup"]), st.integers(0, 3)
answers = st.tuples(queries, st.sampled_from("ab"), grades, st.sampled_from(["ann", "bob", "cy"]))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(queries, st.sampled_from("ab"), grades), max_size=6),
    st.lists(answers, max_size=10),
    st.integers(0, 9),
)
def test_every_row_is_kept_or_rejected_once_and_the_order_of_answers_is_their_time(given_rows, answered, seed):
    rows = [judged("all", "a", 0), judged("all", "b", 3), *(judged(*row) for row in given_rows)]
    rated = [rating(*row, minute=minute) for minute, row in enumerate(answered)]
    placed = [
        {**row, "row_number": place} for place, row in enumerate(random.Random(seed).sample(rated, len(rated)), 1)
    ]
    last: dict[tuple, dict] = defaultdict(dict)
    for query, item, grade, rater in answered:
        last[query.lower(), item][rater] = grade
    source: dict[tuple, int] = {}
    for query, item, grade in given_rows:
        source.setdefault((query.lower(), item), grade)
    with shop([], "judgments") as db:
        put(db, "judgments", [*rows, *placed])
        cleaning.clean_judgments(db)
        for law in LAWS:
            if law.relation == "judgments":
                assert db.execute(law.broken).fetchall() == [], law.name
        kept = db.execute(
            "select lower(query), item_id, relevance, source_relevance, n_raters from judgments where query <> 'all'"
        ).fetchall()
    expected = {pair: (sorted(of.values())[(len(of) - 1) // 2], source.get(pair), len(of)) for pair, of in last.items()}
    expected |= {pair: (grade, grade, 0) for pair, grade in source.items() if pair not in last}
    assert {(query, item): tuple(rest) for query, item, *rest in kept} == expected
