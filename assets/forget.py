"""How a person is taken out of a home: first what keeps him out, then what holds him, then the proof."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.ingest import TABLES, hash_key_of, journal_of
from assets.serve import publish_without_learning
from ecom_pipeline import identity, ledger, report
from ecom_pipeline.errors import InputError, PipelineError
from ecom_pipeline.privacy import relations
from ecom_pipeline.privacy.receipt import Receipt
from ecom_pipeline.privacy.relations import Person
from ecom_pipeline.privacy.search import Wanted, by_chance, search
from ecom_pipeline.service import folders
from ecom_pipeline.service.journal import people
from ecom_pipeline.sources.forgotten import read_forgotten, tombstone, write_forgotten
from ecom_pipeline.sources.people import keyed_hash
from resources.home import Home
from resources.private import change_history
from resources.warehouse import Warehouse

_BY_DAY = ("cleaned_interactions", "rejected_rows")  # the days that are to be cleaned again are known
_GONE = "(forgotten)"
_RETRAIN = "`ecom run`: what was learnt while he was known is learnt again without him, lists and figures are made anew"
_NO_MODEL = (
    "no model serves: those that were published held him, and none could be written without him; `ecom run` does"
)


def who(home: Home, *, raw: str = "", actor: str = "") -> Person:
    """The person that is meant by the shop's id, or by a pseudonym.

    Raises:
        HomeError: if the key that hashes people is damaged or missing.
    """
    key = hash_key_of(home)
    actor = keyed_hash(raw.strip(), key) if raw else actor
    return Person(actor, tombstone(actor, key), raw.strip())


def forget(home: Home, warehouse: Warehouse, person: Person) -> Receipt:
    """Take a person out of a home for good, and prove it; call it as the home's one writer.

    What keeps him out is written first, so that after a kill at any place the same call goes on where that one ended.

    Raises:
        InputError: if nobody of that id is in the home.
        JournalError: if the journal is being read for longer than is waited for.
        WarehouseError: if the warehouse is.

    Cost: a few scans of the warehouse and one writing of it; where a published model knows him, one publication; and one
        reading of the whole home.
    """
    person = _known(home, warehouse, person)
    key = hash_key_of(home)
    known = read_forgotten(home.forgotten, key)
    write_forgotten(home.forgotten, known.with_more([person.actor, *person.sessions], key), key)
    with closing(journal_of(home)) as journal:
        rows = people.forget(journal, person.actor, person.sessions)
    rows |= _from_warehouse(warehouse, person)
    published, remaining = _from_published(home, warehouse, person)
    rows |= published | _from_pages(home, warehouse, person) | _from_histories(home, person)
    receipt = check(home, warehouse, person)
    return replace(receipt, done="forget", rows=rows, remaining=(*remaining, *([_RETRAIN] if rows else [])))


def check(home: Home, warehouse: Warehouse, person: Person) -> Receipt:
    """Look for a person in every byte of a home.

    Cost: one reading of the whole home.
    """
    raw, chance = person.raw, bool(person.raw) and by_chance(person.raw)
    wanted = Wanted(person.actor, "" if chance else raw)
    told = search(home.folder, wanted, also=warehouse.elsewhere)
    for table, row in warehouse.catalogue():
        told.found[f"catalogue, {table}"] += wanted.count(row)
    with closing(journal_of(home)) as journal:
        for table, row in journal.texts():
            told.found[f"{journal.name}: {table}"] += wanted.count(row)
    found = {place: n for place, n in told.found.items() if n}
    with warehouse.connect() as db:
        found |= {f"relation {name}": n for name, n in relations.n_named(db, Wanted(person.actor, raw)).items()}
    how = (
        "not known, its pseudonym alone was looked for"
        if not raw
        else f"as a whole value in columns of persons; {len(raw)} such characters stand anywhere by chance"
        if chance
        else "in every byte"
    )
    return Receipt("check", person.mark, {}, told.n_files, told.n_bytes, told.n_opened, how, found, told.unopened)


def _known(home: Home, warehouse: Warehouse, person: Person) -> Person:
    """The person with his sessions; whoever was forgotten before is known too, so that a broken call can go on."""
    with warehouse.connect() as db:
        named = relations.n_named(db, Wanted(person.actor, person.raw))
        sessions = relations.own_sessions(db, person.actor)
    with closing(journal_of(home)) as journal:
        sessions |= people.own_sessions(journal, person.actor)
        named |= people.n_named(journal, person.actor)
    before = read_forgotten(home.forgotten, hash_key_of(home))
    if not (named or any(person.mark in known for known in before.tombstones.values())):
        with warehouse.connect() as db:
            n_users = relations.n_users(db)
        raise InputError(
            f"forget: 1 user is unknown: {person.raw or person.actor!r}, beside {n_users:,} who are known. It must be a user's id "
            "as the source has it, or with --actor a pseudonym as the warehouse has it: check the id, and that the home "
            "is under the key that it was filled with."
        )
    return replace(person, sessions=tuple(sorted(sessions)))


def _from_warehouse(warehouse: Warehouse, person: Person) -> dict[str, int]:
    with warehouse.transaction() as db:
        rows = relations.take_out(db, person)
        for asset, tables in TABLES.items():
            if any(f"raw_{table}" in rows for table in tables):
                ledger.forget(db, asset)
        for name in rows.keys() - {*_BY_DAY}:
            ledger.forget(db, name)
    warehouse.compact()
    return rows


def _from_published(home: Home, warehouse: Warehouse, person: Person) -> tuple[dict[str, int], list[str]]:
    """Publish a model that does not know him, if one does, and delete those that do."""
    holding = [one.name for one in home.published.glob("*/") if _holds(one / "users.parquet", person)]
    if not holding:
        return {}, []
    remaining = []
    try:
        with warehouse.connect() as db:
            publish_without_learning(db, home, home.published)
    except (PipelineError, OSError, LookupError) as error:
        remaining = [f"{_NO_MODEL} ({type(error).__name__})"]
    folders.drop(home.published, holding)
    return {"published models": len(holding)}, [
        *remaining,
        "a service that runs knows him until it takes the new publication, in seconds; look at its /ready",
    ]


def _holds(users: Path, person: Person) -> bool:
    """Whether a published model knows him; of one that cannot be read nobody can say that it does not."""
    named = {person.actor, *(identity.actors_of(one)[1] for one in person.sessions)}
    try:
        return users.is_file() and not named.isdisjoint(pq.read_table(users)["user_id"].to_pylist())
    except (OSError, pa.ArrowException):
        return True


def _from_pages(home: Home, warehouse: Warehouse, person: Person) -> dict[str, int]:
    """The report shows some users: one that shows him is written anew."""
    wanted, counts = Wanted(person.actor, _long(person)), {}
    if home.report.is_file() and wanted.count(home.report.read_bytes()):
        home.report.unlink()
        with warehouse.connect() as db:
            report.write(report.gather(db, home.models), home.report)
        counts["reports"] = 1
    return counts


def _from_histories(home: Home, person: Person) -> dict[str, int]:
    wanted = Wanted(person.actor, _long(person))
    n = change_history(home.dagster, lambda text: wanted.replaced(text, _GONE))
    return {"records of Dagster's history": n} if n else {}


def _long(person: Person) -> str:
    return "" if not person.raw or by_chance(person.raw) else person.raw
