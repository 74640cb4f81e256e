"""Arrays by what they hold, each kind spelled once.

On the lowest floor.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]  # features, and what is too large for double precision
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def summed(place: Ints, values: NDArray, n_places: int = 0) -> Floats:
    """(k,) sum of the values at each place, at least so many.

    >>> summed(np.array([0, 2, 0]), np.array([0.5, 1.0, 1.0])).tolist()
    [1.5, 0.0, 1.0]
    """
    return np.bincount(place, values, minlength=n_places)  # type: ignore[return-value]  # numpy's types know counts only
