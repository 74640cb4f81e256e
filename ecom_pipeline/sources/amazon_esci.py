"""Amazon ESCI, the shopping queries data set: judged pairs of three locales (Apache-2.0).

Exact, substitute, complement and irrelevant become the grades 3, 2, 1 and 0. A product of two locales is two items, as
its texts differ: `item_id` is the product's id, `@` and the locale. `split` stays; validation is cut out of train. The
locale and the marks of the small and the large version are kept under attributes: to learn from some of it alone, write
these rows of the two files into a folder of their own.
"""

from pathlib import Path

from ecom_pipeline.quoting import name
from ecom_pipeline.sources.documents import first_fields
from ecom_pipeline.sources.source import PLACE, Adapter, Part, matching, quoted
from ecom_pipeline.sources.words import recoded

_GRADES = {"e": 3, "exact": 3, "s": 2, "substitute": 2, "c": 1, "complement": 1, "i": 0, "irrelevant": 0}
_ITEM = "product_id || '@' || product_locale"
_VERSIONS = ("small_version", "large_version")


def _files(folder: Path, table: str) -> list[Path]:
    return matching(folder, f"shopping_queries_dataset_{table}*.parquet")


def _recognises(folder: Path) -> bool:
    return bool(_files(folder, "examples") and _files(folder, "products"))


def _parts(folder: Path) -> list[Part]:
    return [_products(path) for path in _files(folder, "products")] + [
        _pairs(path) for path in _files(folder, "examples")
    ]


def _products(path: Path) -> Part:
    items = f"""
        select {_ITEM} as item_id, product_title as title,
            concat_ws(' ', product_description, product_bullet_point) as description, product_brand as brand,
            product_color as color, product_locale as locale, {PLACE}
        from read_parquet({quoted(path)})"""
    return Part("items", path, lambda db: items)


def _pairs(path: Path) -> Part:
    versions = "".join(f", {name(version)}" for version in _VERSIONS if version in first_fields(path))
    judgments = f"""
        select query_id::varchar as query_id, query, {_ITEM} as item_id, {recoded("esci_label", _GRADES)} as relevance,
            split, product_locale as locale{versions}, {PLACE}
        from read_parquet({quoted(path)})"""
    return Part("judgments", path, lambda db: judgments)


ADAPTER = Adapter("amazon-esci", _recognises, _parts)
