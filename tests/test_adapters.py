"""Each adapter reads a small folder in the layout that its format has, and leaves nothing out."""

import csv
import gzip
import json
from datetime import date, datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline import sources
from ecom_pipeline.errors import SourceError
from ecom_pipeline.sources.source import COLUMNS


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def landed(db, folder, adapter):
    """Lands a folder, checks which adapter took it, and returns the rows of a table as dictionaries."""
    found = sources.find(str(folder))
    assert found.adapter.name == adapter
    for table in COLUMNS:
        found.land(db, table, hash_key=b"key")

    def rows(table, *columns):
        query = f"select {', '.join(columns)} from raw_{table} order by file, row_number"
        return db.execute(query).fetchall()

    return rows


def ubi_event(number, query_id="q1", **more):
    return {
        "action_name": "click",
        "query_id": query_id,
        "client_id": "c",
        "timestamp": f"2024-05-01T10:00:0{number}Z",
        "event_attributes": {"object": {"object_id": f"i{number}"}, "position": {"ordinal": number}},
    } | more


def write_lines(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def test_ubi_lines_that_are_no_documents_are_rows_and_queries_are_not(db, tmp_path):
    query = {"query_id": "q1", "user_query": "mug", "client_id": "c", "timestamp": "2024-05-01T10:00:00Z"}
    mapping = {"ubi_events": {"mappings": {}}}
    write_lines(tmp_path / "ubi.ndjson", [query, "oh no", ubi_event(0), mapping, ubi_event(1)])
    rows = landed(db, tmp_path, "ubi")
    assert rows("events", "row_number", "item_id", "query", "position", "malformed") == [
        (2, None, None, None, "the line is no JSON"),
        (3, "i0", "mug", "1", None),
        (4, None, None, None, "it is neither an event with action_name nor a query with query_id"),
        (5, "i1", "mug", "2", None),
    ]
    assert rows("items", "item_id", "title") == [("i0", "i0"), ("i1", "i1")]


def test_ubi_ranks_that_cannot_be_read_are_left_for_the_rules_and_empty_ones_are_none(db, tmp_path):
    ranks = [1, "", None, "third", "2"]
    events = [
        ubi_event(n, event_attributes={"object": {"object_id": "i"}, "position": {"ordinal": r}})
        for n, r in enumerate(ranks)
    ]
    write_lines(tmp_path / "ubi.jsonl", events)
    assert [rank for (rank,) in landed(db, tmp_path, "ubi")("events", "position")] == ["1", None, None, "third", "2"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("ubi_queries.ndjson", "ubi_events.ndjson"), "mug"),
        (("ubi_queries-2024-05-01.ndjson", "ubi_events-2024-05-01.ndjson"), "mug"),
        (("ubi-2024-05-01.ndjson", "ubi-2024-05-02.ndjson"), "mug"),
        (("ubi_queries.ndjson", "ubi_events-2024-05-02.ndjson"), "mug"),
        (("ubi-2024-05-02.ndjson", "ubi-2024-05-01.ndjson"), None),  # a click before its query is none of it
    ],
)
def test_ubi_queries_are_found_in_the_files_that_may_hold_them(db, tmp_path, files, words):
    write_lines(tmp_path / files[0], [{"query_id": "q1", "user_query": "mug"}])
    write_lines(tmp_path / files[1], [ubi_event(1)])
    assert landed(db, tmp_path, "ubi")("events", "query") == [(words,)]


def test_ubi_judgments_are_read_whole(db, tmp_path):
    ratings = [{"docId": f"i{n}", "rating": f"{n}.000"} for n in range(3)]
    judged = {
        "name": "n",
        "judgmentRatings": [{"query": "mug", "ratings": ratings}, {"query": "cup", "ratings": ratings[:1]}],
    }
    (tmp_path / "ubi_judgments.json").write_text(json.dumps(judged, indent=1))
    write_lines(tmp_path / "ubi.ndjson", [ubi_event(1)])
    assert landed(db, tmp_path, "ubi")("judgments", "query", "item_id", "relevance") == [
        ("mug", "i0", "0.000"),
        ("mug", "i1", "1.000"),
        ("mug", "i2", "2.000"),
        ("cup", "i0", "0.000"),
    ]


