"""WooCommerce: products as its admin exports them, and orders as its usual extensions do.

Orders have a row for each line, with the product's id, code (SKU) or name, or a row for each order with the columns
`line_item_1` and so on (`name:Mug|product_id:12|sku:M|quantity:2|total:19.80`). A line is a `purchase` by the order's
e-mail address, else its customer's number (0 is nobody). Orders that are pending, failed, cancelled, drafts or in the
trash have no purchases, and their lines are rejected by these words. When something went back an export does not say, so
there is no `return`.

An item is a product, its id the product's; a variation is of its parent, and its row in the export is no item. The first
of several categories is the category. What is not published is `withdrawn`, what is not in stock `out_of_stock`.
Without an export of products the names of the lines are the items.
"""

import re
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import name
from ecom_pipeline.sources import order_lines
from ecom_pipeline.sources.flat import first_of, header, quoted_table, with_header
from ecom_pipeline.sources.source import Adapter, Part, matching

_NOT_BOUGHT = (
    *("pending", "pending payment", "failed", "cancelled", "canceled"),
    *("draft", "auto-draft", "checkout-draft", "trash"),
)
_ORDER = {
    "number": ("order_number", "order_id", "Order Number", "Order ID", "Order #"),
    "placed": ("order_date", "date", "Order Date", "Date"),
    "status": ("status", "order_status", "Order Status", "Status"),
    "email": ("billing_email", "customer_email", "Email (Billing)", "Billing Email", "Customer Email"),
    "customer": ("customer_id", "customer_user", "Customer User ID", "Customer ID"),
}
_LINE = {
    "id": ("item_product_id", "product_id", "Product ID", "Product Id"),
    "sku": ("item_sku", "sku", "SKU"),
    "name": ("item_name", "name", "Item Name", "Product Name"),
    "quantity": ("item_quantity", "quantity", "Quantity", "Quantity (- Refund)"),
    "price": ("item_price", "price", "Item Cost"),
}


def _products(folder: Path) -> list[Path]:
    return with_header(folder, "ID", "Type", "SKU", "Name", "Regular price")


def _orders(folder: Path) -> list[Path]:
    return [path for path in matching(folder, "*.csv", "*.csv.gz") if _is_of_orders(header(path))]


def _is_of_orders(present: list[str]) -> bool:
    if any(not set(_ORDER[column]) & set(present) for column in ("number", "placed", "status")):
        return False
    lines = any(set(_LINE[column]) & set(present) for column in ("id", "sku", "name"))
    return bool(_line_columns(present)) or (lines and bool(set(_LINE["quantity"]) & set(present)))


def _line_columns(present: list[str]) -> list[str]:
    return [column for column in present if re.fullmatch(r"line_item_\d+", column)]


def _recognises(folder: Path) -> bool:
    return bool(_orders(folder))


def _parts(folder: Path) -> list[Part]:
    return order_lines.parts(_orders(folder), _products(folder), events=_events, items=_items)


def _catalogue(db: DuckDBPyConnection, path: Path) -> str:
    """An SQL query: products and variations, each with the id of its product."""
    present = header(path)
    rows = f"""
        select row_number, malformed, {first_of(present, "ID")} as id, {first_of(present, "SKU")} as sku,
            {first_of(present, "Name")} as title, coalesce({first_of(present, "Parent")}, '') as parent,
            coalesce({first_of(present, "Type")}, '') as type, concat_ws(' ', {first_of(present, "Short description")},
                {first_of(present, "Description")}) as description, {first_of(present, "Brands", "Brand")} as brand,
            regexp_extract({first_of(present, "Categories")}, '^(?:[^,\\\\]|\\\\.)*') as category,
            coalesce({first_of(present, "Sale price")}, {first_of(present, "Regular price")}) as price,
            {first_of(present, "Tags")} as tags, {first_of(present, "Published")} as published,
            {first_of(present, "In stock?")} as in_stock
        from ({quoted_table(db, path)})"""
    return f"""
        with rows as ({rows})
        select rows.*, coalesce(by_id.id, by_sku.id, rows.id) as item_id,
            contains(lower(rows.type), 'variation') as is_variation
        from rows left join rows as by_id on rows.parent = 'id:' || by_id.id
            left join rows as by_sku on rows.parent <> '' and rows.parent = by_sku.sku"""


def _items(path: Path, db: DuckDBPyConnection) -> str:
    return f"""
        select row_number, malformed, id as item_id, title, description, brand, category, price, tags,
            case when try_cast(published as integer) < 1 then 'withdrawn' when in_stock = '0' then 'out_of_stock' end
                as availability
        from ({_catalogue(db, path)}) where malformed is not null or not is_variation order by row_number"""


def _events(path: Path, products: tuple[Path, ...], db: DuckDBPyConnection) -> str:
    ways = [
        f"select item_id, {code} as code, title from ({_catalogue(db, one)})"
        for one in products
        for code in ("'id:' || id", "'sku:' || sku")
    ]
    status = "regexp_replace(lower(status), '^wc-', '')"
    return f"""
        select malformed, placed as occurred_at, coalesce(lower(email), nullif(customer, '0')) as user_id,
            number as session_id,
            case when {status} in {_NOT_BOUGHT} then 'order ' || {status} else 'purchase' end as action,
            item_id, quantity, price
        from ({order_lines.matched(_lines(db, path), " union all ".join(ways) or order_lines.NO_CATALOGUE)})
        order by place, nth"""


def _lines(db: DuckDBPyConnection, path: Path) -> str:
    """An SQL query: one row a line of an order."""
    present, table = header(path), quoted_table(db, path)
    columns = _line_columns(present)
    parts = _PARTS if columns else {known: first_of(present, *names) for known, names in _LINE.items()}
    order = ", ".join(f"{first_of(present, *names)} as {known}" for known, names in _ORDER.items())
    return f"""
        select row_number as place, nth, malformed || ', line ' || row_number as malformed, {order},
            'id:' || {parts["id"]} as code, 'sku:' || {parts["sku"]} as other_code, {parts["name"]} as name,
            {parts["quantity"]} as quantity, {parts["price"]} as price
        from ({_unfolded(table, columns) if columns else f"select *, 1 as nth from ({table})"})"""


def _unfolded(table: str, columns: list[str]) -> str:
    """An SQL query: a row of an order for each of its lines, and one for an order without lines."""
    every = ", ".join(f"nullif(trim({name(column)}), '')" for column in columns)
    return f"""
        select * exclude (found), unnest(found) as line, generate_subscripts(found, 1) as nth
        from (select *, case when len(filled) > 0 then filled else [null] end as found
            from (select *, list_filter([{every}], lambda x: x is not null) as filled from ({table})))"""


def _part(key: str) -> str:
    return f"nullif(regexp_extract(line, '(?:^|\\|){key}:([^|]*)', 1), '')"


_PARTS = {"id": _part("product_id"), "sku": _part("sku"), "name": _part("name"), "quantity": _part("quantity")}
_PARTS["price"] = f"try_cast({_part('total')} as double) / nullif(try_cast({_part('quantity')} as double), 0)"

ADAPTER = Adapter("woocommerce", _recognises, _parts)
