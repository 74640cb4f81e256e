"""Each adapter of a published set reads a small folder in the layout that the set has, and leaves nothing out."""

import gzip
from datetime import date, datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sources import landed, write_lines, write_table

from ecom_pipeline import sources
from ecom_pipeline.errors import SourceError


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


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
