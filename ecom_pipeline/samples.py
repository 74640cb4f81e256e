"""From judgments and search visits to training samples: query, item, label, group, fold and split.

On the floor above `schema`. A group is a query and is never divided. What users did without a query is not learnt from
here but by `recommend`: nobody said no to anything there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from duckdb import DuckDBPyConnection

from ecom_pipeline import identity, schema
from ecom_pipeline.errors import SampleError

TAKEN = "(action in ('click', 'cart', 'purchase') or action = 'review' and coalesce(rating, 5) > 3)"
_FEW_GROUPS = 200  # below this, shares of a hash are too uneven: groups are ranked by their hash instead


@dataclass(frozen=True, slots=True)
class SampleRules:
    """How samples are made.

    Attributes:
        n_folds: folds for out-of-fold scores.
        relevant_from: grade from which a judged pair has label 1; None: above the middle of the grades in use.
        train_groups: queries kept for training, at most; those with the lowest hash. None: all.
        validation_groups: the same for validation.
        test_groups: the same for test.
        rows_per_group: samples of one query, at most. None: all.
        validation_share: share of the visits, or of the queries, for validation.
        test_share: the same for test.
    """

    n_folds: int
    relevant_from: float | None
    train_groups: int | None
    validation_groups: int | None
    test_groups: int | None
    rows_per_group: int | None
    validation_share: float
    test_share: float

    def groups(self, split: str) -> int | None:
        """Groups of a split, at most."""
        return {"train": self.train_groups, "validation": self.validation_groups, "test": self.test_groups}[split]


def fold_of(group_ids: Sequence[str], n_folds: int, repeat: int) -> list[int]:
    """The fold of each group: a hash, so that a new day never moves an old sample.

    >>> fold_of(["query:a", "query:b", "query:a"], 5, 0)
    [3, 3, 3]
    """
    return [int(hashlib.md5(f"{group}|{repeat}".encode()).hexdigest()[:15], 16) % n_folds for group in group_ids]


def build_samples(db: DuckDBPyConnection, rules: SampleRules) -> dict[str, object]:
    """Make `training_samples` from `judgments`, `cleaned_interactions` and `items`.

    A search visit is what one user did on one day for one query. What was clicked, put into the cart, bought or reviewed
    well has label 1; what was shown or reviewed badly and not taken has label 0. A visit that took nothing, or refused
    nothing, ranks nothing: it is left out and counted. Where nothing was judged and nobody searched, there is no sample.

    With at least three days, the last days are test and those before them validation; else, and for judgments, a
    hash of the query decides. A query that occurs in several periods belongs to one of them, by its hash; its rows
    in the others are left out and counted.

    Args:
        db: a connection inside a transaction.
        rules: how samples are made.

    Returns:
        Counts and rules for the metadata.

    Raises:
        SampleError: if nothing was judged and nothing taken; if a split has no sample though something was judged or
            searched for; or if training samples have one label alone.

    Cost: one scan of `cleaned_interactions`, and sorts of what was judged or searched for.
    """
    for relation in (schema.JUDGMENTS, schema.CLEANED_INTERACTIONS):
        relation.create(db)
    db.execute(f"create or replace temp table judged as {_judged(rules)}")
    db.execute(f"create or replace temp table acts as {acts()}")
    visits = _leave_out(db)
    (n_judged,) = db.execute("select count(*) from judged").fetchall()[0]
    if n_judged or visits["n_search_visits"]:
        told = _build(db, rules, visits)
    else:
        _require_takings(db)
        schema.TRAINING_SAMPLES.clear(db)
        told = {"split_rule": "none: nothing was judged and nobody searched"}
    for name in ("judged", "acts"):
        db.execute(f"drop table {name}")
    return {**_counts(db), **told, **visits}


def _build(db: DuckDBPyConnection, rules: SampleRules, visits: Mapping[str, int]) -> dict[str, object]:
    periods = _periods(db, rules)
    db.execute(f"create or replace temp table grouped as {_grouped(db, periods, rules)}")
    db.execute(f"create or replace table training_samples as {_samples(rules)}")
    _require(db, visits)
    (n_left_out,) = db.execute(
        "select count(*) from acts join grouped using (group_id) where period is distinct from split and period <> ''"
    ).fetchall()[0]
    db.execute("drop table grouped")
    rule = "hash of the query" if periods is None else f"validation from {periods[0]}, test from {periods[1]}"
    return {"split_rule": rule, "n_acts_left_out_to_keep_groups_whole": n_left_out}


def _hash(text: str) -> str:
    return f"('0x' || left(md5({text}), 15))::bigint"


def _judged(rules: SampleRules) -> str:
    threshold = (
        f">= {rules.relevant_from}"
        if rules.relevant_from is not None
        # one grade alone is all relevant, unless it is 0
        else "> case when low = high then 0 else (low + high) / 2 end"
    )
    # overruled grades are of the scale too: answers do not move the middle of it
    grades = "select min(least(relevance, source_relevance)) as low, max(greatest(relevance, source_relevance)) as high"
    return f"""
        select {identity.group_id("query")} as group_id, query as context_text, item_id,
            (relevance {threshold})::double as label, (source_relevance {threshold})::double as source_label,
            relevance, rater_std, split as given, {identity.judgment_sample_id("query", "item_id")} as sample_id
        from judgments, ({grades} from judgments)"""


def acts() -> str:
    """A query: one row a search visit and item, when the visit began, and whether the item was taken."""
    return f"""
        with told as (
            select *, {identity.actor("e")} as actor, {identity.group_id("query")} as group_id
            from cleaned_interactions as e where query is not null and action <> 'return')
        select {identity.visit_id("actor", "min(query)", "day")} as visit_id, day, min(query) as query, item_id, group_id,
            bool_or({TAKEN}) as taken, min(propensity) as propensity, min(position) as position,
            min(min(occurred_at)) over (partition by actor, group_id, day) as started_at
        from told group by actor, day, group_id, item_id"""


def _leave_out(db: DuckDBPyConnection) -> dict[str, int]:
    """Take out of `acts` the visits that rank nothing, and count them."""
    db.execute(
        "create or replace temp table visits as select visit_id, bool_or(taken) as took, "
        "bool_or(not taken) as refused from acts group by visit_id"
    )
    row = db.execute(
        "select count(*), count(*) filter (where not took), count(*) filter (where not refused) from visits"
    ).fetchall()[0]
    db.execute("delete from acts where visit_id in (select visit_id from visits where not (took and refused))")
    db.execute("drop table visits")
    names = ("n_search_visits", "n_search_visits_that_took_nothing", "n_search_visits_that_refused_nothing")
    return dict(zip(names, row, strict=True))


def _periods(db: DuckDBPyConnection, rules: SampleRules) -> tuple[date, date] | None:
    """First day of validation and of test: by shares of the visits, but at least one day each."""
    days = db.execute("select day, count(distinct visit_id) from acts group by day order by day").fetchall()
    if len(days) < 3:
        return None
    total, so_far, place = sum(n for _, n in days), 0, {}
    for index, (_, n) in enumerate(days):
        for name, share in (
            ("validation", 1 - rules.test_share - rules.validation_share),
            ("test", 1 - rules.test_share),
        ):
            if so_far < share * total:
                place[name] = index + 1
        so_far += n
    test = min(max(place["test"], 2), len(days) - 1)
    validation = min(max(place["validation"], 1), test - 1)
    return days[validation][0], days[test][0]


def _grouped(db: DuckDBPyConnection, periods: tuple[date, date] | None, rules: SampleRules) -> str:
    """One row a group: its split, for the groups that are kept."""
    if periods:
        period = (
            f"case when day < '{periods[0]}' then 'train' when day < '{periods[1]}' then 'validation' else 'test' end"
        )
    else:
        period = "''"
    db.execute(f"alter table acts add column period varchar; update acts set period = {period}")
    (given,) = db.execute("select coalesce(list(distinct given), []) from judged where given is not null").fetchall()[0]
    limits = {split: limit for split in schema.SPLITS if (limit := rules.groups(split)) is not None}
    kept = " and ".join(f"(split <> '{split}' or place <= {limit})" for split, limit in limits.items()) or "true"
    tested, validated = rules.test_share, rules.test_share + rules.validation_share
    hashed = f"case when share < {tested} then 'test' when share < {validated} then 'validation' else 'train' end"
    # a split that the source does not give is cut out of its training queries
    missing = [split for split in ("test", "validation") if split not in given]
    chosen = f"case when given = 'train' and {hashed} in {(*missing, '')} then {hashed} else given end"
    return f"""
        with all_groups as (
            select group_id, null as given, list_sort(list(distinct period)) as periods from acts
            where period <> '' group by group_id
            union all
            select group_id, null, null from acts where period = '' group by group_id
            union all select group_id, {schema.held_out("given")}, null from judged group by group_id),
        one as (
            select group_id, {schema.held_out("given")} as given, any_value(periods) as periods, {_hash("group_id")} as number
            from all_groups group by group_id),
        shared as (
            select one.*, case when n_groups < {_FEW_GROUPS} then
                (row_number() over (order by number, group_id) - 0.5) / n_groups
                else number / {16**15}::double end as share
            from one, (select count(*) as n_groups from one)),
        decided as (
            select group_id, number, coalesce({chosen}, periods[1 + number % len(periods)], {hashed}) as split
            from shared),
        placed as (
            select group_id, split, row_number() over (partition by split order by {_hash("group_id || split")}) as place
            from decided)
        select group_id, split from placed where {kept}"""


def _samples(rules: SampleRules) -> str:
    limit = (
        ""
        if rules.rows_per_group is None
        else (
            f"qualify row_number() over (partition by group_id order by {_hash('sample_id')}) <= {rules.rows_per_group}"
        )
    )
    return f"""
        with told as (
            select {identity.search_sample_id("visit_id", "item_id")} as sample_id, 'search' as origin, group_id,
                query as context_text, item_id, taken::double as label, label as source_label, label as relevance,
                null::double as rater_std, position, propensity, started_at as occurred_at, split
            from acts join grouped using (group_id) where period = '' or period = split
            union all
            select sample_id, 'judgment', group_id, context_text, item_id, label, source_label, relevance, rater_std,
                null, null, null, split
            from judged join grouped using (group_id))
        select sample_id, origin, group_id, context_text, item_id, title, item_text,
            nullif(split_part(coalesce(category, ''), ' > ', 1), '') as category, label, source_label,
            relevance, rater_std, position, propensity, occurred_at, count(*) over (partition by group_id) as n_context_rows,
            ({_hash("group_id || '|0'")} % {rules.n_folds})::integer as fold, split
        from told join items using (item_id)
        {limit}
        order by sample_id"""


def _counts(db: DuckDBPyConnection) -> dict[str, object]:
    rows = db.execute(
        "select split, count(*), count(distinct group_id), avg(label) from training_samples group by split"
    ).fetchall()
    counts: dict[str, object] = {}
    for split in schema.SPLITS:
        found = next(((n, groups, share) for name, n, groups, share in rows if name == split), (0, 0, 0.0))
        names = (f"n_samples_{split}", f"n_groups_{split}", f"positive_share_{split}")
        counts |= dict(zip(names, found, strict=True))
    return counts


def _require_takings(db: DuckDBPyConnection) -> None:
    """Without judgments and searches, something must have been taken: else nothing at all can be learnt."""
    n_events, n_taken = db.execute(
        f"select count(*), count(*) filter (where {TAKEN}) from cleaned_interactions"
    ).fetchall()[0]
    if not n_taken:
        raise SampleError(
            f"training_samples: 0 of {n_events} events took anything, and 0 pairs were judged; {_most_rejected(db)}. There "
            "must be clicks, carts, purchases or good reviews, or judged pairs: bring events.csv or judgments.csv, and look "
            "at rejected_rows for what was turned away."
        )


def _most_rejected(db: DuckDBPyConnection) -> str:
    schema.REJECTED_ROWS.create(db)
    n_rejected, rule = db.execute(
        "select count(*), mode(rule || ': ' || reason) from rejected_rows where source <> 'items'"
    ).fetchall()[0]
    return f"{n_rejected} rows were rejected, most often for {rule or 'nothing'}"


def _require(db: DuckDBPyConnection, visits: Mapping[str, int]) -> None:
    counts = _counts(db)
    empty = [split for split in schema.SPLITS if not counts[f"n_samples_{split}"]]
    if empty:
        (n_judged,) = db.execute("select count(*) from judgments").fetchall()[0]
        raise SampleError(
            f"training_samples: {len(empty)} of 3 splits have no sample; first: {empty[0]!r}. There are {n_judged} judged "
            f"pairs and {visits['n_search_visits']} search visits, of which {visits['n_search_visits_that_took_nothing']} "
            f"took nothing and {visits['n_search_visits_that_refused_nothing']} refused nothing that was shown; "
            f"{_most_rejected(db)}. Each of train, validation and test needs at least one judged query, or one search visit "
            "that took something and did not take something else that was shown: bring more days, more users, more judged "
            "queries or the impressions, or leave `query` empty so that lists alone are learnt; and look at rejected_rows."
        )
    share = counts["positive_share_train"]
    if share in (0, 1):
        raise SampleError(
            f"training_samples: all {counts['n_samples_train']} training samples have label {share:g}. A ranker needs "
            "both labels: set `relevant_from` so that some grades fall on each side of it."
        )


def has_samples(db: DuckDBPyConnection) -> bool:
    """Whether there are samples: there are none where nothing was judged and nobody searched."""
    return bool(db.execute("select 1 from training_samples limit 1").fetchall())


def require_samples(db: DuckDBPyConnection) -> None:
    """Raise where there are none, for who needs some.

    Raises:
        SampleError: if `training_samples` is empty.
    """
    if not has_samples(db):
        raise SampleError(
            "training_samples: 0 judged or searched pairs are there; first: none. There must be some to be doubted, valued "
            "or weighed: bring judgments.csv, or events with a query and what was shown for it, and run again."
        )
