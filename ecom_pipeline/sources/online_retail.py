"""UCI Online Retail and Online Retail II: invoices of a gift shop, cancellations among them (CC BY 4.0)."""

from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import name
from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.source import Adapter, Part, matching


def _files(folder: Path) -> list[Path]:
    return matching(folder, "online_retail*.parquet", "online_retail*.csv")


def _recognises(folder: Path) -> bool:
    return bool(_files(folder))


def _parts(folder: Path) -> list[Part]:
    files = _files(folder)
    return [Part("items", path, partial(_items, path)) for path in files] + [
        Part("events", path, partial(_events, path)) for path in files
    ]


def _items(path: Path, db: DuckDBPyConnection) -> str:
    # a product's code is five digits and perhaps letters; postage, fees and adjustments have words for codes
    return f"""
        select stock_code as item_id, mode(trim(description)) as title, median(price) filter (price > 0) as price,
            'GBP' as currency
        from ({_lines(path, db)}) where regexp_matches(stock_code, '^[0-9]{{5}}[A-Za-z]*$') and trim(description) <> ''
        group by stock_code order by stock_code"""


def _events(path: Path, db: DuckDBPyConnection) -> str:
    return f"""
        select occurred_at, customer_id as user_id, invoice as session_id,
            case when invoice like 'C%' then 'return' else 'purchase' end as action, stock_code as item_id,
            case when invoice like 'C%' then abs(quantity) else quantity end as quantity, price, row_number, malformed
        from ({_lines(path, db)})"""


def _lines(path: Path, db: DuckDBPyConnection) -> str:
    present = set(canonical.names(path))
    invoice, price, customer = (
        next((name(column) for column in columns if column in present), "null")
        for columns in (("Invoice", "InvoiceNo"), ("Price", "UnitPrice"), ("Customer ID", "CustomerID"))
    )
    return f"""
        select {invoice}::varchar as invoice, upper(trim("StockCode"::varchar)) as stock_code,
            "Description" as description, try_cast("Quantity" as double) as quantity, "InvoiceDate" as occurred_at,
            try_cast({price} as double) as price,
            coalesce(try_cast({customer} as bigint)::varchar, {customer}::varchar) as customer_id, row_number, malformed
        from ({canonical.rows(db, path)})"""


ADAPTER = Adapter("online-retail", _recognises, _parts)
