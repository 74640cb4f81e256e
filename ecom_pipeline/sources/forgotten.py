"""Who was forgotten: a keyed hash of each pseudonym, so that a file which still has the person does not bring him back.

On the floor of `sources`. The hash is not the pseudonym: whoever was forgotten stands nowhere, not even here.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import HomeError
from ecom_pipeline.quoting import literal
from ecom_pipeline.sources import people
from ecom_pipeline.sources.people import HashKey, keys_of

_SAID = "forgotten:"  # before a pseudonym that is hashed once more


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Tombstones of people and of sessions that were theirs alone.

    Attributes:
        tombstones: by how many keys hashed people when they were made, from 1.
    """

    tombstones: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.tombstones.values())

    def find(self, raw: str, hash_key: HashKey) -> str | None:
        """The tombstone of a raw id of a user or a session; None of who was not forgotten."""
        keys = keys_of(hash_key)
        found = {n: tombstone(people.keyed_hash(raw, keys[:n]), keys[:n]) for n in self.tombstones}
        return next((one for n, one in found.items() if one in self.tombstones[n]), None)

    def with_more(self, pseudonyms: Sequence[str], hash_key: HashKey) -> "Forgotten":
        """The same, and some more under all keys of today."""
        n = len(keys_of(hash_key))
        new = {tombstone(one, hash_key) for one in pseudonyms}
        return Forgotten({**self.tombstones, n: self.tombstones.get(n, frozenset()) | new})


NOBODY = Forgotten()


def tombstone(pseudonym: str, hash_key: HashKey) -> str:
    """What is kept of a person who was forgotten: the pseudonym, hashed once more under the last key.

    >>> tombstone("0123", b"key") == tombstone("0123", (b"older", b"key"))
    True
    """
    return people.keyed_hash(_SAID + pseudonym, keys_of(hash_key)[-1])


def read_forgotten(file: Path, hash_key: HashKey) -> Forgotten:
    """Tombstones of a file; nobody where there is none.

    Raises:
        HomeError: if the file is damaged, or people in it were forgotten under a key that is not one of these: they could
            not be known again.
    """
    if not file.is_file():
        return NOBODY
    keys = keys_of(hash_key)
    try:
        told = {int(n): (one["key"], frozenset(one["tombstones"])) for n, one in json.loads(file.read_text()).items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise HomeError(
            f"forgotten.json: 1 file is damaged: {str(file)!r}: {error}. It must be as `ecom forget` wrote it, or people who "
            "were forgotten come back: restore it from a copy."
        ) from error
    lost = {n: len(known) for n, (key, known) in told.items() if n > len(keys) or people.key_name(keys[:n]) != key}
    if lost:
        raise HomeError(
            f"forgotten.json: {sum(lost.values())} people and sessions were forgotten under another key; first: those of key "
            f"number {min(lost)} of {len(keys)}. They are known again by that key alone: set ECOM_HASH_KEY to it, or change "
            "keys by `ecom rotate-key`."
        )
    return Forgotten({n: known for n, (_, known) in told.items()})


def write_forgotten(file: Path, forgotten: Forgotten, hash_key: HashKey) -> None:
    """Write tombstones, all or nothing, for the owner alone and on the disk for certain."""
    keys = keys_of(hash_key)
    told = {
        str(n): {"key": people.key_name(keys[:n]), "tombstones": sorted(known)}
        for n, known in sorted(forgotten.tombstones.items())
    }
    part = file.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        json.dump(told, opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(part, file)


def make_gate(db: DuckDBPyConnection, forgotten: Forgotten, hash_key: HashKey) -> None:
    """Give a connection what `is_gone` asks; call it after `people.make_macro` with the same key."""
    db.execute("create or replace temp table forgotten_people (n_keys bigint, tombstone varchar)")
    rows = [(n, one) for n, known in forgotten.tombstones.items() for one in known]
    if rows:
        db.executemany("insert into forgotten_people values (?, ?)", rows)
    db.execute("create or replace temp sequence n_forgotten start 1")


def is_gone(
    forgotten: Forgotten,
    hash_key: HashKey,
    *,
    user: str | None,
    session: str | None,
    others: Sequence[str] = (),
    hashed: bool = False,
) -> str:
    """An SQL condition: whether a row is of somebody who was forgotten; each row of which it is true is counted.

    Args:
        forgotten: who; the condition is false where nobody is.
        hash_key: as for `make_gate`.
        user: an SQL expression for the id of the row's user; None: it has none.
        session: the same for its session, which counts where nobody is known.
        others: expressions for other ids of people.
        hashed: whether ids are pseudonyms already, under all keys.
    """
    visitor = f"case when filled(({user})::varchar) is null then {session} end" if user and session else session
    last = len(keys_of(hash_key))
    tests = [
        f"coalesce({_tombstone_sql(f'({one})::varchar', n, last, hashed=hashed)} in "
        f"(select tombstone from forgotten_people where n_keys = {n}), false)"
        for n, dead in sorted(forgotten.tombstones.items())
        for one in (user, visitor, *others)
        if one and dead and (n == last or not hashed)
    ]
    return f"case when {' or '.join(tests)} then nextval('n_forgotten') > 0 else false end" if tests else "false"


def n_gone(db: DuckDBPyConnection) -> int:
    """How many rows were turned away since `make_gate`."""
    (last,) = db.execute("select last_value from duckdb_sequences() where sequence_name = 'n_forgotten'").fetchall()[0]
    return last or 0


def _tombstone_sql(person: str, n: int, last: int, *, hashed: bool) -> str:
    pseudonym = person if hashed else people.hash_sql(f"trimmed({person})", 0, n - 1)
    return f"hashed_{(last if hashed else n) - 1}({literal(_SAID)} || {pseudonym})"
