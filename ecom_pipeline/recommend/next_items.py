"""Sequences as a channel of candidates: which items that a user never had do his visits, in their order, ask for?

On the floor above `sequence`. Acts of one visit have no order, so they stand in one drawn at random, and none foretells another.
Only first takings are foretold, each as much as it weighs: what was taken before is brought by the own history.
"""

from dataclasses import replace

import numpy as np

from ecom_pipeline.arrays import Ints, Singles
from ecom_pipeline.recommend.interactions import Interactions
from ecom_pipeline.recommend.sequence import Histories, SequenceModel, SequenceSettings

LEARNT = 250_000  # latest acts, of which first takings are foretold; all that was earlier is their history
READ = 1_000_000  # acts that are read in learning, over all epochs: what it costs does not grow with the shop
CHANNEL = SequenceSettings(length=50, n_epochs=10, learning_rate=3e-3)


def in_order(visit: Ints, acts: Interactions, *, n: int, seed: int = 0) -> tuple[Ints, Histories]:
    """(k,) places of acts by history, day and chance; and them as n histories, each act weighing 1.

    Args:
        visit: (k,) sorted, whose history each act is in.
        acts: k rows.
        n: histories.
        seed: of the order within a day.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(acts)), acts.day, visit))
    start = np.searchsorted(visit[order], np.arange(n + 1))
    return order, Histories(acts.item[order], start, np.ones(len(order), np.float32), acts.day[order])


def windows(histories: Histories, length: int, stride: int) -> Histories:
    """Long histories in parts of `length` acts, of which the latest `stride` count; parts in which nothing counts are left out.

    So every act counts once, in a part that holds at least `length - stride` acts before it, where there are so many.

    Args:
        histories: of visits.
        length: of a part, at most.
        stride: of a part, that count.
    """
    assert histories.visit is not None
    rows, counts = [], []
    for begin, stop in zip(histories.start[:-1], histories.start[1:], strict=True):
        while stop > begin and histories.weight[begin:stop].any():
            first = max(begin, stop - length)
            own = np.arange(first, stop)
            count = np.where((own >= stop - stride) | (first == begin), histories.weight[own], 0)
            if count.any():
                rows.append(own)
                counts.append(count)
            stop = begin if first == begin else stop - stride
    row = np.concatenate([np.empty(0, np.int64), *rows])
    start = np.cumsum([0, *map(len, rows)])
    weight = np.concatenate([np.empty(0, np.float32), *counts]).astype(np.float32)
    return Histories(histories.item[row], start, weight, histories.visit[row])


def fit_next_items(
    known: Interactions,
    *,
    weight: Singles,
    text: Singles | None,
    settings: SequenceSettings = CHANNEL,
) -> SequenceModel:
    """A model of what users take for the first time.

    Args:
        known: interactions before the day of the model; not none.
        weight: (n,) of each row: how much it counts in the loss, if it is a first taking.
        text: (items, d) unit vectors from which items begin, or None.
        settings: of the model; where `READ` is less than its epochs need, it learns as many as that gives.

    Cost: as `SequenceModel.fit`, of `READ` acts at most: about a minute and a half of one core for 20,000 items.
    """
    order, histories = in_order(known.user, known, n=known.n_users, seed=settings.seed)
    pair = known.user * known.n_items + known.item  # rows come by user, item and day
    first = np.r_[True, pair[1:] != pair[:-1]][: len(pair)]
    late = known.day >= np.sort(known.day)[-min(LEARNT, len(known))]
    counts = np.where(first & late, weight, 0)[order].astype(np.float32)
    parts = windows(replace(histories, weight=counts), settings.length + 1, settings.length * 3 // 4)
    n_epochs = min(settings.n_epochs, max(1, READ // max(len(parts.item), 1)))
    return SequenceModel.fit(parts, known.n_items, text=text, settings=replace(settings, n_epochs=n_epochs))


def next_item_scores(model: SequenceModel, visit: Ints, past: Interactions, *, n_visits: int) -> Singles:
    """(v, items) how much each visit's history asks for each item, a cosine; 0 where there is no history.

    Args:
        model: as of a day that is not later than the visits'.
        visit: (k,) sorted, which visit each act was before.
        past: k rows.
        n_visits: v.
    """
    _, histories = in_order(visit, past, n=n_visits)
    found = model.asks(histories, np.arange(n_visits)) @ model.items.T
    found[:, ~model.items.any(1)] = -1  # nobody took it and nobody read it: it is last, as no cosine is lower
    return found
