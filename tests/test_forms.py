"""How ids, texts, numbers, prices and times are written, and what a whole column of a file tells of it."""

import html
from datetime import UTC, date, datetime

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shop import write_csv

from ecom_pipeline import cleaning, forms, schema, sources
from ecom_pipeline.errors import SourceError
from ecom_pipeline.forms.texts import BLANKS, NOTHING, unescape

NOW = datetime(2026, 1, 1)
LIMITS = cleaning.Limits(near_seconds=5, actions_per_minute=30, actions_per_day=300, events_per_day=5000)
EVENT = {"occurred_at": "2024-05-01T10:00:00Z", "user_id": "u", "action": "click", "item_id": "a"}


@pytest.fixture(scope="module")
def macros():
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        forms.make_macros(db, "items")
        yield lambda macro, text: db.execute(f"select {macro}(?)", [text]).fetchall()[0][0]


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def land(db, folder, table, rows):
    for name, others in (
        ("items", [{"item_id": "a", "title": "A"}]),
        ("judgments", [{"query": "q", "item_id": "a", "relevance": 1}]),
    ):
        if name != table:
            write_csv(folder / f"{name}.csv", others)
    write_csv(folder / f"{table}.csv", rows)
    return sources.find(str(folder)).land(db, table, hash_key=b"key")


def instants(db, folder, times):
    land(db, folder, "events", [{**EVENT, "occurred_at": time, "event_id": n} for n, time in enumerate(times)])
    return [str(found) for (found,) in db.sql("select instant from raw_events order by row_number").fetchall()]


def prices(db, folder, written):
    landed = land(
        db, folder, "items", [{"item_id": n, "title": "A", "price": price} for n, price in enumerate(written)]
    )
    cleaning.clean_items(db)
    return [price for (price,) in db.sql("select price from items order by item_id::int").fetchall()], landed.unread


@pytest.mark.parametrize("blank", list(BLANKS))
def test_blanks_of_any_kind_at_the_ends_of_an_id_are_none_of_it(macros, blank):
    assert macros("trimmed", f"{blank} a b{blank}") == "a b"
    assert macros("trimmed", blank) is None


def test_ids_of_one_person_are_one_whatever_blanks_are_beside_them(db, tmp_path):
    ids = ["u", " u", "u\t", "\u00a0u", "u\u200b"]
    land(db, tmp_path, "events", [{**EVENT, "user_id": one, "session_id": one, "item_id": one} for one in ids])
    assert db.sql(
        "select count(distinct user_id), count(distinct session_id), count(distinct item_id) from raw_events"
    ).fetchall() == [(1, 1, 1)]


@pytest.mark.parametrize("word", [*NOTHING, "NULL", "N/A", "None", "NaN", " - ", ""])
def test_a_word_for_nothing_is_no_value(macros, word):
    assert macros("filled", word) is None
    assert macros("filled_text", word) is None
    assert macros("filled", f"{word}x") is not None