def write_table(path, *rows, mark=","):
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=mark, lineterminator="\n").writerows(rows)


ESCI_LABELS = ("E", "S", "C", "I", "?")


def test_amazon_esci(db, tmp_path):
    products = [
        {
            "product_id": "B0",
            "product_title": title,
            "product_description": None,
            "product_bullet_point": "strong",
            "product_brand": "Acme",
            "product_color": None,
            "product_locale": locale,
        }
        for title, locale in (("Mug", "us"), ("Taza", "es"))
    ]
    examples = [
        {
            "example_id": n,
            "query": "mug",
            "query_id": 7,
            "product_id": "B0",
            "product_locale": "us",
            "esci_label": label,
            "small_version": 1,
            "large_version": 1,
            "split": "test",
        }
        for n, label in enumerate(ESCI_LABELS)
    ]
    pq.write_table(pa.Table.from_pylist(products), tmp_path / "shopping_queries_dataset_products.parquet")
    pq.write_table(pa.Table.from_pylist(examples), tmp_path / "shopping_queries_dataset_examples.parquet")
    rows = landed(db, tmp_path, "amazon-esci")
    assert rows("items", "item_id", "title", "description", "brand") == [
        ("B0@us", "Mug", "strong", "Acme"),
        ("B0@es", "Taza", "strong", "Acme"),
    ]
    assert rows("judgments", "relevance") == [("3",), ("2",), ("1",), ("0",), ("?",)]
    assert rows("judgments", "query_id", "query", "item_id", "split", "attributes")[0] == (
        "7",
        "mug",
        "B0@us",
        "test",
        '{"locale":"us","small_version":1,"large_version":1}',
    )


WANDS_COLUMNS = [
    *("product_id", "product_name", "product_class", "category hierarchy", "product_description", "product_features"),
    *("rating_count", "average_rating", "review_count"),
]


def test_wands(db, tmp_path):
    write_table(
        tmp_path / "product.csv",
        WANDS_COLUMNS,
        [
            "0",
            'solid "wood" bed',
            "Beds",
            "Furniture / Bedroom / Beds",
            "a bed,\nwide",
            "color:red|x:1",
            "15.0",
            "4.5",
            "1",
        ],
        ["1", "lamp", "Lamps", "", "", "", "", "", ""],
        mark="\t",
    )
    write_table(tmp_path / "query.csv", ["query_id", "query", "query_class"], ["0", "wood bed", "Beds"], mark="\t")
    labels = (
        ("0", "0", "0", "Exact"),
        ("1", "0", "1", "Irrelevant"),
        ("2", "0", "7", "Partial"),
        ("3", "9", "0", "Exact"),
    )
    write_table(tmp_path / "label.csv", ["id", "query_id", "product_id", "label"], *labels, mark="\t")
    rows = landed(db, tmp_path, "wands")
    assert rows("items", "item_id", "title", "description", "category") == [
        ("0", 'solid "wood" bed', "a bed,\nwide", "Furniture > Bedroom > Beds"),
        ("1", "lamp", None, "Lamps"),
    ]
    assert rows("judgments", "row_number", "query_id", "query", "item_id", "relevance") == [
        (1, "0", "wood bed", "0", "2"),
        (2, "0", "wood bed", "1", "0"),
        (3, "0", "wood bed", "7", "1"),
        (4, "9", None, "0", "2"),  # a rule rejects it: nobody knows what was asked
    ]


def test_home_depot(db, tmp_path):
    write_table(
        tmp_path / "train.csv",
        ["id", "product_uid", "product_title", "search_term", "relevance"],
        ["2", "100001", "Simpson Strong-Tie 12-Gauge Angle", "angle bracket", "3"],
        ["3", "100001", "Simpson Strong-Tie 12-Gauge Angle", "l bracket", "2.67"],
        ["9", "100002", 'Behr 1-gal. "Tugboat" Stain', "deck over", "3"],
    )
    write_table(
        tmp_path / "product_descriptions.csv", ["product_uid", "product_description"], ["100001", "Not only, but"]
    )
    attributes = (
        ["product_uid", "name", "value"],
        ["100001", "Bullet01", "x"],
        ["100001", "MFG Brand Name", "Simpson"],
    )
    write_table(tmp_path / "attributes.csv", *attributes)
    rows = landed(db, tmp_path, "home-depot")
    assert rows("items", "item_id", "title", "description", "brand") == [
        ("100001", "Simpson Strong-Tie 12-Gauge Angle", "Not only, but", "Simpson"),
        ("100002", 'Behr 1-gal. "Tugboat" Stain', None, None),
    ]
    assert rows("judgments", "query", "item_id", "relevance")[1:] == [
        ("l bracket", "100001", "2.67"),
        ("deck over", "100002", "3"),
    ]


