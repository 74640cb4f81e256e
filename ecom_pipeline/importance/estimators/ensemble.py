"""Several estimators as one: the mean of their ranks.

On the floor of `importance`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats
from ecom_pipeline.importance.estimator import Estimator, Evidence, SampleValues


@dataclass(frozen=True, slots=True)
class RankEnsemble:
    """Where does a sample stand on average among all, in the eyes of several estimators?

    Ranks have no unit, so estimators of any scale count alike. The standard error is over estimators.

    Attributes:
        members: at least one estimator.

    Cost: that of the members, and O(n log n) each; random if they are.
    Source: mean rank aggregation (Borda 1781).

    >>> from ecom_pipeline.importance.estimators.out_of_fold import NormalisedMargin, OutOfFoldConfidence
    >>> label, score = np.eye(2)[[1, 1, 0]], np.array([[[0.2, 0.8]], [[0.7, 0.3]], [[0.5, 0.5]]])
    >>> both = RankEnsemble((OutOfFoldConfidence(), NormalisedMargin()))
    >>> both.fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [1.0, 0.333, 0.667]
    """

    members: tuple[Estimator, ...]
    name = "rank_ensemble"

    @property
    def needs(self) -> tuple[str, ...]:
        """What any of the members needs."""
        return tuple(dict.fromkeys(need for member in self.members for need in member.needs))

    def fit(self, evidence: Evidence) -> SampleValues:
        """Mean share of the samples that a sample is worth at least as much as, in (0, 1]."""
        evidence.require(self)
        return self.of_values([member.fit(evidence).value for member in self.members])

    @staticmethod
    def of_values(values: Sequence[Floats]) -> SampleValues:
        """The same from (n,) values that the members have given already, in any order."""
        from scipy.stats import rankdata

        ranks = np.column_stack([rankdata(value) for value in values])
        return SampleValues.over_repeats(ranks / len(ranks))
