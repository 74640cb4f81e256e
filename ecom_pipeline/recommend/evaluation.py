"""How good are lists of the whole catalogue? Over several test periods, with intervals over users and periods, all pairs paired.

On the floor above `learning`. A user's visits of several periods are drawn together: they are not independent. Each period has a
ranker of its own, from rows drawn anew, so what the periods differ in is that luck as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.ranking.intervals import crossed_interval, draws_of
from ecom_pipeline.recommend.best import best_columns, top_items
from ecom_pipeline.recommend.candidates import Candidates
from ecom_pipeline.recommend.interactions import Interactions, Visits
from ecom_pipeline.recommend.metrics import hit_rate, hits, ndcg, recall

Figures = dict[tuple[str, str], Floats]  # (v,) by (slice, metric); NaN where a visit has none
COLUMNS = ["model", "slice", "metric", "value", "ci_low", "ci_high", "n_users"]
DEPTH = 300  # of the lists that are kept


@dataclass(frozen=True, slots=True)
class Lists:
    """What a model shows on v visits; -1 where a list is shorter.

    Attributes:
        top: (v, >= 300) the list.
        repeat: (v, >= 10) the same of items that the user had.
        explore: (v, >= 100) the same of items that are new to him.
    """

    top: Ints
    repeat: Ints
    explore: Ints

    @classmethod
    def joined(cls, parts: Sequence["Lists"]) -> "Lists":
        """Visits one after the other."""
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in ("top", "repeat", "explore")})


@dataclass(frozen=True, slots=True)
class Truth:
    """What was taken on the next visits after a day, and what their users had before.

    Attributes:
        visits: v of them.
        at: (k,) visit of each thing taken.
        item: (k,) its code.
        new: (k,) whether the user had never taken it before the day.
        had: sorted user * items + item of everything taken before the day.
        popular: (items,) whether the item is of the few that make up half of all takings before the day.
        shown_share: (items,) share of the takings before the day.
        n_before: (v,) rows of the user's history.
    """

    visits: Visits
    at: Ints
    item: Ints
    new: Bools
    had: Ints
    popular: Bools
    shown_share: Floats
    n_before: Ints

    @classmethod
    def of(cls, acts: Interactions, visits: Visits, day: int) -> "Truth":
        """Of visits after a day."""
        known = acts.before(day)
        had = np.unique(known.user * acts.n_items + known.item)
        at, item = acts.taken(visits)
        new = ~np.isin(visits.user[at] * acts.n_items + item, had)
        takings = np.bincount(known.item, minlength=acts.n_items)
        order = np.argsort(-takings, kind="stable")
        popular = np.zeros(acts.n_items, bool)
        popular[order[np.cumsum(takings[order]) <= takings.sum() / 2]] = True
        n_before = np.bincount(known.user, minlength=acts.n_users)[visits.user]
        return cls(visits, at, item, new, had, popular, takings / max(takings.sum(), 1), n_before)


def split_lists(top: Ints, truth: Truth, n_items: int, k: int) -> Lists:
    """A long list, with (v, k) what of it the user had before, and what is new to him, each in the list's order."""
    owned = np.isin(truth.visits.user[:, None] * n_items + np.maximum(top, 0), truth.had) & (top >= 0)
    return Lists(top, _packed(top, owned, k), _packed(top, ~owned & (top >= 0), k))


def figures_by_visit(lists: Lists, truth: Truth, n_items: int) -> Figures:
    """(v,) figures by (slice, metric).

    Args:
        lists: what was shown.
        truth: what was taken.
        n_items: of the catalogue.
    """
    top = lists.top
    found = _figures("all", top, truth, np.ones(len(truth.at), bool), n_items, deep=True)
    found |= _figures("repeat", lists.repeat, truth, ~truth.new, n_items)
    found |= _figures("explore", lists.explore, truth, truth.new, n_items, deep=True)
    for name, popular in (("popular items", True), ("rare items", False)):
        inside = truth.popular[truth.item] == popular
        found |= _figures(
            name, _packed(top, (truth.popular[np.maximum(top, 0)] == popular) & (top >= 0), 10), truth, inside, n_items
        )
    of_all, middle = found["all", "ndcg_at_10"], np.median(truth.n_before) if len(truth.n_before) else 0
    found["long histories", "ndcg_at_10"] = np.where(truth.n_before > middle, of_all, np.nan)
    found["short histories", "ndcg_at_10"] = np.where(truth.n_before <= middle, of_all, np.nan)
    share = truth.shown_share[np.maximum(top[:, :10], 0)]
    listed = top[:, :10] >= 0
    bits = np.where(listed, -np.log2(np.maximum(share, 1e-9)), 0).sum(1) / np.maximum(listed.sum(1), 1)
    found["all", "novelty_at_10_bits"] = bits
    return found


def _figures(
    name: str, top: Ints, truth: Truth, inside: Bools, n_items: int, deep: bool = False
) -> dict[tuple[str, str], Floats]:
    n_taken = np.bincount(truth.at[inside], minlength=len(truth.visits))
    hit = hits(top, truth.at[inside], truth.item[inside], n_items)
    found = {
        (name, "ndcg_at_10"): ndcg(hit[:, :10], n_taken),
        (name, "recall_at_10"): recall(hit[:, :10], n_taken),
    }
    if deep:
        found[name, "hit_rate_at_10"] = hit_rate(hit[:, :10], n_taken)
        found[name, "recall_at_100"] = recall(hit[:, :100], n_taken)
        if top.shape[1] >= DEPTH:
            found[name, "recall_at_300"] = recall(hit[:, :DEPTH], n_taken)
    return found