@pytest.mark.parametrize("zipped", [False, True])
def test_amazon_reviews(db, tmp_path, zipped):
    review = {
        "rating": 4.0,
        "title": "ok",
        "text": "fine",
        "images": [],
        "asin": "A-red",
        "parent_asin": "A",
        "user_id": "AEYO",
        "timestamp": 1588615855070,
        "helpful_vote": 2,
        "verified_purchase": True,
    }
    meta = {
        "main_category": "All Beauty",
        "title": "Brush",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["soft", "small"],
        "description": [],
        "price": 9.99,
        "images": [],
        "videos": [],
        "store": "Howard",
        "categories": ["Beauty", "Tools"],
        "details": {"Material": "x"},
        "parent_asin": "A",
        "bought_together": None,
    }
    bare = {**meta, "parent_asin": "B", "price": "None", "categories": [], "features": [], "store": None}
    for name, rows in (("All_Beauty", [review, "{broken"]), ("meta_All_Beauty", [meta, bare])):
        path = tmp_path / f"{name}.jsonl"
        write_lines(path, rows)
        if zipped:
            (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    rows = landed(db, tmp_path, "amazon-reviews")
    assert rows("items", "item_id", "title", "description", "brand", "category", "price", "currency") == [
        ("A", "Brush", "soft small", "Howard", "Beauty > Tools", "9.99", "USD"),
        ("B", "Brush", "", None, "All Beauty", None, None),
    ]
    assert rows("events", "instant", "action", "item_id", "rating", "malformed") == [
        (datetime(2020, 5, 4, 18, 10, 55, 70000), "review", "A", "4.0", None),
        (None, "review", None, None, "the line is no JSON"),
    ]


def test_amazon_beauty(db, tmp_path):
    pq.write_table(pa.table({"item_id": [1], "asin": ["B0"], "title": ["Polish"]}), tmp_path / "items.parquet")
    pq.write_table(pa.table({"user_id": [1, 1], "step": [1, 2], "item_id": [1, 9]}), tmp_path / "sequences.parquet")
    rows = landed(db, tmp_path, "amazon-beauty")
    assert rows("items", "item_id", "title") == [("1", "Polish")]
    assert rows("events", "day", "action", "item_id") == [
        (date(2000, 1, 1), "review", "1"),
        (date(2000, 1, 2), "review", "9"),
    ]


def test_recbole(db, tmp_path):
    (tmp_path / "ml.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n1\t2\t5\n"
    )
    (tmp_path / "ml.item").write_text(
        'item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n242\tThe "Kolya\t1996\tComedy\n'
    )
    rows = landed(db, tmp_path, "recbole")
    assert rows("items", "item_id", "title", "category", "attributes") == [
        ("242", 'The "Kolya', "Comedy", '{"release_year":"1996"}')
    ]
    assert rows("events", "instant", "action", "item_id", "rating", "malformed") == [
        (datetime(1997, 12, 4, 15, 55, 49), "review", "242", "3", None),
        (None, "click", None, None, "it has 3 fields and must have 4"),
    ]


def test_recbole_without_items_or_ratings(db, tmp_path):
    (tmp_path / "a.inter").write_text("session_id:token\titem_id:token\ttimestamp:float\ns\t9\t881250949\n")
    rows = landed(db, tmp_path, "recbole")
    assert rows("items", "item_id", "title") == [("9", "9")]
    assert rows("events", "action", "user_id is null", "session_id is null") == [("click", True, False)]


def test_recbole_without_times_is_refused(db, tmp_path):
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\nu\t9\n")
    with pytest.raises(SourceError, match=r"events: 1 column is missing in 'a.inter': 'timestamp'.*export the file"):
        landed(db, tmp_path, "recbole")


def test_trec_in_the_layout_of_beir(db, tmp_path):
    (tmp_path / "qrels").mkdir()
    corpus = [{"_id": "d1", "title": "", "text": "a mug", "metadata": {}}, {"_id": "d2", "title": "Cup", "text": "red"}]
    write_lines(tmp_path / "corpus.jsonl", corpus)
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "mug", "metadata": {}}])
    for split in ("dev", "test"):
        write_table(
            tmp_path / "qrels" / f"{split}.tsv", ["query-id", "corpus-id", "score"], ["q1", "d1", "1"], mark="\t"
        )
    rows = landed(db, tmp_path, "trec")
    assert rows("items", "item_id", "title", "description") == [("d1", "a mug", None), ("d2", "Cup", "red")]
    assert rows("judgments", "query_id", "query", "item_id", "relevance", "split") == [
        ("q1", "mug", "d1", "1", "validation"),
        ("q1", "mug", "d1", "1", "test"),
    ]


