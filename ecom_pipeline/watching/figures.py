"""What is watched: figures of each day's events, and of what a run made of all days; computed in SQL over all rows.

A figure of a day is counted from that day's rows, and from the 28 days before it where it asks what is new: a new day
costs a day. A figure of a run (catalogue, labels, texts, weights, lists) is noted under the last whole day that the run saw.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import literal
from ecom_pipeline.schema.relation import tables
from ecom_pipeline.schema.shop import ACTIONS

Family = Literal["events", "catalogue", "labels", "texts", "weights", "lists"]
FAMILIES: tuple[Family, ...] = ("events", "catalogue", "labels", "texts", "weights", "lists")
RECENT_DAYS = 28  # who was not there for so long is new
COLUMNS = ("user_id", "session_id", "query", "position", "propensity", "rating", "quantity", "price")
LISTED = ("description", "brand", "category", "price", "image_uri")
N_OLD_TEXTS = 20_000  # drawn of those read before, to compare new ones with
VALUES = "(day date, family varchar, figure varchar, part varchar, kind varchar, value double)"


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures that one scan counts.

    Attributes:
        family: which stage of the pipeline they are of.
        columns: figure, part, kind ('share': compared by log odds; 'count' and 'amount': by logs), and its SQL.
        source: what stands after `from`.
        relations: that must be there.
    """

    family: Family
    columns: tuple[tuple[str, str, str, str], ...]
    source: str
    relations: tuple[str, ...] = ()

    def query(self, day: str) -> str:
        """Rows as `VALUES`: one a figure and day that `day`, a column or a literal, yields; none where nothing is known."""
        counted = ", ".join(f"({sql})::double as v{n}" for n, (*_, sql) in enumerate(self.columns))
        names = (
            f"{{figure: {literal(figure)}, part: {literal(part)}, kind: {literal(kind)}, value: v{n}}}"
            for n, (figure, part, kind, _) in enumerate(self.columns)
        )
        return f"""select day, {literal(self.family)}, one.figure, one.part, one.kind, one.value from (
            select day, unnest([{", ".join(names)}]) as one from (
                select {day} as day, {counted} from {self.source} group by 1)) where isfinite(one.value)"""


def of_days(
    db: DuckDBPyConnection,
    wanted: str,
    *,
    into: str,
    events: str = "cleaned_interactions",
    rejected: str = "rejected_rows",
) -> None:
    """Count the figures of some days.

    Args:
        db: a connection.
        wanted: a query that yields days, those without events too.
        into: table of `VALUES` that rows are added to.
        events: relation of cleaned events.
        rejected: relation of rejected rows.

    Cost: one scan of these days; of users and items, of the days from 28 before the first to the last.
    """
    db.execute(f"create or replace temp table watched_days as select distinct day from ({wanted}) as t(day)")
    db.execute(
        f"""create or replace temp table known_days as select day from watched_days
        where day >= (select min(day) + {RECENT_DAYS} from {events})"""
    )
    for figures in _of_days(events, rejected):
        db.execute(f"insert into {into} {figures.query('day')}")


def of_run(db: DuckDBPyConnection, day: date, *, into: str) -> None:
    """Count the figures of what a run made of all days.

    Args:
        db: a connection.
        day: under which they are noted.
        into: as for `of_days`.

    Cost: one scan of a few columns of each relation; of texts, those read last and 20,000 of the others.
    """
    there = tables(db)
    for figures in _OF_RUN:
        if there.issuperset(figures.relations):
            db.execute(f"insert into {into} {figures.query(literal(day.isoformat()) + '::date')}")


