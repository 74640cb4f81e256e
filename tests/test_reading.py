"""A record is a row, a row that says why it is none, or its file is refused; as Python's csv module counts them."""

import codecs
import contextlib
import csv
import gzip
import io
import random
import re

import duckdb
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from shop import write_csv

from ecom_pipeline import cleaning, sources
from ecom_pipeline.errors import InputError, SourceError
from ecom_pipeline.sources.reading import delimited, dialect, letters
from ecom_pipeline.sources.reading.records import Grammar, QuoteError, split

NAMES = ("item_id", "title", "brand")
FOUR_PARTS = r"(?s)^\w+: .*'items.*\. .* must .*[.:] .*\.$"


def rows(file):
    with duckdb.connect() as db:
        return db.execute(f"from ({delimited.query(db, file)}) order by row_number").fetchall()


def sound(file):
    return [row[:-2] for row in rows(file) if row[-1] is None]


def faults(file):
    return {row[-2]: row[-1] for row in rows(file) if row[-1] is not None}


def written(path, table, **how):
    """A file of a table with a header; returns its path."""
    text = io.StringIO()
    csv.writer(text, **{"lineterminator": "\n", **how}).writerows([NAMES, *table])
    path.write_bytes(text.getvalue().encode())
    return path


cell = st.text(st.sampled_from('ab 1,;|\t"\n\r\\é€'), max_size=8)
tables = st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), cell, cell), max_size=12)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables,
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    zipped=st.booleans(),
)
def test_a_sound_file_is_read_as_pythons_csv_reads_it(tmp_path, table, delimiter, end, quoting, encoding, zipped):
    text = io.StringIO()
    # the writer leaves a lone carriage return unquoted
    quoting = csv.QUOTE_ALL if "\r" in str(table).replace("\\r", "\r") else quoting
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([NAMES, *table])
    file = tmp_path / ("items.csv.gz" if zipped else "items.csv")
    content = text.getvalue().encode(encoding)
    file.write_bytes(gzip.compress(content) if zipped else content)
    if '\\"' in text.getvalue():
        with contextlib.suppress(SourceError):  # both dialects may fit
            assert len(sound(file)) + len(faults(file)) == len(table)
    else:
        assert sound(file) == [tuple(field or None for field in row) for row in table]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_quotes_behind_backslashes_are_read_as_pythons_csv_reads_them(tmp_path, delimiter):
    table = [("a", '3" screen', "ACME"), ("b", f'he said "{delimiter}"', "back\\slash"), ("c", "x", "two\nlines")]
    how = {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL, "delimiter": delimiter}
    assert sound(written(tmp_path / "items.csv", table, **how)) == table


def test_a_mixture_of_both_is_no_dialect(tmp_path):
    (tmp_path / "items.csv").write_text('item_id,title,brand\na,"3\\" wide,""x"", flat",b\nc,C,x\n')
    assert sound(tmp_path / "items.csv") == [("c", "C", "x")]
    assert list(faults(tmp_path / "items.csv")) == [1]


def test_quotes_that_fit_two_dialects_are_refused(tmp_path):
    # doubled: six fields, of which two are a backslash; behind backslashes: three, with commas and quotes inside
    (tmp_path / "items.csv").write_text('item_id,title\n"","\n","\\","\n","\\",\n')
    with pytest.raises(SourceError, match=r"quotes of 'items.csv' can be read in 2 ways.*must be doubled"):
        dialect.find(tmp_path / "items.csv")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("b,B,x,surplus", "4 fields, where the first has 3"),
        ("b,B", "2 fields, where the first has 3"),
        ('b,"Big" mug,x', "a quote"),
        ('b,27" screen,x', "a quote"),
        ('b,"x",y"', "a quote"),
        ('b, "x",y', "a quote"),
    ],
)
def test_a_broken_line_is_a_row_that_names_its_line_and_nothing_else(tmp_path, line, fault):
    (tmp_path / "items.csv").write_text(f'item_id,title,brand\na,"A\n1",x\n\n{line}\nc,C,x\n')
    assert sound(tmp_path / "items.csv") == [("a", "A\n1", "x"), ("c", "C", "x")]
    (place, why) = faults(tmp_path / "items.csv").popitem()
    assert place == 2
    assert why.startswith(f"line 5 has {fault}")
    assert "Big" not in why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('a,A,x\nb,"B,x\nc,C,x\n', r"opens in line 3 and is never closed"),
        ('a,A,x\nb,"B,x\nc,C,x\nd,"D",x\n', r"opens in line 3 and meets another in line 5"),
    ],
)
def test_a_quote_that_swallows_lines_refuses_the_file(tmp_path, text, why):
    (tmp_path / "items.csv").write_text("item_id,title,brand\n" + text)
    with pytest.raises(SourceError, match=rf"1 quote of 'items.csv' {why}.*must close.*mend that line"):
        rows(tmp_path / "items.csv")


