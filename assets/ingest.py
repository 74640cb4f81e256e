"""Stage 1: the source's tables land as they came, people only as keyed hashes."""

import hashlib
from dataclasses import asdict, replace
from datetime import UTC, datetime

import dagster as dg
from duckdb import DuckDBPyConnection

from assets.code import function_of, version
from assets.publish import recipe, told
from ecom_pipeline import cleaning, ledger, sources
from ecom_pipeline.ledger import Entry
from ecom_pipeline.service.journal import n_unsealed, seal
from ecom_pipeline.sources import Source, landing
from resources.home import Home
from resources.warehouse import Warehouse

_KEPT = {"events": "events", "judgments": "ratings"}  # tables of the journal, by the table that they land in
RETRY = dg.RetryPolicy(max_retries=1, delay=1)  # a folder on a network share may be away for a moment


# everybody has the packaged data, so their people need no secret, and every home draws the same samples of them
PUBLIC_KEY = hashlib.sha256(b"packaged data").digest()


def hash_key_of(home: Home) -> bytes:
    """The key that hashes people: the home's own, but a public one for packaged data where none is asked for."""
    packaged = home.source(sources.DEFAULT) in sources.adapters()
    return PUBLIC_KEY if packaged and not home.asked_key else home.hash_key()


def outside(home: Home, table: str) -> dict[str, str]:
    """What a raw table depends on besides code: which source, its files, and the key that hashes people."""
    name = home.source(sources.DEFAULT)
    key = hashlib.sha256(hash_key_of(home)).hexdigest()[:8]
    # what a service has kept since is sealed when the table lands
    waiting = n_unsealed(home.journal, _KEPT[table]) if table in _KEPT else 0
    return {"source": name, "files": source_of(home).fingerprint(table), "key": key} | (
        {"waiting": str(waiting)} if waiting else {}
    )


def source_of(home: Home) -> Source:
    """The home's source, with what its service has kept."""
    return replace(sources.find(home.source(sources.DEFAULT)), journal=home.journal)


def _land(
    context: dg.AssetExecutionContext, db: DuckDBPyConnection, home: Home, table: str, made: str
) -> dict[str, object]:
    name, source = home.source(sources.DEFAULT), source_of(home)
    context.log.info("reading %s of %s", table, name)
    reader = version(function_of(context.assets_def))
    done = source.land(db, table, hash_key=hash_key_of(home), reader=reader)
    ledger.record(db, f"raw_{table}", Entry(made, *landing.content(db, table)))
    context.log.info(
        "%d %s, of which %d came from %d new or changed files", done.n_rows, table, done.n_rows_read, done.n_files_read
    )
    return {"source": name, "format": source.adapter.name, **asdict(done)}


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_items(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per row of the source's catalogue, as it came."""
    made = recipe(context, None, warehouse, outside(home, "items"))
    with home.landing(warehouse, sources.DEFAULT) as db:
        metadata = _land(context, db, home, "items", made)
    return told(warehouse, "raw_items", metadata)


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_judgments(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per row of the source's judged pairs, and of raters' answers at the service, as it came."""
    seal(home.journal)
    made = recipe(context, None, warehouse, outside(home, "judgments"))
    with home.landing(warehouse, sources.DEFAULT) as db:
        metadata = _land(context, db, home, "judgments", made)
    return told(warehouse, "raw_judgments", metadata)


@dg.asset(group_name="ingest", kinds={"duckdb"}, retry_policy=RETRY)
def raw_events(context: dg.AssetExecutionContext, warehouse: Warehouse, home: Home) -> dg.MaterializeResult:
    """One row per row of the source's events, as it came, with its UTC day; rows that have none are rejected here.

    Events of the service's journal are among them, each once.
    """
    seal(home.journal)
    made = recipe(context, None, warehouse, outside(home, "events"))
    with home.landing(warehouse, sources.DEFAULT) as db:
        metadata = _land(context, db, home, "events", made)
        counts = cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
        ledger.forget_days(db, "cleaned_interactions", "select day from event_days")
    return told(warehouse, "raw_events", metadata | counts)
