"""The lists that a shop shows: the next visit of every user, items that are like an item, and why.

On the floor above `saved`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.recommend.baselines import best_columns
from ecom_pipeline.recommend.candidates import CHANNELS, RECENT, Candidates
from ecom_pipeline.recommend.catalogue import Shop
from ecom_pipeline.recommend.interactions import Interactions, Visits, day_of
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.metrics import top_items
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.ranker import Ranker
from ecom_pipeline.recommend.retrieval import Index, Neighbours, repetition
from ecom_pipeline.recommend.saved import SavedRanker
from ecom_pipeline.schema import RECOMMENDATIONS

NEW_VISITOR = "new visitor"  # has no history; his list is what is popular
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


def make(
    shop: Shop,
    saved: SavedRanker | None,
    day: int,
    *,
    rules: ListRules,
    n_users: int,
    titles: NDArray,
    withdrawn: Bools,
) -> pd.DataFrame:
    """Rows of `recommendations`.

    Args:
        shop: what was taken until the day, and of what.
        saved: the ranker that serves; None: there were too few days to learn from, and nobody gets a list of his own.
        day: for which lists are made.
        rules: of a list.
        n_users: who get one, at most: those who came last.
        titles: (items,).
        withdrawn: (items,) what may not be shown.

    Cost: as `recommend`.
    """
    acts = shop.acts
    popular = popular_list(acts, day, top=rules.top, withdrawn=withdrawn).assign(
        user_id=NEW_VISITOR, channel="popular", times=0, reason_item_1=-1, reason_item_2=-1
    )
    parts = [popular]
    if saved and len(acts):
        last = np.zeros(acts.n_users, np.int64)
        np.maximum.at(last, acts.user, acts.day)
        user = np.sort(np.argsort(-last, kind="stable")[:n_users])
        learner = Learner(acts, shop.catalogue, saved.weighting, saved.retrieval, RowChoice(), n_visits=0)
        visits = Visits(user, np.full(len(user), day))
        rows = recommend(learner, saved.ranker, visits, rules=rules, withdrawn=withdrawn)
        parts.insert(0, rows.assign(user_id=acts.user_ids[rows.user]))
    found = pd.concat(parts, ignore_index=True)
    told = {"item_id": acts.item_ids[found.item], "reason": reasons(found, titles, day), "made_for": day_of(day)}
    return found.assign(**told)[RECOMMENDATIONS.column_names]


def describe_items(shop: Shop, day: int, *, withdrawn: Bools) -> pd.DataFrame:
    """Rows of `item_index`: what is known of each item when a day begins."""
    known, text = shop.acts.before(day), shop.catalogue.text
    n_users, repeat_share, usual_gap = repetition(known, *known.pairs())
    recent = np.bincount(known.item[known.day >= day - RECENT], minlength=known.n_items)
    return pd.DataFrame(
        {
            "item_id": known.item_ids,
            "n_users": n_users,
            "recent_takings": recent,
            "repeat_share": repeat_share.astype(float),
            "usual_gap": usual_gap.astype(float),
            "soonest_return": soonest_return(known, shop.catalogue.classes).astype(float),
            "has_text": np.zeros(known.n_items, bool) if text is None else text.any(1),
            "withdrawn": withdrawn,
        }
    )


def recommend(learner: Learner, ranker: Ranker, visits: Visits, *, rules: ListRules, withdrawn: Bools) -> pd.DataFrame:
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
        user, rank, item (codes), score (chance that it is taken on the next visit), channel, times (days on which the
        user took it), popular (takings by all, lately), reason_item_1, reason_item_2 (codes, -1 for none).

    Cost: as `retrieve`, and O(users pool top) for the spreading.

    Source: Carbonell and Goldstein 1998 for the spreading.
    """
    index = learner.index(int(visits.day.max()))
    known = learner.acts.before(index.day)
    together = co_taken_vectors(known)
    vectors = together if index.text is None else index.text  # by text, two sizes of one thing are near-duplicates
    soonest, parts = soonest_return(known, learner.catalogue.classes), []
    for block, rows in learner.candidates(visits, index.day):
        user = visits.user[block]
        score = ranker.score(rows)
        age = rows.column("own_age")
        hidden = withdrawn[rows.item] | (age < soonest[rows.item])
        score = np.where(hidden, -np.inf, score)
        pool = top_items(rows.visit, rows.item, score, n_visits=len(user), k=POOL * rules.top)
        found = _described(rows, score, pool, user)
        found = found[np.isfinite(found.score)]
        parts.append(_spread(found, vectors, rules))
    result = pd.concat(parts, ignore_index=True)
    result["score"] = 1 / (1 + np.exp(-result.score))
    return _with_reasons(result, known, index, {"together": together, "text": vectors})


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


