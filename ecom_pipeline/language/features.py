"""What a head sees of a pair: how its embeddings meet, which words it shares, what else is known of its item.

On the floor of `language`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Singles

_WORD = re.compile(r"\w+")
MATCH_NAMES = (
    "cosine",
    "context_words_in_title",
    "title_words_in_context",
    "context_words_in_item_text",
    "shared_letter_triples",
)
_COMPONENT = "image_component_"  # of a picture, which has many of these columns
MATCH_SCALE = 3.0  # matches are few and tell much: a larger scale is a weaker penalty


@dataclass(frozen=True, slots=True)
class PairFeatures:
    """Features of n pairs.

    Attributes:
        meeting: (n, 2 d) float32: product and absolute difference of the two embeddings.
        match: (n, m) float32: cosine and four shares of what the texts have in common, then what else is known.
        names: (m,) of the columns of `match`; the first five are `MATCH_NAMES`.
    """

    meeting: Singles
    match: Singles
    names: tuple[str, ...] = MATCH_NAMES

    def rows(self, rows: NDArray) -> "PairFeatures":
        """Some of the pairs."""
        return PairFeatures(self.meeting[rows], self.match[rows], self.names)

    def only(self, names: Sequence[str]) -> "PairFeatures":
        """All pairs with some columns of `match`, in their present order."""
        kept = [name in names for name in self.names]
        return PairFeatures(self.meeting, self.match[:, kept], tuple(compress(self.names, kept)))

    def beside(self, names: Sequence[str], values: Singles) -> "PairFeatures":
        """The same pairs with more columns of `match`."""
        return PairFeatures(self.meeting, np.hstack([self.match, values]).astype(np.float32), (*self.names, *names))


@dataclass(frozen=True, slots=True)
class Projection:
    """Principal components of `meeting` beside the standardised `match`; fitted on some pairs, applied to any.

    Attributes:
        centre: (2 d,) mean of `meeting`.
        components: (2 d, c) directions, scaled so that all entries together have variance 1.
        match_mean: (m,) mean of `match`.
        match_std: (m,) spread of `match`.
    """

    centre: Singles
    components: Singles
    match_mean: Singles
    match_std: Singles

    @classmethod
    def fit(cls, pairs: PairFeatures, n_components: int) -> "Projection":
        """Fit on training pairs; labels are not looked at.

        Cost: O(n d² + d³) time, O(d²) memory beside the pairs, of which a block at a time is looked at.
        """
        centre, covariance = _moments(pairs.meeting)
        variance, directions = np.linalg.eigh(covariance)
        kept = slice(-1, -1 - min(n_components, len(variance)), -1)
        scale = np.sqrt(max(variance[kept].mean(), 1e-12))
        spread = pairs.match.std(0)
        spread_or_1: Singles = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)
        many = np.array([name.startswith(_COMPONENT) for name in pairs.names], bool)
        shrunk: Singles = np.where(many, 1, MATCH_SCALE).astype(np.float32)
        return cls(
            centre.astype(np.float32),
            (directions[:, kept] / scale).astype(np.float32),
            pairs.match.mean(0),
            spread_or_1 / shrunk,
        )

    def apply(self, pairs: PairFeatures) -> Singles:
        """(n, c + m + 1): components, matches and a constant 1."""
        n_components = self.components.shape[1]
        result = np.ones((len(pairs.match), n_components + pairs.match.shape[1] + 1), np.float32)
        for rows in row_blocks(len(result)):
            result[rows, :n_components] = (pairs.meeting[rows] - self.centre) @ self.components
            result[rows, n_components:-1] = (pairs.match[rows] - self.match_mean) / self.match_std
        return result


def pair_features(
    context: Singles,
    item: Singles,
    context_text: Sequence[str],
    title: Sequence[str],
    item_text: Sequence[str],
) -> PairFeatures:
    """Features of pairs.

    Args:
        context: (n, d) embeddings, unit length.
        item: (n, d) embeddings, unit length.
        context_text: (n,) what the context embeddings are of.
        title: (n,) of the items.
        item_text: (n,) what the item embeddings are of.
    """
    product = context * item
    shared = text_overlap(context_text, title, item_text)
    match = np.column_stack([product.sum(1), shared]).astype(np.float32)
    return PairFeatures(np.hstack([product, np.abs(context - item)]), match)


def text_overlap(context_text: Sequence[str], title: Sequence[str], item_text: Sequence[str]) -> Singles:
    """(n, 4): what context and item have in common, as shares, in the order of `MATCH_NAMES` after the cosine.

    Of the context's words in the title, of the title's in the context, of the context's in the item's text; and of
    the letter triples of the shorter of context and title in the longer.

    Cost: O(letters) of the distinct texts.

    >>> text_overlap(["red mug"], ["Mugs, red and blue"], ["Mugs, red and blue. Kitchen"]).astype(float).round(2).tolist()
    [[1.0, 0.5, 1.0, 0.6]]
    """
    words = _Cache(_words)
    triples = _Cache(_triples)
    result = np.zeros((len(context_text), 4), np.float32)
    for row, (context, named, told) in enumerate(zip(context_text, title, item_text, strict=True)):
        asked, called = words[context], words[named]
        common = len(asked & called)
        result[row] = (
            common / max(len(asked), 1),
            common / max(len(called), 1),
            len(asked & words[told]) / max(len(asked), 1),
            len(triples[context] & triples[named]) / max(min(len(triples[context]), len(triples[named])), 1),
        )
    return result


def row_blocks(n: int, size: int = 1 << 14) -> Iterator[slice]:
    """Slices that hold all n rows: what is done block by block needs no second copy of them all."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _moments(meeting: Singles) -> tuple[Floats, Floats]:
    """(w,) mean and (w, w) covariance, in float64."""
    centre = meeting.mean(0, dtype=np.float64)
    total = np.zeros((len(centre), len(centre)))
    for rows in row_blocks(len(meeting)):
        apart = meeting[rows] - centre
        total += apart.T @ apart
    return centre, total / max(len(meeting) - 1, 1)


class _Cache(dict):
    """What a function gives for a text, computed once for each distinct one."""

    def __init__(self, function: Callable[[str], frozenset[str]]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, text: str) -> frozenset[str]:
        result = self[text] = self._function(text)
        return result


def _triples(text: str) -> frozenset[str]:
    lower = text.lower()
    return frozenset(lower[i : i + 3] for i in range(max(len(lower) - 2, 1)))


def _words(text: str) -> frozenset[str]:
    """Lower-case words; a plural s is taken off. Text without spaces between words is taken by character pairs."""
    words = set()
    for word in _WORD.findall(text.lower()):
        if word.isascii():
            words.add(word[:-1] if len(word) > 3 and word.endswith("s") else word)
        else:
            words.update(word[i : i + 2] for i in range(max(len(word) - 1, 1)))
    return frozenset(words)
