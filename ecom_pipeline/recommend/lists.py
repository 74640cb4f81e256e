"""The lists that a shop shows: the next visit of every user, items that are like an item, and why.

On the floor above `learning`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.recommend.baselines import best_columns
from ecom_pipeline.recommend.candidates import CHANNELS, RECENT, Candidates
from ecom_pipeline.recommend.interactions import Interactions, Ints, Visits, day_of
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.metrics import top_items
from ecom_pipeline.recommend.pilot import Floats
from ecom_pipeline.recommend.ranker import Ranker
from ecom_pipeline.recommend.retrieval import Index

POOL = 3  # times the length of a list that are looked at when near-duplicates are spread
REASONS = 2  # past items that speak for an item
SOON = 0.05  # quantile of a class's gaps: what was taken less long ago is not shown again


@dataclass(frozen=True, slots=True)
class ListRules:
    """What a list is.

    Attributes:
        top: its length.
        spread: how much of an item's score its likeness to those above it may cost, in [0, 1]; 0: by score alone.
    """

    top: int = 20
    spread: float = 0.1


def recommend(
    learner: Learner, ranker: Ranker, visits: Visits, *, rules: ListRules, withdrawn: NDArray[np.bool_]
) -> pd.DataFrame:
    """A list for each user's next visit.

    What must not be shown is dropped: items that are withdrawn, and items taken so lately that hardly anybody takes
    them again so soon. Near-duplicates are spread by maximal marginal relevance over item-item vectors.

    Args:
        learner: retrieval, as it was trained with.
        ranker: scores candidates.
        visits: one a user, on the day for which lists are made.
        rules: of a list.
        withdrawn: (items,) what may not be shown.

    Returns:
        user, rank, item (codes), score (chance that it is taken on the next visit), channel, reason_item_1,
        reason_item_2 (codes, -1 for none).

    Cost: as `retrieve`, and O(users pool top) for the spreading.

    Source: Carbonell and Goldstein 1998 for the spreading.
    """
    index = learner.index(int(visits.day.max()))
    soonest = soonest_return(learner.acts.before(index.day), learner.catalogue.classes)
    vectors = item_vectors(learner.acts, index)
    parts = []
    for block, rows in learner.candidates(visits, index.day):
        user = visits.user[block]
        score = ranker.score(rows, learner.folds[user][rows.visit])
        age = rows.column("own_age")
        hidden = withdrawn[rows.item] | (age < soonest[rows.item])
        score = np.where(hidden, -np.inf, score)
        pool = top_items(rows.visit, rows.item, score, n_visits=len(user), k=POOL * rules.top)
        found = _described(rows, score, pool, user)
        found = found[np.isfinite(found.score)]
        parts.append(_spread(found, vectors, rules))
    result = pd.concat(parts, ignore_index=True)
    result["score"] = 1 / (1 + np.exp(-result.score))
    return _with_reasons(result, learner.acts.before(index.day), index, vectors)


def soonest_return(known: Interactions, classes: Mapping[str, Ints]) -> Floats:
    """(items,) days since a taking before which an item is hardly ever taken again, from the gaps of its finest class.

    The 5 % quantile of the gaps between two takings of an item by a user, in the division with the most classes; a class
    with fewer than 20 gaps has that of all.
    """
    same = (known.user[1:] == known.user[:-1]) & (known.item[1:] == known.item[:-1])
    gap, item = (known.day[1:] - known.day[:-1])[same], known.item[1:][same]
    if not len(gap):
        return np.zeros(known.n_items)
    of_all = np.quantile(gap, SOON)
    if not classes:
        return np.full(known.n_items, of_all)
    code = max(classes.values(), key=lambda one: one.max())
    order = np.lexsort((gap, code[item]))
    ordered, gaps = code[item][order], gap[order]
    start = np.searchsorted(ordered, np.arange(code.max() + 2))
    n = np.diff(start)
    place = np.minimum(start[:-1] + (SOON * n).astype(int), len(gaps) - 1)
    return np.where(n >= 20, gaps[place], of_all)[code]


def item_vectors(acts: Interactions, index: Index) -> NDArray[np.float32]:
    """(items, d) unit vectors by which two items are near-duplicates: text where there is one, else who took them."""
    if index.text is not None:
        return index.text
    from sklearn.utils.extmath import randomized_svd

    known = acts.before(index.day)
    matrix = sparse.csr_matrix(
        (np.ones(len(known), np.float32), (known.user, known.item)), shape=(acts.n_users, acts.n_items)
    )
    d = min(64, min(matrix.shape) - 1)
    if d < 1:
        return np.ones((acts.n_items, 1), np.float32)
    _, strength, right = randomized_svd(matrix, d, random_state=0)
    vectors = right.T * strength
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def similar_items(acts: Interactions, index: Index, *, top: int) -> pd.DataFrame:
    """The items that go most with each item: by who took them, and by text where that says nothing.

    Returns:
        item, rank, similar_item (codes), score, channel.
    """
    parts = []
    for start in range(0, acts.n_items, 500):
        item = np.arange(start, min(start + 500, acts.n_items))
        one = sparse.csr_matrix(
            (np.ones(len(item), np.float32), (np.arange(len(item)), item)), shape=(len(item), acts.n_items)
        )
        table = index.together.scores(one)
        channel = np.full(len(item), "together")
        silent = index.n_users[item] < 2
        if index.text is not None and silent.any():
            table[silent] = index.text[item[silent]] @ index.text.T
            channel[silent] = "text"
        table[np.arange(len(item)), item] = -np.inf
        found = best_columns(table, min(top, acts.n_items - 1))
        score = np.take_along_axis(table, found, 1)
        frame = pd.DataFrame(
            {
                "item": np.repeat(item, found.shape[1]),
                "rank": np.tile(np.arange(1, found.shape[1] + 1), len(item)),
                "similar_item": found.ravel(),
                "score": score.ravel(),
                "channel": np.repeat(channel, found.shape[1]),
            }
        )
        parts.append(frame[frame.score > 0])
    return pd.concat(parts, ignore_index=True)


def _described(rows: Candidates, score: Floats, pool: Ints, user: Ints) -> pd.DataFrame:
    """The pool as rows, with the channel that speaks loudest: own history, then who took what, then text, then all."""
    table = np.full((len(user), int(rows.item.max(initial=0)) + 1), -1, np.int64)
    table[rows.visit, rows.item] = np.arange(len(rows))
    visit, rank = np.nonzero(pool >= 0)
    place = table[visit, pool[visit, rank]]
    order = np.array([0, 1, 3, 2])  # own, together, text, popular
    first = order[rows.channels[place][:, order].argmax(1)]
    return pd.DataFrame(
        {
            "user": user[visit],
            "item": rows.item[place],
            "score": score[place],
            "channel": np.array(CHANNELS)[first],
            "popular": np.expm1(rows.column("popular_recent")[place]),
        }
    )


def _spread(pool: pd.DataFrame, vectors: NDArray[np.float32], rules: ListRules) -> pd.DataFrame:
    """The first `top` of each user's pool by maximal marginal relevance; all users step together."""
    n_users, width = pool.user.nunique(), POOL * rules.top
    if not n_users:
        return pool.assign(rank=0)
    whose = np.unique(pool.user, return_inverse=True)[1]
    at = pool.groupby("user", sort=False).cumcount().to_numpy()
    place = np.full((n_users, width), -1)
    place[whose, at] = np.arange(len(pool))
    score = np.where(place >= 0, pool.score.to_numpy()[place], -np.inf)
    low, high = pool.score.min(), pool.score.max()
    relevance = (score - low) / max(high - low, 1e-9)
    vector = vectors[pool.item.to_numpy()][np.maximum(place, 0)]  # (users, width, d)
    closest, chosen = np.zeros((n_users, width)), np.full((n_users, rules.top), -1)
    for rank in range(min(rules.top, width)):
        worth = (1 - rules.spread) * relevance - rules.spread * closest
        best = worth.argmax(1)
        usable = np.isfinite(worth[np.arange(n_users), best])
        chosen[usable, rank] = place[usable, best[usable]]
        relevance[np.arange(n_users), best] = -np.inf
        near = np.einsum("uwd,ud->uw", vector, vector[np.arange(n_users), best])
        closest = np.maximum(closest, near)
    rows, ranks = np.nonzero(chosen >= 0)
    return pool.iloc[chosen[rows, ranks]].assign(rank=ranks + 1)


