"""The lists that a shop shows: the next visit of every user, items that are like an item, and why.

On the floor above `list_maker`.
"""

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Ints
from ecom_pipeline.recommend.best import best_columns
from ecom_pipeline.recommend.candidates import RECENT
from ecom_pipeline.recommend.catalogue import Shop
from ecom_pipeline.recommend.interactions import Interactions, Visits, day_of
from ecom_pipeline.recommend.item_item import Neighbours
from ecom_pipeline.recommend.list_maker import ListMaker, ListRules, soonest_return
from ecom_pipeline.recommend.nearest_items import NearestItems
from ecom_pipeline.recommend.retrieval import repetition
from ecom_pipeline.recommend.saved import SavedRanker
from ecom_pipeline.schema import RECOMMENDATIONS

NEW_VISITOR = "new visitor"  # has no history; his list is what is popular


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
        maker = ListMaker.fit(shop, saved, day, withdrawn=withdrawn)
        rows = maker.lists(acts, Visits(user, np.full(len(user), day)), rules=rules)
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


def similar_items(acts: Interactions, day: int, *, by_text: NearestItems | None, top: int) -> pd.DataFrame:
    """The items that are most like each item: by who took them, and by text where fewer than two users tell.

    Args:
        acts: interactions; those before the day are looked at.
        day: as of which.
        by_text: answers which items' texts are nearest; None where no text was read.
        top: length of each list.

    Returns:
        item, rank, similar_item (codes), score (cosine), channel.

    Cost: as `Neighbours.fit`; by text items x items, by blocks, or as many walks of a graph.
    """
    known = acts.before(day)
    taken = known.matrix(np.ones(len(known), np.float32))
    taken.data[:] = 1
    between = Neighbours.fit(taken, top).between.tocoo() if len(known) else sparse.coo_matrix((0, 0))
    silent = np.bincount(taken.indices, minlength=acts.n_items) < 2
    kept = ~silent[between.row] & (between.data > 0)
    found = [_alike_rows(between.row[kept], between.col[kept], between.data[kept], "together")]
    for items in np.array_split(np.flatnonzero(silent), silent.sum() // 500 + 1):
        if by_text is None:
            break
        itself = sparse.csr_matrix(
            (np.ones(len(items)), (np.arange(len(items)), items)), shape=(len(items), acts.n_items)
        )
        nearest, cosine = by_text.ask(by_text.vectors[items]).nearest(top, but=itself)
        item, score = np.repeat(items, nearest.shape[1]), cosine.ravel()
        found.append(_alike_rows(item[score > 0], nearest.ravel()[score > 0], score[score > 0], "text"))
    lists = pd.concat(found, ignore_index=True).sort_values(
        ["item", "score", "similar_item"], ascending=[True, False, True]
    )
    return lists.assign(rank=lists.groupby("item").cumcount() + 1)


def _alike_rows(item: Ints, similar: Ints, score: NDArray, channel: str) -> pd.DataFrame:
    return pd.DataFrame({"item": item, "similar_item": similar, "score": score.astype(float), "channel": channel})


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
    return {"together": f"goes with {told}", "sequence": f"comes after {told}"}.get(channel, f"like {told}")
