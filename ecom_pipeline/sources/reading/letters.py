"""The letters of a text file, zipped or not, as UTF-8, whatever mark tells of its encoding."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ecom_pipeline.errors import SourceError

BLOCK = 4 << 20  # bytes read at a time

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as UTF-16's does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def encoding(file: Path) -> str:
    """The encoding that a file's mark tells, or the zeros of UTF-16 without one; else UTF-8.

    Raises:
        SourceError: if the file cannot be opened or unzipped.
    """
    opening = next(_raw(file, 64), b"")
    marked = next((name for mark, name in _MARKS.items() if opening.startswith(mark)), None)
    if marked or len(opening) < 4:
        return marked or "utf-8"
    # a header is in ASCII: every second byte of it is zero in UTF-16
    zeros = [byte == 0 for byte in opening[:4]]
    if zeros == [False, True] * 2:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False] * 2 else "utf-8"


def blocks(file: Path, named: str, size: int = BLOCK) -> Iterator[bytes]:
    """The text of a file as UTF-8, in blocks that need not end with a line, without its mark.

    Args:
        file: its name ends with .gz where it is zipped.
        named: its encoding, as `encoding` tells it.
        size: bytes of a block in the file.

    Raises:
        SourceError: if a byte is not of the encoding, or is zero.

    Cost: one pass; memory of a few blocks.
    """
    decoder = codecs.getincrementaldecoder(named)()
    line, fresh = 1, True
    for raw in _with_end(_raw(file, size)):
        try:
            # what is in ASCII alone, as most is, need not be decoded
            plain = named == "utf-8" and raw.isascii() and not decoder.getstate()[0]
            text = raw if plain else decoder.decode(raw, final=not raw).encode()
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(named, "replace")
            raise _foreign(file, named, line + before.count("\n"), error.object[error.start]) from error
        except UnicodeEncodeError as error:  # half a pair of UTF-16
            raise _foreign(file, named, line + error.object[: error.start].count("\n"), 0xD8) from error
        if fresh and text:
            text, fresh = text.removeprefix(codecs.BOM_UTF8), False
        if (zero := text.find(b"\0")) >= 0:
            raise _foreign(file, named, line + text.count(b"\n", 0, zero), 0)
        line += text.count(b"\n")
        if text:
            yield text


def _foreign(file: Path, named: str, line: int, byte: int) -> SourceError:
    return SourceError(
        f"source: {file.name!r} has a byte in line {line} that is no {named.upper()}: 0x{byte:02x}, the first of its kind. "
        "A text file must be UTF-8, or begin with the mark of UTF-16: write it as UTF-8."
    )


def _with_end(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield from parts
    yield b""


def _raw(file: Path, size: int) -> Iterator[bytes]:
    """The bytes of a file, unzipped."""
    try:
        with cast(BinaryIO, gzip.open(file) if file.suffix == ".gz" else file.open("rb")) as opened:
            while part := opened.read(size):
                yield part
    except (EOFError, zlib.error, OSError) as error:
        raise SourceError(
            f"source: 1 file cannot be read, {file.name!r}: {error}. It must be there and whole, and zipped where its name "
            "ends with .gz: copy or write it again."
        ) from error
