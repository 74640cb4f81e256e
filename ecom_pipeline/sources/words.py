"""Words of a source put into ours: grades that have names, and actions that are called otherwise."""

from collections.abc import Mapping

from ecom_pipeline.quoting import literal


def recoded(expression: str, words: Mapping[str, object]) -> str:
    """An SQL expression: a text put into other words, blanks and capitals no matter; what is not known stays as it is.

    So a rule, and not an adapter, rejects a word that nobody foresaw, and names it.
    """
    cases = " ".join(f"when {literal(word)} then {literal(str(becomes))}" for word, becomes in words.items())
    return f"case lower(trim(({expression})::varchar)) {cases} else ({expression})::varchar end"
