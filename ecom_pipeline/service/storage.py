"""Arrays and models of arrays as plain .npy files, which are opened without being read and hold no code.

On the floor of `service`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.errors import PublicationError
from ecom_pipeline.recommend.circumstances import Circumstances
from ecom_pipeline.recommend.interactions import Interactions
from ecom_pipeline.recommend.item_item import ItemItem, Neighbours, RidgeByItems, RidgeByUsers
from ecom_pipeline.recommend.retrieval import Lately

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (RidgeByUsers, RidgeByItems, Neighbours)}


def write_arrays(folder: Path, arrays: Mapping[str, NDArray | None]) -> None:
    """One file an array, named by its key; None is no file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        if values is not None:
            np.save(folder / f"{name}.npy", np.ascontiguousarray(values), allow_pickle=False)


def read_arrays(folder: Path) -> dict[str, NDArray]:
    """As written, memory-mapped and not to be written to."""
    return {file.stem: read_array(file) for file in sorted(folder.glob("*.npy"))}


def read_array(file: Path) -> NDArray:
    """One array, memory-mapped."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def write_item_item(folder: Path, model: ItemItem) -> dict[str, object]:
    """Write an item-item model, and return what `read_item_item` must be told."""
    told: dict[str, object] = {"kind": type(model).__name__}
    arrays: dict[str, NDArray | None] = {}
    for field in fields(model):  # type: ignore[arg-type]  # every kind is a dataclass
        value = getattr(model, field.name)
        if sparse.issparse(value):
            arrays |= {f"{field.name}-{part}": getattr(value, part) for part in ("data", "indices", "indptr")}
            told[field.name] = list(value.shape)
        elif isinstance(value, np.ndarray):
            arrays[field.name] = value
        else:
            told[field.name] = value
    write_arrays(folder, arrays)
    return told


def read_item_item(folder: Path, told: Mapping[str, Any]) -> ItemItem:
    """An item-item model as written.

    Raises:
        PublicationError: if another version wrote it, whose model of that kind had other parts.
    """
    arrays, kind = read_arrays(folder), _KINDS[told["kind"]]
    known = arrays.keys() | told.keys()
    absent = [field.name for field in fields(kind) if field.name not in known and field.default is MISSING]
    if absent:
        raise PublicationError(
            f"published model: {len(absent)} parts of {kind.__name__} are missing; first: {absent[0]!r} in {folder}. "
            "A model must be served by the version that published it: start `ecom run`, which publishes it again."
        )
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in arrays:
            values[field.name] = arrays[field.name]
        elif field.name not in told:
            continue  # an older publication lacks it: it has a default
        elif isinstance(told[field.name], list):
            parts = tuple(arrays[f"{field.name}-{part}"] for part in ("data", "indices", "indptr"))
            values[field.name] = sparse.csr_matrix(parts, shape=tuple(told[field.name]))
        else:
            values[field.name] = told[field.name]
    return kind(**values)


_OF_ACTS = ("user", "item", "day", "n_acts", "quantity", "returned", "price", "shown")


def write_acts(folder: Path, acts: Interactions) -> None:
    """Write histories; the ids of users and items are kept elsewhere."""
    write_arrays(folder, {name: getattr(acts, name) for name in _OF_ACTS})
    how = acts.circumstances
    if how is not None:
        write_arrays(folder / "circumstances", {field.name: getattr(how, field.name) for field in fields(how)})


def read_acts(folder: Path, user_ids: NDArray, item_ids: NDArray) -> Interactions:
    """Histories as written."""
    how = read_arrays(folder / "circumstances")
    return Interactions(
        **read_arrays(folder),
        user_ids=user_ids,
        item_ids=item_ids,
        circumstances=Circumstances(**how) if how else None,
    )


def write_lately(folder: Path, lately: Lately) -> None:
    """Write what was taken lately."""
    write_arrays(folder, {"days": lately.days} | {f"of-{n}": table for n, table in lately.takings.items()})


def read_lately(folder: Path) -> Lately:
    """What was taken lately, as written."""
    arrays = read_arrays(folder)
    return Lately(
        arrays.pop("days"), {int(name.removeprefix("of-")): np.array(table) for name, table in arrays.items()}
    )
