"""Amazon Beauty as papers on sequences cut it: each user's items in the order of his reviews, without times or ratings.

A step is a `review`, and is told as a day: the first is 2000-01-01 for everybody. So what is learnt of age is learnt of
steps. An item without a name is rejected.
"""

from pathlib import Path

from ecom_pipeline.sources.documents import first_fields
from ecom_pipeline.sources.source import PLACE, Adapter, Part, quoted


def _files(folder: Path) -> list[Path]:
    return [folder / "items.parquet", folder / "sequences.parquet"]


def _recognises(folder: Path) -> bool:
    items, sequences = _files(folder)
    return items.is_file() and sequences.is_file() and {"user_id", "step", "item_id"} <= first_fields(sequences)


def _parts(folder: Path) -> list[Part]:
    items, sequences = _files(folder)
    catalogue = f"select item_id::varchar as item_id, title, asin, {PLACE} from read_parquet({quoted(items)})"
    events = f"""
        select date '2000-01-01' + (step - 1)::integer as occurred_at, user_id::varchar as user_id, 'review' as action,
            item_id::varchar as item_id, step, {PLACE}
        from read_parquet({quoted(sequences)})"""
    return [Part("items", items, lambda db: catalogue), Part("events", sequences, lambda db: events)]


ADAPTER = Adapter("amazon-beauty", _recognises, _parts)
