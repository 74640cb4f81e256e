"""Folders of published models: written aside, named by their content, checked, and switched to by one rename.

On the floor of `service`. Nothing here knows what a model is.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from ecom_pipeline.errors import PublicationError

MANIFEST, CURRENT = "manifest.json", "current.json"
N_KEPT = 3


def publish(folder: Path, write: Callable[[Path], Mapping[str, object]], check: Callable[[Path], Mapping]) -> str:
    """Write a model aside, check it, and switch to it; what serves is left alone if anything goes wrong.

    Args:
        folder: of all published models.
        write: fills an empty folder, and returns what is told of it.
        check: opens the finished folder as a service would; raises if it must not serve, and returns what it measured.

    Returns:
        The model's name, a hash of its files.

    Raises:
        PublicationError: if `check` does, or a file cannot be hashed.

    Cost: one more reading of what was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        told = dict(write(part))
        files = {str(file.relative_to(part)): _digest(file) for file in sorted(part.rglob("*")) if file.is_file()}
        name = hashlib.sha256(json.dumps([told, files], sort_keys=True).encode()).hexdigest()[:16]
        _write(part / MANIFEST, {"name": name, **told, "files": files})
        measured = check(part)
        if not whole(folder / name):
            shutil.rmtree(folder / name, ignore_errors=True)  # it was damaged since
            os.replace(part, folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    former = [one for one in history(folder) if one != name]
    kept = [name, *former][:N_KEPT]
    now = datetime.now(UTC).isoformat()
    _write(folder / CURRENT, {"name": name, "published_at": now, "kept": kept, "measured": dict(measured)})
    for old in folder.glob("*/"):
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return name


def drop(folder: Path, names: Collection[str]) -> None:
    """Delete models for good, and forget that they were kept; where the one that is to serve is among them, none is.

    Args:
        folder: of all published models.
        names: of those that go; unknown ones are no error.
    """
    kept = [name for name in history(folder) if name not in names]
    if history(folder) and history(folder)[0] in names:
        (folder / CURRENT).unlink()
    elif kept:
        _write(folder / CURRENT, {**pointer(folder), "kept": kept})
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)


def current(folder: Path) -> str:
    """Name of the model that is to serve.

    Raises:
        PublicationError: if none has been published, or the pointer is damaged.
    """
    return str(pointer(folder)["name"])


def pointer(folder: Path) -> dict:
    """What is told of the model that is to serve: name, published_at, kept, measured.

    Raises:
        PublicationError: as `current`.
    """
    file = folder / CURRENT
    if not file.is_file():
        raise PublicationError(
            f"published model: 0 are in {str(folder)!r}. One must have been published there: `ecom run` first, or choose "
            "another --home."
        )
    try:
        told = json.loads(file.read_text())
        return {**told, "name": str(told["name"])}
    except (ValueError, LookupError, TypeError) as error:
        raise PublicationError(
            f"published model: 1 pointer is damaged: {str(file)!r}: {error}. It must name the model that is to serve: "
            "publish again by `dagster asset materialize --select published_model`."
        ) from error


def history(folder: Path) -> list[str]:
    """Names of the models that are kept, the latest first."""
    try:
        return [str(name) for name in pointer(folder).get("kept", [])]
    except PublicationError:
        return []


def current_is_whole(folder: Path) -> bool:
    """Whether a model is published and its files are all as they were written. Cost: as `verified`."""
    names = history(folder)
    return bool(names) and whole(folder / names[0])


def whole(folder: Path) -> bool:
    """Whether a model's files are all as they were written. Cost: as `verified`."""
    try:
        return bool(verified(folder))
    except PublicationError:
        return False


def verified(folder: Path) -> dict:
    """The manifest of a model whose files are all as they were written.

    Raises:
        PublicationError: if a file is missing or was changed.

    Cost: reads every file once.
    """
    try:
        told = json.loads((folder / MANIFEST).read_text())
        files = told["files"]
    except (OSError, ValueError, LookupError) as error:
        raise PublicationError(
            f"published model: 1 manifest cannot be read: {str(folder / MANIFEST)!r}: {error}. A published folder must be "
            "whole: publish again."
        ) from error
    wrong = [
        name for name, digest in files.items() if not (folder / name).is_file() or _digest(folder / name) != digest
    ]
    if wrong:
        raise PublicationError(
            f"published model: {len(wrong)} of {len(files)} files are missing or changed; first: {wrong[0]!r} in "
            f"{str(folder)!r}. All must be as they were written: publish again."
        )
    return told


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write(file: Path, told: Mapping[str, object]) -> None:
    part = file.with_suffix(".part")
    with part.open("w") as opened:
        json.dump(told, opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(part, file)
