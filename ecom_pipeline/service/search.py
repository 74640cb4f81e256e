"""Search: by words and by meaning, fused, filtered, and the best ranked again by what was learnt from judgments and clicks.

On the floor of `service`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.language.encoder import Encoder, encode
from ecom_pipeline.language.features import PairFeatures, Projection, pair_features, text_overlap
from ecom_pipeline.ranking.baselines import words
from ecom_pipeline.recommend.nearest_items import Asked, NearestItems
from ecom_pipeline.service.measures import stage

if TYPE_CHECKING:
    import bm25s

    from ecom_pipeline.ranking.model import Ranker

N_CHANNEL = 100  # items that words, and that meaning, bring
N_RANKED = 50  # of the fused ones, ranked again; as many as are asked for, if those are more
FUSION = 60  # of reciprocal ranks; Cormack et al. 2009
TOKEN_BUDGET = 4096
_READING = Lock()  # of two threads that read at once neither is faster, and what speeds products up is set for all


def index_words(texts: Sequence[str], folder: Path) -> None:
    """Write what `Words` reads, the same bytes for the same texts. Cost: seconds a hundred thousand texts."""
    import bm25s

    told = [words(text) or [""] for text in texts]
    # numbered by us: bm25s goes through a set, whose order is another one in each process
    number = {word: n for n, word in enumerate(sorted({"", *chain.from_iterable(told)}))}
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index(([[number[word] for word in one] for one in told], number), show_progress=False)
    index.save(folder, show_progress=False)


@dataclass(frozen=True, slots=True)
class Words:
    """BM25 over the items' texts."""

    index: "bm25s.BM25"

    @classmethod
    def read(cls, folder: Path) -> "Words":
        """As `index_words` wrote it, memory-mapped."""
        import bm25s

        return cls(bm25s.BM25.load(folder, mmap=True))

    def scores(self, query: str) -> Singles:
        """(items,) >= 0; 0 where no word of the query occurs."""
        asked = words(query)
        return self.index.get_scores(asked) if asked else np.zeros(self.index.scores["num_docs"], np.float32)


