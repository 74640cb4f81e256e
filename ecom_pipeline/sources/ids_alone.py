"""Logs that name objects by id alone: where there is no catalogue, the id is the title.

A text model can learn no more from such an item than its id.
"""

from functools import partial

from duckdb import DuckDBPyConnection

from ecom_pipeline.sources.source import Part


def named_items(part: Part) -> Part:
    """The items that the rows of another part name, in order of their ids."""
    return Part("items", part.file, partial(_named, part), part.also)


def _named(part: Part, db: DuckDBPyConnection) -> str:
    rows = part.query(db)
    return f"select distinct item_id, item_id as title from ({rows}) where item_id is not null order by item_id"
