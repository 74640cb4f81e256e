"""Arrays by what they hold, each kind spelled once.

On the lowest floor.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]  # features, and what is too large for double precision
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
