"""Which database a home's journal is in.

On the floor of `service`.
"""

from pathlib import Path

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service.journal.database import MARK, Database
from ecom_pipeline.service.journal.sqlite import SQLite
from ecom_pipeline.sources.people import HashKey


def open_database(folder: Path, connection: str, hash_key: HashKey) -> Database:
    """The journal's database; it is asked nothing yet.

    Args:
        folder: of the sealed files, and of the file of SQLite.
        connection: to Postgres, as libpq takes it; empty: the file.
        hash_key: that people are hashed with.

    Raises:
        JournalError: if the connection cannot be read, its library is not installed, or there is none and the journal is in Postgres.
    """
    if connection:
        try:
            from ecom_pipeline.service.journal.postgres import Postgres
        except ImportError as error:
            raise JournalError(
                "ECOM_JOURNAL: 1 package is missing, psycopg. It must be there for a journal in Postgres: `pip install "
                "'ecom-pipeline[journal]'`, or unset the variable."
            ) from error
        return Postgres(folder, connection, hash_key)
    if (folder / MARK).is_file():
        raise JournalError(
            f"ECOM_JOURNAL: 1 connection is missing: the journal of {str(folder)!r} is in Postgres, and nothing says where. It must "
            f"be a connection string: set it in the environment. Without what waits there, a journal begins in a file once {MARK!r} is deleted."
        )
    return SQLite(folder)
