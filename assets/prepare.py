"""Stage 2: rows that keep the rules, the rows that do not, and the training samples made of the first."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

import dagster as dg
from duckdb import DuckDBPyConnection
from pydantic import Field

from assets.code import function_of, version
from assets.ingest import raw_events, raw_exposures, raw_items, raw_judgments, raw_offers
from assets.publish import column_schema, made_from, recipe, remember, settings_of, told
from ecom_pipeline import cleaning, days, ledger, schema
from ecom_pipeline.samples import SampleRules, build_samples
from ecom_pipeline.schema.inputs import OFFERS
from resources.warehouse import Warehouse


class EveryDay(dg.DailyPartitionsDefinition):
    """Days as Dagster has them, whose names are listed once and not anew by a calendar of schedules.

    Each step that reads a dated asset has all names listed, though it uses none of them where there are a hundred or more:
    a seventh of a small run's time.
    """

    def get_partition_keys(
        self,
        current_time: datetime | None = None,
        dynamic_partitions_store: Any = None,
    ) -> Sequence[str]:
        """Names of all days up to a time, or to now."""
        with dg.partition_loading_context(current_time, dynamic_partitions_store):
            first, last = self.get_first_partition_key(), self.get_last_partition_key()
        return [] if first is None or last is None else list(_names(first, last))


@lru_cache(maxsize=1)
def _names(first: str, last: str) -> tuple[str, ...]:
    numbers = range(date.fromisoformat(first).toordinal(), date.fromisoformat(last).toordinal() + 1)
    return tuple(date.fromordinal(number).isoformat() for number in numbers)


# today is a partition too, so that a run sees the events of the hours before it
DAYS = EveryDay(start_date=days.FIRST_DAY.isoformat(), end_offset=1)


@dg.asset(
    deps=[raw_items],
    group_name="prepare",
    kinds={"duckdb"},
    metadata={"dagster/column_schema": column_schema(schema.ITEMS)},
)
def items(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
    """One row per item of the catalogue that passed the rules, with the text that the language model reads."""
    made = recipe(context, None, warehouse)
    with warehouse.transaction() as db:
        counts = cleaning.clean_items(db)
        remember(db, "items", made)
    context.log.info("items: %s", counts)
    return told(warehouse, "items", counts)


@dg.asset(
    deps=[raw_judgments, items],
    group_name="prepare",
    kinds={"duckdb"},
    metadata={"dagster/column_schema": column_schema(schema.JUDGMENTS)},
)
def judgments(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
    """One row per judged (query, item) pair that passed the rules."""
    made = recipe(context, None, warehouse)
    with warehouse.transaction() as db:
        counts = cleaning.clean_judgments(db)
        remember(db, "judgments", made)
    context.log.info("judgments: %s", counts)
    return told(warehouse, "judgments", counts)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=[raw_offers, items],
            description=f"One row per {schema.RELATIONS[name].row}.",
            metadata={"dagster/column_schema": column_schema(schema.RELATIONS[name])},
            group_name="prepare",
            kinds={"duckdb"},
        )
        for name in OFFERS
    ],
    name="offers",
)
def offers(context: dg.AssetExecutionContext, warehouse: Warehouse) -> Iterator[dg.MaterializeResult]:
    """Keep or reject what the source says of campaigns and promotions."""
    with warehouse.connect() as db:
        contents = ledger.contents(db)
    with warehouse.transaction() as db:
        counts = cleaning.clean_offers(db)
        for name in OFFERS:
            remember(db, name, made_from(context.assets_def, name, None, contents))
    context.log.info("offers: %s", counts)
    for name in OFFERS:
        yield told(warehouse, name, counts[name])


@dg.asset(
    deps=[raw_exposures],
    group_name="prepare",
    kinds={"duckdb"},
    metadata={"dagster/column_schema": column_schema(schema.EXPOSURES)},
)
def exposures(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
    """One row per unit and arm of an experiment, at the first time that they met."""
    made = recipe(context, None, warehouse)
    with warehouse.transaction() as db:
        counts = cleaning.clean_exposures(db)
        remember(db, "exposures", made)
    context.log.info("exposures: %s", counts)
    return told(warehouse, "exposures", counts)


class CleaningConfig(dg.Config):
    """Where behaviour stops being a person's."""

    near_seconds: float = Field(
        default=5, ge=0, le=days.NEAR_SECONDS, description="The same act again within so many seconds is one act."
    )
    actions_per_minute: int | None = Field(
        default=30, ge=1, description="Clicks, carts and reviews of a person, at most; none: any number."
    )
    actions_per_day: int | None = Field(
        default=300, ge=1, description="Clicks, carts and reviews of a person, at most; none: any number."
    )
    events_per_day: int | None = Field(
        default=5000, ge=1, description="Events of any kind of a person, at most; none: any number."
    )


