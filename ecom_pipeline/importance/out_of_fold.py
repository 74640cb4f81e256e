"""Values read off out-of-fold scores: what a model that did not see the sample thinks of its label.

On the floor of `importance`.
"""

from dataclasses import dataclass

from ecom_pipeline.importance.estimator import SampleValues, ScoredSamples


@dataclass(frozen=True, slots=True)
class OutOfFoldConfidence:
    """How probable is the label that the sample has, in the eyes of a model that did not see it?

    Cost: O(n r); not random.
    Source: "self-confidence" in Northcutt, Jiang, Chuang 2021, Confident Learning.

    >>> import numpy as np
    >>> scored = ScoredSamples(np.array([1.0, 0.0]), np.array([[0.8], [0.8]]), np.array([[0], [1]]))
    >>> OutOfFoldConfidence().fit(scored).value.round(3).tolist()
    [0.8, 0.2]
    """

    name = "oof_confidence"

    def fit(self, samples: ScoredSamples) -> SampleValues:
        """One probability a sample, averaged over repeats."""
        return SampleValues.over_repeats(samples.confidence)
