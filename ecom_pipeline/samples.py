"""From interactions and judgments to training samples: context, label, group, fold and split.

On the floor above `schema`. A group (a query, or a user's day) is never divided; nothing in a sample's context is
later than the sample.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from duckdb import DuckDBPyConnection

from ecom_pipeline import schema
from ecom_pipeline.errors import SampleError

NEW_VISITOR = "new visitor"
TAKEN = "(action in ('click', 'cart', 'purchase') or action = 'review' and coalesce(rating, 5) > 3)"
_FEW_GROUPS = 200  # below this, shares of a hash are too uneven: groups are ranked by their hash instead


@dataclass(frozen=True, slots=True)
class SampleRules:
    """How samples are made.

    Attributes:
        n_folds: folds for out-of-fold scores.
        relevant_from: grade from which a judged pair has label 1; None: above the middle of the grades in use.
        train_groups: groups kept for training, at most; those with the lowest hash.
        validation_groups: the same for validation.
        test_groups: the same for test.
        positives_per_visit: taken items kept of one visit, at most.
        negatives_per_positive: items not taken, kept or drawn for each of them.
        rows_per_group: samples of one group, at most.
        history_items: earlier items that a browsing context tells of.
        history_days: how far back negatives are drawn from.
        validation_share: share of the visits, or of the groups, for validation.
        test_share: the same for test.
    """

    n_folds: int
    relevant_from: float | None
    train_groups: int
    validation_groups: int
    test_groups: int
    positives_per_visit: int
    negatives_per_positive: int
    rows_per_group: int
    history_items: int
    history_days: int
    validation_share: float
    test_share: float

    def groups(self, split: str) -> int:
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

    A visit is what one user did on one day for one query, or without any. What was clicked, put into the cart,
    bought or reviewed well has label 1. What was shown or reviewed badly and not taken has label 0; where a visit
    has none of that, negatives are drawn from what others took in the days before (so in proportion to popularity),
    or from the catalogue where there are no days before.

    With at least three days, the last days are test and those before them validation; else, and for judgments, a
    hash of the group decides. A query that occurs in several periods belongs to one of them, by its hash; its rows
    in the others are left out and counted.

    Args:
        db: a connection inside a transaction.
        rules: how samples are made.

    Returns:
        Counts and rules for the metadata.

    Raises:
        SampleError: if a split has no sample, or training samples have one label alone.

    Cost: one scan of `cleaned_interactions`, and a join of the visits kept with the history of their users.
    """
    for relation in (schema.JUDGMENTS, schema.CLEANED_INTERACTIONS):
        relation.create(db)
    db.execute(f"create or replace temp table judged as {_judged(rules)}")
    db.execute(f"create or replace temp table acts as {acts()}")
    periods = _periods(db, rules)
    db.execute(f"create or replace temp table grouped as {_grouped(db, periods, rules)}")
    db.execute(f"create or replace temp table visits as {_visits(rules)}")
    db.execute(f"create or replace temp table drawn as {_drawn(rules)}")
    db.execute(f"create or replace temp table history as {history(rules.history_items)}")
    db.execute(f"create or replace table training_samples as {_samples(rules)}")
    counts = _counts(db)
    _require(db, counts)
    (n_left_out,) = db.execute(
        "select count(*) from acts join grouped using (group_id) where period is distinct from split and period <> ''"
    ).fetchall()[0]
    for name in ("judged", "acts", "grouped", "visits", "drawn", "history"):
        db.execute(f"drop table {name}")
    rule = "hash of the group" if periods is None else f"validation from {periods[0]}, test from {periods[1]}"
    return {**counts, "split_rule": rule, "n_acts_left_out_to_keep_groups_whole": n_left_out}


def _hash(text: str) -> str:
    return f"('0x' || left(md5({text}), 15))::bigint"


def _judged(rules: SampleRules) -> str:
    threshold = (
        f"relevance >= {rules.relevant_from}"
        if rules.relevant_from is not None
        # one grade alone is all relevant, unless it is 0
        else "relevance > case when low = high then 0 else (low + high) / 2 end"
    )
    return f"""
        select 'query:' || md5(lower(query)) as group_id, query as context_text, item_id, ({threshold})::double as label,
            relevance, rater_std, split as given, md5(concat_ws('|', 'judgment', query_id, item_id)) as sample_id
        from judgments, (select min(relevance) as low, max(relevance) as high from judgments)"""


