"""What a relation of the warehouse is: its key, its columns, their units and ranges; and one validator."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its SQL type, what it means, and what it may hold."""

    name: str
    type: str
    meaning: str
    required: bool = True
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def violation(self) -> str | None:
        """The SQL condition that is true for a row which breaks this column's promise, or None."""
        broken = []
        if self.required:
            broken.append(f"{self.name} is null")
        if self.type == "DOUBLE":
            broken.append(f"not isfinite({self.name})")
        if self.minimum is not None:
            broken.append(f"{self.name} < {self.minimum}")
        if self.maximum is not None:
            broken.append(f"{self.name} > {self.maximum}")
        if self.choices:
            broken.append(f"{self.name} not in ({', '.join(repr(choice) for choice in self.choices)})")
        return " or ".join(f"coalesce({condition}, false)" for condition in broken) or None


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: what a row is, what identifies it, and its columns in order."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    may_be_empty: bool = field(default=False)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    @property
    def cast(self) -> str:
        """SQL: the columns in order, each as its type."""
        return ", ".join(f"{column.name}::{column.type} as {column.name}" for column in self.columns)

    def create(self, db: DuckDBPyConnection) -> None:
        """Make the relation if it is absent; where an older version made it, give it the columns of this one."""
        shape(db, self.name, {column.name: column.type for column in self.columns})

    def clear(self, db: DuckDBPyConnection) -> None:
        """Make the relation anew, without a row."""
        db.execute(f"drop table if exists {self.name}")
        self.create(db)


def tables(db: DuckDBPyConnection) -> set[str]:
    """Names of the relations that are there; temporary ones are not among them."""
    query = "select table_name from duckdb_tables() where database_name = current_database()"
    return {name for (name,) in db.execute(query).fetchall()}


def shape(db: DuckDBPyConnection, table: str, columns: Mapping[str, str]) -> None:
    """Make a table have some columns: one that is absent is made; one that has others keeps its rows, by name.

    Args:
        db: a connection.
        table: its name.
        columns: SQL types by name, in order.

    Cost: a look at the catalogue; where columns have changed, one copy.
    """
    query = """select column_name, data_type from duckdb_columns()
        where table_name = ? and database_name = current_database() order by column_index"""
    there = dict(db.execute(query, [table]).fetchall())
    if list(there.items()) == [(name, kind.upper()) for name, kind in columns.items()]:
        return
    told = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    if not there:
        db.execute(f"create table {table} ({told})")
        return
    kept = ", ".join(f"try_cast({name} as {kind}) as {name}" for name, kind in columns.items() if name in there)
    db.execute(f"create temp table reshaped as select {kept or 'null as nothing'} from {table}")
    db.execute(f"drop table {table}; create table {table} ({told})")
    if kept:
        db.execute(f"insert into {table} by name from reshaped")
    db.execute("drop table reshaped")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise of a relation that rows break, how many, and the first of them."""

    promise: str
    n_rows: int
    first: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.n_rows} rows; first: {self.first}"


def violations(db: DuckDBPyConnection, relation: Relation) -> list[Violation]:
    """What a relation promises and rows of it break: nulls, ranges, choices, repeated keys.

    Args:
        db: a connection to the warehouse that holds the relation.
        relation: what must hold.

    Returns:
        One entry a promise, whether broken (n_rows > 0) or kept (n_rows = 0).

    Cost: one scan for all columns, one aggregation for the key.
    """
    promised = {f"{column.name} {_promise(column)}": column for column in relation.columns if column.violation()}
    counts = ", ".join(f"count(*) filter (where {column.violation()})" for column in promised.values())
    n_broken = _row(db, f"select {counts} from {relation.name}") if promised else ()
    result = [
        Violation(promise, n, _first(db, relation, f"where {column.violation()}", column.name) if n else "")
        for (promise, column), n in zip(promised.items(), n_broken, strict=True)
    ]
    key = ", ".join(relation.key)
    # grouping takes two nulls for the same, and has no trouble with a key of one column
    (n_repeated,) = _row(
        db, f"select coalesce(sum(n - 1), 0)::bigint from (select count(*) as n from {relation.name} group by {key})"
    )
    first = _first(db, relation, f"qualify count(*) over (partition by {key}) > 1") if n_repeated else ""
    return [*result, Violation(f"({key}) is unique", n_repeated, first)]


def most_rejected(db: DuckDBPyConnection, relation: str) -> str:
    """How many rows of a table were turned away, under which rule most often, how many of them, and the first.

    Args:
        db: a connection to the warehouse.
        relation: what cleaning makes of the table: items, judgments or cleaned_interactions.
    """
    source = {"cleaned_interactions": "events"}.get(relation, relation)
    rows = (
        db.execute(
            "select rule, count(*), arg_min(file || ' row ' || row_number || ': ' || reason, (file, row_number)), "
            "(select count(*) from rejected_rows where source = $source) "
            "from rejected_rows where source = $source group by rule order by 2 desc, 1 limit 1",
            {"source": source},
        ).fetchall()
        if "rejected_rows" in tables(db)
        else []
    )
    if not rows:
        return "0 rows were rejected"
    rule, n, first, n_all = rows[0]
    return f"{n_all} rows were rejected, most often, {n} times, under {rule}; first: {first}"


def _promise(column: Column) -> str:
    words = ["is present"] if column.required else []
    if column.minimum is not None or column.maximum is not None:
        low = "-inf" if column.minimum is None else f"{column.minimum:g}"
        high = "inf" if column.maximum is None else f"{column.maximum:g}"
        words.append(f"lies in [{low}, {high}]")
    if column.choices:
        words.append(f"is one of {', '.join(column.choices)}")
    return " and ".join(words) or "is finite"


def _row(db: DuckDBPyConnection, query: str) -> tuple:
    row = db.execute(query).fetchone()
    assert row is not None, "asked for where there is one"
    return row


def _first(db: DuckDBPyConnection, relation: Relation, which: str, *more: str) -> str:
    """The key of the first of some rows in the order of the key, and more columns of it."""
    shown = list(dict.fromkeys([*relation.key, *more]))
    order = ", ".join(relation.key)
    row = _row(db, f"select {', '.join(shown)} from {relation.name} {which} order by {order} limit 1")
    return ", ".join(f"{name} {value!r}" for name, value in zip(shown, row, strict=True))


def text(name: str, meaning: str, required: bool = True, choices: Iterable[str] = ()) -> Column:
    """A column of texts."""
    return Column(name, "VARCHAR", meaning, required, choices=tuple(choices))