def test_trec_in_its_own_layout(db, tmp_path):
    (tmp_path / "collection.tsv").write_text('d1\ta "mug\nd2\tcup\n')
    (tmp_path / "topics.tsv").write_text("1\tmug\n")
    (tmp_path / "2023.qrels").write_text("1 0 d1 2\n1\t0  d2\t-1\n2 0 d1 1\n1 0 d1\n")
    rows = landed(db, tmp_path, "trec")
    assert rows("items", "item_id", "title") == [("d1", 'a "mug'), ("d2", "cup")]
    assert rows("judgments", "query", "item_id", "relevance", "split", "malformed") == [
        ("mug", "d1", "2", None, None),
        ("mug", "d2", "0", None, None),
        (None, "d1", "1", None, None),
        (None, None, None, None, "it has 3 fields and must have 4"),
    ]


NAMES = (
    *(
        "train.csv",
        "train.parquet",
        "product.csv",
        "query.csv",
        "label.csv",
        "a.inter",
        "a.item",
        "a.jsonl",
        "a.json.gz",
    ),
    *("ubi.ndjson", "judgments.json", "qrels", "a.qrels", "corpus.jsonl", "docs.tsv", "queries.tsv", "items.parquet"),
    *("sequences.parquet", "shopping_queries_dataset_examples.parquet", "shopping_queries_dataset_products.parquet"),
    *("events_20240501.parquet", "orders.csv", "products.csv.gz", "online_retail.csv", "meta_a.jsonl.gz"),
)
STARTS = (
    b"",
    b"{",
    b"[",
    b'{"_source": 3}',
    b'{"_source": {',
    b"[" * 9999,
    b"\x1f\x8b\x08\x00",
    b"PAR1",
    b'"',
    b"a" * 200_000,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(NAMES), st.tuples(st.sampled_from(STARTS), st.binary(max_size=30)), max_size=6))
