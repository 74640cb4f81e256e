"""A list for a user's next visit: what a service asks, and what makes the lists of all users, in one.

On the floor above `saved`. Histories are given with each question; everything else is known when the maker is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.recommend.best import best_columns, top_items
from ecom_pipeline.recommend.candidates import CHANNELS, Candidates, Catalogue, Market, Retrieval, retrieve
from ecom_pipeline.recommend.catalogue import Shop
from ecom_pipeline.recommend.interactions import Interactions, Visits
from ecom_pipeline.recommend.private.head import PrivateRanker
from ecom_pipeline.recommend.ranker import Ranker
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.saved import SavedRanker

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


@dataclass(frozen=True, slots=True)
class ListMaker:
    """What lists are made from, but for the histories.

    Attributes:
        index: the catalogue as it was known when the day of the lists began.
        catalogue: of the items.
        market: of that day.
        retrieval: how many candidates.
        ranker: scores candidates.
        soonest: (items,) days since a taking before which an item is not shown again.
        co_taken: (items, d) unit vectors by who took what.
        withdrawn: (items,) what may not be shown.
    """

    index: Index
    catalogue: Catalogue
    market: Market
    retrieval: Retrieval
    ranker: Ranker | PrivateRanker
    soonest: Floats
    co_taken: Singles
    withdrawn: Bools

    @classmethod
    def fit(cls, shop: Shop, saved: SavedRanker, day: int, *, withdrawn: Bools) -> "ListMaker":
        """From what was taken before a day.

        Args:
            shop: what was taken, and of what.
            saved: the ranker that serves, with its weighting.
            day: for which lists are made.
            withdrawn: (items,) what may not be shown.

        Cost: as `Index.fit`, and one truncated decomposition.
        """
        known, catalogue = shop.acts.before(day), shop.catalogue
        sequences = saved.retrieval.n_sequence > 0
        index = Index.fit(known, day, weighting=saved.weighting, text=catalogue.text, sequences=sequences)
        market = Market.of(known, Visits(np.zeros(1, np.int64), np.array([day])), day)
        soonest, co_taken = soonest_return(known, catalogue.classes), co_taken_vectors(known)
        return cls(index, catalogue, market, saved.retrieval, saved.ranker, soonest, co_taken, withdrawn)

    def _vectors(self) -> dict[str, Singles]:
        """By channel, (items, d) unit vectors in which what speaks for an item is near it."""
        found = {"together": self.co_taken, "text": self.likeness}
        return found if self.index.sequence is None else found | {"sequence": self.index.sequence.items}

    @property
    def likeness(self) -> Singles:
        """(items, d) unit vectors: by text, two sizes of one thing are near-duplicates."""
        return self.co_taken if self.index.text is None else self.index.text

    def lists(self, acts: Interactions, visits: Visits, *, rules: ListRules) -> pd.DataFrame:
        """A list for each user's next visit.

        What must not be shown is dropped: items that are withdrawn, and items taken so lately that hardly anybody takes
        them again so soon. Near-duplicates are spread by maximal marginal relevance over item-item vectors.

        Args:
            acts: histories of these users; what they did on the day itself or later is not looked at.
            visits: one a user, on the day of the maker.
            rules: of a list.

        Returns:
            user, rank, item (codes), score (chance that it is taken on the next visit), channel, times (days on which the
            user took it), popular (takings by all, lately), reason_item_1, reason_item_2 (codes, -1 for none).

        Cost: as `retrieve`, and O(users pool top) for the spreading.

        Source: Carbonell and Goldstein 1998 for the spreading.
        """
        parts = []
        for block, rows in retrieve(acts, self.index, self.catalogue, visits, self.retrieval, self.market):
            user = visits.user[block]
            score = self.ranker.score(rows)
            hidden = self.withdrawn[rows.item] | (rows.column("own_age") < self.soonest[rows.item])
            score = np.where(hidden, -np.inf, score)
            pool = top_items(rows.visit, rows.item, score, n_visits=len(user), k=POOL * rules.top)
            parts.append(_spread(_described(rows, score, pool, user), self.likeness, rules))
        result = pd.concat(parts, ignore_index=True) if len(parts) != 1 else parts[0].reset_index(drop=True)
        result["score"] = 1 / (1 + np.exp(-result.score))
        known = acts.before(self.index.day)
        return _with_reasons(result, known, self.index, self._vectors())


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


def _described(rows: Candidates, score: Floats, pool: Ints, user: Ints) -> pd.DataFrame:
    """The pool as rows, with the channel that speaks loudest: own history, who took what, order, text, all."""
    table = np.full((len(user), int(rows.item.max(initial=0)) + 1), -1, np.int64)
    table[rows.visit, rows.item] = np.arange(len(rows))
    visit, rank = np.nonzero(pool >= 0)
    place = table[visit, pool[visit, rank]]
    shown = np.isfinite(score[place])
    visit, place = visit[shown], place[shown]
    order = np.array([0, 1, 4, 3, 2])  # own, together, sequence, text, popular
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
    if pool.empty:
        return pool.assign(rank=0)
    # rows of a user stand together
    begins = np.flatnonzero(np.diff(pool.user.to_numpy(), prepend=-1))
    n_users, width = len(begins), POOL * rules.top
    whose = np.repeat(np.arange(n_users), np.diff(begins, append=len(pool)))
    at = np.arange(len(pool)) - begins[whose]
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
    whose, channel, item = (lists[name].to_numpy() for name in ("user", "channel", "item"))
    spoken = np.flatnonzero(
        np.isin(channel, list(vectors))
    )  # what was had speaks for itself, and so does what is popular
    for user in np.unique(whose[spoken]):
        mine = slice(np.searchsorted(known.user, user), np.searchsorted(known.user, user, side="right"))
        past, place = np.unique(known.item[mine], return_inverse=True)
        strength = np.log1p(np.bincount(place, weight[mine]))
        for name, vector in vectors.items():
            rows = spoken[(whose[spoken] == user) & (channel[spoken] == name)]
            near = (vector[item[rows]] @ vector[past].T) * strength
            best = best_columns(near.astype(np.float32), REASONS)
            value = np.take_along_axis(near, best, 1)
            reason[rows, : best.shape[1]] = np.where(value > 0, past[best], -1)
    return lists.assign(reason_item_1=reason[:, 0], reason_item_2=reason[:, 1])
