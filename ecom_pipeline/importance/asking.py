"""Which labels to have judged anew first: those that are wrong in the light of the other labels of their query.

On the floor of `importance`. What a change of a label would do to the ranker, by its influence on validation or by how far
it moves other scores, is not counted in: measured, that factor finds fewer wrong labels and betters no ranking for it.
"""

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.group_kernel import GroupKernelLeaveOneOut
from ecom_pipeline.importance.threshold import find_wrong_labels

_SURE = 1e-3  # predictions of shares are no probabilities: none counts as surer than this


def worth_of_asking(features: Singles, label: Floats, group: Ints, device: str) -> Floats:
    """How probable is it that asking a rater about a label finds it wrong?

    Out-of-fold scores see nothing of a sample's query; here each label is predicted from all others, those of its query
    among them, and the noise of the labels is taken out of these predictions as `find_wrong_labels` does it.

    Args:
        features: (n, d) float32; the last column is the constant 1.
        label: (n,) in [0, 1].
        group: (n,) number of the query.
        device: of torch.

    Returns:
        (n,) in [0, 1].

    Cost: as `GroupKernelLeaveOneOut` and `find_wrong_labels`; random under the seed of the first.
    """
    evidence = Evidence(label=one_hot(label), features=features, group=group, device=device)
    own = GroupKernelLeaveOneOut().fit(evidence).value.clip(_SURE, 1 - _SURE)
    score = one_hot(np.where(evidence.observed == 1, own, 1 - own))
    return find_wrong_labels(evidence.label, score[:, None]).probability