def test_two_quotes_that_close_each_other_do_not_swallow_people(tmp_path):
    head = "occurred_at,user_id,action,item_id\n"
    body = '2024-05-01,u1,click,"a\n2024-05-01,u2,click,b\n2024-05-01,u3,click,c"\n'
    (tmp_path / "events.csv").write_text(head + body)
    with pytest.raises(SourceError, match=r"opens in line 2 and holds 3 lines that could be rows"):
        rows(tmp_path / "events.csv")


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.sampled_from('ab,"\n\r'), max_size=40), size=st.integers(1, 7))
@example(text='a,"b\r\nc"\r\n"d', size=1)
def test_blocks_of_any_size_make_the_same_records(text, size):
    raw, grammar = text.encode(), Grammar(b",", 2)

    def cut(parts):
        try:
            found = list(split(parts, grammar))
        except QuoteError as error:
            return str(error)
        return b"".join(one.text for one in found).strip(b"\r\n"), [int(n) for one in found for n in one.lines]

    assert cut([raw]) == cut([raw[at : at + size] for at in range(0, len(raw), size)])


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.sampled_from('ab,"\n'), max_size=40))
def test_every_line_is_a_record_a_part_of_one_or_put_aside(text):
    try:
        found = list(split([text.encode()], Grammar(b",", 2)))
    except QuoteError:
        return
    joined = b"".join(one.text for one in found).decode()
    n_lines = sum(bool(line) for line in csv.reader(io.StringIO(joined, newline=""), strict=True))
    assert n_lines == sum(len(one.lines) for one in found)
    if '"' not in text:
        assert n_lines == sum(bool(line) for line in text.split("\n"))