def co_taken_vectors(known: Interactions) -> Singles:
    """(items, d) unit vectors by which two items are alike if the same users took them."""
    from sklearn.utils.extmath import randomized_svd

    matrix = known.matrix(np.ones(len(known), np.float32))
    d = min(64, min(matrix.shape) - 1)
    if d < 1:
        return np.ones((known.n_items, 1), np.float32)
    _, strength, right = randomized_svd(matrix, d, random_state=0)
    vectors = right.T * strength
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def similar_items(acts: Interactions, day: int, *, text: Singles | None, top: int) -> pd.DataFrame:
    """The items that are most like each item: by who took them, and by text where fewer than two users tell.

    Args:
        acts: interactions; those before the day are looked at.
        day: as of which.
        text: (items, d) unit vectors, or None.
        top: length of each list.

    Returns:
        item, rank, similar_item (codes), score (cosine), channel.

    Cost: as `Neighbours.fit`; by text items x items, by blocks.
    """
    known = acts.before(day)
    taken = known.matrix(np.ones(len(known), np.float32))
    taken.data[:] = 1
    between = Neighbours.fit(taken, top).between.tocoo() if len(known) else sparse.coo_matrix((0, 0))
    silent = np.bincount(taken.indices, minlength=acts.n_items) < 2
    kept = ~silent[between.row] & (between.data > 0)
    found = [_alike_rows(between.row[kept], between.col[kept], between.data[kept], "together")]
    for items in np.array_split(np.flatnonzero(silent), silent.sum() // 500 + 1):
        if text is None:
            break
        table = text[items] @ text.T
        table[np.arange(len(items)), items] = -np.inf
        nearest = best_columns(table, min(top, acts.n_items - 1))
        item, score = np.repeat(items, nearest.shape[1]), np.take_along_axis(table, nearest, 1).ravel()
        found.append(_alike_rows(item[score > 0], nearest.ravel()[score > 0], score[score > 0], "text"))
    lists = pd.concat(found, ignore_index=True).sort_values(
        ["item", "score", "similar_item"], ascending=[True, False, True]
    )
    return lists.assign(rank=lists.groupby("item").cumcount() + 1)


def _alike_rows(item: Ints, similar: Ints, score: NDArray, channel: str) -> pd.DataFrame:
    return pd.DataFrame({"item": item, "similar_item": similar, "score": score.astype(float), "channel": channel})


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
            "times": rows.column("own_days")[place].astype(np.int64),
            "popular": np.expm1(rows.column("popular_recent")[place]).round().astype(np.int64),
        }
    )


