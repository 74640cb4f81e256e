"""How likely is it that an act was planted, judged by a model that learnt from plants among other users' acts?

On the floor above `planting`. Nobody has to say what is false: strangers' acts are planted into one's own data, and what tells
them from the rest is learnt (ANCHOR, 2026), without the user whose acts are judged.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Singles
from ecom_pipeline.recommend.candidates import Catalogue
from ecom_pipeline.recommend.genuineness.columns import Columns, read_columns
from ecom_pipeline.recommend.genuineness.planting import with_strangers
from ecom_pipeline.recommend.interactions import Interactions

PLANTED_SHARE = 0.1  # of the real rows
_REAL_ROWS = 100_000  # that a fit learns from, at most
_TREES = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.15, "verbose": -1, "num_threads": 1}
_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Recognised:
    """What is thought of n rows of interactions.

    Attributes:
        doubt: (n,) chance that it is a stranger's, were one act in eleven.
        columns: what is known of each; strangers were among the acts that it is known from.
    """

    doubt: Singles
    columns: Columns


def recognise(acts: Interactions, catalogue: Catalogue, *, seed: int) -> Recognised:
    """Doubt each row of interactions by a model fitted without its user.

    Args:
        acts: n rows.
        catalogue: classes, and texts where they were read.
        seed: of the plants, the two halves of the users, and the rows that are learnt from.

    Cost: as `read_columns`; two fits of 60 small trees to at most 100,000 real rows each.
    """
    import lightgbm

    draw = np.random.default_rng(seed)
    mixed, planted = with_strangers(acts, int(PLANTED_SHARE * len(acts)), draw)
    columns = read_columns(mixed, catalogue)
    half = draw.integers(2, size=acts.n_users)[mixed.user]
    doubt = np.zeros(len(mixed))
    for one in (0, 1):
        judged, learnt = half == one, half != one
        false, real = np.flatnonzero(learnt & planted), np.flatnonzero(learnt & ~planted)
        if not len(false) or not len(real) or not judged.any():
            continue  # with one user there is nobody to learn from: nothing is doubted
        kept = draw.permutation(real)[:_REAL_ROWS]
        rows = np.r_[false, kept]
        data = lightgbm.Dataset(columns.values[rows], planted[rows], params={"verbose": -1})
        booster = lightgbm.train(_TREES | {"seed": seed}, data, _ROUNDS)
        logit = np.asarray(booster.predict(columns.values[judged], raw_score=True, num_threads=1))
        doubt[judged] = 1 / (1 + np.exp(-logit - np.log(len(kept) / len(real))))
    own = ~planted
    return Recognised(doubt[own].astype(np.float32), Columns(columns.names, columns.values[own]))
