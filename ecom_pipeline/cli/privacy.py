"""`ecom forget`: a person is taken out of a home for good, and that is proved; `ecom rotate-key`: everybody gets another
pseudonym."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, enter
from ecom_pipeline.errors import HomeError, InputError
from resources.writer import one_writer, served

if TYPE_CHECKING:
    from ecom_pipeline.privacy.receipt import Receipt
    from resources.warehouse import Warehouse


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="The user's id as the shop has it.")] = "",
    home: HomeOption = DEFAULT_HOME,
    actor: Annotated[str, typer.Option(help="The user's pseudonym instead, as the warehouse has it.")] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Only look for the user in every byte of the home; nothing is removed.")
    ] = False,
) -> None:
    """Take a person out of every relation, file and history of a home, keep him out, and prove it; writes a receipt."""
    if bool(user.strip()) == bool(actor):
        raise InputError(
            f"forget: {2 if actor else 0} of USER and --actor are given; first: {user!r}. Exactly 1 must be: say who, by "
            "the shop's id or by the pseudonym."
        )
    enter(home)
    from assets import forget as forgetting
    from ecom_pipeline import definitions

    home_, warehouse = definitions.HOME, definitions.WAREHOUSE
    _require(home, warehouse)
    with one_writer(home_.folder, "`ecom forget`"):
        person = forgetting.who(home_, raw=user, actor=actor)
        receipt = (forgetting.check if check else forgetting.forget)(home_, warehouse, person)
        _show(receipt, home_.receipts)
    if receipt.found:
        place = next(iter(receipt.found))
        raise HomeError(
            f"forget: the user is still named in {len(receipt.found)} places; first: {place!r}, "
            f"{receipt.found[place]} times. He must be named in none: "
            + (
                "run `ecom forget` without --check."
                if check
                else "delete or mend what is named, and run `ecom forget` again."
            )
        )
    if receipt.unopened:
        place, why = next(iter(receipt.unopened.items()))
        raise HomeError(
            f"forget: {len(receipt.unopened)} files cannot be opened; first: {place!r}: {why}. Each must be, or nobody knows whom it "
            "names: delete it, or put it back from a copy, and run `ecom forget --check` again."
        )


@app.command(name="rotate-key")
def rotate_key(home: HomeOption = DEFAULT_HOME) -> None:
    """Hash every pseudonym with one more key, ECOM_HASH_KEY_NEW, which is the home's key from then on; writes a receipt."""
    enter(home)
    from assets import rotate
    from ecom_pipeline import definitions

    home_, warehouse = definitions.HOME, definitions.WAREHOUSE
    _require(home, warehouse)
    with one_writer(home_.folder, "`ecom rotate-key`"), served(home_.folder, alone=True):
        _show(rotate.rotate(home_, warehouse), home_.receipts)


def _show(receipt: "Receipt", folder: Path) -> None:
    print("\n".join(receipt.lines()))
    print(f"receipt: {receipt.write(folder)}")


def _require(home: Path, warehouse: "Warehouse") -> None:
    if not warehouse.is_there:
        raise InputError(
            f"home: {str(home)!r} holds no data; 1 file is missing, warehouse.duckdb. A run must have been begun there: check "
            "--home or ECOM_HOME."
        )
