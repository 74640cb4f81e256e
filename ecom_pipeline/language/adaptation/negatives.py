"""Which items are negatives for a text: never what belongs to it, and besides the batch's the near ones.

On the floor of `language`.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.language.adaptation.corpus import Pairs

N_MINED = 16  # near items kept of each text, to draw from


@dataclass(slots=True)
class Negatives:
    """Positives, refusals and near items of one objective.

    Attributes:
        positive: (n,) sorted codes of pairs that belong together: left times `n_texts` plus right.
        n_texts: distinct texts.
        rights: (n,) sorted rights of all pairs.
        refused: left to rights that were judged not to belong to it.
        mined: (m, 1 + N_MINED) a left and its near items, sorted by left; -1 where there are fewer.
    """

    positive: Ints
    n_texts: int
    rights: Ints
    refused: dict[int, Ints]
    mined: Ints

    @classmethod
    def of(cls, pairs: Pairs, n_texts: int) -> "Negatives":
        """Of pairs, before anything is mined."""
        refused = defaultdict(list)
        for left, right in pairs.refused.tolist():
            refused[left].append(right)
        found = {left: np.array(rights, np.int64) for left, rights in refused.items()}
        positive = np.unique(pairs.left * n_texts + pairs.right)
        return cls(positive, n_texts, np.sort(pairs.right), found, np.zeros((0, 1 + N_MINED), np.int64))

    def mask(self, left: Ints, right: Ints) -> Bools:
        """(b, b + h) whether a right is a negative for a left."""
        return ~np.isin(left[:, None] * self.n_texts + right[None, :], self.positive)

    def often(self, right: Ints, n_pairs: int) -> Floats:
        """(b + h,) logarithm of how many pairs each right is in; 0 for hard ones, the mean of the others being 0 too."""
        counts = np.searchsorted(self.rights, right, "right") - np.searchsorted(self.rights, right)
        result = np.log(np.maximum(counts, 1))
        result[:n_pairs] -= result[:n_pairs].mean()
        result[n_pairs:] = 0
        return result

    def note(self, left: Ints, score: Singles, items: Ints, skipped: int) -> None:
        """Keep the near items of some lefts.

        Args:
            left: (m,) texts, in order, after those already noted.
            score: (m, items) how near.
            items: their texts.
            skipped: nearest items that are not positives and yet not taken, as they may be right.
        """
        score = np.where(self.mask(left, items), score, -np.inf)
        n_near = min(skipped + N_MINED, score.shape[1])
        near = np.argsort(-score, 1, kind="stable")[:, skipped:n_near]
        found = np.full((len(left), 1 + N_MINED), -1, np.int64)
        found[:, 0] = left
        usable = np.isfinite(np.take_along_axis(score, near, 1))
        found[:, 1 : 1 + near.shape[1]] = np.where(usable, items[near], -1)
        self.mined = np.vstack([self.mined, found])

    def draw(self, left: Ints, n_each: int, generator: np.random.Generator) -> Ints:
        """At most `n_each` hard negatives a left: refused ones and near ones alike; distinct over the batch."""
        found: list[Ints] = []
        for one in left.tolist() if n_each else ():
            place = np.searchsorted(self.mined[:, 0], one)
            known = place < len(self.mined) and self.mined[place, 0] == one
            near = self.mined[place, 1:] if known else np.zeros(0, np.int64)
            both = np.concatenate([near[near >= 0], self.refused.get(one, near[:0])])
            found.append(generator.permutation(both)[:n_each])
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
