"""Stage 1: the source's tables land as they came, people only as keyed hashes."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime

import dagster as dg
from duckdb import DuckDBPyConnection

from assets.code import function_of, version
from assets.publish import recipe, told
from ecom_pipeline import cleaning, ledger, sources
from ecom_pipeline.ledger import Entry
from ecom_pipeline.schema.inputs import OFFERS
from ecom_pipeline.service.journal.database import Database
from ecom_pipeline.service.journal.opening import open_database
from ecom_pipeline.service.journal.sealing import n_unsealed, seal
from ecom_pipeline.sources import Source, landing
from ecom_pipeline.sources.forgotten import read_forgotten
from ecom_pipeline.sources.people import HashKey, key_name
from resources.home import Home
from resources.warehouse import Warehouse

# tables of the journal, by the table that they land in
_KEPT = {"events": "events", "judgments": "ratings", "exposures": "exposures"}
# tables of a source that land together, by the asset that lands them
TABLES = {
    "raw_items": ("items",),
    "raw_events": ("events",),
    "raw_judgments": ("judgments",),
    "raw_offers": tuple(OFFERS),
    "raw_exposures": ("exposures",),
}
RETRY = dg.RetryPolicy(max_retries=1, delay=1)  # a folder on a network share may be away for a moment


# everybody has the packaged data, so their people need no secret, and every home draws the same samples of them
PUBLIC_KEY = hashlib.sha256(b"packaged data").digest()


def hash_key_of(home: Home) -> HashKey:
    """The key that hashes people: the home's own, but a public one for packaged data where none is asked for."""
    packaged = home.source(sources.DEFAULT) in sources.adapters()
    return PUBLIC_KEY if packaged and not (home.asked_key or home.chain.is_file()) else home.hash_key()


def journal_of(home: Home) -> Database:
    """Where the home's journal is: in its folder, or in Postgres."""
    return open_database(home.journal, home.journal_connection, hash_key_of(home))


def outside(home: Home, asset: str) -> dict[str, str]:
    """What an asset of raw tables depends on besides code: which source, its files, and the key that hashes people."""
    source = source_of(home)
    told = {
        "source": home.source(sources.DEFAULT),
        "files": ",".join(source.fingerprint(table) for table in TABLES[asset]),
        "key": key_name(hash_key_of(home)),
    }
    # what a service has kept since is sealed when the table lands
    with closing(journal_of(home)) as journal:
        waiting = sum(n_unsealed(journal, _KEPT[table]) for table in TABLES[asset] if table in _KEPT)
    return told | ({"waiting": str(waiting)} if waiting else {})


def source_of(home: Home) -> Source:
    """The home's source, with what its service has kept."""
    return replace(sources.find(home.source(sources.DEFAULT)), journal=home.journal)


def _land(
    context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home, after: Callable[[DuckDBPyConnection], dict]
) -> dg.MaterializeResult:
    """Land the tables of the asset that is running, and what `after` adds, in one transaction."""
    asset, reader = context.asset_key.to_user_string(), version(function_of(context.assets_def))
    if set(_KEPT) & set(TABLES[asset]):
        with closing(journal_of(home)) as journal:
            seal(journal)
    made = recipe(context, None, warehouse, outside(home, asset))
    name, source, key = home.source(sources.DEFAULT), source_of(home), hash_key_of(home)
    forgotten = read_forgotten(home.forgotten, key)
    metadata: dict[str, object] = {"source": name, "format": source.adapter.name}
    with home.landing(warehouse, sources.DEFAULT) as db:
        for table in TABLES[asset]:
            context.log.info("reading %s of %s", table, name)
            done = source.land(db, table, hash_key=key, reader=reader, forgotten=forgotten)
            read = (done.n_rows, table, done.n_rows_read, done.n_files_read)
            context.log.info("%d %s, of which %d came from %d new or changed files", *read)
            of = f"{table}_" if len(TABLES[asset]) > 1 else ""
            metadata |= {f"{of}{figure}": value for figure, value in asdict(done).items()}
        ledger.record(db, asset, Entry(made, *landing.content(db, TABLES[asset])))
        metadata |= after(db)
    return told(warehouse, asset, metadata)


def _nothing(_: DuckDBPyConnection) -> dict:
    return {}


def _days(db: DuckDBPyConnection) -> dict:
    counts = cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
    ledger.forget_days(db, "cleaned_interactions", "select day from event_days")
    return counts


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_items(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per row of the source's catalogue, as it came."""
    return _land(context, warehouse, home, _nothing)


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_judgments(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per row of the source's judged pairs, and of raters' answers at the service, as it came."""
    return _land(context, warehouse, home, _nothing)


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_offers(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per row of the source's campaigns, of their users and items, and of its promotions, as it came."""
    return _land(context, warehouse, home, _nothing)


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_exposures(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per time that somebody met an arm of an experiment, as it came; those that the service applied too."""
    return _land(context, warehouse, home, _nothing)


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_events(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per row of the source's events, as it came, with its UTC day; rows that have none are rejected here.

    Events of the service's journal are among them, each once.
    """
    return _land(context, warehouse, home, _days)