@dataclass(frozen=True, slots=True)
class PairRanker:
    """One of the twins that the pipeline trained, with what it needs of the items read ahead.

    Attributes:
        ranker: judges pairs.
        architecture: "two_tower": items are read ahead. "cross_encoder": each pair is read when it is asked for.
        projection: of frozen features.
        vectors: (items, d) by its own tower, or by the encoder where training left that as it was; 0: not read.
        given: (items, g) attributes of items, in the columns that it was trained with.
        names: of these columns.
    """

    ranker: "Ranker"
    architecture: str
    projection: Projection
    vectors: Singles
    given: Singles
    names: tuple[str, ...]

    def chances(
        self, encoder: Encoder, query: str, items: Ints, *, read: Singles, texts: Sequence[tuple[str, str]]
    ) -> Floats:
        """(k,) that an item is what the query asks for.

        Args:
            encoder: that texts were read with.
            query: text.
            items: (k,) places.
            read: (k + 1, d) vectors of the encoder, of the items and of the query.
            texts: (k,) title and text of each item.
        """
        import torch

        from ecom_pipeline.language.encoder import tokenize
        from ecom_pipeline.language.frozen import TokenTexts
        from ecom_pipeline.ranking.model import Pairs

        n, titles, told = len(items), [title for title, _ in texts], [text for _, text in texts]
        if self.architecture == "two_tower":
            own = TokenTexts(encoder, tokenize(encoder, [query]))
            context = self.ranker.encode(own, np.zeros(1, np.int64), TOKEN_BUDGET)
            given = np.hstack([text_overlap([query] * n, titles, told), self.given[items]]).astype(np.float32)
            with torch.inference_mode():
                vectors = torch.from_numpy(np.array(self.vectors[items]))
                logit = self.ranker.judge([context.expand(n, -1), vectors], torch.from_numpy(given))
                return torch.sigmoid(logit).double().numpy()
        pairs = pair_features(np.repeat(read[-1:], n, 0), read[:-1], [query] * n, titles, told)
        features = PairFeatures(pairs.meeting, pairs.match).beside(self.names, self.given[items])
        both = TokenTexts(encoder, tokenize(encoder, [(query, text) for text in told]))
        rows = np.arange(n)[:, None]
        nothing = np.zeros(n)
        asked = Pairs(rows, self.projection.apply(features), np.zeros(n, np.int64), nothing, nothing)
        return self.ranker.score(both, asked, TOKEN_BUDGET)


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found, the best first.

    Attributes:
        item: (k,) places in the catalogue.
        score: (k,) chance where it was ranked by what was learnt; else the fused reciprocal ranks.
        fused: (k,) reciprocal ranks.
        word_rank: (k,) from 1; 0 where words did not bring it.
        meaning_rank: (k,) likewise.
        cosine: (k,) of query and item; NaN where the item was not read.
        ranked_by: "words and meaning", "words", or the twin's name.
    """

    item: Ints
    score: Floats
    fused: Floats
    word_rank: Ints
    meaning_rank: Ints
    cosine: Singles
    ranked_by: str


@dataclass(frozen=True, slots=True)
class Search:
    """All that answers a query.

    Attributes:
        words: BM25.
        by_meaning: answers which items' texts are nearest; None where none was read.
        encoder: that read them; None where nothing was read.
        rankers: the twins, by name; empty where nothing was judged or searched for.
        titles, texts: (items,).
    """

    words: Words
    by_meaning: NearestItems | None
    encoder: Encoder | None
    rankers: Mapping[str, PairRanker]
    titles: NDArray
    texts: NDArray

    def read(self, text: str) -> Singles | None:
        """(d,) unit vector of a text, or None where nothing reads."""
        if self.encoder is None:
            return None
        with _READING:
            return encode(self.encoder, [text], TOKEN_BUDGET).embedding[0]

    def find(self, query: str, *, top: int, allowed: Bools | None, by: str) -> Found:
        """The best items for a query.

        Args:
            query: text.
            top: how many, at most.
            allowed: (items,) what may be found; None: anything.
            by: name of a twin; another name, or one that is not there: the fused order stays.
        """
        with stage("words"):
            word_items = _best(self.words.scores(query), N_CHANNEL, allowed)
        with stage("read"):
            vector = self.read(query)
        with stage("meaning"):
            asked = None if vector is None or self.by_meaning is None else self.by_meaning.ask(vector[None])
            meaning_items = np.empty(0, np.int64) if asked is None else _nearest(asked, N_CHANNEL, allowed)[0]
        item = np.union1d(word_items, meaning_items)
        ranks = [_ranks(found, item) for found in (word_items, meaning_items)]
        fused = np.sum([np.where(rank > 0, 1 / (FUSION + rank), 0) for rank in ranks], axis=0)
        order = np.lexsort((item, -fused))[: max(N_RANKED, top)]
        item, fused = item[order], fused[order]
        score, ranked_by = fused, "words" if asked is None else "words and meaning"
        if by in self.rankers and self.encoder and self.by_meaning and vector is not None and len(item):
            again = item
            read, texts = np.vstack([self.by_meaning.vectors[again], vector]), self._texts(again)
            with stage("rank"), _READING:
                chance = self.rankers[by].chances(self.encoder, query, again, read=read, texts=texts)
            order = np.lexsort((again, -chance))
            item, fused = again[order], fused[: len(again)][order]
            score, ranked_by = chance[order], by
        ranks = [_ranks(found, item)[:top] for found in (word_items, meaning_items)]
        item = item[:top]
        near = np.full(len(item), np.nan, np.float32)
        if asked is not None:
            near = asked.cosines(np.zeros(len(item), np.int64), item)
        return Found(item, score[:top], fused[:top], ranks[0], ranks[1], near, ranked_by)

    def like(self, text: str, *, top: int, allowed: Bools) -> tuple[Ints, Singles, bool]:
        """The items whose texts are most like a text.

        Args:
            text: as people write.
            top: how many, at most.
            allowed: (items,) what may be found.

        Returns:
            (k,) places, the best first; (k,) scores above 0; and whether it was by meaning: else by words.
        """
        vector = self.read(text)
        if vector is not None and self.by_meaning is not None:
            return *_nearest(self.by_meaning.ask(vector[None]), top, allowed), True
        score = self.words.scores(text)
        found = _best(score, top, allowed)
        return found, score[found], False

    def _texts(self, items: Ints) -> list[tuple[str, str]]:
        return [(str(self.titles[item]), str(self.texts[item])) for item in items]


def _best(score: Singles, n: int, allowed: Bools | None) -> Ints:
    """Places of the n highest scores above 0, the highest first; of equals the first place."""
    masked = score if allowed is None else np.where(allowed, score, 0)
    n = min(n, len(masked))
    if not n:
        return np.empty(0, np.int64)
    top = np.argpartition(-masked, n - 1)[:n]
    top = top[masked[top] > 0]
    return top[np.lexsort((top, -masked[top]))]


def _nearest(asked: Asked, n: int, allowed: Bools | None) -> tuple[Ints, Singles]:
    """Places and cosines of the n nearest items whose cosine is above 0."""
    item, cosine = (part[0] for part in asked.nearest(n, allowed=allowed))
    return item[cosine > 0], cosine[cosine > 0]


def _ranks(found: Ints, item: Ints) -> Ints:
    """(k,) place of each item among what was found, from 1; 0: not among it."""
    place = np.zeros(int(max(found.max(initial=0), item.max(initial=0))) + 1, np.int64)
    place[found] = np.arange(1, len(found) + 1)
    return place[item]
