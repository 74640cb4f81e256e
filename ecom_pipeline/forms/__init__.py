"""How texts, ids, numbers, prices and times are written by those who bring them, as SQL macros and expressions.

On the floor below `sources` and `cleaning`, which both read with them. `make_macros` gives a connection all of them; what is
told by a whole column of a file is found by `columns.settle` when the file has landed.
"""

from duckdb import DuckDBPyConnection

from ecom_pipeline.forms import columns, prices, texts


def make_macros(db: DuckDBPyConnection, table: str) -> None:
    """Give a connection `trimmed`, `filled`, `clean_text`, `filled_text` and the macros of numbers and prices.

    Args:
        db: a connection.
        table: one of `schema.inputs.COLUMNS`: whose prices are read.
    """
    texts.make_macros(db)
    prices.make_macros(db, columns.forms(db, table, "price"))