def test_a_bad_byte_late_in_a_long_file_names_its_line(tmp_path):
    good = "".join(f"i{n},Tïtle {n},x\n" for n in range(50_000)).encode()
    (tmp_path / "items.csv").write_bytes(b"item_id,title,brand\n" + good + b"z,caf\xe9,x\n")
    with pytest.raises(
        SourceError, match=r"'items.csv' has a byte in line 50002 that is no UTF-8: 0xe9.*write it as UTF-8"
    ):
        rows(tmp_path / "items.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_that_a_mark_or_zeros_tell_are_read(tmp_path, encoding):
    (tmp_path / "items.csv").write_bytes("item_id,title,brand\na,Müsli €,x\n".encode(encoding))
    assert sound(tmp_path / "items.csv") == [("a", "Müsli €", "x")]


def test_a_letter_on_the_border_of_two_blocks_is_whole(tmp_path):
    (tmp_path / "items.csv").write_bytes(codecs.BOM_UTF8 + "aé€\n".encode())
    assert [b"".join(letters.blocks(tmp_path / "items.csv", "utf-8", size)) for size in range(1, 9)] == [
        "aé€\n".encode()
    ] * 8


@pytest.mark.parametrize(
    ("header", "delimiter"), [("item_id;title;size, cm", ";"), ("item_id\ttitle", "\t"), ("a|b|c", "|")]
)
def test_the_delimiter_is_found_in_the_first_line(tmp_path, header, delimiter):
    (tmp_path / "items.csv").write_text(header + "\n")
    assert dialect.find(tmp_path / "items.csv").delimiter == delimiter


def test_a_delimiter_in_doubt_is_refused(tmp_path):
    (tmp_path / "items.csv").write_text("a;b,c\n")
    with pytest.raises(SourceError, match=r"2 ways to part its first line"):
        dialect.find(tmp_path / "items.csv")


def test_names_equal_but_for_case_are_refused_and_nameless_ones_have_their_place(tmp_path):
    (tmp_path / "items.csv").write_text("Title,item_id,title\n")
    with pytest.raises(SourceError, match=r"3 columns, of which 2 differ; first: 'title'"):
        dialect.find(tmp_path / "items.csv")
    (tmp_path / "other.csv").write_text(",item_id,title\n0,a,A\n")
    assert dialect.find(tmp_path / "other.csv").names == ("column_1", "item_id", "title")


def shop(folder, **files):
    (folder / "items.csv").write_text("item_id,title\na,A\n")
    (folder / "judgments.csv").write_text("query,item_id,relevance\nq,a,1\n")
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


def land(db, folder, table="items"):
    return sources.find(str(folder)).land(db, table, hash_key=b"key")


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


HOSTILE = "x': (select content from read_text('/etc/hostname')), 'y"


@pytest.mark.parametrize(
    "name", [HOSTILE, "Men's size", 'say "hi"', "a;drop table raw_items", "row_number", "malformed", "--"]
)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_name_of_a_column_is_a_name_whatever_is_in_it(db, tmp_path, name, ending):
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    shop(tmp_path)
    (tmp_path / "items.csv").unlink()
    table = pa.table({"item_id": ["a"], "title": ["A"], name: ["v"]})
    writers = {"parquet": pyarrow.parquet.write_table, "csv": pyarrow.csv.write_csv}
    writers[ending](table, str(tmp_path / f"items.{ending}"))
    assert land(db, tmp_path).n_rows == 1
    ((attributes,),) = db.sql("select json_keys(attributes) from raw_items").fetchall()
    assert attributes == [f"own_{name}" if name in ("row_number", "malformed") else name]


def test_lists_and_structures_become_text(db, tmp_path):
    shop(tmp_path)
    (tmp_path / "items.csv").unlink()
    db.execute(
        f"""copy (select 'a' as item_id, ['A', 'b'] as title, [['x', 'y'], ['z']] as category, []::varchar[] as brand,
            {{'k': ['p'], 'l': null}} as description, map {{'m': 1}} as price, ['kept'] as more)
        to '{tmp_path}/items.parquet'"""
    )
    land(db, tmp_path)
    found = db.sql("select title, category, brand, description, price, attributes from raw_items").fetchall()
    assert found == [("A b", "x > y > z", None, "p", "1", '{"more":["kept"]}')]


def test_hidden_files_are_none_and_folders_below_are_read(db, tmp_path):
    shop(tmp_path)
    for name in ("events/month=2010-12/part-0.csv", "events/month=2011-01/part-0.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        write_csv(tmp_path / name, [{"occurred_at": "2010-12-01", "user_id": "u", "action": "click", "item_id": "a"}])
    for name in ("._items.csv", "events/._part.csv", "events/.ipynb_checkpoints/part.csv", "events/_tmp/x.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert land(db, tmp_path).n_rows == 1
    assert land(db, tmp_path, "events").n_rows == 2
    assert db.sql("select attributes from raw_events order by all").fetchall() == [
        ('{"month":"2010-12"}',),
        ('{"month":"2011-01"}',),
    ]


def test_a_sources_own_attributes_stay_beside_others(db, tmp_path):
    shop(tmp_path, items_csv=b'item_id,title,attributes,shelf\na,A,"{""x"": 1}",7\nb,B,free,8\n')
    land(db, tmp_path)
    assert db.sql("select attributes from raw_items order by row_number").fetchall() == [
        ('{"attributes":{"x":1},"shelf":"7"}',),
        ('{"attributes":"free","shelf":"8"}',),
    ]


def _has_four_parts(error):
    assert re.match(FOUR_PARTS, str(error)), str(error)


def damaged(content, draw):
    """A file with some bytes changed, lost, doubled or moved."""
    found = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(found) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            found[at:at] = draw.choice(
                [b'"', b",", b"\n", b"\r", b"\0", b"\xff", b";", b"\\", bytes([draw.randrange(256)])]
            )
        elif kind == 1:
            del found[at : at + draw.randint(1, 9)]
        elif kind == 2:
            found[at:at] = found[at : at + draw.randint(1, 40)]
        else:
            found = found[:at]
            found += b"x" * (not found)
    return bytes(found)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables, seed=st.integers(0, 2**32), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_rows_in_are_kept_or_rejected_or_the_file_is_refused(tmp_path, table, seed, quoting):
    file = written(shop(tmp_path) / "items.csv", table, quoting=quoting)
    file.write_bytes(damaged(file.read_bytes(), random.Random(seed)))
    assume(file.read_bytes())
    with duckdb.connect() as db:
        try:
            n_rows = land(db, tmp_path).n_rows
        except InputError as error:
            _has_four_parts(error)
            return
        counts = cleaning.clean_items(db)
        assert sum(counts.values()) == n_rows
        n_broken = counts.get("line_malformed", 0)
    content = file.read_bytes().decode(letters.encoding(file)).removeprefix("\ufeff")
    found = dialect.find(file)
    if not n_broken and found.escape == '"':  # Python's reader forgives what is broken, so only sound files agree
        counted = csv.reader(io.StringIO(content, newline=""), delimiter=found.delimiter)
        assert n_rows == sum(bool(row) for row in counted) - 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_damaged_parquet_is_read_or_refused(tmp_path, seed):
    shop(tmp_path)
    with duckdb.connect() as db:
        (tmp_path / "items.csv").unlink(missing_ok=True)
        db.execute(f"copy (select 'a' || range as item_id, 'A' as title from range(50)) to '{tmp_path}/items.parquet'")
        file = tmp_path / "items.parquet"
        file.write_bytes(damaged(file.read_bytes(), random.Random(seed)))
        try:
            land(db, tmp_path)
        except InputError as error:
            _has_four_parts(error)
