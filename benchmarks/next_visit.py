"""What will a household take on its next visit? The whole catalogue is ranked; every way to weigh and to choose rows.

Protocol: Complete Journey after the cleaning of the pipeline; the catalogue is what was sold at least ten times in the
year. Test periods are days 230 to 259, 270 to 299 and 320 to 349 from 2017-01-01. Of each, the first day on which a
household takes something is its visit; a household needs a purchase before the period. All that lies before the visit
is known of the household, and all before the period of the shop. nDCG@10 has linear gain and an ideal list cut at ten.
Everything is chosen on the 28 days before a period, and learnt from the 84 days before those.

    python benchmarks/next_visit.py [--periods 320 270 230] [--draws 3] [--visits 8000] [--out results.json]
"""

from datetime import UTC, datetime

import duckdb
import numpy as np

from ecom_pipeline import cleaning, sources
from ecom_pipeline.recommend.candidates import Catalogue
from ecom_pipeline.recommend.interactions import day_number
from ecom_pipeline.recommend.learning import class_codes
from ecom_pipeline.recommend.periods import Origin, Period
from ecom_pipeline.sources.source import land

FIRST = day_number(datetime(2017, 1, 1).date())
LIMITS = cleaning.Limits(near_seconds=5, actions_per_minute=30, actions_per_day=300, events_per_day=5000)


def cleaned(name: str) -> duckdb.DuckDBPyConnection:
    """A warehouse in memory with a source's cleaned tables."""
    db = duckdb.connect(config={"memory_limit": "4GB", "threads": 2})
    source = sources.find(name)
    for table in ("items", "events"):
        land(db, table, source.adapter.tables(source.folder, db).query(table), b"benchmark")
    cleaning.clean_items(db)
    cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
    first, last = db.execute("select min(day), max(day) from raw_events").fetchall()[0]
    cleaning.clean_events(db, first, last, LIMITS)
    return db


def read_catalogue(db: duckdb.DuckDBPyConnection, item_ids: np.ndarray) -> Catalogue:
    """Classes of the items."""
    frame = db.execute("select item_id, category, brand from items").df().set_index("item_id").loc[item_ids]
    parts = frame.category.fillna("").str.split(" > ")
    levels = {
        "top": parts.str[0],
        "category": frame.category.fillna(""),
        "middle": parts.str[:2].str.join(" > "),
        "brand": frame.brand,
    }
    return Catalogue(class_codes({name: level.to_numpy() for name, level in levels.items()}))


def origin(first: int, length: int = 30) -> Origin:
    """The test period that begins on a day of the year, with what is chosen on and learnt from before it."""
    start = FIRST + first
    cuts = [start - 28 * n for n in range(5)]
    train = tuple(Period(cuts[n], cuts[n - 1]) for n in (4, 3, 2))
    return Origin(train, Period(cuts[1], start), Period(start, start + length))
