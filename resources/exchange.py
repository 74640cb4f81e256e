"""Many files of a home change at once: they are made aside, the exchange is decided by one rename, and then it is done.

A kill before that leaves the home as it was; after it, whoever writes in the home next does the rest first.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ecom_pipeline.errors import HomeError

PART, DECIDED = "exchange.part", "exchange.json"


def begin(folder: Path) -> Path:
    """An empty folder in a home to make files in; one that a kill has left is deleted."""
    part = folder / PART
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    return part


def decide(folder: Path, moves: Mapping[str, str], gone: tuple[str, ...] = ()) -> None:
    """Decide that files and folders take the places of others, and do it.

    Args:
        folder: the home.
        moves: the place in the home of each, by its name in the folder that `begin` gave.
        gone: places in the home that are to be empty then.
    """
    for parent, _, names in os.walk(folder / PART):
        for name in names:
            with Path(parent, name).open("rb") as written:
                os.fsync(written.fileno())
    plan = folder / f"{DECIDED}.part"
    with plan.open("w") as opened:
        json.dump({"moves": dict(moves), "gone": gone}, opened)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(plan, folder / DECIDED)
    finish(folder)


def finish(folder: Path) -> None:
    """Do what was decided and not done yet, and delete what was made and not decided; call it as the one writer.

    Raises:
        HomeError: if the plan is damaged.
    """
    plan, part = folder / DECIDED, folder / PART
    if plan.is_file():
        told = _read(plan)
        for name, place in told["moves"].items():
            if (part / name).exists():  # else it is there already
                if (folder / place).is_dir():
                    shutil.rmtree(folder / place)
                os.replace(part / name, folder / place)
        for place in told["gone"]:
            (folder / place).unlink(missing_ok=True)
        plan.unlink()
    if part.is_dir():
        shutil.rmtree(part)


def require_none(folder: Path) -> None:
    """Raises HomeError if an exchange was decided and is not done: some files are of before, others of after."""
    if (folder / DECIDED).is_file():
        raise HomeError(
            f"home: 1 change of keys in {str(folder)!r} was decided and broken off. It must be done before anything is read: "
            "run `ecom rotate-key` once more, or any command that writes, under the new key as ECOM_HASH_KEY."
        )


def _read(plan: Path) -> dict:
    try:
        told = json.loads(plan.read_text())
        return {"moves": dict(told["moves"]), "gone": list(told["gone"])}
    except (ValueError, LookupError, TypeError) as error:
        raise HomeError(
            f"home: 1 plan of an exchange is damaged: {str(plan)!r}: {error}. It must name files of the home: restore the home "
            "from a copy."
        ) from error