def acts() -> str:
    """A query: one row a visit and item, when the visit began, and whether the item was shown, taken or disliked."""
    return f"""
        with told as (
            select *, coalesce(user_id, session_id) as actor from cleaned_interactions where action <> 'return')
        select md5(concat_ws('|', actor, lower(query), day)) as visit_id, actor, day, query, item_id,
            case when query is null then 'browse' else 'search' end as origin,
            case when query is null then 'visit:' || md5(concat_ws('|', actor, day))
                else 'query:' || md5(lower(query)) end as group_id,
            bool_or({TAKEN}) as taken, min(propensity) as propensity, min(position) as position,
            min(min(occurred_at)) over (partition by actor, lower(query), day) as started_at
        from told group by actor, day, query, lower(query), item_id"""


def _periods(db: DuckDBPyConnection, rules: SampleRules) -> tuple[date, date] | None:
    """First day of validation and of test: by shares of the visits, but at least one day each."""
    days = db.execute("select day, count(distinct visit_id) from acts where taken group by day order by day").fetchall()
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
    limits = " ".join(f"when '{split}' then {rules.groups(split)}" for split in schema.SPLITS)
    tested, validated = rules.test_share, rules.test_share + rules.validation_share
    hashed = f"case when share < {tested} then 'test' when share < {validated} then 'validation' else 'train' end"
    # a split that the source does not give is cut out of its training queries
    missing = [split for split in ("test", "validation") if split not in given]
    chosen = f"case when given = 'train' and {hashed} in {(*missing, '')} then {hashed} else given end"
    return f"""
        with all_groups as (
            select group_id, null as given, list_sort(list(distinct period)) as periods from acts
            where period <> '' and taken group by group_id
            union all
            select group_id, null, null from acts where period = '' and taken group by group_id
            union all select group_id, any_value(given), null from judged group by group_id),
        one as (
            select group_id, any_value(given) as given, any_value(periods) as periods, {_hash("group_id")} as number
            from all_groups group by group_id),
        shared as (
            select *, case when count(*) over () < {_FEW_GROUPS} then
                (row_number() over (order by number, group_id) - 0.5) / count(*) over ()
                else number / {16**15}::double end as share
            from one),
        decided as (
            select group_id, number, coalesce({chosen}, periods[1 + number % len(periods)], {hashed}) as split
            from shared)
        select group_id, split from decided
        qualify row_number() over (partition by split order by {_hash("group_id || split")}) <=
            case split {limits} end"""


def _visits(rules: SampleRules) -> str:
    """What was taken and what was not, of the visits that are kept."""
    kept = "period = '' or period = split"
    order = _hash("visit_id || item_id")
    return f"""
        select acts.*, split, row_number() over (partition by visit_id, taken order by {order}) as nth,
            count(*) filter (where taken) over (partition by visit_id) as n_taken,
            count(*) filter (where not taken) over (partition by visit_id) as n_shown
        from acts join grouped using (group_id) where {kept}
        qualify bool_or(taken) over (partition by visit_id)
            and nth <= {rules.positives_per_visit} * case when taken then 1 else {rules.negatives_per_positive} end"""


def _drawn(rules: SampleRules) -> str:
    """Negatives for visits without a shown item: what others took before, else anything in the catalogue."""
    wanted = rules.negatives_per_positive
    draw = _hash("visit_id || v.item_id || '|' || draw.n")
    return f"""
        with pool as (
            select item_id, day, row_number() over (order by day, item_id, actor) - 1 as place from acts
            where taken and day >= (select min(day) - {rules.history_days} from visits)),
        starts as (select day, min(place) as place from pool group by day),
        bounds as (
            select v.day, coalesce(min(starts.place) filter (where starts.day >= v.day - {rules.history_days}), 0) as low,
                coalesce(min(starts.place) filter (where starts.day = v.day), 0) as high
            from (select distinct day from visits) as v join starts on starts.day <= v.day group by v.day),
        catalogue as (select item_id, row_number() over (order by item_id) - 1 as place from items),
        places as (
            select v.visit_id, v.actor, v.day, least(v.n_taken, {rules.positives_per_visit}) as n_positives, draw.n,
                high > low as earlier,
                case when high > low then low + {draw} % (high - low)
                    else {draw} % (select count(*) from items) end as place
            from visits as v join bounds using (day), range(2 * {wanted}) as draw(n)
            where v.taken and v.n_shown = 0),
        named as (
            select visit_id, actor, places.day, n_positives, n, pool.item_id from places join pool using (place) where earlier
            union all by name
            select visit_id, actor, day, n_positives, n, item_id from places join catalogue using (place)
            where not earlier)
        select visit_id, item_id
        from named anti join (select actor, day, item_id from acts where taken) using (actor, day, item_id)
        group by visit_id, item_id
        qualify row_number() over (partition by visit_id order by min(n), {_hash("visit_id || item_id")})
            <= {wanted} * any_value(n_positives)"""


