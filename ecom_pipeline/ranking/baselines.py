"""Rankings that need no learning, and so what a learned ranker has to beat; BM25, the strongest for queries, is made here.

On the floor of `ranking`.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ecom_pipeline.arrays import Floats, Singles

SIMPLE = ("popularity", "text_similarity", "bm25", "taken_before")
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W\u3040-\u30ff\u4e00-\u9fff]+")


def words(text: str) -> list[str]:
    """Words in small letters; of Chinese and Japanese, where nothing stands between words, single characters.

    >>> words("Trail-Shoe, size 42 跑鞋")
    ['trail', 'shoe', 'size', '42', '跑', '鞋']
    """
    return _WORD.findall(text.lower())


def bm25_scores(query: Sequence[str], item_text: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> Floats:
    """How well each item's text matches the words of its query; labels are not looked at.

    How rare a word is and how long a text usually is are counted over the distinct item texts that are passed.

    Args:
        query: (n,) texts.
        item_text: (n,) what is ranked for them.
        k1: how much a word that occurs again adds.
        b: how much a long text counts against a word in it.

    Returns:
        (n,) scores, >= 0; 0 where no word of the query occurs in the item's text. A word that the query has twice counts
        twice.

    Cost: O(characters) time, memory for the words of the distinct texts. Not random.

    Source: Robertson and Zaragoza 2009, The probabilistic relevance framework, equation 3.15; ln(1 + ...) for the rarity of
        a word, as Lucene has it, so that no word counts against an item.
    """
    counts = {text: Counter(words(text)) for text in dict.fromkeys(item_text)}
    n_texts = len(counts)
    n_with = Counter(word for found in counts.values() for word in found)
    lengths = {text: sum(found.values()) for text, found in counts.items()}
    usual = max(sum(lengths.values()) / max(n_texts, 1), 1e-12)
    asked = {text: words(text) for text in dict.fromkeys(query)}

    def score(text: str, item: str) -> float:
        found, slowness = counts[item], k1 * (1 - b + b * lengths[item] / usual)
        return sum(
            np.log1p((n_texts - n_with[word] + 0.5) / (n_with[word] + 0.5))
            * found[word]
            * (k1 + 1)
            / (found[word] + slowness)
            for word in asked[text]
            if word in found
        )

    return np.array([score(text, item) for text, item in zip(query, item_text, strict=True)], float)


def habit_scores(names: Sequence[str], values: Singles) -> Floats | None:
    """How often the user took the item before, and of equals how often its category; None where nobody's habits are known.

    Args:
        names: (m,) of the columns.
        values: (n, m) what is known of each sample; `taken_before` and `category_taken_before` are logs of 1 + times.
    """
    if not {"taken_before", "category_taken_before"} <= set(names):
        return None
    columns = [names.index(name) for name in ("taken_before", "category_taken_before")]
    known = np.nan_to_num(values[:, columns].astype(np.float64))
    _, place = np.unique(known, axis=0, return_inverse=True)  # rows in the order of the item, then of the category
    return place.ravel().astype(np.float64)