def test_a_folder_is_recognised_or_refused_whatever_lies_in_it(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").mkdir()
    for name, parts in files.items():
        (folder / name).write_bytes(b"".join(parts))
    try:
        found = sources.find(str(folder))
    except SourceError as error:
        assert "that no adapter recognises" in str(error)  # noqa: PT017 - it may also be recognised
    else:
        assert found.adapter.name in sources.adapters()


def ga4_param(key, value):
    kinds = dict.fromkeys(("string_value", "int_value", "float_value", "double_value"))
    return {"key": key, "value": kinds | {"int_value" if isinstance(value, int) else "string_value": value}}


def ga4_item(number, **more):
    texts = ("item_id", "item_name", "item_brand", "item_category", "item_category2", "item_list_index")
    item = dict.fromkeys(texts) | {"price": 2.5, "quantity": None}
    return item | {"item_id": f"i{number}", "item_name": f"Item {number}", "item_category": "Home"} | more


def ga4_event(name, second, *items, user_id=None, transaction=None, **params):
    return {
        "event_date": "20240501",
        "event_timestamp": 1714557600000000 + second * 1_000_000,
        "event_name": name,
        "event_params": [ga4_param(key, value) for key, value in {"ga_session_id": 7, **params}.items()],
        "user_id": user_id,
        "user_pseudo_id": "device.1",
        "ecommerce": {"transaction_id": transaction or "(not set)"},
        "items": list(items),
    }


FOUND = "https://shop.test/search?q=mug"
GA4 = [
    ga4_event("session_start", 0),
    ga4_event(
        "view_item_list", 1, ga4_item(1, item_list_index="0"), ga4_item(2, item_list_index="1"), page_location=FOUND
    ),
    ga4_event("view_search_results", 2, page_location=FOUND, search_term="mug"),
    ga4_event("select_item", 3, ga4_item(2, item_list_index="1"), page_location=FOUND),
    ga4_event("view_item", 4, ga4_item(2, item_brand="Acme", item_category2="Mugs"), page_referrer=FOUND),
    ga4_event("add_to_cart", 5, ga4_item(2, quantity=2), page_location="https://shop.test/2", user_id="u"),
    ga4_event(
        "purchase", 6, ga4_item(2, quantity=2), ga4_item(3, item_id="(not set)"), transaction="T1", currency="EUR"
    ),
    ga4_event("purchase", 9, ga4_item(2, quantity=2), transaction="T1"),
    ga4_event("refund", 10, transaction="T1"),
]


def as_bigquery_json(rows, path):
    """BigQuery writes whole numbers as strings, and leaves out what is null."""

    def told(value):
        if isinstance(value, dict):
            return {key: told(inner) for key, inner in value.items() if inner is not None}
        if isinstance(value, list):
            return [told(inner) for inner in value]
        return str(value) if isinstance(value, int) else value

    path.with_suffix(".json").write_text("\n".join(json.dumps(told(row)) for row in rows))


def as_bigquery_parquet(rows, path):
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))


@pytest.mark.parametrize("write", [as_bigquery_json, as_bigquery_parquet])
def test_ga4(db, tmp_path, write):
    write(GA4, tmp_path / "events_20240501")
    write(GA4, tmp_path / "events_intraday_20240501")
    rows = landed(db, tmp_path, "ga4")
    assert rows("events", "epoch(instant) - 1714557600", "action", "item_id", "query", "position", "quantity") == [
        (1, "impression", "i1", "mug", "1", None),
        (1, "impression", "i2", "mug", "2", None),
        (3, "click", "i2", "mug", "2", None),
        (4, "click", "i2", "mug", None, None),
        (5, "cart", "i2", None, None, "2"),
        (6, "purchase", "i2", None, None, "2"),
        (6, "purchase", "Item 3", None, None, None),
        (9, "purchase", "i2", None, None, "2"),
        (10, "return", None, None, None, None),
    ]
    ids = rows("events", "event_id")
    assert ids[5] == ids[7] == ("purchase:T1:i2:1",)
    assert ids[6] == ("purchase:T1:Item 3:2",)
    users = [user for (user,) in rows("events", "user_id")]
    assert len({*users}) == 2
    assert users.count(users[4]) == 1
    assert {session for (session,) in rows("events", "session_id")} == {rows("events", "session_id")[0][0]}
    assert rows("items", "item_id", "title", "brand", "category", "price") == [
        ("Item 3", "Item 3", None, "Home", "2.5"),
        ("i1", "Item 1", None, "Home", "2.5"),
        ("i2", "Item 2", "Acme", "Home", "2.5"),
    ]


def test_ga4_a_page_with_several_searches_has_no_words(db, tmp_path):
    page = "https://shop.test/search"
    searches = [
        ga4_event("view_search_results", n, page_location=page, search_term=words)
        for n, words in enumerate(("mug", "cup"))
    ]
    as_bigquery_json([*searches, ga4_event("select_item", 3, ga4_item(1), page_location=page)], tmp_path / "events_1")
    assert landed(db, tmp_path, "ga4")("events", "query") == [(None,)]


def test_ga4_lines_that_are_no_events_are_rows_and_own_items_are_read(db, tmp_path):
    write_lines(tmp_path / "events_20240501.json", [GA4[1], "{broken", GA4[0]])
    write_table(tmp_path / "items.csv", ["item_id", "title"], ["i1", "Mug"])
    rows = landed(db, tmp_path, "ga4")
    assert rows("events", "row_number", "malformed") == [(1, None), (2, None), (3, "the line is no JSON, line 2")]
    assert rows("items", "item_id", "title") == [("i1", "Mug")]


