"""Lines of orders, as shops export them, and the items of the catalogue that they are of.

An export of orders names a product by its id, by the code of a variant or by what the customer read; a catalogue has
products. Only what is certain is matched: a code or a title that two products share names neither.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ecom_pipeline.sources.ids_alone import named_items
from ecom_pipeline.sources.source import Part

NO_CATALOGUE = "select null::varchar as item_id, null::varchar as code, null::varchar as title limit 0"


def matched(lines: str, catalogue: str) -> str:
    """An SQL query: lines of orders with the `item_id` of each.

    Args:
        lines: SQL with the columns `code` and `other_code` (as the catalogue has them, or null), `name` (what was read,
            perhaps with ` - ` and the variant after it) and others, which stay.
        catalogue: SQL with `item_id`, `code` and `title`, a row a way to name an item.

    Returns:
        SQL with the columns of the lines and `item_id`: of the code, else of the other code, else of the longest title
        with which the name begins, else the name, which no catalogue has.

    Cost: a comparison of each name with each title.
    """
    return f"""
        with lines as materialized ({lines}), catalogue as materialized ({catalogue}),
            codes as (
                select code, min(item_id) as item_id from catalogue where code <> '' group by code
                having count(distinct item_id) = 1),
            titles as (
                select title, min(item_id) as item_id from catalogue where title <> '' group by title
                having count(distinct item_id) = 1),
            names as (
                select name, arg_max(item_id, length(title)) as item_id
                from (select distinct name from lines) join titles on name = title or starts_with(name, title || ' - ')
                group by name)
        select lines.*, coalesce(by_code.item_id, by_other.item_id, names.item_id, lines.name) as item_id
        from lines left join codes as by_code on by_code.code = lines.code
            left join codes as by_other on by_other.code = lines.other_code left join names on names.name = lines.name"""


def parts(
    orders: Sequence[Path], products: Sequence[Path], *, events: Callable[..., str], items: Callable[..., str]
) -> list[Part]:
    """What exports of orders and of products hold; without products the lines of the orders name the items.

    Args:
        orders: exports of orders; each is read again when an export of products changes.
        products: exports of products.
        events: the SQL query of (export of orders, exports of products, connection).
        items: the SQL query of (export of products, connection).
    """
    beside = tuple(products)
    acts = [Part("events", path, partial(events, path, beside), beside) for path in orders]
    catalogue = [Part("items", path, partial(items, path)) for path in products]
    return [*(catalogue or [named_items(part) for part in acts]), *acts]
