"""A small crowd with habits: what it took, as interactions."""

import numpy as np

from ecom_pipeline.recommend.candidates import Catalogue
from ecom_pipeline.recommend.interactions import Interactions

N_DAYS = 120


def interactions(rows: list[tuple[int, int, int]], n_users: int, n_items: int, price: float = np.nan) -> Interactions:
    """From (user, item, day); everything a purchase of one piece."""
    table = np.array(sorted(set(rows)), np.int64).reshape(-1, 3)
    n_acts = np.zeros((len(table), 4), np.float32)
    n_acts[:, 2] = 1
    never = np.full(len(table), np.iinfo(np.int32).max, np.int64)
    ones = np.ones(len(table), np.float32)
    ids = [np.array([f"{kind}{n:04}" for n in range(count)]) for kind, count in (("u", n_users), ("i", n_items))]
    return Interactions(*table.T, n_acts, ones, never, ones * price, *ids)


def crowd(n_users: int = 60, n_items: int = 40, seed: int = 0, drift: float = 0.0) -> tuple[Interactions, Catalogue]:
    """Users with favourites of one class, who come every few days; with drift, favourites change half-way for good."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        own = np.arange(n_items)[np.arange(n_items) % 4 == user % 4]
        for day in range(user % 5, N_DAYS, 4 + user % 3):
            shifted = drift and day >= N_DAYS * drift
            favourites = own[::-1] if shifted else own
            weight = 1 / (1 + np.arange(len(favourites)))
            taken = draw.choice(favourites, 3, replace=False, p=weight / weight.sum())
            rows += [(user, int(item), day) for item in taken]
            rows.append((user, int(draw.integers(n_items)), day))
    return interactions(rows, n_users, n_items, price=2.0), Catalogue({"class": np.arange(n_items) % 4})