SHOPIFY_ORDER = [
    *("Name", "Email", "Financial Status", "Paid at", "Fulfillment Status", "Currency", "Total", "Created at"),
    *("Lineitem quantity", "Lineitem name", "Lineitem price", "Lineitem sku", "Billing Name", "Cancelled at", "Vendor"),
]


def shopify_line(number, quantity, title, sku, *, email="", status="", at="", cancelled=""):
    order = [number, email, status, at, "fulfilled" if email else "", "EUR", "", at]
    return [*order, quantity, title, "9.90", sku, "Ann" if email else "", cancelled, "Acme"]


def shopify_orders(path):
    at = "2024-05-01 10:33:53 -0400"
    write_table(
        path,
        SHOPIFY_ORDER,
        shopify_line("#1002", 1, "Enamel Mug - Red", "MUG-R", email="Ann@shop.test", status="paid", at=at),
        shopify_line("#1002", 2, "Lamp - Big - Brass", ""),
        shopify_line("#1001", 1, "Enamel Mug - Blue", "MUG-B", email="b@shop.test", status="voided", at=at),
        shopify_line("#1000", 1, "Gift card", "", email="c@shop.test", status="paid", at=at, cancelled=at),
        shopify_line("#0999", 1, "Gone", "X", email="ann@shop.test", status="refunded", at=at),
    )


SHOPIFY_PRODUCTS = {
    "old": [
        "Handle",
        "Title",
        "Body (HTML)",
        "Vendor",
        "Product Category",
        "Type",
        "Variant SKU",
        "Variant Price",
        "Status",
    ],
    "new": ["URL handle", "Title", "Description", "Vendor", "Product category", "Type", "SKU", "Price", "Status"],
}


@pytest.mark.parametrize("names", SHOPIFY_PRODUCTS)
def test_shopify(db, tmp_path, names):
    shopify_orders(tmp_path / "orders_export_1.csv")
    write_table(
        tmp_path / "products_export_1.csv",
        SHOPIFY_PRODUCTS[names],
        ["mug", "Enamel Mug", "<p>to drink</p>", "Acme", "Home > Mugs", "Mug", "MUG-R", "9.90", "active"],
        ["mug", "", "", "", "", "", "MUG-B", "9.90", ""],
        ["lamp", "Lamp", "", "Lux", "", "Lamp", "", "5.00", "archived"],
        ["big-lamp", "Lamp - Big", "", "Lux", "", "Lamp", "", "7.00", "active"],
    )
    rows = landed(db, tmp_path, "shopify")
    assert rows("items", "row_number", "item_id", "title", "brand", "category", "price") == [
        (1, "mug", "Enamel Mug", "Acme", "Home > Mugs", "9.90"),
        (3, "lamp", "Lamp", "Lux", "Lamp", "5.00"),
        (4, "big-lamp", "Lamp - Big", "Lux", "Lamp", "7.00"),
    ]
    assert [json.loads(a)["availability"] for (a,) in rows("items", "attributes")] == [None, "withdrawn", None]
    assert rows("events", "instant", "action", "item_id", "quantity", "price") == [
        (datetime(2024, 5, 1, 14, 33, 53), "purchase", "mug", "1", "9.90"),
        (datetime(2024, 5, 1, 14, 33, 53), "purchase", "big-lamp", "2", "9.90"),
        (datetime(2024, 5, 1, 14, 33, 53), "order voided", "mug", "1", "9.90"),
        (datetime(2024, 5, 1, 14, 33, 53), "order cancelled", "Gift card", "1", "9.90"),
        (datetime(2024, 5, 1, 14, 33, 53), "purchase", "Gone", "1", "9.90"),
    ]
    users, attributes = rows("events", "user_id"), rows("events", "attributes")
    assert users[0] == users[1] == users[4] != users[2]
    assert {*attributes} == {(None,)}


