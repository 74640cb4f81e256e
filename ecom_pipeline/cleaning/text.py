"""Texts as they are read: without markup, entities and needless blanks."""

from duckdb import DuckDBPyConnection

_ENTITIES = {"&nbsp;": " ", "&#39;": "''", "&apos;": "''", "&quot;": '"', "&lt;": "<", "&gt;": ">", "&amp;": "&"}


def make_macro(db: DuckDBPyConnection) -> None:
    """Give a connection `clean_text(t)`: no markup, no entities, single spaces; null where nothing is left."""
    text = "regexp_replace(t, '<[^<>]*>', ' ', 'g')"
    for entity, character in _ENTITIES.items():
        text = f"replace({text}, '{entity}', '{character}')"
    text = f"case when contains(t, '<') or contains(t, '&') then {text} else t end"
    db.execute(
        f"create or replace temp macro clean_text(t) as nullif(trim(regexp_replace({text}, '\\s+', ' ', 'g')), '')"
    )
