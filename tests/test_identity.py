"""Hashes of identity tell apart what differs, and only that; one person, query or visit has one, however it is written."""

import ast
import re
import unicodedata
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline import identity

ROOT = Path(__file__).parents[1]
CONNECTION = duckdb.connect()
fields = st.lists(st.none() | st.text('a|,"\\ ', max_size=3), min_size=1, max_size=3)


def hashed(values: list[str | None]) -> str:
    marks = [f"${place}" for place in range(1, len(values) + 1)]
    return CONNECTION.execute(f"select {identity.fingerprint(*marks)}", values).fetchone()[0]


@given(fields, fields)
def test_a_fingerprint_is_the_same_for_equal_fields_and_for_no_others(one, other):
    assert (hashed(one) == hashed(other)) == (one == other)


@given(st.text(min_size=1, max_size=5))
def test_a_query_has_one_group_whether_accents_are_made_of_one_sign_or_of_two(query):
    written = [unicodedata.normalize(form, query) for form in ("NFC", "NFD")]
    assert len({CONNECTION.execute(f"select {identity.group_id('$1')}", [one]).fetchone()[0] for one in written}) == 1


def test_two_spellings_are_one_group_and_two_queries_are_two():
    (groups,) = CONNECTION.execute(
        f"select list({identity.group_id('q')}) from (values ('Red Mug'), ('red mug'), ('caf\u00e9'), ('CAFE\u0301'), ('red')) as t(q)"
    ).fetchone()
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3


@pytest.mark.parametrize(
    ("user", "session", "is_"), [("77", "5", "77"), (None, "77", "session:77"), ("77", None, "77"), (None, None, None)]
)
def test_a_user_and_a_session_of_one_number_are_two_actors(user, session, is_):
    query = f"select {identity.actor('e')} from (select $1::varchar as user_id, $2::varchar as session_id) as e"
    assert CONNECTION.execute(query, [user, session]).fetchone() == (is_,)
    assert is_ is None or is_ in identity.actors_of("77")


def test_no_other_module_makes_such_a_hash_or_says_who_acted():
    spelt = re.compile(r"md5\(\s*concat_ws|coalesce\([\w.]*user_id, [\w.]*session_id\)|'query:'")
    files = [
        f for layer in ("ecom_pipeline", "assets") for f in (ROOT / layer).rglob("*.py") if f.name != "identity.py"
    ]
    texts = {f: [n.value for n in ast.walk(ast.parse(f.read_text())) if isinstance(n, ast.Constant)] for f in files}
    found = {f.name for f, ones in texts.items() if any(spelt.search(one) for one in ones if isinstance(one, str))}
    assert found <= {"crowdflower.py"}  # makes an item_id of texts that are never null