def test_shopify_orders_alone_name_their_items(db, tmp_path):
    shopify_orders(tmp_path / "orders_export.csv")
    rows = landed(db, tmp_path, "shopify")
    assert rows("items", "item_id", "title")[0] == ("Enamel Mug - Blue", "Enamel Mug - Blue")
    assert rows("events", "item_id")[1] == ("Lamp - Big - Brass",)


def woocommerce_products(path):
    names = ["ID", "Type", "SKU", "Name", "Published", "Short description", "Description", "In stock?", "Sale price"]
    write_table(
        path,
        [*names, "Regular price", "Categories", "Tags", "Parent"],
        ["12", "variable", "MUG", "Mug", "1", "nice", "", "1", "", "", r"Home > Cups\, mugs, Sale", "red", ""],
        ["13", "variation", "MUG-R", "Mug - Red", "1", "", "", "1", "8", "9.90", "", "", "id:12"],
        ["14", "variation", "MUG-B", "Mug - Blue", "1", "", "", "1", "", "9.90", "", "", "MUG"],
        ["20", "simple", "", "Lamp", "0", "", "", "0", "", "5.00", "Lamps", "", ""],
    )


@pytest.mark.parametrize("layout", ["a row a line", "a row a line, as read", "a row an order"])
def test_woocommerce(db, tmp_path, layout):
    woocommerce_products(tmp_path / "wc-product-export.csv")
    at = "2024-05-01 10:33:53"
    write_table(tmp_path / "orders.csv", *WOOCOMMERCE_ORDERS[layout](at))
    rows = landed(db, tmp_path, "woocommerce")
    assert rows("items", "row_number", "item_id", "title", "category") == [
        (1, "12", "Mug", r"Home > Cups\, mugs"),
        (4, "20", "Lamp", "Lamps"),
    ]
    assert rows("events", "row_number", "action", "item_id", "quantity::double", "price::double") == [
        (1, "purchase", "12", 2, 9.9),
        (2, "purchase", "20", 1, 5),
        (3, "order cancelled", "12", 1, 9.9),
    ]
    users = rows("events", "user_id")
    assert users[0] == users[1] != (None,)
    assert users[2] == (None,)
    assert rows("events", "instant")[0] == (datetime(2024, 5, 1, 10, 33, 53),)


def a_row_a_line(at):
    yield [
        *("order_id", "order_number", "order_date", "status", "customer_id", "billing_email"),
        *("item_product_id", "item_name", "item_sku", "item_quantity", "item_price"),
    ]
    yield ["7", "7", at, "completed", "3", "A@shop.test", "13", "Mug", "MUG-R", "2", "9.90"]
    yield ["7", "7", at, "completed", "3", "a@shop.test", "20", "Lamp", "", "1", "5"]
    yield ["8", "8", at, "cancelled", "0", "", "14", "Mug", "MUG-B", "1", "9.90"]


def a_row_a_line_as_read(at):
    yield [
        "Order Number",
        "Order Status",
        "Order Date",
        "Email (Billing)",
        "SKU",
        "Item Name",
        "Quantity (- Refund)",
        "Item Cost",
    ]
    yield ["7", "Processing", at, "a@shop.test", "MUG-R", "Mug - Red", "2", "9.90"]
    yield ["7", "Processing", at, "a@shop.test", "", "Lamp", "1", "5"]
    yield ["8", "Cancelled", at, "", "", "Mug - Green", "1", "9.90"]


def a_row_an_order(at):
    yield [
        "order_id",
        "order_number",
        "order_date",
        "status",
        "customer_id",
        "customer_email",
        "line_item_1",
        "line_item_2",
    ]
    lines = [
        "name:Mug|product_id:13|sku:MUG-R|quantity:2|total:19.80|sub_total:19.80",
        "name:Lamp|product_id:20|quantity:1|total:5",
    ]
    yield ["7", "7", at, "wc-completed", "3", "a@shop.test", *lines]
    yield [
        "8",
        "8",
        at,
        "wc-cancelled",
        "0",
        "",
        "name:Mug|product_id:|sku:MUG-B|quantity:1|total:9.90|sub_total:9.90",
        "",
    ]


WOOCOMMERCE_ORDERS = {
    "a row a line": a_row_a_line,
    "a row a line, as read": a_row_a_line_as_read,
    "a row an order": a_row_an_order,
}
