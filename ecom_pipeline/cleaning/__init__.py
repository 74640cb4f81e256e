"""Rules that keep or reject a row, each with a name; a rejected row is kept too, with the first rule it broke.

On the floor above `schema`. All work is SQL on the connection given, so memory is DuckDB's and so is the limit on it.
"""

from ecom_pipeline.cleaning.catalogue import clean_items
from ecom_pipeline.cleaning.events import Limits, clean_events, settle_days
from ecom_pipeline.cleaning.judgments import clean_judgments
from ecom_pipeline.cleaning.offers import clean_exposures, clean_offers

__all__ = [
    "Limits",
    "clean_events",
    "clean_exposures",
    "clean_items",
    "clean_judgments",
    "clean_offers",
    "settle_days",
]
