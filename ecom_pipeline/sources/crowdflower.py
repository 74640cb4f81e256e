"""CrowdFlower search relevance: queries, product texts and the median grade of about three raters."""

from pathlib import Path

from pyarrow.parquet import read_schema

from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.source import Adapter, Part, matching, quoted


def _files(folder: Path) -> list[Path]:
    return matching(folder, "train.parquet", "train.csv")


def _read(folder: Path) -> str:
    path = _files(folder)[0]
    reader = "read_parquet" if path.suffix == ".parquet" else "read_csv"
    return f"select * from {reader}({quoted(path)})"


def _columns(folder: Path) -> set[str]:
    path = _files(folder)[0]
    return set(read_schema(path).names if path.suffix == ".parquet" else canonical.header(path))


def _recognises(folder: Path) -> bool:
    return bool(_files(folder)) and {"query", "product_title", "median_relevance"} <= _columns(folder)


def _parts(folder: Path) -> list[Part]:
    # Kaggle's file calls the standard deviation of the raters a variance; the values are the same
    spread = "relevance_std" if "relevance_std" in _columns(folder) else "relevance_variance"
    # the file numbers pairs, not products: the same product under two queries must be one item
    product = "left(md5(concat_ws('|', product_title, product_description)), 12)"
    items = f"""
        select {product} as item_id, any_value(product_title) as title, any_value(product_description) as description
        from ({_read(folder)}) group by item_id order by item_id"""
    judgments = f"""
        select query, {product} as item_id, median_relevance as relevance, {spread} as rater_std
        from ({_read(folder)})"""
    path = _files(folder)[0]
    return [Part("items", path, lambda db: items), Part("judgments", path, lambda db: judgments)]


ADAPTER = Adapter("crowdflower", _recognises, _parts)
