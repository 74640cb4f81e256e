"""A line of an order is of the item that is certain, or of none that a catalogue has."""

import duckdb
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecom_pipeline.sources.order_lines import NO_CATALOGUE, matched
from ecom_pipeline.sources.words import recoded

CODES = st.sampled_from([None, "sku:1", "sku:2", "id:1"])
TITLES = ["Mug", "Mug - Red", "Lamp", "Lam"]
CATALOGUE = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), CODES, st.sampled_from([None, *TITLES])), max_size=5)
LINES = st.lists(
    st.tuples(CODES, CODES, st.sampled_from([*TITLES, "Mug - Red - L", "Lamp-shade"])), min_size=1, max_size=4
)
TEXT = pa.string()


def only(items):
    return min(items) if len(set(items)) == 1 else None


def by_hand(catalogue, code, other, name):
    """As the docstring says it, one line at a time."""
    for wanted in (code, other):
        if wanted and (found := only([item for item, one, _ in catalogue if one == wanted])):
            return found
    titles = {title for *_, title in catalogue if title and (name == title or name.startswith(f"{title} - "))}
    sure = {title: only([item for item, _, one in catalogue if one == title]) for title in titles}
    named = [title for title in titles if sure[title]]
    return sure[max(named, key=len)] if named else name


@example([("a", None, "Mug"), ("b", None, "Mug - Red")], [(None, None, "Mug - Red - L")])
@settings(max_examples=60)
@given(CATALOGUE, LINES)
def test_lines_are_matched_as_by_hand(catalogue, lines):
    def table(rows, *names):
        return pa.table([pa.array([row[n] for row in rows], TEXT) for n in range(len(names))], names=names)

    with duckdb.connect() as db:
        db.register("shown", table(catalogue, "item_id", "code", "title"))
        db.register(
            "bought", table([(*line, str(n)) for n, line in enumerate(lines)], "code", "other_code", "name", "n")
        )
        read = db.execute(f"select item_id from ({matched('from bought', 'from shown')}) order by n").fetchall()
        alone = db.execute(f"select item_id from ({matched('from bought', NO_CATALOGUE)}) order by n").fetchall()
    assert [item for (item,) in read] == [by_hand(catalogue, *line) for line in lines]
    assert [item for (item,) in alone] == [name for *_, name in lines]


def test_words_are_put_into_others_and_unknown_ones_stay():
    with duckdb.connect() as db:
        rows = db.execute(
            f"select {recoded('w', {'exact': 2, 'bob' + chr(39) + 's': 1})} from (select unnest(?) as w)",
            [[" Exact", "BOB'S", " odd ", None]],
        )
        assert rows.fetchall() == [("2",), ("1",), (" odd ",), (None,)]
