"""A graph of items' texts that is walked to the nearest ones: made once for the same vectors, kept, and measured.

On the floor above `nearest_items`.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.recommend.nearest_items import LEAST_FOUND, SPARE, ExactItems, GraphAsked

if TYPE_CHECKING:
    from usearch.index import Index

log = logging.getLogger(__name__)
AIM = 0.99  # the search is widened until so many are found
WIDTHS = (64, 128, 256, 512)  # texts that a search keeps in view
N_ASKED = 500  # vectors that a graph is measured with
EDGES, WIDTH_OF_BUILDING = 16, 128
_BLOCK = 10_000  # texts that are added at a time
_EQUAL = 1e-6  # cosines that differ by less are of equally near texts
_GRAPH, _TOLD = "graph.usearch", "graph.json"
_ARRAYS = ("first", "items", "begins")


class ItemGraph:
    """The distinct texts of items, each linked to near ones (HNSW), and the items of each text.

    Items of one text are one node: else a walk ends among a hundred copies of it, each linked to the others alone.

    Attributes:
        vectors: (items, d) of length 1; 0 of an item that nobody read, which is never found.
        folder: of its files.
        told: recall_at_10, width, n_items, n_texts, n_asked, used, and graph, the hash of its file.

    Source: Malkov and Yashunin 2018; the library is usearch, which reads its own format and runs nothing of it.
    """

    def __init__(self, vectors: Singles, folder: Path) -> None:
        """Open what `build` wrote; the graph is memory-mapped."""
        from usearch.index import Index

        self.vectors, self.folder = vectors, folder
        self.told: Mapping[str, Any] = json.loads((folder / _TOLD).read_text())
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        index = Index.restore(folder / _GRAPH, view=True)
        assert index is not None, "nothing but a file of another form is told by None"
        self._index = _with_width(index, self.told["width"])
        self._walking = Lock()  # of two threads that walk at once, both would write to the same memory

    def __reduce__(self) -> tuple[Callable, tuple[Singles, Path]]:
        """Another process opens the same files."""
        return _in_another_process, (self.vectors, self.folder)

    @property
    def n_texts(self) -> int:
        """How many distinct texts."""
        return len(self._arrays["first"])

    @property
    def used(self) -> bool:
        """Whether it finds enough."""
        return bool(self.told["used"])

    def ask(self, vectors: Singles) -> GraphAsked:
        """Hold (q, d) vectors, of length 1 or 0, against all items. Cost: nothing yet."""
        return GraphAsked(self, vectors)

    def search(self, asked: Singles, k: int) -> list[Ints]:
        """Of each of (q, d) vectors the k nearest texts, or as many as are found. Cost: O(log texts) each."""
        with self._walking:
            return _walk(self._index, asked, k)

    def items_of(self, texts: Ints) -> Ints:
        """All items of some texts."""
        begins, ends = self._arrays["begins"][texts], self._arrays["begins"][texts + 1]
        length = ends - begins
        offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return self._arrays["items"][np.repeat(begins, length) + offset]

    def copy_to(self, folder: Path) -> None:
        """Put its files into another folder: the same files under another name, where that can be."""
        folder.mkdir(parents=True)
        for file in sorted(self.folder.iterdir()):
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copyfile(file, folder / file.name)


def _in_another_process(vectors: Singles, folder: Path) -> "ItemGraph | ExactItems":
    """The graph; on another machine, which does not have its files, all vectors are looked at: that finds no fewer."""
    if folder.is_dir():
        return ItemGraph(vectors, folder)
    log.warning("graph %s is not on this machine: all %d vectors are looked at", folder.name, len(vectors))
    return ExactItems(vectors)


def open_or_build(kept: Path, vectors: Singles, asked: Singles) -> ItemGraph:
    """The graph of some vectors: that which was kept of them, if it is whole, or a new one.

    One thread builds: with more, which links come about would hang on which thread was faster, and the same items would
    be published under another name each time.

    Args:
        kept: folder of all graphs; can be deleted at any time.
        vectors: (items, d) of length 1 or 0, not all 0.
        asked: (q, d) what is really asked, to measure by; empty: texts of items are.

    Cost: 0.6 to 1 ms a distinct text of 384 numbers, and 0.9 KiB of disk; O(500 texts d) to measure; where a graph is kept,
        one reading of the vectors and of its file.
    """
    kept.mkdir(parents=True, exist_ok=True)
    folder = kept / _fingerprint(vectors)
    with FileLock(kept / f"{folder.name}.lock"):
        if not _is_whole(folder):
            part = kept / f"{folder.name}.part"
            for old in (part, folder):
                shutil.rmtree(old, ignore_errors=True)
            build(part, vectors, asked)
            os.replace(part, folder)
    os.utime(folder)  # the last used are kept
    return ItemGraph(vectors, folder)


def build(folder: Path, vectors: Singles, asked: Singles) -> None:
    """Write a graph's files; the same bytes for the same vectors on the same kind of processor. Cost: as `open_or_build`."""
    from usearch.index import Index

    folder.mkdir(parents=True)
    first, items, begins = distinct(vectors)
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=EDGES, expansion_add=WIDTH_OF_BUILDING)
    started = told_at = time.monotonic()
    for start in range(0, len(first), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(first)))
        index.add(rows, np.ascontiguousarray(vectors[first[rows]]), threads=1)
        if time.monotonic() > told_at + 10:
            told_at = time.monotonic()
            log.info("graph: %d of %d texts, %.0f a second", rows[-1] + 1, len(first), rows[-1] / (told_at - started))
    if not len(asked):
        asked = vectors[first]
    asked = asked[np.linspace(0, len(asked) - 1, min(N_ASKED, len(asked))).astype(int)]
    width, recall = _width(index, vectors, first, asked)
    log.info("graph of %d texts: %.3f of the nearest ten are found with width %d", len(first), recall, width)
    index.save(str(folder / _GRAPH))
    for name, values in zip(_ARRAYS, (first, items, begins), strict=True):
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
    told: dict[str, object] = {
        "recall_at_10": recall,
        "width": width,
        "used": recall >= LEAST_FOUND,
        "n_asked": len(asked),
    }
    told |= {"n_items": len(vectors), "n_texts": len(first), "graph": _digest(folder / _GRAPH)}
    (folder / _TOLD).write_text(json.dumps(told, indent=1))