def day_settings(asset: dg.AssetsDefinition, config: CleaningConfig) -> str:
    """What a cleaned day depends on besides its events."""
    return ledger.fingerprint(version(function_of(asset)), settings_of(config), {})


def expected_days(first: date, last: date, settings: str) -> str:
    """A query: each day with events, and what it would be made from now; rows as the ledger takes them."""
    inputs = days.inputs(first, last)
    return f"select day, md5(content || '{settings}') as made_from, md5(content || '{settings}') as content, n_rows from ({inputs})"


def stale_days(db: DuckDBPyConnection, expected: str) -> tuple[list[date], list[date]]:
    """Those of some expected days that were made from something else, or never; and all of them; in order."""
    recorded = "select day, made_from from ledger where asset = 'cleaned_interactions'"
    query = f"select day, (day, made_from) not in ({recorded}) from ({expected}) as e order by day"
    rows = db.execute(query).fetchall()
    return [day for day, stale in rows if stale], [day for day, _ in rows]


# `--select '+cleaned_interactions'` reaches one step up: with raw_items it holds all that a new home needs
_EVENTS_READ = [raw_events, raw_items, items]


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "cleaned_interactions",
            deps=_EVENTS_READ,
            description="One row per event that passed the rules.",
            metadata={"dagster/column_schema": column_schema(schema.CLEANED_INTERACTIONS)},
            group_name="prepare",
            kinds={"duckdb"},
            skippable=True,
        ),
        dg.AssetSpec(
            "rejected_rows",
            deps=_EVENTS_READ,
            description="One row per row that broke a rule; those of the catalogue and the judgments are in it too.",
            metadata={"dagster/column_schema": column_schema(schema.REJECTED_ROWS)},
            group_name="prepare",
            kinds={"duckdb"},
            skippable=True,
        ),
    ],
    name="cleaned_interactions",
    can_subset=True,  # asked for one, both are written: they are two halves of one whole
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="warehouse",
)
def cleaned_interactions(
    context: dg.AssetExecutionContext, config: CleaningConfig, warehouse: Warehouse
) -> Iterator[dg.MaterializeResult]:
    """Keep or reject the events of some days."""
    window = context.partition_time_window
    first, last = window.start.date(), window.end.date() - timedelta(days=1)
    settings, limits = day_settings(context.assets_def, config), cleaning.Limits(**settings_of(config))
    counts: Counter[str] = Counter(kept=0)
    with warehouse.transaction() as db:
        stale, every = stale_days(db, expected_days(first, last, settings))
        spans = days.stretches(stale, every)
        context.log.info("%d days of %s to %s are stale: cleaning %s", len(stale), first, last, spans or "nothing")
        for start, stop in spans:
            counts.update(cleaning.clean_events(db, start, stop, limits))
            ledger.record_days(db, "cleaned_interactions", expected_days(start, stop, settings))
    context.log.info("events: %s", dict(counts))
    rejected = sum(n for rule, n in counts.items() if rule != "kept")
    for name, n_rows in (("cleaned_interactions", counts["kept"]), ("rejected_rows", rejected)):
        if dg.AssetKey(name) in context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=name, metadata={"dagster/partition_row_count": n_rows, "n_days": len(stale), **counts}
            )


class SamplesConfig(dg.Config):
    """How training samples are made: all that was judged or searched for, unless a limit is set."""

    n_folds: int = Field(default=5, ge=2, le=50, description="Folds for out-of-fold scores.")
    relevant_from: float | None = Field(
        default=None, description="Grade from which a judged pair has label 1; none: above the middle of the grades."
    )
    train_groups: int | None = Field(default=None, ge=2, description="Queries to train on, at most; none: all.")
    validation_groups: int | None = Field(default=None, ge=1, description="Queries to choose on, at most; none: all.")
    test_groups: int | None = Field(default=None, ge=1, description="Queries to report on, at most; none: all.")
    rows_per_group: int | None = Field(default=None, ge=2, description="Samples of one query, at most; none: all.")
    validation_share: float = Field(default=0.15, gt=0, lt=0.5, description="Share of visits or queries.")
    test_share: float = Field(default=0.15, gt=0, lt=0.5, description="Share of visits or queries.")


@dg.asset(
    deps=["cleaned_interactions", judgments, items],
    group_name="prepare",
    kinds={"duckdb"},
    pool="warehouse",
    metadata={"dagster/column_schema": column_schema(schema.TRAINING_SAMPLES)},
)
def training_samples(
    context: dg.AssetExecutionContext, config: SamplesConfig, warehouse: Warehouse
) -> dg.MaterializeResult:
    """One row per (query, item) pair that was judged or searched for, with its label, group, fold and split."""
    made = recipe(context, config, warehouse)
    with warehouse.transaction() as db:
        counts = build_samples(db, SampleRules(**settings_of(config)))
        remember(db, "training_samples", made)
    context.log.info("samples: %s", counts)
    return told(warehouse, "training_samples", counts)
