"""Small folders in the layouts that formats have, and what lands of them."""

import csv
import gzip
import json

from ecom_pipeline import sources
from ecom_pipeline.schema.inputs import COLUMNS


def landed(db, folder, adapter):
    """Lands a folder, checks which adapter took it, and returns the rows of a table as dictionaries."""
    found = sources.find(str(folder))
    assert found.adapter.name == adapter
    for table in COLUMNS:
        found.land(db, table, hash_key=b"key")

    def rows(table, *columns):
        query = f"select {', '.join(columns)} from raw_{table} order by file, row_number"
        return db.execute(query).fetchall()

    return rows


def write_lines(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def write_table(path, *rows, mark=","):
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=mark, lineterminator="\n").writerows(rows)