def distinct(vectors: Singles) -> tuple[Ints, Ints, Ints]:
    """Which items have the same vector.

    Args:
        vectors: (items, d); those that are 0 are left out.

    Returns:
        (t,) the first item of each distinct vector, sorted; (n,) the items of each, one after the other; (t + 1,) where
        those of each begin.

    Cost: a sort of the vectors.

    >>> [part.tolist() for part in distinct(np.array([[0, 1], [0, 0], [1, 0], [0, 1]], np.float32))]
    [[0, 2], [0, 3, 2], [0, 2, 3]]
    """
    read = np.flatnonzero(vectors.any(1))
    rows = np.ascontiguousarray(vectors[read])
    same = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, place, group = np.unique(same, return_index=True, return_inverse=True)
    order = np.argsort(place)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    group = number[group]
    begins = np.r_[0, np.cumsum(np.bincount(group, minlength=len(order)))]
    return read[place[order]], read[np.argsort(group, kind="stable")], begins


def recall_at_10(vectors: Singles, asked: Singles, found: list[Ints]) -> float:
    """Share of the ten nearest that were found; what is as near as the tenth counts as one of them.

    Args:
        vectors: (t, d) that could be found.
        asked: (q, d).
        found: places of some of them for each of those asked; the nearest ten of these are what is answered.

    Cost: O(q t d).
    """
    k = min(10, len(vectors))
    nearest = ExactItems(vectors)
    shares: list[Floats] = []
    for start in range(0, len(asked), 50):
        _, best = nearest.ask(asked[start : start + 50]).nearest(k)
        for row, least in enumerate(best[:, -1].tolist()):
            cosine = vectors[found[start + row]] @ asked[start + row]
            shares.append(min((cosine >= least - _EQUAL).sum(), k) / k)
    return float(np.mean(shares))


def _width(index: "Index", vectors: Singles, first: Ints, asked: Singles) -> tuple[int, float]:
    """The least width that finds as many as is aimed at, or the widest, and the share that it finds."""
    texts, width, recall = np.ascontiguousarray(vectors[first]), WIDTHS[0], 0.0
    for width in WIDTHS:
        recall = recall_at_10(texts, asked, _walk(_with_width(index, width), asked, int(np.ceil(SPARE * 10))))
        if recall >= AIM:
            break
    return width, recall


def _walk(index: "Index", asked: Singles, k: int) -> list[Ints]:
    if not len(asked):
        return []
    found: Any = index.search(np.ascontiguousarray(asked), min(k, len(index)), threads=1)
    # of one vector there is no list
    each = [found] if len(asked) == 1 else found
    return [np.asarray(one.keys, np.int64) for one in each]


def _with_width(index: "Index", width: int) -> "Index":
    setattr(index, "expansion_search", width)  # noqa: B010  types take it for one that is only read
    return index


def _fingerprint(vectors: Singles) -> str:
    import usearch

    hashed = hashlib.blake2b(digest_size=8)
    hashed.update(json.dumps([usearch.__version__, EDGES, WIDTH_OF_BUILDING, vectors.shape]).encode())
    for start in range(0, len(vectors), _BLOCK):
        hashed.update(np.ascontiguousarray(vectors[start : start + _BLOCK]).data)
    return hashed.hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        return json.loads((folder / _TOLD).read_text())["graph"] == _digest(folder / _GRAPH)
    except (OSError, ValueError, LookupError):
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
