"""What all other acts say of an act: does it go with what its user takes else, in behaviour, titles, classes and season?

On the floor above `catalogue`. No column of an act has heard the act itself.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.recommend.candidates import Catalogue
from ecom_pipeline.recommend.interactions import Interactions
from ecom_pipeline.recommend.item_item import history_value, item_item
from ecom_pipeline.recommend.retrieval import likeness
from ecom_pipeline.recommend.weighting import rank_share

DRAWN = 5.0  # acts of the whole shop that are added to a user's share of a class
SEASON = 14  # days around an act in which others' takings are counted
ALONE = 0.5  # share of acts that are alone on their day, from which on a day is no basket


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of n rows of interactions.

    Attributes:
        names: of the c columns.
        values: (n, c); the lower, the less speaks for the act, but for `users`, `items` and `days`, which tell of the item,
            the user and the pair.
    """

    names: list[str]
    values: Singles

    def __getitem__(self, name: str) -> Singles:
        return self.values[:, self.names.index(name)]


def read_columns(acts: Interactions, catalogue: Catalogue) -> Columns:
    """Everything known of each row of interactions but itself.

    Args:
        acts: n rows.
        catalogue: classes, and texts where they were read.

    Returns:
        foretold (by `Fitted.held_out`), foretold_for_its_crowd (the same, for each other user of the item), users and items
        (logs of how many), days (log of the pair's), titles (cosine, where there are texts), and for each division of
        the catalogue class_... (log of the user's share of the class over the shop's) and basket_... (the same of the
        day, where days are baskets), and season (log of others' takings around the day over those expected).

    Cost: an item-item fit, and some sorts of the rows.
    """
    pairs, pair = acts.pairs()
    user, item = np.divmod(pairs, acts.n_items)
    n_days = np.bincount(pair, minlength=len(pairs))
    matrix = acts.matrix(np.ones(len(acts), np.float32))
    matrix.data = history_value(matrix.data)
    users, items = np.bincount(item, minlength=acts.n_items)[item], np.bincount(user, minlength=acts.n_users)[user]
    foretold = item_item(matrix).held_out(matrix, user, item)
    of_pair: dict[str, Floats | Singles] = {
        "foretold": foretold,
        "foretold_for_its_crowd": foretold / np.maximum(users - 1, 1),
        "users": np.log(users),
        "items": np.log(items),
        "days": np.log(n_days),
    }
    if catalogue.text is not None:
        of_pair["titles"] = likeness(matrix, user, item, catalogue.text)
    for name, code in catalogue.classes.items():
        of_pair[f"class_{name}"] = _surprise(user, code[item])
    found = {name: values[pair] for name, values in of_pair.items()}
    day = np.unique(acts.place_in_time(acts.user, 0, acts.day), return_inverse=True)[1]
    if (np.bincount(day) == 1).sum() <= ALONE * len(day):
        found |= {f"basket_{name}": _surprise(day, code[acts.item]) for name, code in catalogue.classes.items()}
    found["season"] = _season(acts)
    return Columns(list(found), np.column_stack([np.asarray(v, np.float32) for v in found.values()]))


def disagreement(columns: Columns) -> Singles:
    """(n,) by how much titles and behaviour disagree about each act, in rank shares; 0 where no text was read.

    Source: the idea of IADSR (2025), that what language and behaviour agree on is true; the measure is our own.
    """
    if "titles" not in columns.names:
        return np.zeros(len(columns.values), np.float32)
    return np.abs(rank_share(columns["titles"]) - rank_share(columns["foretold"]))


def _surprise(owner: Ints, code: Ints) -> Floats:
    """(k,) log of a class's share of what its owner has else, over its share of all rows.

    >>> _surprise(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])).round(2).tolist()
    [0.05, 0.05, -0.18, -0.18]
    """
    n = int(code.max(initial=0)) + 1
    _, place, count = np.unique(owner * n + code, return_inverse=True, return_counts=True)
    shop = (np.bincount(code, minlength=n) / max(len(code), 1))[code]
    others = np.bincount(owner)[owner] - 1
    return np.log((count[place] - 1 + DRAWN * shop) / (others + DRAWN) / shop)


def _season(acts: Interactions) -> Floats:
    """(n,) log of an item's other takings within `SEASON` days of each row, over those expected."""
    day, span = acts.day - acts.day.min(), int(np.ptp(acts.day)) + 1
    wide = span + 2 * SEASON + 2
    place = acts.item * wide + day + SEASON
    ordered = np.sort(place)
    near = np.searchsorted(ordered, place + SEASON, side="right") - np.searchsorted(ordered, place - SEASON) - 1
    until = np.r_[0, np.bincount(day, minlength=span).cumsum()]
    around = until[np.minimum(day + SEASON + 1, span)] - until[np.maximum(day - SEASON, 0)]
    expected = np.bincount(acts.item, minlength=acts.n_items)[acts.item] * around / len(acts)
    return np.log((near + 0.5) / (expected + 0.5))
