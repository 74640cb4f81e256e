"""Land and clean generated events that lie in one CSV file: seconds, and the largest memory the process held.

    python benchmarks/reading_speed.py [--events 10000000] [--quoted] [--zipped]

The clock runs from the file, 1 GB at 10 million events, to `cleaned_interactions` and `rejected_rows` written; 2 % of the
events repeat an earlier one, 1 % have an unknown item, and one line in 100,000 has a field too many.
"""

import argparse
import resource
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from duckdb import DuckDBPyConnection

from assets.prepare import CleaningConfig
from assets.publish import settings_of
from ecom_pipeline import cleaning, sources
from resources.warehouse import Warehouse

FIRST, N_DAYS = date(2025, 1, 1), 100


def write(db: DuckDBPyConnection, folder: Path, n: int, quoted: bool, zipped: bool) -> Path:
    """A shop of n events; returns their file."""
    users, items = max(1, n // 100), max(1, n // 200)
    db.execute(
        f"copy (select 'i' || range as item_id, 'item ' || range as title from range({items})) to '{folder}/items.csv'"
    )
    file = folder / ("events.csv.gz" if zipped else "events.csv")
    db.execute(
        f"""copy (select 'e' || row as event_id,
            strftime(timestamp '{FIRST}' + to_microseconds((hash(row, 'at') % {N_DAYS * 86_400_000_000})::bigint),
                '%Y-%m-%dT%H:%M:%S.%fZ') as occurred_at,
            'user-' || hash(row, 'user') % {users} as user_id,
            's' || hash(row, 'user') % {users} || '-' || row % 7 as session_id,
            case when hash(row, 'action') % 10 < 7 then 'impression' when hash(row, 'action') % 10 < 9 then 'click'
                else 'purchase' end as action,
            case when hash(row, 'bad') % 100 = 0 then 'unknown' else 'i' || hash(row, 'item') % {items} end as item_id,
            case when hash(row, 'query') % 2 = 0 then 'query ' || hash(row, 'query') % 1000 end as query,
            1 + hash(row, 'position') % 30 as position, 1 as quantity,
            case when row % 100000 = 7 and not {quoted} then '9.99,surplus' else '9.99' end as price
        from (select case when range % 50 = 49 then range - 7 else range end as row from range({n})))
        to '{file}' ({"force_quote *" if quoted else "quote ''"}, header true)"""
    )
    return file


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--quoted", action="store_true", help="every field in quotes")
    parser.add_argument("--zipped", action="store_true")
    asked = parser.parse_args()
    limits = cleaning.Limits(**settings_of(CleaningConfig()))
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "shop"
        folder.mkdir()
        warehouse = Warehouse(path=str(Path(home) / "warehouse.duckdb"))
        with Warehouse(path=str(Path(home) / "generated.duckdb")).connect() as db:
            file = write(db, folder, asked.events, asked.quoted, asked.zipped)
        source = sources.find(str(folder))
        started = time.monotonic()
        with warehouse.transaction() as db:
            source.land(db, "items", hash_key=b"benchmark")
            cleaning.clean_items(db)
            n_rows = source.land(db, "events", hash_key=b"benchmark").n_rows
            counts = cleaning.settle_days(db, datetime.now(UTC).replace(tzinfo=None))
        landed = time.monotonic() - started
        with warehouse.transaction() as db:
            cleaned = cleaning.clean_events(db, FIRST, FIRST + timedelta(days=N_DAYS - 1), limits)
        seconds = time.monotonic() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{n_rows:,} events, {file.stat().st_size / 1e9:.2f} GB: landed in {landed:.1f} s, cleaned after {seconds:.1f} s, "
            f"peak {peak:.2f} GiB; {counts | cleaned}"
        )
        assert n_rows == asked.events == sum(counts.values()) + sum(cleaned.values())


if __name__ == "__main__":
    main()
