"""Texts and ids: blanks of any kind, words for nothing, entities and markup."""

import html
import re

import pyarrow as pa
from duckdb import CatalogException, DuckDBPyConnection
from duckdb.func import PythonUDFType

from ecom_pipeline.quoting import literal

BLANKS = "".join(
    map(chr, [*range(9, 14), 28, 29, 30, 31, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200E), 0x2028, 0x2029])
)
BLANKS += "\u202f\u205f\u2060\u3000\ufeff"
NOTHING = ("null", "n/a", "#n/a", "<na>", "\\n", "nan", "nat", "none", "-")  # as programs write it, capitals aside

_ELEMENTS = (
    "a|abbr|address|article|aside|audio|b|big|blockquote|body|br|button|caption|center|cite|code|col|colgroup|dd|del|details|"
    "div|dl|dt|em|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|"
    "main|mark|meta|nav|noscript|o:p|object|ol|option|p|picture|pre|q|s|samp|section|select|small|source|span|strike|strong|"
    "sub|summary|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
_ATTRIBUTE = (
    r"""\s+(?:[a-z_:][\w:.-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+)|checked|controls|disabled|hidden|nowrap|selected)"""
)
_MARKUP = (
    r"(?is)<!--.*?-->|<!doctype[^>]*>|<script\b[^>]*>.*?</script\s*>|<style\b[^>]*>.*?</style\s*>|"
    rf"</?(?:{_ELEMENTS})(?:{_ATTRIBUTE})*\s*/?>"
)
_EMPTY = r"^[\s\p{Z}\p{Cf}]*$"


def unescape(text: str) -> str:
    """A text without entities, also where they were escaped twice.

    >>> unescape("Hoodie &amp;#8211; blue &eacute;")
    'Hoodie – blue é'
    """
    for _ in range(3):
        former, text = text, html.unescape(text)
        if former == text:
            break
    return text.replace("\\0", "")


def filled(text: str) -> str | None:
    """A text without blanks at its ends; None where nothing is left, or a word for nothing: as the macro of this name.

    >>> [filled(text) for text in ("\u200b 77\t", "NULL", "  ")]
    ['77', None, None]
    """
    trimmed = text.strip(BLANKS)
    return None if trimmed.lower() in ("", *NOTHING) else trimmed


def _unescape_column(column: pa.Array) -> pa.Array:
    return pa.array([None if text is None else unescape(text) for text in column.to_pylist()], pa.string())


def knows(db: DuckDBPyConnection, call: str) -> bool:
    """Whether a connection has the function or macro that a call names.

    Cost: half a millisecond; the list of all functions takes fifty times as long.
    """
    try:
        db.execute(f"select {call}")
    except CatalogException:
        return False
    return True


def make_macros(db: DuckDBPyConnection) -> None:
    """Give a connection SQL macros, of which others may use four.

    `trimmed(t)`: without blanks of any kind at its ends, null where nothing is left. `filled(t)`: the same, but null also for
    a word for nothing. `clean_text(t)`: no markup, no entities, single blanks. `filled_text(t)`: both.
    """
    if knows(db, "spaced(null)"):
        return
    if not knows(db, "unescape_entities(null)"):  # a function stays where macros are undone with their transaction
        db.create_function("unescape_entities", _unescape_column, ["VARCHAR"], "VARCHAR", type=PythonUDFType.ARROW)
    markup, words = literal(_MARKUP), literal(f"(?i){'|'.join(map(re.escape, NOTHING))}")
    # a pattern, for DuckDB's trim takes twenty times as long with characters of its own
    ends, spaced = literal(f"^[{BLANKS}]+|[{BLANKS}]+$"), f"regexp_replace(t, {literal(f'[{BLANKS}]+')}, ' ', 'g')"
    db.execute(f"create or replace temp macro trimmed(t) as nullif(regexp_replace(t::varchar, {ends}, '', 'g'), '')")
    db.execute(
        f"create or replace temp macro something(t) as case when not regexp_full_match(t, {words}) then t end;"
        "create or replace temp macro filled(t) as something(trimmed(t))"
    )
    db.execute(f"create or replace temp macro unmarked(t) as regexp_replace(t, {markup}, ' ', 'g')")
    db.execute(
        "create or replace temp macro plain(t) as case when contains(t, '&') then unmarked(unescape_entities(unmarked(t))) "
        "when contains(t, '<') then unmarked(t) else t end"
    )
    db.execute(f"create or replace temp macro spaced(t) as {spaced}")
    db.execute(
        "create or replace temp macro clean_text(t) as nullif(trim(spaced(plain(t::varchar))), '');"
        "create or replace temp macro filled_text(t) as something(clean_text(t))"
    )
