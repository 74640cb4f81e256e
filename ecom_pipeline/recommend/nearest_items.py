"""Which items are nearest to a vector: by all their vectors, or above some number of items by a graph of them.

On a low floor of `recommend`. The one place where a history, a query or an item is held against the vectors of all items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sparse

from ecom_pipeline.arrays import Bools, Ints, Singles
from ecom_pipeline.recommend.best import best_columns

if TYPE_CHECKING:
    from ecom_pipeline.recommend.item_graph import ItemGraph

EXACT_UNTIL = 100_000  # items up to which all vectors are looked at: at most 16 ms of a core, and nothing to build
LEAST_FOUND = 0.95  # of the ten nearest: a graph that finds fewer is not used
DEEPEST = 4_096  # texts that a graph is asked for; where they hold too few that may be shown, those few are looked at
SPARE = 1.25  # times as many texts as items are asked for: the graph holds vectors in half precision
_ROWS = 1 << 16  # vectors that are looked at at a time


class Asked(Protocol):
    """Some vectors that were held against all items."""

    def nearest(
        self, k: int, *, allowed: Bools | None = None, but: sparse.csr_matrix | None = None
    ) -> tuple[Ints, Singles]:
        """The k nearest items of each vector, the nearest first; of equals the first item.

        Args:
            k: how many, at most.
            allowed: (items,) which may be named; None: all.
            but: (vectors, items) whose cells, whatever their value, are pairs that are not named.

        Returns:
            (vectors, j) items, -1 where there are no more, and (vectors, j) their cosines, -inf there; j <= k.
        """

    def cosines(self, row: Ints, item: Ints) -> Singles:
        """(n,) cosine of a vector, by its row, and an item; 0 where either is 0."""


class NearestItems(Protocol):
    """Items that can be asked for those nearest to vectors."""

    @property
    def vectors(self) -> Singles:
        """(items, d) of length 1; 0 of an item that nobody read."""

    def ask(self, vectors: Singles) -> Asked:
        """Hold (q, d) vectors, of length 1 or 0, against all items."""


@dataclass(frozen=True, slots=True)
class ExactItems:
    """All vectors are looked at.

    Attributes:
        vectors: (items, d) of length 1; 0 of an item that nobody read.
    """

    vectors: Singles

    def ask(self, vectors: Singles) -> "ExactAsked":
        """Cost: O(q items d) time, O(q items) memory."""
        if len(vectors) == 1:
            return ExactAsked((self.vectors @ vectors[0])[None])
        return ExactAsked(vectors @ self.vectors.T)


@dataclass(frozen=True, slots=True)
class ExactAsked:
    """Attributes: table: (vectors, items) cosines."""

    table: Singles

    def nearest(
        self, k: int, *, allowed: Bools | None = None, but: sparse.csr_matrix | None = None
    ) -> tuple[Ints, Singles]:
        """See `Asked`. Cost: O(items) a vector."""
        table = self.table if allowed is None else np.where(allowed, self.table, np.float32(-np.inf))
        if but is not None:
            table = table.copy() if table is self.table else table
            row, item = _cells(but)
            table[row, item] = -np.inf
        best = best_columns(table, k)
        cosine = np.take_along_axis(table, best, 1)
        return np.where(np.isfinite(cosine), best, -1), cosine

    def cosines(self, row: Ints, item: Ints) -> Singles:
        """See `Asked`."""
        return self.table[row, item]


@dataclass(frozen=True, slots=True)
class GraphAsked:
    """Attributes: graph: of the items. asked: (q, d)."""

    graph: "ItemGraph"
    asked: Singles

    def nearest(
        self, k: int, *, allowed: Bools | None = None, but: sparse.csr_matrix | None = None
    ) -> tuple[Ints, Singles]:
        """See `Asked`; a few of the nearest may be missing, and none is named with another's cosine.

        The graph is asked for more and more texts until enough of their items may be named. Where that would be more
        than `DEEPEST`, the vectors of those that are allowed are looked at instead.

        Cost: O(log items) a vector; where few items are allowed, O(those d).
        """
        item = np.full((len(self.asked), k), -1)
        cosine = np.full(item.shape, -np.inf, np.float32)
        share = 1.0 if allowed is None else float(allowed.mean())
        depth = int(np.ceil(SPARE * k / max(share, 1e-9)))
        waiting = np.arange(len(self.asked))
        while len(waiting) and depth < min(self.graph.n_texts, max(DEEPEST, k)):
            short = []
            for row, texts in zip(waiting.tolist(), self.graph.search(self.asked[waiting], depth), strict=True):
                found = self._named(self.graph.items_of(texts), row, allowed, but)
                if len(found) < k:
                    short.append(row)
                else:
                    self._keep(found, row, item=item, cosine=cosine)
            waiting, depth = np.array(short, np.int64), 4 * depth
        for row in waiting.tolist():
            found = self._named(np.arange(len(self.graph.vectors)), row, allowed, but)
            self._keep(found, row, item=item, cosine=cosine)
        return item, cosine

    def cosines(self, row: Ints, item: Ints) -> Singles:
        """See `Asked`. Cost: O(n d)."""
        found = np.empty(len(row), np.float32)
        for part in _parts(len(row)):
            found[part] = np.einsum("nd,nd->n", self.asked[row[part]], self.graph.vectors[item[part]])
        return found

    @staticmethod
    def _named(found: Ints, row: int, allowed: Bools | None, but: sparse.csr_matrix | None) -> Ints:
        if allowed is not None:
            found = found[allowed[found]]
        if but is not None:
            found = found[~np.isin(found, but.indices[but.indptr[row] : but.indptr[row + 1]])]
        return found

    def _keep(self, found: Ints, row: int, *, item: Ints, cosine: Singles) -> None:
        """The best of what was found: by the vectors themselves, as the graph holds them in half precision."""
        near = np.concatenate([self.graph.vectors[found[part]] @ self.asked[row] for part in _parts(len(found))])
        order = np.lexsort((found, -near))[: item.shape[1]]
        item[row, : len(order)], cosine[row, : len(order)] = found[order], near[order]


def _parts(n: int) -> Iterator[slice]:
    yield from (slice(start, min(start + _ROWS, n)) for start in range(0, max(n, 1), _ROWS))


def _cells(table: sparse.csr_matrix) -> tuple[Ints, Ints]:
    return np.repeat(np.arange(table.shape[0]), np.diff(table.indptr)), table.indices