def _with_reasons(lists: pd.DataFrame, known: Interactions, index: Index, vectors: NDArray[np.float32]) -> pd.DataFrame:
    """The past items that speak most for each item: the item itself where it was had, else its nearest of the history."""
    reason = np.full((len(lists), REASONS), -1)
    weight = index.weights(known, np.full(len(known), index.day))
    first = known.first_rows()
    for user, rows in lists.groupby("user").indices.items():
        mine = slice(first[user], first[user + 1])
        past, place = np.unique(known.item[mine], return_inverse=True)
        strength = np.log1p(np.bincount(place, weight[mine]))
        item = lists.item.to_numpy()[rows]
        near = (vectors[item] @ vectors[past].T) * strength
        own = item[:, None] == past
        near = np.where(own.any(1)[:, None], np.where(own, np.inf, -np.inf), near)
        best = best_columns(near.astype(np.float32), REASONS)
        value = np.take_along_axis(near, best, 1)
        reason[rows, : best.shape[1]] = np.where(value > 0, past[best], -1)
    popular = lists.channel.to_numpy() == "popular"
    reason[popular] = -1
    return lists.assign(reason_item_1=reason[:, 0], reason_item_2=reason[:, 1])


def reason_text(channel: str, titles: list[str], popular: float, day: int, times: int) -> str:
    """A sentence for people: why this item?

    >>> reason_text("together", ["coffee", "milk"], 0, 0, 0)
    'goes with coffee and milk'
    """
    if channel == "own":
        return f"taken {times} times before" if times > 1 else "taken once before"
    if channel == "popular" or not titles:
        return f"taken {popular:.0f} times in the {RECENT} days before {day_of(day)}"
    told = " and ".join(titles)
    return f"goes with {told}" if channel == "together" else f"like {told}"
