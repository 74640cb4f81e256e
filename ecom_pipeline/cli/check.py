"""`ecom check`: what a run would make of a source, told in seconds and written nowhere."""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from duckdb import DuckDBPyConnection
from pydantic import BaseModel

from ecom_pipeline import cleaning, identity, samples, schema, sources
from ecom_pipeline.cli.app import app
from ecom_pipeline.errors import InputError
from ecom_pipeline.quoting import literal
from ecom_pipeline.schema.inputs import COLUMNS, PERSONAL
from ecom_pipeline.sources import Source
from ecom_pipeline.sources.source import Part
from resources.run_config import CONFIG, read_config

_CLEANED = {table: schema.RELATIONS.get(table, schema.CLEANED_INTERACTIONS) for table in COLUMNS}
_KINDS = {
    **{"VARCHAR": "text", "TIMESTAMP": "time, UTC", "DATE": "day"},
    **{"DOUBLE": "number", "INTEGER": "number", "BOOLEAN": "true or false"},
}
_WHOLE = ("items", "campaigns")  # other rows are judged by them


@app.command()
def check(
    source: Annotated[str, typer.Argument(help="A packaged source's name, a folder, or NAME:FOLDER.")],
    rows: Annotated[
        int, typer.Option(help="Of each file but those of items and campaigns look at so many rows.", min=1)
    ] = 300_000,
    config: Annotated[Path | None, typer.Option(envvar=CONFIG, help="Run configuration of Dagster, as YAML.")] = None,
) -> None:
    """Say what a run would make of a source: its format, columns, rejected rows and samples. Nothing is written."""
    found, settings = sources.find(source), read_config(config)
    _say(_recognised(found))
    with _nowhere() as db:
        _land(db, found, rows)
        _say(line for table in _CLEANED for line in _columns(db, table))
        _clean(db, settings)
        _say([*_cut(db, rows), *_rejected(db), *_kept(db)])
        _require_items(db)
        _say(_samples(db, settings))
    _say(["", "A run can go."])


def _say(lines: Iterator[str] | list[str]) -> None:
    print("\n".join(lines), flush=True)  # what is known stands there when an error ends the rest


@contextmanager
def _nowhere() -> Iterator[DuckDBPyConnection]:
    """A warehouse in memory; what does not fit goes to a folder that is gone afterwards."""
    from resources.warehouse import Warehouse

    with tempfile.TemporaryDirectory() as folder, Warehouse(path=":memory:").connect() as db:
        db.execute(f"set temp_directory = {literal(folder)}")
        yield db


def _recognised(source: Source) -> list[str]:
    parts = source.adapter.parts(source.folder)
    shown = [f"{source.folder} is read as {source.adapter.name}"]
    for table in _CLEANED:
        files = [part.file.relative_to(source.folder).as_posix() for part in parts if part.table == table]
        if files:
            more = f" and {len(files) - 3:,} more" if len(files) > 3 else ""
            shown.append(f"  {table}: {', '.join(files[:3])}{more}")
    return shown


def _land(db: DuckDBPyConnection, source: Source, n_rows: int) -> None:
    """Land the first rows of each file; all where other rows are judged by them."""

    def cut(part: Part) -> Callable[[DuckDBPyConnection], str]:
        return lambda db: f"select * from ({part.query(db)}) limit {n_rows}"

    def parts(folder: Path) -> list[Part]:
        every = source.adapter.parts(folder)
        return [part if part.table in _WHOLE else replace(part, query=cut(part)) for part in every]

    some = replace(source, adapter=replace(source.adapter, parts=parts))
    key = secrets.token_bytes(32)  # nobody shall know it, and nothing that is counted depends on it
    for table in _CLEANED:
        some.land(db, table, hash_key=key)


def _clean(db: DuckDBPyConnection, settings: Mapping) -> None:
    from assets.prepare import CleaningConfig

    limits = cleaning.Limits(**_settings(settings, "cleaned_interactions", CleaningConfig))
    cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
    cleaning.clean_items(db)
    cleaning.clean_judgments(db)
    cleaning.clean_offers(db)
    cleaning.clean_exposures(db)
    first, last = db.execute("select min(day), max(day) from event_days").fetchall()[0]
    if first:
        cleaning.clean_events(db, first, last, limits)


def _settings(settings: Mapping, asset: str, kind: type[BaseModel]) -> dict[str, Any]:
    """What an asset would be configured with."""
    given = settings.get("ops", {}).get(asset, {}).get("config", {})
    try:
        return kind(**given).model_dump()
    except ValueError as error:
        raise InputError(
            f"--config: the settings of 1 asset, {asset!r}, do not hold: {error}. They must be as its documentation says: "
            "mend what is named."
        ) from error


