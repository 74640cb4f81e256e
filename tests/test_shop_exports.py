"""What shops export: Analytics, Shopify and WooCommerce, each in the layout that its admin or extension writes."""

import json
from datetime import date, datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_sources import landed, write_lines, write_table

from ecom_pipeline import cleaning


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


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


def rejected(db):
    """Cleans what has landed; rows kept, and rejected rows by table and rule."""
    cleaning.settle_days(db, datetime(2030, 1, 1))
    cleaning.clean_items(db)
    cleaning.clean_events(db, date(2024, 5, 1), date(2024, 5, 1), cleaning.Limits(5, 30, 300, 5000))
    (n_kept,) = db.execute("select count(*) from cleaned_interactions").fetchone()
    return n_kept, db.execute("select source, rule, count(*) from rejected_rows group by all order by all").fetchall()


def test_of_analytics_a_repeated_purchase_a_refund_of_nothing_and_the_page_that_a_click_opened_are_rejected(
    db, tmp_path
):
    as_bigquery_parquet(GA4, tmp_path / "events_20240501")
    landed(db, tmp_path, "ga4")
    assert rejected(db) == (
        6,
        [("events", "event_id_repeated", 1), ("events", "item_id_missing", 1), ("events", "near_duplicate", 1)],
    )


def test_of_shopify_orders_that_came_to_nothing_and_items_that_are_gone_are_rejected(db, tmp_path):
    shopify_orders(tmp_path / "orders_export_1.csv")
    write_table(
        tmp_path / "products_export_1.csv",
        SHOPIFY_PRODUCTS["old"],
        ["mug", "Enamel Mug", "<p>to drink</p>", "Acme", "Home > Mugs", "Mug", "MUG-R", "9.90", "active"],
        ["big-lamp", "Lamp - Big", "", "Lux", "", "Lamp", "", "7.00", "active"],
    )
    landed(db, tmp_path, "shopify")
    assert rejected(db) == (2, [("events", "action_unknown", 2), ("events", "item_unknown", 1)])
