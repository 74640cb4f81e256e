"""Amazon Reviews 2023: reviews as JSON lines, and the catalogue in `meta_*` beside them, zipped or not.

A review is a `review` of the parent product, of which the others are variants. Its text stays in its file. The category
is the path of categories, or the main category where there is none. Prices are in US dollars.
"""

from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources.documents import document_files, documents, elements, field, first_fields
from ecom_pipeline.sources.source import Adapter, Part


def _of(folder: Path, *names: str) -> list[Path]:
    return [path for path in document_files(folder, "*") if set(names) <= first_fields(path)]


def _reviews(folder: Path) -> list[Path]:
    return _of(folder, "parent_asin", "user_id", "rating", "timestamp")


def _catalogues(folder: Path) -> list[Path]:
    return _of(folder, "parent_asin", "title", "store")


def _recognises(folder: Path) -> bool:
    return bool(_reviews(folder) and _catalogues(folder))


def _parts(folder: Path) -> list[Part]:
    catalogues = [Part("items", path, partial(_items, path)) for path in _catalogues(folder)]
    return [*catalogues, *(Part("events", path, partial(_events, path)) for path in _reviews(folder))]


def _items(path: Path, db: DuckDBPyConnection) -> str:
    def joined(name: str, between: str) -> str:
        field_of = f"document -> '$.{name}'"
        texts = f"[json_extract_string(e, '$') for e in {elements(field_of)}]"
        return f"nullif(array_to_string({texts}, '{between}'), '')"

    price = f"nullif(lower({field('price')}), 'none')"
    return f"""
        select row_number, malformed, {field("parent_asin")} as item_id, {field("title")} as title,
            concat_ws(' ', {joined("features", " ")}, {joined("description", " ")}) as description,
            {field("store")} as brand, coalesce({joined("categories", " > ")}, {field("main_category")}) as category,
            {price} as price, case when {price} is not null then 'USD' end as currency
        from ({documents(path)})"""


def _events(path: Path, db: DuckDBPyConnection) -> str:
    at = f"try_cast({field('timestamp')} as bigint)"
    return f"""
        select row_number, malformed, coalesce(make_timestamp({at} * 1000)::varchar, {field("timestamp")}) as occurred_at,
            {field("user_id")} as user_id, 'review' as action, {field("parent_asin")} as item_id, {field("rating")} as rating,
            {field("asin")} as variant, {field("helpful_vote")} as helpful_vote,
            {field("verified_purchase")} as verified_purchase
        from ({documents(path)})"""


ADAPTER = Adapter("amazon-reviews", _recognises, _parts)
