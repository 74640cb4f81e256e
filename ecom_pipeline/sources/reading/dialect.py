"""How a delimited file is written: its encoding, what parts its fields, and how a quote stands inside quotes."""

import csv
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ecom_pipeline.errors import SourceError
from ecom_pipeline.files import stamp
from ecom_pipeline.schema.inputs import COLUMNS, PERSONAL
from ecom_pipeline.sources.reading import letters
from ecom_pipeline.sources.reading.records import MARK, Grammar, QuoteError, split

log = logging.getLogger(__name__)

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_PLACE = "column_"  # and its place: the name of a nameless column
_KNOWN = {column for columns in COLUMNS.values() for column in columns}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one file is written.

    Attributes:
        encoding: as Python names it.
        delimiter: between fields.
        escape: what stands before a quote inside quotes: another quote, or a backslash.
        names: of the columns, as the first line has them; nameless ones by their place.
        n_above: lines until the first row, the names' own among them.
    """

    encoding: str
    delimiter: str
    escape: str
    names: tuple[str, ...]
    n_above: int

    @property
    def grammar(self) -> Grammar:
        """What a record looks like; where persons are named, one value is one line."""
        one_line = bool({*PERSONAL} & {name.lower() for name in self.names})
        return Grammar(self.delimiter.encode(), len(self.names), one_line)


def find(file: Path, delimiter: str = "") -> Dialect:
    """The dialect of a file, found once.

    Args:
        file: CSV, zipped or not.
        delimiter: between fields; empty: that which the first line shows.

    Raises:
        SourceError: if the file is empty or not of one encoding, its first line does not name every column once, two
            dialects fit, or a quote that spans lines is at fault.

    Cost: one pass over the file, and two more where it has quotes behind backslashes.
    """
    return _find(file, delimiter, stamp(file))


def names(file: Path) -> tuple[str, ...]:
    """The names of a file's columns; reads its first line alone.

    Raises:
        SourceError: as `find`, for the first line.
    """
    return _opening(file, letters.encoding(file))[1]


def texts(file: Path, dialect: Dialect) -> Iterator[bytes]:
    """A file's text below the first line, as UTF-8 with quotes doubled inside quotes."""
    below = _below(letters.blocks(file, dialect.encoding), dialect.n_above)
    return below if dialect.escape == '"' else _doubled(below, dialect.delimiter.encode())


@lru_cache(maxsize=64)
def _find(file: Path, asked: str, state: str) -> Dialect:
    encoding = letters.encoding(file)
    delimiter, columns, n_above = _opening(file, encoding, asked)
    quoted = escaped = False
    end = b""
    for text in letters.blocks(file, encoding):
        quoted = quoted or b'"' in text
        escaped = escaped or b'\\"' in end + text
        end = text[-1:]
    doubled, behind = (Dialect(encoding, delimiter, escape, columns, n_above) for escape in '"\\')
    dialect = doubled if not quoted else _check(file, doubled) if not escaped else _choose(file, doubled, behind)
    if placed := [column for column in columns if column.startswith(_PLACE)]:
        log.info("%s: %d columns have no name but their place; first: %s", file.name, len(placed), placed[0])
    how = {'"': "doubled", "\\": "behind backslashes"}[dialect.escape]
    log.info("%s: %s, parted by %s, quotes %s", file.name, encoding.upper(), _DELIMITERS[delimiter], how)
    return dialect


def _check(file: Path, dialect: Dialect) -> Dialect:
    _faults(file, dialect)
    return dialect


def _choose(file: Path, doubled: Dialect, behind: Dialect) -> Dialect:
    """The reading with fewer faults; two without any are a doubt."""
    n_faults: dict[Dialect, float] = {}
    errors = []
    for dialect in (doubled, behind):
        try:
            n_faults[dialect] = _faults(file, dialect)
        except SourceError as error:
            n_faults[dialect] = float("inf")
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]
    if not any(n_faults.values()):
        raise SourceError(
            f"source: the quotes of {file.name!r} can be read in 2 ways: doubled, or behind backslashes; both fit every line. "
            "A quote inside quotes must be doubled: write the file again so, without backslashes before quotes."
        )
    return min(n_faults, key=n_faults.__getitem__)


