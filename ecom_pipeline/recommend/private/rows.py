"""What each user may teach: candidates of some of his visits, chosen by coins of his own, whoever else there is.

On the floor of `head`. Nothing here may look from one user at another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints
from ecom_pipeline.errors import InputError
from ecom_pipeline.recommend.interactions import Visits
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.periods import Period
from ecom_pipeline.recommend.pilot import coins
from ecom_pipeline.recommend.private.head import within_visits
from ecom_pipeline.recommend.private.promise import PrivateTraining

MOST_VISITS = 50_000  # 2 GB of rows, where a visit has 470 candidates of which a tenth is kept
_IDS = 2**32  # of `pilot.keys`


@dataclass(frozen=True, slots=True)
class UserRows:
    """Candidates of u users, each user's together.

    Attributes:
        x: (n, d) columns, each on its visit's own scale.
        taken: (n,) whether it was taken.
        start: (u + 1,) where each user's rows begin, and where the last one's end.
        names: columns that the design was made of.
    """

    x: Floats
    taken: Bools
    start: Ints
    names: tuple[str, ...]

    @property
    def n_users(self) -> int:
        """How many users."""
        return len(self.start) - 1


def user_rows(learner: Learner, periods: Sequence[Period], asked: PrivateTraining) -> UserRows:
    """The rows of all users who had a visit in some periods, or of a share of them.

    All that was taken is kept, and of the rest a share; of users a share that is the same whoever there is, by their ids'
    hash, so that nobody is there because another is not.

    Args:
        learner: retrieves candidates.
        periods: whose visits are learnt from.
        asked: how many visits and rows, and which share of users.

    Raises:
        InputError: if there are more visits than memory should hold.

    Cost: as `retrieve` of the visits; memory of the rows kept, 0.8 KB each.
    """
    x, taken, whose = [np.empty((0, 0))], [np.empty(0, bool)], [np.empty(0, np.int64)]
    names: tuple[str, ...] = ()
    for period, visits in zip(periods, visits_of_each(learner, periods, asked), strict=True):
        for block, rows in learner.candidates(visits, period.first):
            kept = rows.taken | (learner.coins(visits.only(block), rows) < asked.kept_share)
            x.append(within_visits(rows.known, rows.names, rows.visit)[kept].astype(np.float64))
            taken.append(rows.taken[kept])
            whose.append(visits.user[block][rows.visit[kept]])
            names = rows.names
    user = np.concatenate(whose)
    order = np.argsort(user, kind="stable")
    _, n_rows = np.unique(user, return_counts=True)
    found = np.concatenate(x[1:] or x)[order]
    return UserRows(found, np.concatenate(taken)[order], np.r_[0, np.cumsum(n_rows)], names)


def visits_of_each(learner: Learner, periods: Sequence[Period], asked: PrivateTraining) -> list[Visits]:
    """By period, visits of which no user has more than `n_visits`, those with the lowest coins."""
    by_period = [learner.acts.visits(period.first, period.end) for period in periods]
    user, day = (np.concatenate([getattr(one, name) for one in by_period]) for name in ("user", "day"))
    key = learner.users[user]
    coin = coins(key, day, np.zeros(len(day), np.int64), seed=2 * learner.choice.seed)
    order = np.lexsort((coin, user))
    rank = np.empty(len(user), np.int64)
    rank[order] = np.arange(len(user)) - np.searchsorted(user[order], user[order])
    kept = (rank < asked.n_visits) & (key < asked.user_share * _IDS)
    if kept.sum() > MOST_VISITS:
        share = 0.9 * asked.user_share * MOST_VISITS / kept.sum()  # below it, as who is drawn hangs on hashes
        raise InputError(
            f"private: {kept.sum():,} visits would be learnt from. At most {MOST_VISITS:,} may be, as their rows are held in memory: "
            f"set `user_share`, which is {asked.user_share:g}, to {share:.3f} or less, or `n_visits` lower."
        )
    ends = np.cumsum([len(one) for one in by_period])
    return [one.only(kept[end - len(one) : end]) for one, end in zip(by_period, ends, strict=True)]