def _of_days(events: str, rejected: str) -> tuple[Figures, ...]:
    new = (
        Figures(
            "events",
            ((f"new {who}s", "", "share", f"avg((before is null or day - before > {RECENT_DAYS})::int)"),),
            f"""(select day, lag(day) over (partition by id order by day) as before from (
                select distinct day, {who}_id as id from {events} where {who}_id is not null
                    and day between (select min(day) - {RECENT_DAYS} from known_days) and (select max(day) from known_days)))
            semi join known_days using (day)""",
        )
        for who in ("user", "item")
    )
    return (
        Figures(
            "events",
            (
                ("events", "", "count", "count(event_id)"),
                ("users", "", "count", "count(distinct user_id)"),
                ("items", "", "count", "count(distinct item_id)"),
                *(("actions", one, "share", f"avg((action = {literal(one)})::int)") for one in ACTIONS),
                *(("missing", c, "share", f"avg(({c} is null)::int) filter (event_id is not null)") for c in COLUMNS),
                ("price", "median", "amount", "median(price)"),
                ("price", "highest tenth", "amount", "quantile_cont(price, 0.9)"),
                ("pieces", "", "amount", "avg(quantity)"),
                ("rating", "", "amount", "avg(rating)"),
                ("place in the list", "", "amount", "avg(position)"),
                ("length of queries", "", "amount", "avg(length(query))"),
            ),
            f"watched_days left join {events} using (day)",
        ),
        Figures(
            "events",
            (("length of titles", "", "amount", "avg(length(title))"),),
            f"{events} semi join watched_days using (day) join items using (item_id)",
        ),
        Figures(
            "events",
            (("rejected", "", "share", "avg(gone)"),),
            f"""(select day, 0 as gone from {events} semi join watched_days using (day) union all
            select day, 1 from {rejected} semi join watched_days using (day) where source = 'events')""",
        ),
        *new,
    )


_EVEN = "sum({0}) ** 2 / count(*) / sum({0} ** 2)"  # share of rows that carry the weights; 1: all weigh the same
_OF_RUN = (
    Figures(
        "catalogue",
        (
            ("items", "", "count", "count(*)"),
            *(("missing of items", one, "share", f"avg(({one} is null)::int)") for one in LISTED),
            ("price of items", "median", "amount", "median(price)"),
            ("length of titles of items", "", "amount", "avg(length(title))"),
        ),
        "items",
        ("items",),
    ),
    Figures(
        "catalogue",
        (("rejected items", "", "share", "avg(gone)"),),
        "(select 0 as gone from items union all select 1 from rejected_rows where source = 'items')",
        ("items", "rejected_rows"),
    ),
    *(
        Figures(
            "labels",
            (
                (f"samples of {origin}", "", "count", "nullif(count(*), 0)"),
                (f"labels of {origin}", "mean", "share", "avg(label)"),
            ),
            f"(from training_samples where origin = '{origin}')",
            ("training_samples",),
        )
        for origin in ("judgment", "search")
    ),
    Figures(
        "labels",
        (("labels that are probably wrong", "", "share", "avg(flagged::int)"),),
        "label_suspicions",
        ("label_suspicions",),
    ),
    # squared distance of two means, less what chance alone makes of it: no matter how many texts there are
    Figures(
        "texts",
        (("distance of new texts", "", "amount", "sqrt(greatest(sum((new - old) ** 2 - noise), 0))"),),
        f"""(select avg(x) filter (is_new) as new, avg(x) filter (not is_new) as old,
                var_samp(x) filter (is_new) / count(*) filter (is_new)
                    + var_samp(x) filter (not is_new) / count(*) filter (not is_new) as noise
            from (select is_new, unnest(embedding) as x, generate_subscripts(embedding, 1) as place from (
                select true as is_new, embedding from embeddings where embedded_at >= (select max(embedded_at)::date from embeddings)
                union all select false, embedding from (
                    select embedding from embeddings where embedded_at < (select max(embedded_at)::date from embeddings)
                    using sample reservoir({N_OLD_TEXTS} rows) repeatable (0))))
            group by place)""",
        ("embeddings",),
    ),
    Figures(
        "weights",
        (("acts that carry the weights", "", "share", _EVEN.format("interaction_weight")),),
        "interaction_weights",
        ("interaction_weights",),
    ),
    Figures(
        "weights",
        (("samples that carry the weights", "", "share", "min(carried)"),),
        f"(select {_EVEN.format('sample_weight')} as carried from importance_weights group by estimator)",
        ("importance_weights",),
    ),
    Figures(
        "lists",
        (
            ("users with a list", "", "count", "count(distinct user_id)"),
            ("items in lists", "", "count", "count(distinct item_id)"),
            ("score of the first", "", "share", "avg(score) filter (rank = 1)"),
            *(
                ("what speaks for them", one, "share", f"avg((channel = '{one}')::int)")
                for one in ("own", "together", "popular", "text")
            ),
        ),
        "recommendations",
        ("recommendations",),
    ),
)