def retrieval_figures(rows: Candidates, column: str | None, truth: Truth, n_items: int) -> Figures:
    """(v,) share of what was taken that is among some candidates, and among the first of them by a column of theirs.

    Args:
        rows: candidates of the visits.
        column: by which they are ordered; None: only all of them are counted.
        truth: what was taken.
        n_items: of the catalogue.
    """
    v, found, unseen = len(truth.visits), {}, rows.column("own_days") == 0
    for name, of_rows, of_truth in (("all", slice(None), slice(None)), ("explore", unseen, truth.new)):
        visit, item = rows.visit[of_rows], rows.item[of_rows]
        at, taken = truth.at[of_truth], truth.item[of_truth]
        n_taken = np.bincount(at, minlength=v)
        caught = np.bincount(visit[rows.taken[of_rows]], minlength=v)
        found[name, "recall"] = np.where(n_taken > 0, caught / np.maximum(n_taken, 1), np.nan)
        if column is not None:
            top = top_items(visit, item, rows.column(column)[of_rows], n_visits=v, k=DEPTH)
            hit = hits(top, at, taken, n_items)
            found[name, "recall_at_100"] = recall(hit[:, :100], n_taken)
            found[name, "recall_at_300"] = recall(hit, n_taken)
    return found


def dense_lists(table: Singles, truth: Truth, rows: slice, n_items: int) -> Lists:
    """The list, its repeats and its new items, from scores of the whole catalogue for some of the visits."""
    own = np.zeros(table.shape, bool)
    for place, user in enumerate(truth.visits.user[rows]):
        mine = slice(*np.searchsorted(truth.had, [user * n_items, (user + 1) * n_items]))
        own[place, truth.had[mine] - user * n_items] = True
    repeat = best_columns(np.where(own, table, -np.inf).astype(np.float32), 10)
    repeat[np.take_along_axis(~own, repeat, 1)] = -1
    explore = best_columns(np.where(own, -np.inf, table).astype(np.float32), DEPTH)
    return Lists(best_columns(table, DEPTH), repeat, explore)


def compare(
    by_model: Mapping[str, Figures],
    user: Ints,
    period: Ints,
    pairs: Sequence[tuple[str, str]],
    *,
    seed: int,
) -> pd.DataFrame:
    """Rows of `next_visit_evaluation`: every figure of every model, and differences, over all periods and in each.

    Args:
        by_model: figures; a model may lack those of some periods (NaN).
        user: (v,) of each visit: what is drawn.
        period: (v,) number of its test period, from 0.
        pairs: models whose difference is asked for, first minus second.
        seed: of the bootstrap.

    Returns:
        A value is the mean over periods of the mean over visits. Its interval is of `crossed_interval`: users are drawn, and
        periods count as seeds; of a single period it is over users. No interval where one user is all there is.

    Cost: 2000 draws of the users.
    """
    _, place = np.unique(user, return_inverse=True)
    if not len(place):
        return pd.DataFrame(columns=COLUMNS)
    draws = draws_of(np.arange(int(place.max()) + 1), seed).astype(np.float32)
    figures: dict[tuple[str, str, str], Floats] = {
        (model, *key): value for model, of_model in by_model.items() for key, value in of_model.items()
    }
    for first, second in pairs:
        for key in by_model.get(first, {}):
            if second in by_model and key in by_model[second]:
                figures[f"{first} - {second}", *key] = by_model[first][key] - by_model[second][key]
    periods = {"": np.ones(len(user), bool)}
    if len(np.unique(period)) > 1:
        periods |= {f", test period {one + 1}": period == one for one in np.unique(period)}
    found = []
    for (model, slice_, metric), value in figures.items():
        for suffix, inside in periods.items():
            if suffix and (slice_, metric) not in (("all", "ndcg_at_10"), ("explore", "ndcg_at_10")):
                continue
            used = inside & np.isfinite(value)
            if used.any():
                n_users = len(np.unique(place[used]))
                one = crossed_interval(_drawn(value[used], place[used], period[used], draws), n_users)
                low, high = (end if np.isfinite(end) else np.nan for end in (one.low, one.high))
                found.append((model, f"{slice_}{suffix}", metric, one.value, low, high, n_users))
    return pd.DataFrame(found, columns=COLUMNS)


def _drawn(value: Floats, place: Ints, period: Ints, draws: Singles) -> Floats:
    """(periods, 1 + draws) means over the visits of the users drawn; NaN where none of a period's was."""
    n, rows = draws.shape[1], []
    for one in np.unique(period):
        inside = period == one
        total = np.bincount(place[inside], value[inside], n)
        count = draws @ np.bincount(place[inside], minlength=n)
        rows.append(np.where(count > 0, draws @ total / np.maximum(count, 1), np.nan))
    return np.array(rows)


def _packed(top: Ints, kept: Bools, k: int) -> Ints:
    """The kept entries of each row moved to its front."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(top, order, 1), -1)
