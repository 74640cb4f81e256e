"""Judged pairs: a query in any spelling and under any id is one query, with one split and one grade an item."""

from duckdb import DuckDBPyConnection

from ecom_pipeline import forms, identity, schema
from ecom_pipeline.cleaning.rules import MALFORMED, Rule, first_broken, number, sieve
from ecom_pipeline.forms.columns import READ
from ecom_pipeline.schema import SPLITS

_ROW_RULES = [
    MALFORMED,
    Rule("query_blank", "query is null", "query must have a letter after markup is gone", "'nothing'"),
    Rule("item_id_missing", "item_id is null", "item_id must be present", "'nothing'"),
    Rule("item_unknown", "not known", "item_id must be in items", "item_id"),
    Rule("relevance_missing", "relevance_given is null", "relevance must be present", "'nothing'"),
    number("relevance", "relevance < 0", "relevance must be a number >= 0"),
    Rule("split_unknown", f"split_given not in {SPLITS}", f"split must be one of {', '.join(SPLITS)}", "split_given"),
]
_PAIR_RULES = [
    Rule(
        "query_in_two_splits",
        "split_given <> split",
        "all rows of a query, in any spelling, must be in one split; of several the one that is furthest from training holds",
        "split_given || ' of ' || query || ', which is in ' || split",
    ),
    Rule(
        "exact_duplicate",
        "nth > 1 and relevance = first_relevance",
        "a query, in any spelling, and an item are judged once",
        "relevance || ' again for ' || query",
    ),
    Rule(
        "grades_conflict",
        "nth > 1",
        "a query, in any spelling, and an item have one grade; the first row is kept",
        "relevance || ' for ' || query || ', which has ' || first_relevance",
    ),
]
_PREPARED = f"""
    with typed as (
        select file, row_number, malformed, filled_text(query) as query, item_id, filled(query_id) as query_id_given,
            filled(relevance) as relevance_given, read_number(relevance) as relevance,
            {READ["judgments"]["rater_std"]} as rater_std, lower(filled(split)) as split_given
        from raw_judgments),
    known as (
        select typed.*, {identity.group_id("query")} as group_id, items.item_id is not null as known
        from typed left join items using (item_id)),
    checked as (select *, {first_broken(_ROW_RULES)} as row_rule from known),
    placed as (
        select *, coalesce(query_id_given, group_id) as query_id,
            {schema.held_out("split_given")} over (partition by group_id, row_rule is null) as split
        from checked)
    select *, row_number() over pair as nth, first_value(relevance) over pair as first_relevance
    from placed
    window pair as (
        partition by group_id, item_id, row_rule is null and coalesce(split_given = split, true) order by file, row_number)"""


def clean_judgments(db: DuckDBPyConnection) -> dict[str, int]:
    """Make `judgments` from `raw_judgments`, for items that `items` has.

    A query is what its spellings share, whatever ids it stands under. Where its rows are given several splits, the one
    that is furthest from training holds, so that nothing given as test is trained on; rows without one follow the others.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.

    Cost: two sorts of what was judged.
    """
    forms.make_macros(db, "judgments")
    db.execute(f"create or replace temp table checked as {_PREPARED}")
    rules = [*_ROW_RULES, *_PAIR_RULES]
    counts = sieve(db, "judgments", prepared="from checked", rules=rules, kept=schema.JUDGMENTS)
    db.execute("drop table checked")
    return counts
