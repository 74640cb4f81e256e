"""How everybody in a home gets another pseudonym: all is made aside and exchanged at once."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from assets.ingest import hash_key_of, journal_of
from assets.serve import publish_without_learning
from ecom_pipeline import report
from ecom_pipeline.errors import InputError, PipelineError
from ecom_pipeline.privacy import pseudonyms
from ecom_pipeline.privacy.receipt import Receipt
from ecom_pipeline.service import folders
from ecom_pipeline.service.journal import people
from ecom_pipeline.service.journal.opening import open_database
from ecom_pipeline.service.journal.rows import pseudonym_under
from ecom_pipeline.sources.forgotten import read_forgotten
from ecom_pipeline.sources.people import HashKey, keys_of
from resources import exchange
from resources.home import Home
from resources.keyring import lock
from resources.private import change_history
from resources.warehouse import Warehouse

_NEXT = (
    "set ECOM_HASH_KEY to what ECOM_HASH_KEY_NEW is now, wherever `ecom` runs: nothing works in this home without it",
    "`ecom run`: fingerprints that were made of the former pseudonyms are made anew, and all that is learnt from them",
)


def rotate(home: Home, warehouse: Warehouse) -> Receipt:
    """Hash every pseudonym of a home with one more key; call it as the home's one writer, and with no service running.

    A kill before the exchange leaves the home as it was, and the former key is the right one; after it the new key is, and
    whoever writes in the home next does what is left of it.

    Raises:
        InputError: if no new key is asked for, or it is one of those that hold.
        HomeError: if the present key is not the one that the home was filled with.

    Cost: three writings of the warehouse, one of the journal, and one publication where a model is published; as much room on
        the disk again as the home's warehouse takes, twice.
    """
    before, newest = hash_key_of(home), home.new_key
    _require_another(before, newest)
    read_forgotten(home.forgotten, before)
    after: HashKey = (*keys_of(before), newest)
    part = exchange.begin(home.folder)
    aside = Warehouse(path=str(part / "warehouse.duckdb"))
    warehouse.write_to(Path(aside.path))
    with aside.transaction() as db:
        known = pseudonyms.users_of(db)
        rows = pseudonyms.rehash(db, known, before=before, after=after)
    aside.compact()
    rows |= _journal(home, part, newest)
    rows |= _published(home, aside, part)
    if home.report.is_file():
        with aside.connect() as db:
            report.write(report.gather(db, home.models), part / "report.html")
    (part / "hash.chain").write_text(lock(keys_of(before), newest))
    exchange.decide(
        home.folder, _moves(part), gone=("hash.key", "journal/journal.sqlite-wal", "journal/journal.sqlite-shm")
    )
    journal = open_database(home.journal, home.journal_connection, after)
    n_people = journal.begin() if journal.exists else 0
    rows |= {"pseudonyms in the journal's database": n_people} if n_people else {}
    n_records = change_history(home.dagster, pseudonyms.replacing(known, after))
    return Receipt(
        "rotate-key", rows=rows | ({"records of Dagster's history": n_records} if n_records else {}), remaining=_NEXT
    )


def _require_another(before: HashKey, newest: bytes) -> None:
    keys = keys_of(before)
    if newest in keys:
        raise InputError(
            f"ECOM_HASH_KEY_NEW: 1 key is in use already, as number {keys.index(newest) + 1} of {len(keys)} of this home. It "
            "must be another one: choose a new secret, or, if the key was changed already, set ECOM_HASH_KEY to it."
        )


def _journal(home: Home, part: Path, newest: bytes) -> dict[str, int]:
    with closing(journal_of(home)) as journal:
        n_rows = people.rehash(journal, part / "journal", lambda text: pseudonym_under(text, newest))
    return {"journal": n_rows} if n_rows else {}


def _published(home: Home, aside: Warehouse, part: Path) -> dict[str, int]:
    """The publication that serves, made anew from the new warehouse; the others are given up."""
    if not folders.history(home.published):
        return {}
    try:
        with aside.connect() as db:
            publish_without_learning(db, home, part / "published")
    except (PipelineError, OSError, LookupError):
        (part / "published").mkdir(exist_ok=True)  # none serves until the next run; its own error would say why
    return {"published models": len(folders.history(home.published))}


def _moves(part: Path) -> Mapping[str, str]:
    """What was made, and where it belongs; the keys first, as whoever reads without them is told to wait."""
    moves = {"hash.chain": "hash.chain", "warehouse.duckdb": "warehouse.duckdb"}
    moves |= {f"journal/{one.name}": f"journal/{one.name}" for one in (part / "journal").glob("*")}
    moves |= {"published": "published"} if (part / "published").is_dir() else {}
    return moves | ({"report.html": "reports/report.html"} if (part / "report.html").is_file() else {})
