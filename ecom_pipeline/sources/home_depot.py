"""Home Depot search relevance and files like it: `train.csv` with the mean grade of raters, descriptions beside.

The grades, 1 to 3 in thirds, stay as they are. Brands come from `attributes.csv` where it is there.
"""

from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources.flat import header, quoted_table
from ecom_pipeline.sources.source import Adapter, Part

_NOTHING = "select null as product_uid, null as product_description, null as name, null as value limit 0"


def _recognises(folder: Path) -> bool:
    train = folder / "train.csv"
    names = {"product_uid", "product_title", "search_term", "relevance"}
    return train.is_file() and names <= set(header(train))


def _parts(folder: Path) -> list[Part]:
    train, descriptions, attributes = (folder / f"{n}.csv" for n in ("train", "product_descriptions", "attributes"))
    described, branded = (path if path.is_file() else None for path in (descriptions, attributes))
    also = tuple(path for path in (described, branded) if path)
    items = partial(_products, train, described, branded)
    return [Part("items", train, items, also), Part("judgments", train, partial(_pairs, train))]


def _products(train: Path, descriptions: Path | None, attributes: Path | None, db: DuckDBPyConnection) -> str:
    described = quoted_table(db, descriptions) if descriptions else _NOTHING
    branded = quoted_table(db, attributes) if attributes else _NOTHING
    return f"""
        with brands as (
            select product_uid, min(value) as brand from ({branded}) where name = 'MFG Brand Name' group by product_uid),
            texts as (select product_uid, min(product_description) as text from ({described}) group by product_uid)
        select product_uid as item_id, arg_min(product_title, row_number) as title, min(text) as description,
            min(brand) as brand
        from ({quoted_table(db, train)}) left join texts using (product_uid) left join brands using (product_uid)
        where malformed is null group by product_uid order by min(row_number)"""


def _pairs(path: Path, db: DuckDBPyConnection) -> str:
    return f"""
        select row_number, malformed, search_term as query, product_uid as item_id, relevance
        from ({quoted_table(db, path)})"""


ADAPTER = Adapter("home-depot", _recognises, _parts)
