"""Names of columns reach SQL through one place."""

import ast

import pytest
from test_architecture import ROOT

from ecom_pipeline.quoting import literal, name

FILES = [file for place in ("sources", "forms") for file in sorted((ROOT / "ecom_pipeline" / place).rglob("*.py"))]


def hand_made(tree):
    """Formatted texts that put a value between double quotes, or between single ones, themselves."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        for before, value, after in zip(node.values, node.values[1:], node.values[2:], strict=False):
            if (
                isinstance(value, ast.FormattedValue)
                and isinstance(before, ast.Constant)
                and isinstance(after, ast.Constant)
            ):
                ends = (str(before.value)[-1:], str(after.value)[:1])
                if ends == ('"', '"') or (ends == ("'", "'") and not _is_ours(value.value)):
                    yield ast.unparse(node)


def _is_ours(value):
    """Values that no source has a say in: constants of ours, moments and the marks between parts."""
    ours = {"FIRST_DAY", "now", "days.FIRST_DAY", "between", "a", "b", "table"}
    return ast.unparse(value) in ours


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_in_sources_quotes_by_hand(file):
    assert list(hand_made(ast.parse(file.read_text()))) == []


def test_a_name_quoted_by_hand_is_found():
    assert list(hand_made(ast.parse("f'select \"{column}\" from t'"))) != []
    assert list(hand_made(ast.parse("f\"where x = '{value}' and\""))) != []
    assert list(hand_made(ast.parse("f'select {name(column)} from t'"))) == []


def test_quotes_inside_are_doubled():
    assert (name('a"b'), literal("a'b")) == ('"a""b"', "'a''b'")
