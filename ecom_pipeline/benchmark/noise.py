"""Labels made wrong on purpose, in the ways in which they go wrong in a shop.

On the floor of `benchmark`.
"""

from typing import Literal, get_args

import numpy as np

from ecom_pipeline.arrays import Floats, Ints

Kind = Literal["random", "missing_positives", "popular_clicks"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def corrupted(label: Floats, item: Ints, kind: Kind, share: float, draw: np.random.Generator) -> Floats:
    """Labels of which a share is wrong.

    Args:
        label: (n,) 0 or 1.
        item: (n,) number of the item, for its popularity.
        kind: random: any label is turned over. missing_positives: that share of the positives is called negative, as
            where nobody clicked. popular_clicks: as many negatives as that share of all samples are called positive,
            the more so the more samples their item has, as where what is shown often is clicked for no reason.
        share: in [0, 1).
        draw: the randomness.

    Returns:
        (n,) labels. What differs from `label` is wrong.
    """
    if kind == "random":
        wrong = draw.random(len(label)) < share
    elif kind == "missing_positives":
        wrong = (label >= 0.5) & (draw.random(len(label)) < share)
    else:
        negative = np.flatnonzero(label < 0.5)
        popularity = np.bincount(item)[item[negative]].astype(float)
        n_wrong = min(int(share * len(label)), len(negative) // 2)
        wrong = np.zeros(len(label), bool)
        wrong[draw.choice(negative, n_wrong, replace=False, p=popularity / popularity.sum())] = True
    return np.where(wrong, 1 - label, label)
