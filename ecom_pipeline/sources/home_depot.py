"""Home Depot search relevance and files like it: `train.csv` with the mean grade of raters, descriptions beside.

The grades, 1 to 3 in thirds, stay as they are. Brands come from `attributes.csv` where it is there.
"""

from pathlib import Path

from ecom_pipeline.sources.flat import header, quoted_table
from ecom_pipeline.sources.source import Adapter, Part


def _recognises(folder: Path) -> bool:
    train = folder / "train.csv"
    names = {"product_uid", "product_title", "search_term", "relevance"}
    return train.is_file() and names <= set(header(train))


def _parts(folder: Path) -> list[Part]:
    train, descriptions, attributes = (folder / f"{n}.csv" for n in ("train", "product_descriptions", "attributes"))
    beside = tuple(path for path in (descriptions, attributes) if path.is_file())
    described = quoted_table(descriptions) if descriptions in beside else _NOTHING
    branded = quoted_table(attributes) if attributes in beside else _NOTHING
    items = f"""
        with brands as (select product_uid, min(value) as brand from ({branded}) where name = 'MFG Brand Name' group by all),
            texts as (select product_uid, min(product_description) as description from ({described}) group by all)
        select product_uid as item_id, arg_min(product_title, row_number) as title, min(description) as description,
            min(brand) as brand
        from ({quoted_table(train)}) left join texts using (product_uid) left join brands using (product_uid)
        where malformed is null group by product_uid order by min(row_number)"""
    judgments = f"""
        select row_number, malformed, search_term as query, product_uid as item_id, relevance
        from ({quoted_table(train)})"""
    return [Part("items", train, lambda db: items, beside), Part("judgments", train, lambda db: judgments)]


_NOTHING = "select null as product_uid, null as product_description, null as name, null as value limit 0"

ADAPTER = Adapter("home-depot", _recognises, _parts)