def test_words_for_nothing_cost_no_row_and_are_no_query(db, tmp_path):
    land(
        db,
        tmp_path,
        "items",
        [{"item_id": "a", "title": "A", "price": "NULL", "currency": "N/A", "brand": "\\N", "category": "-"}],
    )
    assert cleaning.clean_items(db) == {"kept": 1}
    assert db.sql("select price, currency, brand, category from items").fetchall() == [(None,) * 4]
    odd = {
        "query": "NULL",
        "position": "nan",
        "propensity": "None",
        "rating": "-",
        "quantity": "n/a",
        "session_id": "NULL",
    }
    land(db, tmp_path, "events", [EVENT | odd])
    cleaning.settle_days(db, NOW)
    assert cleaning.clean_events(db, date(2024, 5, 1), date(2024, 5, 1), LIMITS) == {"kept": 1}
    found = db.sql("select query, position, propensity, rating, quantity, session_id from cleaned_interactions")
    assert found.fetchall() == [(None,) * 6]


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("Hoodie &#8211; blue", "Hoodie – blue"),
        ("caf&eacute; &amp;amp; bar", "café & bar"),
        ("3 < 5 m, black > white", "3 < 5 m, black > white"),
        ("size <m and l> x", "size <m and l> x"),
        ("a<br/>b<p class='x'>c</p><!-- d -->", "a b c"),
        ("&lt;b&gt;Bold&lt;/b&gt; mug", "Bold mug"),
        ("<script>x < y</script>Mug", "Mug"),
        (" a \u00a0\n b ", "a b"),
        ("<b> </b> &nbsp;", None),
    ],
)
def test_entities_are_decoded_and_only_markup_goes(macros, written, clean):
    assert macros("clean_text", written) == clean


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.sampled_from("&#;abeltgmp382 <>x"), max_size=20))
def test_entities_are_those_of_the_standard_library(text):
    assert html.unescape(unescape(text)) in (
        unescape(text),
        html.unescape(html.unescape(html.unescape(html.unescape(text)))),
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["19.90", "5", "1.099"], [19.9, 5, 1.099]),
        (["19,90", "5", "1.099"], [19.9, 5, 1099]),
        (["€ 1.099,00", "€ 5"], [1099, 5]),
        (["₹1,099", "₹899"], [1099, 899]),
        (["₹1,09,900", "₹899.50"], [109900, 899.5]),
        (["$1,099.00", "$12"], [1099, 12]),
        (["1,099", "12.50"], [1099, 12.5]),
        (["CHF 1'099.50", "19.90 EUR", "19,-"], [1099.5, 19.9, 19]),
        (["1 099,00 zł", "19,90 zł"], [1099, 19.9]),
        (["1,099", "5"], [None, 5]),
        (["€ 1.699", "€ 2"], [None, 2]),
        (["12.50", "12,50", "1,099"], [12.5, 12.5, None]),
        (["-5", "ten", "10-20", "inf", "7"], [None, None, None, None, 7]),
    ],
)
def test_a_price_is_read_as_its_column_is_written(db, tmp_path, written, read):
    assert prices(db, tmp_path, written)[0] == read


def test_what_cannot_be_read_costs_no_row_and_is_counted_with_the_first(db, tmp_path):
    found, unread = prices(db, tmp_path, ["5.50", "ten", "-1", "NULL", ""])
    assert found == [5.5, None, None, None, None]
    assert unread == {"unread_price": "2; first: 'ten' in items.csv"}


@settings(deadline=None, max_examples=50)
@given(cents=st.integers(1, 10**9), style=st.sampled_from([",.", ".,", " ,", "'."]))
def test_a_price_with_cents_is_read_whatever_its_marks(macros_of_prices, cents, style):
    group, point = style
    text = f"{cents // 100:,}".replace(",", group) + f"{point}{cents % 100:02d}"
    assert macros_of_prices(text) == pytest.approx(cents / 100)


@pytest.fixture(scope="module")
def macros_of_prices():
    with duckdb.connect() as db:
        forms.make_macros(db, "items")
        forms.prices.make_macros(db, {"f": "both"})
        yield lambda text: db.execute("select read_price(?, 'f')", [text]).fetchall()[0][0]


@pytest.mark.parametrize(
    "written",
    [
        "2024-05-01 10:33:53 -0500",
        "2024-05-01 15:33:53 Z",
        "2024-05-01 17:33:53 +02:00",
        "2024-05-01T15:33:53,000Z",
        "20240501T153353Z",
        "1714577633",
        "1714577633000",
        "1714577633000000",
        "1714577633.0",
        "31/5/2024 10:33:53",
        "Wed, 01 May 2024 15:33:53 GMT",
        "01/May/2024:10:33:53 -0500",
        "May 01, 2024 03:33:53 PM",
    ],
)
def test_a_form_of_times_is_found(db, tmp_path, written):
    expected = "2024-05-31 10:33:53" if written.startswith("31/") else "2024-05-01 15:33:53"
    assert instants(db, tmp_path, [written, written]) == [expected] * 2


