"""What a recommender must beat: simple lists of the whole catalogue, each without weights unless its name says so.

On the floor above `retrieval`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sparse

from ecom_pipeline.arrays import Ints, Singles
from ecom_pipeline.recommend.best import best_columns
from ecom_pipeline.recommend.interactions import Interactions, Visits
from ecom_pipeline.recommend.item_item import RIDGE, Fitted, Neighbours, history_value, item_item
from ecom_pipeline.recommend.metrics import hits, ndcg
from ecom_pipeline.recommend.retrieval import popularity
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting

CELLS = 20_000_000  # visits x items at a time
POPULAR, OWN, OWN_BY_AGE = "popularity", "own frequency", "own frequency by age"
ITEM_KNN, EASE, TIFU, IALS = "item-kNN", "EASE", "TIFU-KNN", "iALS"
MOST_USERS = 8_000  # whose distances to each other TIFU-KNN needs: 1 GB; with more it is left out
_RIDGES = (50.0, 300.0)
_TUNED_ON = 600  # visits, at most: enough to tell such settings apart
_BELOW = 1e-6  # of popularity, under lists that say nothing of most items
_TIFU_GRID = tuple((within, group, alpha) for within in (0.9, 1.0) for group in (0.7, 0.9) for alpha in (0.7, 0.9))
_HALF_LIVES = (20.0, 40.0, 60.0, 90.0, 180.0)


@dataclass(frozen=True, slots=True)
class Tuned:
    """Settings of the baselines that have any.

    Attributes:
        half_life: of own frequency by age, in days.
        ridge: of EASE.
        tifu: within, group and alpha of TIFU-KNN.
        factors: of iALS.
    """

    half_life: float = 60.0
    ridge: float = RIDGE
    tifu: tuple[float, float, float] = _TIFU_GRID[0]
    factors: int = 64


def baseline_scores(
    acts: Interactions, visits: Visits, day: int, *, settings: Tuned, names: Sequence[str]
) -> Iterator[tuple[slice, dict[str, Singles]]]:
    """(v, items) scores of some visits at a time, by baseline.

    Args:
        acts: all interactions; only those before `day` are looked at, and for popularity those before each visit.
        visits: the first of their users after `day`.
        day: when the lists are made.
        settings: what `tuned` chose.
        names: which baselines.

    Cost: O(v items) a baseline; for TIFU-KNN O(users squared) once.
    """
    known = acts.before(day)
    counts = weighted_matrix(known, UNWEIGHTED, day)
    aged = weighted_matrix(known, Weighting("exponential", settings.half_life), day)
    binary = counts.copy()
    binary.data[:] = 1
    value = counts.copy()
    value.data = history_value(value.data)
    models = {
        ITEM_KNN: Neighbours.fit(binary, 200) if ITEM_KNN in names else None,
        EASE: item_item(value, settings.ridge) if EASE in names else None,
    }
    tifu = None
    if TIFU in names and acts.n_users <= MOST_USERS:
        within, group, alpha = settings.tifu
        own, others = _tifu_parts(known, np.arange(acts.n_users), within, group)
        tifu = (alpha * own + (1 - alpha) * others).tocsr()
    factors = _ials(counts, settings.factors) if IALS in names else None
    recent = popularity(acts, visits, days=28)
    for rows in visits.blocks(max(8, CELLS // max(acts.n_items, 1))):
        user = visits.user[rows]
        popular = np.stack([recent[int(one)] for one in visits.day[rows]])
        below = _BELOW * popular / max(popular.max(), 1)
        found = {POPULAR: popular, OWN: counts[user].toarray() + below, OWN_BY_AGE: aged[user].toarray() + below}
        for name, model in models.items():
            if model is not None:
                found[name] = model.own_scores(binary if name == ITEM_KNN else value, user)
        if tifu is not None:
            found[TIFU] = tifu[user].toarray() + below
        if factors is not None:
            found[IALS] = factors[0][user] @ factors[1].T
        yield rows, {name: table.astype(np.float32) for name, table in found.items() if name in names}


def tuned(acts: Interactions, visits: Visits, day: int) -> Tuned:
    """Settings of the baselines that have any, by nDCG@10 on validation visits.

    Args:
        acts: all interactions.
        visits: of validation.
        day: when their lists are made.
    """
    visits = visits.only(np.sort(np.random.default_rng(0).permutation(len(visits))[:_TUNED_ON]))
    known, at = acts.before(day), acts.taken(visits)
    n_taken = np.bincount(at[0], minlength=len(visits))

    def quality(scores: Callable[[slice], Singles]) -> float:
        total = []
        for rows in visits.blocks(max(8, CELLS // max(acts.n_items, 1))):
            top = best_columns(scores(rows), 10)
            inside = (at[0] >= rows.start) & (at[0] < rows.stop)
            hit = hits(top, at[0][inside] - rows.start, at[1][inside], acts.n_items)
            total.append(ndcg(hit, n_taken[rows]))
        return float(np.nanmean(np.concatenate(total))) if total else 0.0

    def of_matrix(matrix: sparse.csr_matrix) -> float:
        return quality(lambda rows: matrix[rows].toarray())

    by_half_life = {
        one: of_matrix(weighted_matrix(known, Weighting("exponential", one), day)[visits.user]) for one in _HALF_LIVES
    }
    found = Tuned(half_life=max(by_half_life, key=by_half_life.__getitem__))
    value = weighted_matrix(known, UNWEIGHTED, day)
    value.data = history_value(value.data)

    def of_model(model: Fitted, rows: slice) -> Singles:
        return model.own_scores(value, visits.user[rows])

    by_ridge = {}
    for ridge in _RIDGES:
        model = item_item(value, ridge)
        by_ridge[ridge] = quality(partial(of_model, model))
    found = replace(found, ridge=max(by_ridge, key=by_ridge.__getitem__))
    if acts.n_users <= MOST_USERS:
        by_tifu = {
            (within, group, alpha): of_matrix((alpha * own + (1 - alpha) * others).tocsr())
            for within, group in dict.fromkeys((within, group) for within, group, _ in _TIFU_GRID)
            for own, others in [_tifu_parts(known, visits.user, within, group)]
            for alpha in dict.fromkeys(alpha for *_, alpha in _TIFU_GRID)
        }
        found = replace(found, tifu=max(by_tifu, key=by_tifu.__getitem__))
    return found


def weighted_matrix(known: Interactions, weighting: Weighting, day: int) -> sparse.csr_matrix:
    """(users, items) summed weights as of a day."""
    return known.matrix(weighting.as_of(known, day))


def basket_weights(n_baskets: int, within: float, group: float, n_groups: int) -> Singles:
    """(n,) weight of each basket of a user, the earliest first.

    Baskets lie in `n_groups` groups of equal size, the first the smaller one. Inside a group of size s the i-th of them
    weighs within ** (s - i); a group's vector is their mean; the j-th of m groups weighs group ** (m - j); the user's
    vector is the mean over groups.

    Source: Hu et al. 2020, Modeling Personalized Item Frequency Information for Next-basket Recommendation, equations
    1 to 3.

    >>> basket_weights(4, 0.5, 0.5, 2).tolist()
    [0.0625, 0.125, 0.125, 0.25]
    """
    n_groups = min(n_groups, n_baskets)
    size = -(-n_baskets // n_groups)
    place = np.arange(n_baskets) + (size * n_groups - n_baskets)
    of_group, inside = place // size, place % size
    sizes = np.bincount(of_group, minlength=n_groups)
    last = size - 1 - inside
    return (within**last / sizes[of_group] * group ** (n_groups - 1 - of_group) / n_groups).astype(np.float32)


def _tifu_parts(
    known: Interactions, users: Ints, within: float, group: float, k: int = 300, n_groups: int = 7
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """(v, items) some users' own vectors, and the mean of their k nearest users'."""
    every = tifu_vectors(known, within, group, n_groups)
    own = every[users]
    squares = np.asarray(every.multiply(every).sum(1)).ravel()
    near = (squares[users, None] + squares[None] - 2 * (own @ every.T).toarray()).astype(np.float32)
    near[np.arange(len(users)), users] = np.inf
    k = min(k, known.n_users - 1)
    if k < 1:
        return own, own
    nearest = np.argpartition(near, k - 1, axis=1)[:, :k]
    mean = sparse.csr_matrix(
        (np.full(nearest.size, 1 / k, np.float32), nearest.ravel(), np.arange(0, nearest.size + 1, k)), shape=near.shape
    )
    return own, (mean @ every).tocsr()


def tifu_vectors(known: Interactions, within: float, group: float, n_groups: int) -> sparse.csr_matrix:
    """(users, items) temporal item frequencies; a basket is what a user took on a day, each item once."""
    basket, of_row = np.unique(known.user * (1 << 20) + known.day, return_inverse=True)
    user = basket >> 20
    n_baskets = np.bincount(user, minlength=known.n_users)
    weight = np.concatenate(
        [basket_weights(n, within, group, n_groups) for n in n_baskets if n] or [np.empty(0, np.float32)]
    )
    shape = (known.n_users, known.n_items)
    return sparse.csr_matrix((weight[of_row].astype(np.float32), (known.user, known.item)), shape=shape)


def _ials(counts: sparse.csr_matrix, factors: int) -> tuple[Singles, Singles]:
    """Factors of users and items by `implicit`, which is asked for by name (extra `ials`)."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=factors, regularization=0.05, alpha=2.0, iterations=15, random_state=0)
    model.fit(counts.astype(np.float32), show_progress=False)
    return np.asarray(model.user_factors), np.asarray(model.item_factors)
