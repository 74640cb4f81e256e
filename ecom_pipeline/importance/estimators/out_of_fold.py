"""Values read off out-of-fold scores: what a model that did not see the sample thinks of its label.

On the floor of `importance`.
"""

from dataclasses import dataclass

from ecom_pipeline.importance.estimator import Evidence, SampleValues


@dataclass(frozen=True, slots=True)
class OutOfFoldConfidence:
    """How probable is the label that the sample has, in the eyes of a model that did not see it?

    Cost: O(n r); not random.
    Source: "self-confidence" in Northcutt, Jiang, Chuang 2021, Confident Learning.

    >>> import numpy as np
    >>> label, score = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[[0.2, 0.8]], [[0.2, 0.8]]])
    >>> OutOfFoldConfidence().fit(Evidence(label=label, oof_score=score)).value.round(3).tolist()
    [0.8, 0.2]
    """

    name = "oof_confidence"
    needs = ("oof_score",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One probability a sample, averaged over repeats."""
        evidence.require(self)
        return SampleValues.over_repeats(evidence.confidence)
