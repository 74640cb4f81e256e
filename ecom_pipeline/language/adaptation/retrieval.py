"""Whether the right items are found: recall among all items of the catalogue, before and after, with intervals.

On the floor of `language`. The bootstrap draws whole groups, as everywhere.
"""

from dataclasses import dataclass

import numpy as np
from duckdb import DuckDBPyConnection

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.language.encoder import Encoder, encode

N_BOOTSTRAP = 2000
_BLOCK = 256  # contexts whose scores are held at once


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What is asked and what must be found.

    Attributes:
        contexts: one a group.
        items: distinct texts of items.
        context: (p,) row of each wanted pair's context.
        item: (p,) row of its item's text.
    """

    contexts: tuple[str, ...]
    items: tuple[str, ...]
    context: Ints
    item: Ints


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure before and after on the same groups, each with 95 %, and what was gained."""

    before: tuple[float, float, float]  # value, low, high
    after: tuple[float, float, float]
    gain: tuple[float, float, float]
    n_groups: int

    def figures(self, name: str) -> dict[str, float]:
        """For the metadata and the manifest."""
        parts = {"before": self.before, "after": self.after, "gain": self.gain}
        told = {f"{name}_{part}": value[0] for part, value in parts.items()}
        return {**told, f"{name}_gain_ci_low": self.gain[1], f"{name}_gain_ci_high": self.gain[2]}


def read_retrieval(db: DuckDBPyConnection, split: str, n_items: int) -> Retrieval:
    """The contexts of a split with what was clicked, bought or judged relevant for each.

    Items of equal text are one: no encoder can tell them apart.

    Args:
        db: a connection to the warehouse.
        split: of `training_samples`.
        n_items: texts of items to search among; 0: all of the catalogue. With fewer, those that are wanted are all
            there, and the rest are those with the lowest hash.
    """
    wanted = db.execute(
        f"""select distinct group_id, context_text, item_text from training_samples
        where split = '{split}' and label >= 0.5 order by all"""
    ).df()
    limit = f"limit {n_items}" if n_items else ""
    drawn = db.execute(f"select distinct item_text from items order by md5(item_text) {limit}").df()
    items = sorted({*wanted.item_text, *drawn.item_text})
    place = {text: row for row, text in enumerate(items)}
    groups = wanted.drop_duplicates("group_id")
    number = {group: row for row, group in enumerate(groups.group_id)}
    return Retrieval(
        *(tuple(groups.context_text), tuple(items)),
        np.array([number[group] for group in wanted.group_id], np.int64),
        np.array([place[text] for text in wanted.item_text], np.int64),
    )


def recall_at_k(encoder: Encoder, asked: Retrieval, k: int, token_budget: int) -> Floats:
    """(contexts,) share of each context's wanted items among its k nearest.

    Cost: every text is read once, and then as `recall_of`.
    """
    context, item = (encode(encoder, texts, token_budget).embedding for texts in (asked.contexts, asked.items))
    return recall_of(context, item, asked, k)


def recall_of(context: Singles, item: Singles, asked: Retrieval, k: int) -> Floats:
    """(contexts,) share of each context's wanted items among its k nearest; an item as near as the last is found.

    Args:
        context: (contexts, d) unit vectors.
        item: (items, d) unit vectors.
        asked: which items each context wants.
        k: how many are looked at.

    Cost: one exact product of contexts and items, in blocks.
    """
    rank = np.zeros(len(asked.context), np.int64)
    for start in range(0, len(context), _BLOCK):
        score = context[start : start + _BLOCK] @ item.T
        for row in np.flatnonzero((asked.context >= start) & (asked.context < start + _BLOCK)):
            own = score[asked.context[row] - start]
            rank[row] = np.count_nonzero(own > own[asked.item[row]])
    return np.bincount(asked.context, rank < k) / np.bincount(asked.context)


def difference(before: Floats, after: Floats, seed: int) -> Difference:
    """Two figures of the same groups and their difference, with intervals of a bootstrap over groups.

    Cost: 2000 draws of the groups.
    """
    n_groups = len(before)
    draws = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), N_BOOTSTRAP) / n_groups

    def told(by_group: Floats) -> tuple[float, float, float]:
        low, high = np.quantile(draws @ by_group, [0.025, 0.975])
        return float(by_group.mean()), float(low), float(high)

    return Difference(told(before), told(after), told(after - before), n_groups)
