"""Extensions of DuckDB, as installed packages bring them: none is ever fetched while something runs."""

import importlib.util
from pathlib import Path

import duckdb

from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.quoting import literal


def load(db: duckdb.DuckDBPyConnection, *names: str, setting: str, extra: str) -> None:
    """Load extensions from the packages of this version of DuckDB.

    Args:
        db: a connection.
        names: of the extensions, as DuckDB calls them.
        setting: the variable of the environment that needs them.
        extra: of this project, which installs them.

    Raises:
        WarehouseError: if one of this version of DuckDB is not installed.
    """
    for name in names:
        file = _file(name)
        if not file.is_file():
            package = f"duckdb-extension-{name.replace('_', '-')}"
            raise WarehouseError(
                f"{setting}: 1 package is missing, {package} {duckdb.__version__}, whose extension DuckDB needs for it. It must be "
                f"installed where the variable is set: pip install 'ecom-pipeline[{extra}]', or unset the variable."
            )
        db.execute(f"load {literal(str(file))}")


def _file(name: str) -> Path:
    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    folder = Path((found.submodule_search_locations or [""])[0]) if found else Path()
    return folder / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
