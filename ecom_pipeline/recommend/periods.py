"""Which days are learnt from, chosen on and tested on: a grid of periods that a new day does not move.

On the lowest floor of `recommend`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

USUAL_LENGTH = 28  # days: whole weeks, and long enough that most users come once


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """Days from `first` to before `end`, as days since 1970."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Origin:
    """A point in time from which one looks back to learn and ahead to test.

    Attributes:
        train: periods whose visits are learnt from, the earliest first.
        validation: the period after them, on which everything is chosen.
        test: the period after that; None for the origin that serves, whose future is not known.
    """

    train: tuple[Period, ...]
    validation: Period
    test: Period | None


def rolling_origins(days: NDArray[np.int64], *, n_train: int, n_test: int, length: int | None = None) -> list[Origin]:
    """The latest origins, the one that serves last; none where there are not enough days.

    Periods lie on a grid that does not depend on the data, so everything but the last origin stays as it is until a
    whole period has passed.

    Args:
        days: on which anything was taken.
        n_train: periods to learn from.
        n_test: test periods.
        length: days of a period; None: 28, or less where there are too few days.

    >>> import numpy as np
    >>> [o.test for o in rolling_origins(np.arange(10, 20), n_train=1, n_test=2, length=2)]
    [Period(first=16, end=18), Period(first=18, end=20), None]
    """
    if not len(days):
        return []
    first, last = int(days.min()), int(days.max())
    needed = n_train + n_test + 2  # one for validation, one for histories to begin in
    length = length or min(USUAL_LENGTH, (last + 1 - first) // needed)
    if length < 1:
        return []
    end = (last + 1) // length  # of the last whole period
    found = []
    for back in range(n_test - 1, -2, -1):
        of_test = end - 1 - back
        train = tuple(_period(of_test - 1 - n, length) for n in range(n_train, 0, -1))
        test = None if back < 0 else _period(of_test, length)
        if train[0].first > first:
            found.append(Origin(train, _period(of_test - 1, length), test))
    return found if len(found) > 1 else []


def _period(number: int, length: int) -> Period:
    return Period(number * length, (number + 1) * length)
