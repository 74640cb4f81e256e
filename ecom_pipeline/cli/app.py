"""What all commands share: the app, the options, the home that is read, and how errors are told."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from ecom_pipeline.errors import HomeError, InputError
from resources.exchange import require_none

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="ECOM_HOME", help="Folder under which everything lives.", show_default=True)
]
DEFAULT_HOME = Path(".ecom")


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"ecom-pipeline {version('ecom-pipeline')}")
        raise typer.Exit


@app.callback()
def _every_command(
    _: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Which version this is.")
    ] = False,
) -> None:
    """Which training samples teach a shop's search and recommendations, and which mislead them."""


def enter(home: Path, **environment: str) -> None:
    """Set what the definitions read when they load."""
    os.environ["ECOM_HOME"] = str(home.expanduser().absolute())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.update({name: value for name, value in environment.items() if value})


@contextmanager
def finished(home: Path, relation: str) -> Iterator[Any]:
    """A connection to a warehouse in which a relation has been made.

    Raises:
        InputError: if it has not been made.
        HomeError: if a change of keys was broken off.
    """
    enter(home)
    require_none(home.expanduser())
    from ecom_pipeline import definitions

    warehouse = definitions.WAREHOUSE
    if not warehouse.is_there or not warehouse.has(relation):
        raise InputError(
            f"home: {str(home)!r} has no {relation!r}; 1 relation is missing. A run must have been finished there: "
            "`ecom run` first, or choose another --home."
        )
    with warehouse.connect() as db:
        yield db


def tell(home: Any, warehouse: Any) -> None:
    """Print the results of the last run; the page is written if it is gone."""
    from ecom_pipeline import report

    with finished(home.folder, "evaluation") as db:
        page = report.gather(db, home.models)
    if not home.report.is_file():
        report.write(page, home.report)
    print("\n".join(["", *report.lines(page), "", f"report: {home.report}"]))


def writing(path: Path, write: Callable[[], object]) -> None:
    """Write a file that was asked for; one that cannot be is the caller's to mend."""
    try:
        write()
    except OSError as error:
        raise InputError(
            f"{str(path)!r}: 1 file cannot be written: {error.strerror or error}. Its folder must exist and be writable: choose another path."
        ) from error


def require_room(error: object) -> None:
    """Tell of a full disk as such, whatever met it: the file system, DuckDB, or the SQLite of Dagster's history.

    Raises:
        HomeError: if that is what an error says.
    """
    if any(sign in str(error) for sign in ("No space left on device", "disk is full")):
        raise HomeError(
            f"disk: 1 write was refused, as the disk is full: {str(error).strip().splitlines()[-1]}. There must be room for what "
            "is made: free some, and start the command again; what was finished stays."
        )
