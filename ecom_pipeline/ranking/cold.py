"""Items that training never saw: how like their texts are to items that it saw, and what those can lend them.

On the floor of `ranking`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.language.embeddings import Items

BLOCK = 1024  # rows of a matrix product: 1024 x 100,000 similarities are 0.4 GB
N_NEIGHBOURS = 10
BORROWED = "popularity of like items"
CUTS = ("cold items, unlike known ones", "cold items, somewhat like known ones", "cold items, much like known ones")


@dataclass(frozen=True, slots=True)
class Cold:
    """What is judged of items that training never saw.

    Attributes:
        borrowed: (n,) what like items lend to each test sample's item: their mean log popularity.
        slices: (n,) rows of the cold items, in three parts by how like known ones they are.
    """

    borrowed: Floats
    slices: dict[str, Bools]


def look_at_cold(item_id: Sequence[str], test: Items, known: Items, popularity: Mapping[str, int]) -> Cold | None:
    """Neighbours of every test item among the known ones; None where fewer than two items are known.

    Args:
        item_id: (n,) of the test samples.
        test: their items.
        known: items of the training samples.
        popularity: how often each item was taken before the test period; an item's own is not asked.

    Cost: as `nearest_known`.
    """
    if len(known.item_id) < 2:
        return None
    place = {item: row for row, item in enumerate(known.item_id)}
    own = np.array([place.get(item, -1) for item in test.item_id])
    found = nearest_known(test.embedding, known.embedding, own)
    taken = np.log1p([popularity.get(item, 0) for item in known.item_id])
    rows = np.searchsorted(test.item_id, np.asarray(item_id, str))
    return Cold(found.borrowed(taken)[rows], cold_slices(own[rows] < 0, found.cosine[rows, 0]))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k known items whose texts are most like each item's own, the most like first.

    Attributes:
        place: (n, k) of the known items.
        cosine: (n, k).
    """

    place: Ints
    cosine: Singles

    def borrowed(self, value: Floats) -> Floats:
        """(n,) means of what the neighbours have, by how like they are; opposites lend nothing.

        Args:
            value: (known,) such as log popularity.
        """
        weight = self.cosine.clip(min=1e-6)
        return (weight * value[self.place]).sum(1) / weight.sum(1)


def nearest_known(item: Singles, known: Singles, own: Ints, k: int = N_NEIGHBOURS) -> Neighbours:
    """Exact neighbours by text; an item is never its own neighbour.

    Args:
        item: (n, d) embeddings, unit length.
        known: (m, d) embeddings of the known items, unit length; m >= 2.
        own: (n,) place of the item itself among the known ones, -1 where it is not among them.
        k: neighbours, at most m - 1.

    Cost: O(n m d) in blocks of 1024 items, O(1024 m) memory. Not random; the first of equals is nearer.
    """
    k = min(k, len(known) - 1)
    place, cosine = np.empty((len(item), k), np.int64), np.empty((len(item), k), np.float32)
    for start in range(0, len(item), BLOCK):
        rows = slice(start, min(start + BLOCK, len(item)))
        like = item[rows] @ known.T
        of_itself = np.flatnonzero(own[rows] >= 0)
        like[of_itself, own[rows][of_itself]] = -np.inf
        place[rows] = np.argsort(-like, axis=1, kind="stable")[:, :k]
        cosine[rows] = np.take_along_axis(like, place[rows], 1)
    return Neighbours(place, cosine)


def cold_slices(cold: Bools, nearest: Singles) -> dict[str, Bools]:
    """Cold items in three parts of as nearly as possible the same size, by how like the nearest known item is.

    Args:
        cold: (n,) whether training did not see the sample's item.
        nearest: (n,) cosine to the known item most like it.
    """
    if cold.sum() < len(CUTS):
        return {}
    low, high = np.quantile(nearest[cold], [1 / 3, 2 / 3])
    part = np.digitize(nearest, [low, high])
    slices = {name: cold & (part == place) for place, name in enumerate(CUTS)}
    return {name: mask for name, mask in slices.items() if mask.any()}
