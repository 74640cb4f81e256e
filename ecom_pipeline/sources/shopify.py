"""Shopify: orders and products as its admin exports them, with the old names of columns or the new ones.

A line of an order is a `purchase` at `Created at` by the address of the order's `Email`; a cancelled, voided or expired
order has no purchases, and its lines are rejected by these words. When something went back an export does not say, so
there is no `return`. An order's own columns stand in its first line and hold for the others.

An item is a product, its id the handle: a line is of the product that has its `Lineitem sku`, or with whose title its name
begins. A draft or archived product is `withdrawn`. Without an export of products the names of the lines are the items.
"""

from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources import order_lines
from ecom_pipeline.sources.flat import first_of, header, quoted_table, with_header
from ecom_pipeline.sources.source import Adapter, Part

_OF_ORDER = {
    "email": "Email",
    "status": "Financial Status",
    "created": "Created at",
    "cancelled": "Cancelled at",
}


def _orders(folder: Path) -> list[Path]:
    return with_header(folder, "Name", "Created at", "Lineitem name", "Lineitem quantity")


def _products(folder: Path) -> list[Path]:
    handled = {*with_header(folder, "Handle", "Title"), *with_header(folder, "URL handle", "Title")}
    return sorted(handled)


def _recognises(folder: Path) -> bool:
    return bool(_orders(folder))


def _parts(folder: Path) -> list[Part]:
    return order_lines.parts(_orders(folder), _products(folder), events=_events, items=_items)


def _variants(db: DuckDBPyConnection, path: Path) -> str:
    """An SQL query: the lines of an export of products, under one set of names."""
    present = header(path)
    columns = {
        "handle": ("Handle", "URL handle"),
        "title": ("Title",),
        "description": ("Body (HTML)", "Description"),
        "brand": ("Vendor",),
        "price": ("Variant Price", "Price"),
        "sku": ("Variant SKU", "SKU"),
        "status": ("Status",),
        "tags": ("Tags",),
    }
    chosen = ", ".join(f"{first_of(present, *names)} as {column}" for column, names in columns.items())
    category = f"coalesce({first_of(present, 'Product Category', 'Product category')}, {first_of(present, 'Type')})"
    return f"select row_number, malformed, {chosen}, {category} as category from ({quoted_table(db, path)})"


def _items(path: Path, db: DuckDBPyConnection) -> str:
    def first(column: str) -> str:
        return f"arg_min({column}, row_number) filter (where {column} is not null) as {column}"

    return f"""
        select min(row_number) as row_number, min(malformed) as malformed, handle as item_id, {first("title")},
            {first("description")}, {first("brand")}, {first("category")},
            {first("price")}, {first("tags")},
            case when lower(min(status)) in ('draft', 'archived') then 'withdrawn' end as availability
        from ({_variants(db, path)}) group by handle, case when malformed is not null or handle is null then row_number end
        order by row_number"""


def _events(path: Path, products: tuple[Path, ...], db: DuckDBPyConnection) -> str:
    present = header(path)
    of_order = ", ".join(f"{first_of(present, column)} as {known}" for known, column in _OF_ORDER.items())
    filled = ", ".join(f"first_value({known} ignore nulls) over its_order as {known}" for known in _OF_ORDER)
    catalogue = " union all ".join(
        f"select handle as item_id, 'sku:' || sku as code, "
        f"first_value(title ignore nulls) over (partition by handle order by row_number) as title from ({_variants(db, one)})"
        for one in products
    )
    lines = f"""
        with told as (
            select row_number, malformed, last_value({first_of(present, "Name")} ignore nulls) over (
                    order by row_number rows between unbounded preceding and current row) as number, {of_order},
                {first_of(present, "Lineitem name")} as name, {first_of(present, "Lineitem quantity")} as quantity,
                {first_of(present, "Lineitem price")} as price,
                'sku:' || {first_of(present, "Lineitem sku")} as code, null::varchar as other_code
            from ({quoted_table(db, path)}))
        select * replace ({filled}) from told
        window its_order as (
            partition by number order by row_number rows between unbounded preceding and unbounded following)"""
    status = "case when cancelled is not null then 'cancelled' else lower(status) end"
    return f"""
        select row_number, malformed, {_instant("created")} as occurred_at, lower(email) as user_id, number as session_id,
            case when {status} in ('cancelled', 'voided', 'expired') then 'order ' || {status} else 'purchase' end as action,
            item_id, quantity, price
        from ({order_lines.matched(lines, catalogue or order_lines.NO_CATALOGUE)})"""


def _instant(text: str) -> str:
    # `2024-05-01 10:33:53 -0400`
    return f"regexp_replace({text}, ' ([+-][0-9]{{2}}):?([0-9]{{2}})$', '\\1:\\2')"


ADAPTER = Adapter("shopify", _recognises, _parts)