def test_one_day_beyond_twelve_tells_the_form_of_all(db, tmp_path):
    assert instants(db, tmp_path, ["12/1/2010 8:26", "12/13/2010 8:26"]) == [
        "2010-12-01 08:26:00",
        "2010-12-13 08:26:00",
    ]


def test_a_day_that_could_be_a_month_is_refused_with_both_readings(db, tmp_path):
    both = r"2 times of 'events.csv'.*'?12/1/2010 8:26, 2010-01-12 08:26:00 or 2010-12-01 08:26:00.*Write times as"
    with pytest.raises(SourceError, match=both):
        instants(db, tmp_path, ["12/1/2010 8:26", "12/2/2010 8:27"])
    with pytest.raises(SourceError, match=r"1 can be day/month alone and 1 month/day alone"):
        instants(db, tmp_path, ["12/1/2010 8:26", "13/2/2010 8:27", "2/13/2010 8:27"])


def test_what_is_not_of_the_form_of_its_file_is_rejected(db, tmp_path):
    times = ["2024-05-01T10:00:00Z", "2024-05-01 11:00:00 Z", "yesterday", "1714577633"]
    assert instants(db, tmp_path, times) == ["2024-05-01 10:00:00", "2024-05-01 11:00:00", "None", "None"]
    assert cleaning.settle_days(db, NOW) == {"time_unreadable": 2}
    assert db.sql("select day from raw_events order by row_number").fetchall()[1] == (date(2024, 5, 1),)


@settings(deadline=None, max_examples=30)
@given(at=st.datetimes(datetime(1990, 1, 2), datetime(2099, 1, 1)), unit=st.sampled_from([1, 10**3, 10**6, 10**9]))
@example(at=datetime(2045, 1, 1, 5, 1, 22), unit=10**6)
def test_time_since_1970_is_read_in_its_unit(epochs, at, unit):
    whole = at.replace(microsecond=0)
    assert epochs(str(int(whole.replace(tzinfo=UTC).timestamp()) * unit)) == whole


@pytest.fixture(scope="module")
def epochs():
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        forms.make_macros(db, "events")

        def read(text):
            found = forms.columns.times.form(db, "f", f"select '{text}' as t")
            return db.execute(f"select {found.instant} from (select '{text}' as t)").fetchall()[0][0]

        yield read


def test_malformed_lines_are_rejected_under_their_own_rule(db, tmp_path):
    land(db, tmp_path, "events", [EVENT])
    with (tmp_path / "events.csv").open("a") as file:
        file.write("2024-05-01,secret-person,click,a,surplus\n")
    (tmp_path / "items.csv").write_text('item_id,title\na,A\nb,"B" b\n')
    (tmp_path / "judgments.csv").write_text("query,item_id,relevance\nq,a\n")
    for table in ("items", "events", "judgments"):
        sources.find(str(tmp_path)).land(db, table, hash_key=b"key")
    counts = [cleaning.clean_items(db), cleaning.settle_days(db, NOW), cleaning.clean_judgments(db)]
    assert counts == [{"kept": 1, "line_malformed": 1}, {"line_malformed": 1}, {"kept": 0, "line_malformed": 1}]
    assert schema.most_rejected(db, "items") == (
        "1 rows were rejected, most often, 1 times, under line_malformed; first: items.csv row 2: a line must have as many "
        "fields as the first, and its quotes closed; a document must be an object; it is line 3 has a quote inside a field or text beside one"
    )
    assert schema.most_rejected(db, "ranker") == "0 rows were rejected"
    found = db.sql("select source, row_number, reason, raw from rejected_rows where source = 'events'").fetchall()
    assert found[0][:2] == ("events", 2)
    assert "line 3 has 5 fields" in found[0][2]
    assert "secret-person" not in str(found)
