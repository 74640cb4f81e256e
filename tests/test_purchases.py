"""A purchase has gone back when every piece of it has, and not before."""

from datetime import date

import duckdb
import pytest

from ecom_pipeline import schema
from ecom_pipeline.purchases import gone_back


@pytest.mark.parametrize(
    ("bought", "returned", "gone"),
    [
        (3, {2: 2}, None),
        (3, {2: 2, 5: 1}, 5),
        (None, {4: None}, 4),
        (2, {4: None}, None),
        (0.3, {2: 0.1, 3: 0.2}, 3),
        (1, {}, None),
    ],
)
def test_a_purchase_is_gone_on_the_day_of_its_last_piece(bought, returned, gone):
    with duckdb.connect() as db:
        schema.CLEANED_INTERACTIONS.create(db)
        rows = [("b", "purchase", 1, bought, None)]
        rows += [(f"r{day}", "return", day, quantity, "b") for day, quantity in returned.items()]
        db.executemany(
            """insert into cleaned_interactions by name select $1 as event_id, $2 as action,
            date '2024-05-01' + $3::integer - 1 as day, $4 as quantity, $5 as return_of""",
            rows,
        )
        assert db.execute(gone_back()).fetchall() == ([("b", date(2024, 5, gone))] if gone else [])
        if gone:
            assert db.execute(gone_back(date(2024, 5, gone))).fetchall() == []
