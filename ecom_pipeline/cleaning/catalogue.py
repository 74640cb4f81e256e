"""The catalogue: items that passed the rules, with the text that the language model reads."""

from duckdb import DuckDBPyConnection

from ecom_pipeline import days, forms, schema
from ecom_pipeline.cleaning.rules import MALFORMED, Rule, first_broken, sieve
from ecom_pipeline.forms.columns import READ

READ_LETTERS = 300  # of each of an item's texts, as the language model reads it
_PARTS = ", ".join(f"left({name}, {READ_LETTERS})" for name in ("title", "brand", "category", "description"))

_ROW_RULES = [
    MALFORMED,
    Rule("item_id_missing", "item_id is null", "item_id must be present", "'nothing'"),
    Rule("title_blank", "title is null", "title must have a letter after markup is gone", "'nothing'"),
]
_REPEATED = Rule(
    "item_id_repeated",
    "nth > 1",
    "item_id must be unique; of the sound rows the first of the last file is kept",
    "item_id",
)
_PREPARED = f"""
    with typed as (
        select file, row_number, malformed, item_id, clean_text(title) as title,
            filled_text(description) as description, filled_text(brand) as brand, filled_text(category) as category,
            {READ["items"]["price"]} as price, {READ["items"]["currency"]} as currency, filled(image_uri) as image_uri,
            attributes
        from raw_items),
    checked as (
        select *, concat_ws('. ', {_PARTS}) as item_text, {first_broken(_ROW_RULES)} as row_rule from typed)
    select *, row_number() over (partition by item_id, row_rule is null
        order by split_part(file, '.', 1) desc, file, row_number) as nth
    from checked"""


def clean_items(db: DuckDBPyConnection) -> dict[str, int]:
    """Make `items` from `raw_items`; days with events of items that came or went are to be cleaned again.

    Returns:
        Rows kept under "kept", and rows rejected by the name of the rule.

    Cost: a sort of the catalogue; where items came or went, some scans of the events' items and ids.
    """
    forms.make_macros(db, "items")
    schema.ITEMS.create(db)
    days.create(db)
    db.execute("create or replace temp table former_items as select item_id from items")
    db.execute(f"create or replace temp table checked as {_PREPARED}")
    counts = sieve(db, "items", prepared="from checked", rules=[*_ROW_RULES, _REPEATED], kept=schema.ITEMS)
    db.execute("""
        create or replace temp table moved_items as
        select coalesce(f.item_id, i.item_id) as item_id from former_items as f full join items as i using (item_id)
        where f.item_id is null or i.item_id is null""")
    if db.execute("select 1 from event_days limit 1").fetchall():
        days.touch_readers(db, "select day, instant, event_id from raw_events where item_id in (from moved_items)")
    db.execute("drop table checked; drop table former_items; drop table moved_items")
    return counts
