"""Judged pairs: a query in any spelling and under any id is one query, with one split and one grade an item.

What raters answer in the home stands above what the source says of a pair.
"""

from duckdb import DuckDBPyConnection

from ecom_pipeline import forms, identity, schema
from ecom_pipeline.cleaning.rules import MALFORMED, Rule, first_broken, number, sieve
from ecom_pipeline.forms import times
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
    Rule("rater_missing", "rated and rater is null", "an answer must say which rater gave it", "'nothing'"),
    Rule("rated_at_unreadable", "rated and rated_at is null", "an answer must say when it was given", "'no time'"),
]
_SCALE = Rule(
    "grade_off_the_scale",
    # a source with one grade alone has told one end of its scale, and 0 is the other
    "rated and (relevance > highest and highest > 0 or relevance < lowest and lowest < highest)",
    "the grade of a rater must lie within those of the source, whose scale answers must not stretch",
    "relevance || ' where the source has ' || lowest || ' to ' || highest",
)
_PAIR_RULES = [
    _SCALE,
    Rule(
        "query_in_two_splits",
        "split_given <> split",
        "all rows of a query, in any spelling, must be in one split; of several the one that is furthest from training holds",
        "split_given || ' of ' || query || ', which is in ' || split",
    ),
    Rule(
        "exact_duplicate",
        "not rated and nth > 1 and relevance = first_relevance",
        "a query, in any spelling, and an item are judged once",
        "relevance || ' again for ' || query",
    ),
    Rule(
        "grades_conflict",
        "not rated and nth > 1",
        "a query, in any spelling, and an item have one grade; the first row is kept",
        "relevance || ' for ' || query || ', which has ' || first_relevance",
    ),
    Rule(
        "overruled_by_rater",
        "not rated and n_raters > 0",
        "a grade of the source holds only where no rater has answered",
        "relevance || ' for ' || query || ', for which ' || n_raters || ' raters say ' || middle_relevance",
    ),
    Rule(
        "answered_again",
        "rated and nth_answer > 1",
        "of the answers of one rater to a query, in any spelling, and an item the last holds",
        "relevance || ' for ' || query || ' before the last'",
    ),
    Rule(
        "answers_pooled",
        "rated and nth > 1",
        "of the answers of several raters the middle one stands for all, the lower of two",
        "relevance || ' for ' || query || ', for which ' || n_raters || ' raters say ' || middle_relevance",
    ),
]
_PREPARED = f"""
    with typed as (
        select file, row_number, malformed, filled_text(query) as query, item_id, filled(query_id) as query_id_given,
            filled(relevance) as relevance_given, read_number(relevance) as relevance,
            {READ["judgments"]["rater_std"]} as rater_std_given, lower(filled(split)) as split_given,
            starts_with(file, '{schema.JOURNAL}') as rated, case when rated then attributes ->> '$.rater' end as rater,
            {times.inline("case when rated then attributes ->> '$.rated_at' end")} as rated_at
        from raw_judgments),
    known as (
        select typed.*, {identity.group_id("query")} as group_id, items.item_id is not null as known
        from typed left join items using (item_id)),
    checked as (select *, {first_broken(_ROW_RULES)} as row_rule from known),
    scaled as (
        select checked.*, lowest, highest from checked, (
            select min(relevance) as lowest, max(relevance) as highest from checked where not rated and row_rule is null)),
    measured as (select *, row_rule is null and {first_broken([_SCALE])} is null as sound from scaled),
    placed as (
        select *, {schema.held_out("split_given")} over (partition by group_id, sound) as split,
            first_value(query_id_given ignore nulls) over (
                partition by group_id, sound order by rated, file, row_number) as id_of_query,
            row_number() over (
                partition by group_id, item_id, rated, rater, sound order by rated_at desc, file desc, row_number desc
            ) as nth_answer
        from measured),
    counted as (
        select *, sound and rated and nth_answer = 1 as holds, sound and coalesce(split_given = split, true) as stands
        from placed),
    pooled as (
        select *, count(*) filter (where holds) over pair as n_raters,
            quantile_disc(relevance, 0.5) filter (where holds) over pair as middle_relevance,
            stddev_pop(relevance) filter (where holds) over pair as spread
        from counted window pair as (partition by group_id, item_id)),
    ordered as (
        select *, row_number() over pair as nth, first_value(relevance) over pair as first_relevance
        from pooled
        window pair as (
            partition by group_id, item_id, rated, stands and (holds or not rated)
            order by rated and relevance is distinct from middle_relevance, rated_at desc, file, row_number))
    select *, coalesce(query_id_given, case when rated then id_of_query end, group_id) as query_id,
        case when not rated then rater_std_given when n_raters > 1 then spread end as rater_std,
        max(relevance) filter (where not rated and stands and nth = 1) over (
            partition by group_id, item_id) as source_relevance
    from ordered"""


def clean_judgments(db: DuckDBPyConnection) -> dict[str, int]:
    """Make `judgments` from `raw_judgments`, for items that `items` has.

    A query is what its spellings share, whatever ids it stands under. Where its rows are given several splits, the one
    that is furthest from training holds, so that nothing given as test is trained on; rows without one follow the others.

    Rows of files below `schema.JOURNAL` are answers of raters. Of each rater the last answer to a pair counts, by
    `rated_at`; of several raters the median, the lower one of two. It stands above the grade of the source, which is kept
    as `source_relevance`, and must lie on the source's scale, if the source has one. Answers give no split.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.

    Cost: some sorts of what was judged.
    """
    forms.make_macros(db, "judgments")
    db.execute(f"create or replace temp table checked as {_PREPARED}")
    rules = [*_ROW_RULES, *_PAIR_RULES]
    counts = sieve(db, "judgments", prepared="from checked", rules=rules, kept=schema.JUDGMENTS)
    db.execute("drop table checked")
    return counts
