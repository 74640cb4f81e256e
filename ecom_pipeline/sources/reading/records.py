"""The records of a delimited text after RFC 4180: where each ends, and which of them break its quotes.

A quote opens a field at its start and closes it at its end; inside, two stand for one. A line that breaks this is put
aside and the next one begins afresh; but where a quote that spans lines is at fault, nobody knows what it swallowed, and
the file is refused.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARK = b"\x1a"  # stands where a record was put aside: one field, so it never passes for a row
QUOTE, LF, CR = b'"\n\r'


@dataclass(frozen=True, slots=True)
class Records:
    """Some whole records.

    Attributes:
        text: UTF-8, with `MARK` in place of each record whose quotes are broken; lines, or all of it, may be blank.
        lines: (n,) int64, the line in the file at which each record begins, from 1; blank lines are none.
    """

    text: bytes
    lines: NDArray[np.int64]


class QuoteError(Exception):
    """A quote that spans lines is at fault."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"opens in line {line} and {why}")


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a record looks like.

    Attributes:
        delimiter: one byte of ASCII.
        n_columns: of the header.
        one_line: whether a value that holds a line break is unheard of, so that one which could be rows is doubted.
        limit: bytes of the longest record.
    """

    delimiter: bytes
    n_columns: int
    one_line: bool = False
    limit: int = 16 << 20

    def field(self) -> bytes:
        """A pattern of a sound field; possessive, so that no text takes longer than its length."""
        return rb'(?:"(?:[^"]++|"")*+"|[^"\r\n%s]*+)' % re.escape(self.delimiter)


def split(texts: Iterable[bytes], grammar: Grammar) -> Iterator[Records]:
    """Cut a text into whole records.

    Args:
        texts: UTF-8, in blocks that need not end with a line.
        grammar: what a record looks like.

    Raises:
        QuoteError: if a quote that spans lines is never closed, or closed where no field ends, or holds what could be rows.

    Cost: some passes over the text in numpy; a few microseconds for each record of several lines; memory of some blocks.
    """
    rest, line = b"", 1
    for text, last in _flagged(texts):
        cut = _Cut(rest + text, grammar, line, last)
        records, rest = cut.records(), cut.rest
        if len(rest) > grammar.limit:
            raise QuoteError(cut.next_line, f"is not closed within {grammar.limit >> 20} MiB")
        line = cut.next_line
        if records.text:
            yield records


def _flagged(texts: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for text in texts:
        yield text, False
    yield b"", True


class _Cut:
    """One text, which begins with a record: its lines, which of them continue a record, and which are broken."""

    def __init__(self, text: bytes, grammar: Grammar, first_line: int, last: bool) -> None:
        self.text, self.grammar, self.first_line, self.last = text, grammar, first_line, last
        self.bytes = np.frombuffer(text, np.uint8)
        self.breaks = self._breaks()
        self.starts = np.concatenate([[0], self.breaks + 1])
        self.n_lines = len(self.breaks)
        self.inner = np.zeros(self.n_lines, bool)
        self.broken: list[int] = []
        if b'"' in text:
            self._pair_quotes()
        self.rest = text[self.starts[self.n_lines] :]
        self.next_line = first_line + self.n_lines

    def records(self) -> Records:
        starts, ends = self.starts[: self.n_lines], self.breaks[: self.n_lines]
        blank = (starts == ends) | ((starts + 1 == ends) & (self.bytes[np.minimum(starts, len(self.text) - 1)] == CR))
        lines = np.flatnonzero(~blank & ~self.inner[: self.n_lines]) + self.first_line
        return Records(self._without_broken(), lines)

    def _breaks(self) -> NDArray[np.int64]:
        """Where lines end: at LF, and at a CR that no LF follows."""
        ends = self.bytes == LF
        if b"\r" in self.text:
            ends[:-1] |= (self.bytes[:-1] == CR) & (self.bytes[1:] != LF)
            ends[-1] |= self.last and self.bytes[-1] == CR
        found = np.flatnonzero(ends)
        if self.last and self.text and not ends[-1]:
            found = np.append(found, len(self.text))
        return found

    def _without_broken(self) -> bytes:
        end = int(self.starts[self.n_lines])
        if not self.broken:
            return self.text[:end]
        pieces, at = [], 0
        for line in self.broken:
            pieces += [self.text[at : self.starts[line]], MARK, b"\n"]
            at = int(self.starts[line + 1])
        return b"".join([*pieces, self.text[at:end]])

    def _pair_quotes(self) -> None:
        """Settle the lines whose quotes do not pair within the line; the last one may have to wait for more text."""
        record = re.compile(
            rb"%s(?:%s%s)*+(?=[\r\n]|\Z)"
            % (self.grammar.field(), re.escape(self.grammar.delimiter), self.grammar.field())
        )
        resume = 0
        for line in self._unpaired().tolist():
            if line < resume:
                continue
            if line >= self.n_lines:
                break
            found = record.match(self.text, int(self.starts[line]))
            if found is None:
                resume = self._settle_fault(line)
            elif (resume := int(np.searchsorted(self.breaks, found.end())) + 1) > self.n_lines:
                self.n_lines = line  # its end is still to come
            else:
                self._doubt(line, resume)
                self.inner[line + 1 : resume] = True

    def _unpaired(self) -> NDArray[np.int64]:
        """Lines in which, read alone, a quote is left open or stands where none may."""
        quotes = np.flatnonzero(self.bytes == QUOTE)
        line = np.searchsorted(self.breaks, quotes)
        counts = np.bincount(line, minlength=len(self.starts))
        place = np.arange(len(quotes)) - (np.cumsum(counts) - counts)[line]
        padded = np.concatenate([[LF], self.bytes, [LF]])
        beside = padded[np.where(place % 2 == 0, quotes, quotes + 2)]  # before what opens, after what closes
        sound = np.isin(beside, [QUOTE, LF, CR, self.grammar.delimiter[0]])
        return np.union1d(line[~sound], np.flatnonzero(counts % 2))

    def _settle_fault(self, line: int) -> int:
        """Put a broken line aside, wait for more text, or refuse; returns the line at which to go on."""
        start = int(self.starts[line])
        sound = re.compile(rb"(?:%s%s)*+" % (self.grammar.field(), re.escape(self.grammar.delimiter)))
        found = sound.match(self.text, start)
        at = found.end() if found else start
        quoted = re.compile(rb'"(?:[^"]++|"")*+').match(self.text, at)
        if quoted and quoted.end() == len(self.text) and not self.last:
            self.n_lines = line
            return line
        end = quoted.end() if quoted else at
        if end > self.breaks[line]:
            opens = self.first_line + int(np.searchsorted(self.breaks, at))
            closes = self.first_line + int(np.searchsorted(self.breaks, min(end, len(self.text) - 1)))
            raise QuoteError(opens, "is never closed" if end == len(self.text) else f"meets another in line {closes}")
        self.broken.append(line)
        return line + 1

    def _doubt(self, line: int, stop: int) -> None:
        """Refuse a record of several lines that are, one by one, as long as rows are."""
        whole, mark = self.grammar.n_columns - 1, self.grammar.delimiter
        if not self.grammar.one_line and stop - line < 10:
            return
        n_marks = {self.text.count(mark, self.starts[n], self.starts[n + 1]) for n in range(line, stop)}
        if n_marks == {whole} or (self.grammar.one_line and min(n_marks) >= whole):
            raise QuoteError(self.first_line + line, f"holds {stop - line} lines that could be rows")
