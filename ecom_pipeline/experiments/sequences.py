"""Intervals that may be looked at every day: an asymptotic confidence sequence, beside the interval of one look.

Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021 (arXiv 2103.06476), the mixture with one parameter, which is set
so that the sequence is narrowest when as many units have come as were planned.
"""

import numpy as np
from scipy import stats

from ecom_pipeline.arrays import Floats

LEVEL = 0.05  # of all intervals: they hold 95 % of the time


def half_width(se: Floats | float, n: Floats | float, n_planned: float, *, level: Floats | float = LEVEL) -> Floats:
    """Half the width of the sequence, by the number of units that have come.

    At `n_planned` it is 1.55 times that of the interval of a single look, whatever `n_planned` is.

    Args:
        se: standard error of the estimate now.
        n: units now, of all arms that are compared.
        n_planned: units for which it shall be narrowest; chosen before the data are seen, it holds at every look.
        level: chance of ever being wrong.
    """
    log = -2 * np.log(level)
    scaled = (log + np.log(log + 1)) * np.asarray(n, float) / n_planned
    spread = 2 * (scaled + 1) / scaled * np.log(np.sqrt(scaled + 1) / level)
    return np.asarray(se) * np.sqrt(spread)


def fixed_half_width(se: Floats | float, *, level: float = LEVEL) -> Floats:
    """Half the width of the interval of one look."""
    return np.asarray(se) * stats.norm.ppf(1 - level / 2)
