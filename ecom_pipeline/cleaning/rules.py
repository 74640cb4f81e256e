"""What a rule is, and the sieve: each row is kept, or rejected with the first rule that it breaks.

A row that breaks a rule of its own never makes another row break one: what must be unique is so among sound rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from ecom_pipeline import schema
from ecom_pipeline.schema import Relation


@dataclass(frozen=True, slots=True)
class Rule:
    """A named reason to reject a row."""

    name: str
    broken: str  # SQL condition, true for a row to reject
    must: str  # what must hold, in words
    had: str  # SQL expression: what the row had instead


MALFORMED = Rule(
    "line_malformed",
    "malformed is not null",
    "a line must have as many fields as the first, and its quotes closed; a document must be an object",
    "malformed",
)


def number(column: str, outside: str, must: str) -> Rule:
    """The rule that a column, which came as `<column>_given`, is a finite number that is not outside a range."""
    broken = f"({column}_given is not null and {column} is null) or {outside} or not isfinite({column}::double)"
    return Rule(f"{column}_out_of_range", broken, must, f"{column}_given::varchar")


def first_broken(rules: Sequence[Rule]) -> str:
    """An SQL expression: the name of the first rule that a row breaks, or null."""
    return "case " + " ".join(f"when coalesce({rule.broken}, false) then '{rule.name}'" for rule in rules) + " end"


def sieve(
    db: DuckDBPyConnection,
    source: str,
    *,
    prepared: str,
    rules: Sequence[Rule],
    kept: Relation | None,
    slice_: str = "true",
    broken: str | None = None,
) -> dict[str, int]:
    """Put each prepared row into `kept`, or into `rejected_rows` with the first rule that it breaks.

    Args:
        db: a connection inside a transaction.
        source: one of `schema.inputs.COLUMNS`.
        prepared: a query: `file`, `row_number`, what the rules ask about, and the columns of `kept`. It is run twice.
        rules: in the order in which they are asked.
        kept: where sound rows go; None: they stay where they are.
        slice_: SQL condition for the rows, kept and rejected before, that these replace.
        broken: SQL expression for the name of the first rule that a prepared row breaks; None: all rules are asked.

    Returns:
        Rows kept under "kept", unless nothing is; and rows rejected by the name of the rule.
    """
    reason = " ".join(f"when '{rule.name}' then '{rule.must}; it is ' || {rule.had}" for rule in rules)
    broken = broken or first_broken(rules)
    dated = source == "events" and kept is not None
    db.execute(
        f"create or replace temp table sieved as select file, row_number, {'day' if dated else 'null::date as day'}, "
        f"rule, case rule {reason} end as reason from (select *, {broken} as rule from ({prepared})) where rule is not null"
    )
    schema.REJECTED_ROWS.create(db)
    db.execute(f"delete from rejected_rows where source = '{source}' and {slice_}")
    as_it_came = "* exclude (instant, day)" if source == "events" else "*"
    db.execute(
        f"insert into rejected_rows select '{source}', file, row_number, rule, coalesce(reason, rule), to_json(r)::varchar, "
        f"day from sieved join "
        f"(select {as_it_came} from raw_{source} where {slice_ if dated else 'true'}) as r using (file, row_number)"
    )
    if kept:
        kept.create(db)
        db.execute(f"delete from {kept.name} where {slice_}")
        columns = ", ".join("instant as occurred_at" if name == "occurred_at" else name for name in kept.column_names)
        ((n_kept,),) = db.execute(
            f"insert into {kept.name} select {columns} from ({prepared}) where {broken} is null"
        ).fetchall()
    counts = dict(db.execute("select rule, count(*) from sieved group by all order by all").fetchall())
    db.execute("drop table sieved")
    return {"kept": n_kept, **counts} if kept else counts
