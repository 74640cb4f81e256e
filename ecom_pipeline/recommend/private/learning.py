"""Periods in, a private ranker out.

On the highest floor of `recommend.private`.
"""

from collections.abc import Sequence

from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.periods import Period
from ecom_pipeline.recommend.private.head import PrivateRanker
from ecom_pipeline.recommend.private.noise import RandomSource
from ecom_pipeline.recommend.private.promise import GIVEN, SEQUENCES, WEIGHTED, PrivateTraining, Promise
from ecom_pipeline.recommend.private.rows import user_rows
from ecom_pipeline.recommend.private.training import learn


def learn_privately(
    learner: Learner, periods: Sequence[Period], asked: PrivateTraining, source: RandomSource
) -> PrivateRanker:
    """A ranker, and what holds of it. It begins at zero: no pilot, no earlier ranker and no validation visit has a say.

    Args:
        learner: weighs and retrieves.
        periods: whose visits are learnt from.
        asked: what may be spent, and how.
        source: of the noise.

    Raises:
        InputError: if there are too few users, or `dp-accounting` is not installed.

    Cost: as `user_rows` and `learn`.
    """
    rows = user_rows(learner, periods, asked)
    given = list(GIVEN)
    given += [] if learner.weighting.plain else [WEIGHTED]
    given += [SEQUENCES] if learner.retrieval.n_sequence else []
    promise = Promise.of(asked, rows.n_users, noise=source.name, given=given)
    return PrivateRanker(rows.names, learn(rows, asked, promise.noise_multiplier, source), promise)
