"""Which labels to have judged anew first: those that are odd among the labels of their query.

On the floor of `importance`.
"""

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.group_kernel import GroupKernelLeaveOneOut
from ecom_pipeline.importance.threshold import find_wrong_labels

_SURE = 1e-3  # predictions of shares are no probabilities: none counts as surer than this


def wrong_in_query(features: Singles, label: Floats, group: Ints, device: str) -> Floats:
    """How probable is it that a label is wrong, beside all other labels, those of its own query among them?

    Out-of-fold scores know nothing of a sample's query. Here each label is predicted from all others by
    `GroupKernelLeaveOneOut`, and the noise of the labels is taken out of the predictions as `find_wrong_labels` does it.

    Args:
        features: (n, d) float32; the last column is the constant 1.
        label: (n,) in [0, 1].
        group: (n,) number of the query.
        device: of torch.

    Returns:
        (n,) in [0, 1].

    Cost: as the two that it is made of; random under the seed of the first.
    """
    evidence = Evidence(label=one_hot(label), features=features, group=group, device=device)
    own = GroupKernelLeaveOneOut().fit(evidence).value.clip(_SURE, 1 - _SURE)
    score = one_hot(np.where(evidence.observed == 1, own, 1 - own))
    return find_wrong_labels(evidence.label, score[:, None]).probability


def worth_of_asking(wrong_probability: Floats, wrong_in_its_query: Floats) -> Floats:
    """What is it worth to ask a rater about each label: is it wrong, and would a change of it change the ranker?

    The product of two chances. A label that is odd in its query is likely wrong; it pulls at the ranker as far as models
    that know nothing of the query, as the ranker does not, expect the other one. First-order effects of a change, on
    validation or on other scores, were tried in the place of the second: they find fewer wrong labels, and the ranker is
    none the better for it.

    Args:
        wrong_probability: (n,) by out-of-fold scores.
        wrong_in_its_query: (n,) from `wrong_in_query`.

    Returns:
        (n,) in [0, 1].
    """
    return wrong_probability * wrong_in_its_query
