"""Wayfair WANDS: products, queries and judged pairs of a furniture shop, parted by tabs (MIT).

Exact, partial and irrelevant become the grades 2, 1 and 0.
"""

from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources.flat import first_of, header, quoted_table
from ecom_pipeline.sources.source import Adapter, Part
from ecom_pipeline.sources.words import recoded

_TAB = "\t"
_GRADES = {"exact": 2, "partial": 1, "irrelevant": 0}


def _files(folder: Path) -> list[Path]:
    return [folder / "product.csv", folder / "query.csv", folder / "label.csv"]


def _recognises(folder: Path) -> bool:
    files = _files(folder)
    return all(path.is_file() for path in files) and "label" in header(files[-1], _TAB)


def _parts(folder: Path) -> list[Part]:
    product, query, label = _files(folder)
    return [
        Part("items", product, partial(_products, product)),
        Part("judgments", label, partial(_labels, label, query), (query,)),
    ]


def _products(path: Path, db: DuckDBPyConnection) -> str:
    hierarchy = first_of(header(path, _TAB), "category hierarchy", "category_hierarchy")
    return f"""
        select row_number, malformed, product_id as item_id, product_name as title, product_description as description,
            coalesce(regexp_replace({hierarchy}, ' */ *', ' > ', 'g'), product_class) as category, product_features
        from ({quoted_table(db, path, _TAB)})"""


def _labels(path: Path, query: Path, db: DuckDBPyConnection) -> str:
    return f"""
        select l.row_number, l.malformed, l.query_id, q.query, l.product_id as item_id,
            {recoded("l.label", _GRADES)} as relevance, q.query_class
        from ({quoted_table(db, path, _TAB)}) as l left join ({quoted_table(db, query, _TAB)}) as q using (query_id)"""


ADAPTER = Adapter("wands", _recognises, _parts)
