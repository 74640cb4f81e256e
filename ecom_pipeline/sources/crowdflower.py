"""CrowdFlower search relevance: queries, product texts and the median grade of about three raters."""

from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.source import Adapter, Part, matching


def _files(folder: Path) -> list[Path]:
    return matching(folder, "train.parquet", "train.csv")


def _columns(folder: Path) -> set[str]:
    return set(canonical.names(_files(folder)[0]))


def _recognises(folder: Path) -> bool:
    return bool(_files(folder)) and {"query", "product_title", "median_relevance"} <= _columns(folder)


def _parts(folder: Path) -> list[Part]:
    # Kaggle's file calls the standard deviation of the raters a variance; the values are the same
    spread = "relevance_std" if "relevance_std" in _columns(folder) else "relevance_variance"
    # the file numbers pairs, not products: the same product under two queries must be one item
    product = "left(md5(concat_ws('|', product_title, product_description)), 12)"
    path = _files(folder)[0]

    def items(db: DuckDBPyConnection) -> str:
        return f"""
            select {product} as item_id, any_value(product_title) as title,
                any_value(product_description) as description
            from ({canonical.rows(db, path)}) where malformed is null
            group by item_id order by item_id"""

    def judgments(db: DuckDBPyConnection) -> str:
        return f"""
            select query, {product} as item_id, median_relevance as relevance, {spread} as rater_std,
                row_number, malformed
            from ({canonical.rows(db, path)})"""

    return [Part("items", path, items), Part("judgments", path, judgments)]


ADAPTER = Adapter("crowdflower", _recognises, _parts)