def _columns(db: DuckDBPyConnection, table: str) -> list[str]:
    """How each column that holds anything is read, and with what it begins."""
    (n_rows,) = db.execute(f"select count(*) from raw_{table}").fetchall()[0]
    if not n_rows:
        return []
    kinds = {column.name: _KINDS[column.type] for column in _CLEANED[table].columns if column.type in _KINDS}
    shown, empty = [f"\n{table}: {n_rows:,} rows"], []
    for column in COLUMNS[table]:
        n_filled, first = db.execute(
            f"select count({column}), arg_min({column}, (file, row_number)) from raw_{table} where trim({column}) <> ''"
        ).fetchall()[0]
        if not n_filled:
            empty.append(column)
            continue
        told = "a keyed hash" if column in PERSONAL else f"{kinds[column]}, the first {_short(first)}"
        shown.append(f"  {column:<14}{n_filled:>11,}  {told}")
    unknown = [
        key
        for (key,) in db.execute(
            f"select distinct unnest(json_keys(attributes)) as k from raw_{table} order by k"
        ).fetchall()
    ]
    if empty:
        shown.append(f"  without a value: {', '.join(empty)}")
    if unknown:
        shown.append(f"  kept under attributes: {', '.join(unknown)}")
    return shown


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _cut(db: DuckDBPyConnection, n_rows: int) -> list[str]:
    (n_cut,) = db.execute(
        "select count(*) from landed_files where not list_contains(?, relation) and n_rows = ?", [list(_WHOLE), n_rows]
    ).fetchall()[0]
    return (
        [f"\nOf {n_cut:,} files only the first {n_rows:,} rows were looked at: their counts are of these."]
        if n_cut
        else []
    )


def _rejected(db: DuckDBPyConnection) -> list[str]:
    rules = db.execute(
        """select source, rule, count(*) as n_rows, arg_min(reason, (file, row_number)),
            arg_min(file || ' row ' || row_number, (file, row_number))
        from rejected_rows group by source, rule order by n_rows desc, source, rule"""
    ).fetchall()
    shown = [f"  {f'{table}: {rule}':<38}{n:>11,}  {reason}; first: {place}" for table, rule, n, reason, place in rules]
    return ["\nwould be rejected", *(shown or ["  nothing"])]


def _kept(db: DuckDBPyConnection) -> list[str]:
    for relation in _CLEANED.values():
        relation.create(db)
    (n_items,) = db.execute("select count(*) from items").fetchall()[0]
    shown = ["\nwould be kept", f"  {n_items:,} items"]
    n_events, n_users, n_sessions, first, last = db.execute(
        "select count(*), count(distinct user_id), count(distinct session_id), min(day), max(day) from cleaned_interactions"
    ).fetchall()[0]
    if n_events:
        actions = db.execute(
            "select action, count(*) as n from cleaned_interactions group by action order by n desc"
        ).fetchall()
        of_each = ", ".join(f"{action} {n:,}" for action, n in actions)
        shown.append(
            f"  {n_events:,} events of {n_users:,} users in {n_sessions:,} sessions from {first} to {last}: {of_each}"
        )
    n_pairs, n_queries = db.execute("select count(*), count(distinct query_id) from judgments").fetchall()[0]
    if n_pairs:
        grades = db.execute("select relevance, count(*) from judgments group by all order by all").fetchall()
        of_each = ", ".join(f"{grade:g} {n:,}" for grade, n in grades[:9]) + (" and more" if len(grades) > 9 else "")
        shown.append(f"  {n_pairs:,} judged pairs of {n_queries:,} queries, by grade: {of_each}")
    return [*shown, *_offered(db)]


def _offered(db: DuckDBPyConnection) -> list[str]:
    """Campaigns, promotions and experiments, where there are any."""
    told = (
        ("campaigns", "campaigns", "count(distinct campaign_id)"),
        ("campaign_users", "users who got them", "count(distinct user_id)"),
        ("promotions", "promoted items", "count(distinct item_id)"),
        ("exposures", "units in experiments", "count(distinct (experiment, unit_id))"),
    )
    counts = [(name, db.execute(f"select {count} from {table}").fetchall()[0][0]) for table, name, count in told]
    return [f"  {n:,} {name}" for name, n in counts if n]


def _require_items(db: DuckDBPyConnection) -> None:
    """A run's first gate: without an item there is nothing to show."""
    (n_rows,) = db.execute("select count(*) from raw_items").fetchall()[0]
    if not db.execute("select 1 from items limit 1").fetchall():
        raise InputError(
            f"items: 0 of {n_rows} rows would be kept; why is told above. At least 1 item must keep the rules: mend the "
            "rows or rename the columns."
        )


def _samples(db: DuckDBPyConnection, settings: Mapping) -> list[str]:
    from assets.prepare import SamplesConfig

    rules = samples.SampleRules(**_settings(settings, "training_samples", SamplesConfig))
    counts = samples.build_samples(db, rules)
    shown = ["\nwould be learnt from", *_lists(db, settings)]
    if samples.has_samples(db):
        shown += [
            f"  for search, {split}: {counts[f'n_samples_{split}']:,} samples of {counts[f'n_groups_{split}']:,} queries, "
            f"{counts[f'positive_share_{split}']:.0%} with label 1"
            for split in schema.SPLITS
        ]
    return shown


def _lists(db: DuckDBPyConnection, settings: Mapping) -> list[str]:
    from assets.recommend import PeriodsConfig
    from ecom_pipeline.recommend.periods import plan_periods

    n_users, n_items, n_days = db.execute(
        f"select count(distinct {identity.actor('e')}), count(distinct item_id), count(distinct day) "
        f"from cleaned_interactions as e where {samples.TAKEN}"
    ).fetchall()[0]
    if not n_users:
        return []
    schema.EMBEDDINGS.create(db)  # nothing has been read yet
    tests = plan_periods(db, **_settings(settings, "learning_periods", PeriodsConfig)).query("role == 'test'")
    tested = [f"{row.first_day:%Y-%m-%d} to {row.last_day:%Y-%m-%d}" for row in tests.itertuples()]
    told = f"tested on {', '.join(tested)}" if tested else "too few days to make and test lists"
    return [f"  for lists: {n_items:,} items that {n_users:,} users took on {n_days:,} days; {told}"]
