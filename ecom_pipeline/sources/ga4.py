"""Google Analytics 4 as BigQuery exports it: daily tables of nested events, as Parquet or JSON lines.

An event of e-commerce is a row for each of its items: `view_item_list` an `impression`, `select_item` and `view_item` a
`click`, `add_to_cart` a `cart`, `purchase` a `purchase`, `refund` a `return`. Other events are no acts on items and are
left out. A purchase that is logged twice has one `event_id`, of its transaction and item. Words searched for are the
event's own `search_term`, or those of the search on whose page (`page_location`) the event was, or from whose page it
came (`page_referrer`) in the same session; a page with several searches has none.

The user is `user_id`, else `user_pseudo_id`; the session is `user_pseudo_id` and `ga_session_id`. Items come from an
`items` file (canonical) beside the export, else from the events: the name, brand and categories with which an item was
logged last. Tables of a day that is not over (`events_intraday_*`) are left out where the day's own is there.
"""

import re
from functools import partial
from pathlib import Path

from duckdb import DuckDBPyConnection

from ecom_pipeline.quoting import literal
from ecom_pipeline.sources import canonical
from ecom_pipeline.sources.documents import document_files, documents, field, first_fields, records
from ecom_pipeline.sources.source import Adapter, Part
from ecom_pipeline.sources.words import recoded

_ACTIONS = {
    "view_item_list": "impression",
    "select_item": "click",
    "view_item": "click",
    "add_to_cart": "cart",
    "purchase": "purchase",
    "refund": "return",
}
_VALUES = ("value.string_value", "value.int_value", "value.double_value", "value.float_value")
_CATEGORIES = ("item_category", "item_category2", "item_category3", "item_category4", "item_category5")
_OF_ITEM = ("item_id", "item_name", "item_brand", *_CATEGORIES, "item_list_index", "price", "quantity")
_FIELDS = ("event_name", "event_timestamp", "event_params", "user_id", "user_pseudo_id", "ecommerce", "items")


def _exports(folder: Path) -> list[Path]:
    found = [path for path in document_files(folder, "*") if set(_FIELDS[:3]) <= first_fields(path)]
    over = {day for path in found if (day := _day(path)) and "intraday" not in path.name}
    return [path for path in found if "intraday" not in path.name or _day(path) not in over]


def _day(path: Path) -> str:
    found = re.search(r"\d{8}", path.name)
    return found[0] if found else ""


def _recognises(folder: Path) -> bool:
    return bool(_exports(folder))


def _parts(folder: Path) -> list[Part]:
    exports = _exports(folder)
    events = [Part("events", path, partial(_events, path)) for path in exports]
    items = [Part("items", path, partial(_items, path)) for path in exports]
    return [*(canonical.table_parts(folder, "items") or items), *events]


def _lines(path: Path) -> str:
    """An SQL query: one row an item of an event of e-commerce, or a malformed line, with what the searches need."""
    return f"""
        with logged as (
            select row_number as line, malformed, {field("event_name")} as event_name,
                {field("event_timestamp")} as micros, {field("user_pseudo_id")} as device,
                {_known(field("user_id"))} as user_id, {records("document -> '$.event_params'", "key", *_VALUES)} as params,
                {records("document -> '$.items'", *_OF_ITEM)} as items,
                {_known(field("ecommerce.transaction_id"))} as transaction
            from ({documents(path, *_FIELDS)})
            where malformed is not null or {field("event_name")} in {tuple(_ACTIONS)}
                or contains({field("event_params")}, 'search_term')),
        said as (
            select * exclude (params), concat(device, '.', {_param("ga_session_id")}) as session_id,
                {_param("search_term")} as term, {_param("page_location")} as page, {_param("page_referrer")} as referrer,
                coalesce(transaction, {_known(_param("transaction_id"))}) as order_id, {_param("currency")} as currency
            from logged),
        searches as (
            select session_id, page, min(term) as term from said
            where term <> '' and page <> '' group by all having count(distinct lower(trim(term))) = 1),
        acts as (
            select said.*, coalesce(nullif(said.term, ''), here.term, before.term) as query
            from said left join searches as here on here.session_id = said.session_id and here.page = said.page
                left join searches as before on before.session_id = said.session_id and before.page = said.referrer
            where malformed is not null or event_name in {tuple(_ACTIONS)})
        select * exclude (items), unnest(case when len(items) = 0 then [null] else items end) as item,
            generate_subscripts(case when len(items) = 0 then [null] else items end, 1) as nth
        from acts"""


def _known(expression: str) -> str:
    """An SQL expression: null where Analytics says that a value was not set."""
    return f"nullif(nullif(trim({expression}), ''), '(not set)')"


def _param(key: str) -> str:
    found = f"list_filter(params, lambda p: p.key = {literal(key)})[1]"
    return f"coalesce({', '.join(f'{found}.{value}' for value in _VALUES)})"


def _of_item(key: str) -> str:
    return _known(f"item.{key}")


_ITEM_ID = f"coalesce({_of_item('item_id')}, {_of_item('item_name')})"


def _events(path: Path, db: DuckDBPyConnection) -> str:
    index = _of_item("item_list_index")
    rank = f"try_cast({index} as integer)"
    (first,) = db.execute(f"select min({rank}) from ({_lines(path)}) where event_name = 'view_item_list'").fetchall()[0]
    shift = 1 if first == 0 else 0  # ranks are counted from 0 in most shops, from 1 in some
    return f"""
        select malformed || ', line ' || line as malformed, make_timestamp(try_cast(micros as bigint))::varchar as occurred_at,
            coalesce(user_id, device) as user_id, session_id, {recoded("event_name", _ACTIONS)} as action,
            {_ITEM_ID} as item_id, query,
            case when event_name in ('view_item_list', 'select_item') then coalesce(({rank} + {shift})::varchar, {index})
                end as position,
            case when event_name = 'purchase' and order_id is not null
                then concat_ws(':', 'purchase', order_id, {_ITEM_ID}, nth) end as event_id,
            {_of_item("quantity")} as quantity, {_of_item("price")} as price
        from ({_lines(path)}) order by line, nth"""


def _items(path: Path, db: DuckDBPyConnection) -> str:
    categories = ", ".join(map(_of_item, _CATEGORIES))
    last = "(try_cast(micros as bigint), line, nth)"
    return f"""
        with named as (
            select *, {_ITEM_ID} as item_id, {_of_item("item_name")} as title, {_of_item("item_brand")} as brand,
                nullif(concat_ws(' > ', {categories}), '') as category, {_of_item("price")} as price
            from ({_lines(path)}))
        select item_id, coalesce(arg_max(title, {last}), item_id) as title, arg_max(brand, {last}) as brand,
            arg_max(category, {last}) as category, arg_max(price, {last}) as price,
            arg_max(currency, {last}) filter (where price is not null) as currency
        from named where item_id is not null group by item_id order by item_id"""


ADAPTER = Adapter("ga4", _recognises, _parts)