def _faults(file: Path, dialect: Dialect) -> int:
    """How many records break their quotes.

    Raises:
        SourceError: if one of several lines does.
    """
    try:
        return sum(records.text.count(MARK) for records in split(texts(file, dialect), dialect.grammar))
    except QuoteError as error:
        raise _refused(file, dialect, error) from error


def _refused(file: Path, dialect: Dialect, error: QuoteError) -> SourceError:
    opens = re.sub(r"line (\d+)", lambda found: f"line {int(found[1]) + dialect.n_above}", str(error))
    return SourceError(
        f"source: 1 quote of {file.name!r} {opens}; what it swallowed cannot be told. A quote that opens a field must close "
        "it, and be doubled inside: mend that line, or write the file again by a program that quotes."
    )


def _below(blocks: Iterable[bytes], n_lines: int) -> Iterator[bytes]:
    """The text after some lines."""
    rest: bytes | None = b""
    for block in blocks:
        if rest is None:
            yield block
            continue
        rest += block
        parts = re.split(rb"\r\n|\n|\r(?=.)", rest, maxsplit=n_lines, flags=re.DOTALL)
        if len(parts) > n_lines:
            yield parts[-1]
            rest = None


def _doubled(blocks: Iterable[bytes], delimiter: bytes) -> Iterator[bytes]:
    """Quotes behind backslashes as doubled ones, doubled backslashes as one; quotes that were doubled stay a fault."""
    edge = rb"[^\r\n%s]" % re.escape(delimiter)
    pairs = re.compile(rb'\\(["\\])|(?<=%s)""|""(?=%s)' % (edge, edge))
    held = b""
    for block in blocks:
        whole, line_break, held = (held + block).rpartition(b"\n")
        yield pairs.sub(_rewritten, whole) + line_break
    yield pairs.sub(_rewritten, held)


def _rewritten(found: re.Match[bytes]) -> bytes:
    return {b'"': b'""', b"\\": b"\\", None: b'"' + MARK + b'"' + MARK}[found[1]]


def _opening(file: Path, encoding: str, asked: str = "") -> tuple[str, tuple[str, ...], int]:
    """The delimiter, the names of the columns, and the lines until the first row."""
    text = b""
    for block in letters.blocks(file, encoding, 1 << 16):
        text += block
        if re.search(rb"[^\r\n][\r\n]", text) or len(text) > 1 << 20:
            break
    blank, line = re.match(rb"((?:\r\n|\n|\r)*)([^\r\n]*)", text).groups()  # type: ignore[union-attr]
    if not line.strip():
        raise SourceError(f"source: 1 file is empty: {file.name!r}. Its first line must name the columns: add it.")
    header = line.decode()
    readings = {mark: _split(header, mark) for mark in (asked or _DELIMITERS)}
    n_known = {mark: len(_KNOWN & {name.lower() for name in found}) for mark, found in readings.items()}
    several = [mark for mark, found in readings.items() if len(found) > 1]
    best = [mark for mark in several if n_known[mark] == max(n_known[mark] for mark in several)]
    if len(best) != 1:
        raise SourceError(
            f"source: {file.name!r} has {len(best) or 1} {'ways to part' if best else 'column in'} its first line, "
            f"{header[:60]!r}. Columns must be separated by commas, semicolons, tabs or bars: write the file again with commas."
        )
    n_above = len(re.findall(rb"\r\n|\n|\r", blank)) + 1
    return best[0], _named(file, readings[best[0]]), n_above


def _split(header: str, delimiter: str) -> list[str]:
    try:
        return [
            name.strip().strip("\ufeff\u200b") for name in next(csv.reader([header], delimiter=delimiter, strict=True))
        ]
    except csv.Error:
        return []


def _named(file: Path, found: list[str]) -> tuple[str, ...]:
    """Every column by its name, a nameless one by its place."""
    return unique(file, [name or f"{_PLACE}{place}" for place, name in enumerate(found, 1)])


def unique(file: Path, found: list[str]) -> tuple[str, ...]:
    """The names of a file's columns.

    Raises:
        SourceError: if two are equal, capitals aside.
    """
    lower = [name.lower() for name in found]
    if twice := [name for place, name in enumerate(found) if lower.index(name.lower()) < place]:
        raise SourceError(
            f"source: {file.name!r} has {len(found)} columns, of which {len(set(lower))} differ; first: {twice[0]!r} is "
            "there twice, capitals aside. Every column must be named once: rename one of them."
        )
    return tuple(found)
