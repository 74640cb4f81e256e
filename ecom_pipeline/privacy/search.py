"""The proof: who was forgotten is looked for in every byte of a home, what is compressed is opened.

On the floor of `privacy`.
"""

import gzip
import json
import lzma
import math
import os
import re
import sqlite3
import string
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_CHUNK = 1 << 24
_CHANCE_BITS = 40  # an id of fewer stands in some terabyte by chance
_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_OTHERS = 32  # characters of another kind that ids have


def by_chance(raw: str) -> bool:
    """Whether an id is so short that it stands in numbers and texts by chance.

    >>> by_chance("2375"), by_chance("person-3"), by_chance("4711081512345")
    (True, False, False)
    """
    used = sum(len(one) for one in _CLASSES if set(one) & set(raw)) + _OTHERS * bool(set(raw) - set("".join(_CLASSES)))
    return len(raw) * math.log2(max(used, 2)) < _CHANCE_BITS


@dataclass(frozen=True)
class Wanted:
    """What must be nowhere.

    Attributes:
        actor: the pseudonym: looked for at any place.
        raw: the shop's id, looked for where it is no part of a longer word; empty: not looked for.
    """

    actor: str
    raw: str = ""

    @cached_property
    def needles(self) -> tuple[tuple[bytes, bool], ...]:
        """Each spelling, in UTF-8, in JSON and in arrays of texts; and whether it must be no part of a longer word."""
        raw = _spellings(self.raw) if self.raw else []
        return (*((one, False) for one in _spellings(self.actor)), *((one, True) for one in raw))

    def places(self, text: bytes) -> Iterator[int]:
        """Where it begins in some bytes, in no order."""
        for needle, whole in self.needles:
            start = text.find(needle)
            while start >= 0:
                end = start + len(needle)
                if not (whole and (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())):
                    yield start
                start = text.find(needle, end)

    def count(self, text: str | bytes) -> int:
        """How often it stands in a text."""
        told = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return sum(1 for _ in self.places(told))

    def replaced(self, text: str, by: str) -> str:
        """A text with another in its places: also in JSON, which stays JSON if the other needs no escape there."""
        for found, whole in ((self.actor, False), (self.raw, True)):
            for spelling in (one for one in _in_json(found) if one and one in text):
                spot = re.escape(spelling)
                text = re.sub(rf"(?<![A-Za-z0-9]){spot}(?![A-Za-z0-9])" if whole else spot, lambda _: by, text)
        return text


@dataclass(slots=True)
class Searched:
    """What was looked at, and what was found.

    Attributes:
        n_files: files.
        n_bytes: of them, as they lie on the disk.
        n_opened: bytes of what was compressed in them, opened.
        found: how often, by file and place in it.
        unopened: files that were read as bytes alone, as what is compressed in them cannot be opened, and why.
    """

    n_files: int = 0
    n_bytes: int = 0
    n_opened: int = 0
    found: Counter[str] = field(default_factory=Counter)
    unopened: dict[str, str] = field(default_factory=dict)


def search(folder: Path, wanted: Wanted, *, also: Sequence[Path] = ()) -> Searched:
    """Look for somebody in all files below a folder, links followed to files and not to folders.

    Every file is read as bytes. Beside that gzip and zip are opened, Parquet is read column by column, and SQLite cell by
    cell, those opened that are compressed; what DuckDB compresses is left to `relations.n_named`.

    Args:
        folder: the home.
        wanted: what must be nowhere.
        also: folders elsewhere that belong to it.

    Cost: one reading of the folder, 16 MiB of memory, and one of what is compressed.
    """
    told = Searched()
    for one in (folder, *also):
        for parent, _, names in os.walk(one):
            for name in sorted(names):
                file = Path(parent, name)
                if file.is_file():
                    _look_into(file, str(file.relative_to(folder) if one == folder else file), wanted, told)
    return told