def history(n_items: int) -> str:
    """A query: what the users of the browsing `visits` took before each began, as distinct titles, the latest first."""
    return f"""
        with before as (
            select v.visit_id, e.item_id, max(e.occurred_at) as last_at, count(*) as n
            from (select distinct visit_id, actor, started_at from visits where origin = 'browse') as v
                join cleaned_interactions as e
                on coalesce(e.user_id, e.session_id) = v.actor and e.occurred_at < v.started_at
            where {TAKEN} group by v.visit_id, e.item_id),
        ranked as (
            select *, sum(n) over (partition by visit_id) as n_context_rows,
                row_number() over (partition by visit_id order by last_at desc, item_id) as nth
            from before)
        select visit_id, string_agg(title, '; ' order by nth) as context_text, max(last_at) as context_until,
            any_value(n_context_rows)::bigint as n_context_rows
        from ranked join items using (item_id) where nth <= {n_items} group by visit_id"""


def _samples(rules: SampleRules) -> str:
    return f"""
        with behaviour as (
            select origin, group_id, visit_id, query, item_id, taken::double as label, position, propensity, started_at,
                split from visits
            union all
            select v.origin, v.group_id, visit_id, v.query, drawn.item_id, 0.0, null, null, v.started_at, v.split
            from drawn join (select distinct on (visit_id) * from visits) as v using (visit_id)),
        told as (
            select md5(concat_ws('|', origin, visit_id, item_id)) as sample_id, origin, group_id,
                coalesce(query, history.context_text, '{NEW_VISITOR}') as context_text, item_id, label,
                label as relevance, null::double as rater_std, position, propensity, started_at as occurred_at,
                case when query is null then context_until end as context_until,
                case when query is null then coalesce(n_context_rows, 0) end as n_context_rows, split
            from behaviour left join history using (visit_id)
            union all
            select sample_id, 'judgment', group_id, context_text, item_id, label, relevance, rater_std, null, null,
                null, null, null, split
            from judged join grouped using (group_id))
        select sample_id, origin, group_id, context_text, item_id, title, item_text,
            nullif(split_part(coalesce(category, ''), ' > ', 1), '') as category, label, relevance, rater_std,
            position, propensity, occurred_at, context_until,
            coalesce(n_context_rows, count(*) over (partition by group_id)) as n_context_rows,
            ({_hash("group_id || '|0'")} % {rules.n_folds})::integer as fold, split
        from told join items using (item_id)
        qualify row_number() over (partition by group_id order by {_hash("sample_id")}) <= {rules.rows_per_group}
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


def _require(db: DuckDBPyConnection, counts: dict[str, object]) -> None:
    empty = [split for split in schema.SPLITS if not counts[f"n_samples_{split}"]]
    if empty:
        schema.REJECTED_ROWS.create(db)
        n_events, n_taken, n_judged, n_rejected, rule = db.execute(
            f"""select (select count(*) from cleaned_interactions),
                (select count(*) from cleaned_interactions where {TAKEN}), (select count(*) from judgments),
                (select count(*) from rejected_rows where source <> 'items'),
                (select mode(rule || ': ' || reason) from rejected_rows where source <> 'items')"""
        ).fetchall()[0]
        raise SampleError(
            f"training_samples: {len(empty)} of 3 splits have no sample; first: {empty[0]!r}. There are {n_judged} judged "
            f"pairs and {n_events} events, {n_taken} of them clicks, carts, purchases or good reviews; {n_rejected} rows "
            f"were rejected, most often for {rule or 'nothing'}. Each of train, validation "
            "and test needs at least one query, or one day of a user with a click, cart, purchase or review: bring more"
            " days, more users or more judged queries, and look at rejected_rows for what was turned away."
        )
    share = counts["positive_share_train"]
    if share in (0, 1):
        raise SampleError(
            f"training_samples: all {counts['n_samples_train']} training samples have label {share:g}. A ranker needs "
            "both labels: set `relevant_from` so that some grades fall on each side of it."
        )