def _spread(pool: pd.DataFrame, vectors: Singles, rules: ListRules) -> pd.DataFrame:
    """The first `top` of each user's pool by maximal marginal relevance; all users step together."""
    n_users, width = pool.user.nunique(), POOL * rules.top
    if not n_users:
        return pool.assign(rank=0)
    whose = np.unique(pool.user, return_inverse=True)[1]
    at = pool.groupby("user", sort=False).cumcount().to_numpy()
    place = np.full((n_users, width), -1)
    place[whose, at] = np.arange(len(pool))
    score = np.where(place >= 0, pool.score.to_numpy()[place], -np.inf)
    # each user's own scores from 0 to 1: whoever else is asked, his list stays
    low = np.where(np.isfinite(score), score, np.inf).min(1, keepdims=True)
    relevance = (score - low) / np.maximum(score.max(1, keepdims=True) - low, 1e-9)
    absent = ~np.isfinite(score)
    vector = vectors[pool.item.to_numpy()][np.maximum(place, 0)]  # (users, width, d)
    closest, chosen = np.zeros((n_users, width)), np.full((n_users, rules.top), -1)
    for rank in range(min(rules.top, width)):
        worth = np.where(absent, -np.inf, (1 - rules.spread) * relevance - rules.spread * closest)
        best = worth.argmax(1)
        usable = np.isfinite(worth[np.arange(n_users), best])
        chosen[usable, rank] = place[usable, best[usable]]
        absent[np.arange(n_users), best] = True
        near = np.einsum("uwd,ud->uw", vector, vector[np.arange(n_users), best])
        closest = np.maximum(closest, near)
    rows, ranks = np.nonzero(chosen >= 0)
    return pool.iloc[chosen[rows, ranks]].assign(rank=ranks + 1)


def _with_reasons(
    lists: pd.DataFrame, known: Interactions, index: Index, vectors: Mapping[str, Singles]
) -> pd.DataFrame:
    """The past items that speak most for each item: those of the history nearest to it in its channel's vectors."""
    reason = np.full((len(lists), REASONS), -1)
    weight = index.weights(known, np.full(len(known), index.day))
    first = known.first_rows()
    for (user, channel), rows in lists.groupby(["user", "channel"]).indices.items():
        if channel not in vectors:  # what was had speaks for itself, and so does what is popular
            continue
        mine = slice(first[user], first[user + 1])
        past, place = np.unique(known.item[mine], return_inverse=True)
        strength = np.log1p(np.bincount(place, weight[mine]))
        near = (vectors[channel][lists.item.to_numpy()[rows]] @ vectors[channel][past].T) * strength
        best = best_columns(near.astype(np.float32), REASONS)
        value = np.take_along_axis(near, best, 1)
        reason[rows, : best.shape[1]] = np.where(value > 0, past[best], -1)
    return lists.assign(reason_item_1=reason[:, 0], reason_item_2=reason[:, 1])


def popular_list(acts: Interactions, day: int, *, top: int, withdrawn: Bools) -> pd.DataFrame:
    """What those are shown of whom nothing is known: what was taken most in the last 28 days.

    Returns:
        rank, item (code), score (share of the visits on which it was taken), popular (takings).
    """
    recent = acts.only((acts.day >= day - RECENT) & (acts.day < day))
    takings = np.where(withdrawn, 0, np.bincount(recent.item, minlength=acts.n_items))
    n_visits = len(np.unique(recent.user * (1 << 20) + recent.day))
    item = best_columns(takings[None].astype(np.float32), top)[0]
    item = item[takings[item] > 0]
    rank = np.arange(1, len(item) + 1)
    return pd.DataFrame(
        {"rank": rank, "item": item, "score": takings[item] / max(n_visits, 1), "popular": takings[item]}
    )


def reasons(lists: pd.DataFrame, titles: NDArray, day: int) -> list[str]:
    """A sentence for people for each row: why this item?

    Args:
        lists: as `recommend` returns them.
        titles: (items,).
        day: for which the lists were made.
    """
    named = [
        [titles[code] for code in pair if code >= 0]
        for pair in lists[["reason_item_1", "reason_item_2"]].to_numpy().tolist()
    ]
    told = zip(lists.channel, named, lists.popular, lists.times, strict=True)
    return [reason_text(channel, items, popular, day, times) for channel, items, popular, times in told]


def reason_text(channel: str, titles: list[str], popular: float, day: int, times: int) -> str:
    """Why this item?

    >>> reason_text("together", ["coffee", "milk"], 0, 0, 0)
    'goes with coffee and milk'
    """
    if channel == "own":
        return f"taken on {times} days before" if times > 1 else "taken on one day before"
    if channel == "popular" or not titles:
        return f"taken {popular:.0f} times in the {RECENT} days before {day_of(day)}"
    told = " and ".join(dict.fromkeys(titles))
    return f"goes with {told}" if channel == "together" else f"like {told}"