def _look_into(file: Path, name: str, wanted: Wanted, told: Searched) -> None:
    told.n_files += 1
    told.n_bytes += file.stat().st_size
    if wanted.count(os.fsencode(name)):
        told.found["names of files"] += 1
    with file.open("rb") as opened:
        start = opened.read(16)
        opened.seek(0)
        _count(opened, name, wanted, told)
    for sign, look in _OPENERS.items():
        if start.startswith(sign):
            try:
                look(file, name, wanted, told)
            except _DAMAGED as error:
                told.unopened[name] = f"{type(error).__name__}: {error}"


def _count(opened: IO[bytes] | gzip.GzipFile, place: str, wanted: Wanted, told: Searched) -> int:
    """Bytes of a stream; what is found in it is counted."""
    n_bytes, kept, longest = 0, b"", 6 * max(len(wanted.actor), len(wanted.raw)) + 8
    while chunk := opened.read(_CHUNK):
        n_bytes += len(chunk)
        text = kept + chunk
        # what begins in the last bytes is found with the next chunk
        end = len(text) - longest if len(chunk) == _CHUNK else len(text)
        n = sum(place < end for place in wanted.places(text))
        if n:
            told.found[place] += n
        kept = text[max(end, 0) :] if end < len(text) else b""
    return n_bytes


def _look_into_gzip(file: Path, name: str, wanted: Wanted, told: Searched) -> None:
    with gzip.open(file) as inside:
        told.n_opened += _count(inside, f"{name}, opened", wanted, told)


def _look_into_zip(file: Path, name: str, wanted: Wanted, told: Searched) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as inside:
                told.n_opened += _count(inside, f"{name}, {member.filename}", wanted, told)


def _look_into_parquet(file: Path, name: str, wanted: Wanted, told: Searched) -> None:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches():
            told.n_opened += batch.nbytes
            for column, values in zip(batch.schema.names, batch.columns, strict=True):
                n = sum(map(wanted.count, _texts(values)))
                if n:
                    told.found[f"{name}, column {column}"] += n


def _texts(values: pa.Array) -> Iterator[str]:
    """Texts of a column that may hold what is wanted; lists and structures as JSON."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        yield from pc.unique(values).drop_null().to_pylist()
    elif pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
        yield from (json.dumps(one, default=repr) for one in values.to_pylist() if one is not None)


def _look_into_sqlite(file: Path, name: str, wanted: Wanted, told: Searched) -> None:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as db:
        for (table,) in db.execute("select name from sqlite_master where type = 'table'").fetchall():
            quoted = '"' + table.replace('"', '""') + '"'
            for row in db.execute(f"select * from {quoted}"):
                for text in _opened_cells(row):
                    told.n_opened += len(text)
                    n = wanted.count(text)
                    if n:
                        told.found[f"{name}, {table}"] += n


_OPENERS = {
    b"\x1f\x8b": _look_into_gzip,
    b"PK\x03\x04": _look_into_zip,
    b"PAR1": _look_into_parquet,
    b"SQLite format 3\0": _look_into_sqlite,
}
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError),
    *(zipfile.BadZipFile, pa.ArrowException, sqlite3.Error),
)


def _opened_cells(row: Sequence[object]) -> Iterator[bytes]:
    for cell in row:
        if isinstance(cell, str):
            yield cell.encode("utf-8", "surrogatepass")
        elif isinstance(cell, bytes):
            try:
                yield zlib.decompress(cell)
            except zlib.error:
                yield cell


def _in_json(text: str) -> list[str]:
    """A text as it is, as it stands in JSON, and in JSON in JSON."""
    once = json.dumps(text)[1:-1]
    return list(dict.fromkeys([text, once, json.dumps(once)[1:-1]]))


def _spellings(text: str) -> list[bytes]:
    """A text in UTF-8, also in JSON, and in two and in four bytes a character."""
    return [*(one.encode() for one in _in_json(text)), text.encode("utf-16-le"), text.encode("utf-32-le")]
