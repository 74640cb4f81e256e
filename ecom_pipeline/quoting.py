"""The one place that puts texts and names into SQL, whatever is in them; on the lowest floor."""

from collections.abc import Mapping


def literal(text: str) -> str:
    """A text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def name(column: str) -> str:
    """A column's name as SQL takes it, whatever is in it: the one place that quotes names."""
    return '"' + column.replace('"', '""') + '"'


def mapping(pairs: Mapping[str, str]) -> str:
    """Texts by texts as an SQL map."""
    return f"map {{{', '.join(f'{literal(key)}: {literal(value)}' for key, value in pairs.items())}}}"
