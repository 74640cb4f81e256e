"""Ranking and probability metrics, a figure a group; the only place that states gain, ties and empty groups.

Gain is linear in relevance and the discount 1 / log2(rank + 1), as in trec_eval. Ties keep row order, and rows come in
the order of a hash, so a constant score is a random order. A group without a relevant item, or for AUC without an
irrelevant one, has no figure (NaN) and takes no part in a mean. On the floor above `importance`.
"""

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints, summed


def ranks(group: Ints, score: Floats) -> Ints:
    """(n,) rank of each row within its group, from 1, highest score first.

    >>> ranks(np.array([0, 0, 1]), np.array([0.1, 0.9, 0.5])).tolist()
    [2, 1, 1]
    """
    order = np.lexsort((-score, group))  # stable: ties keep row order
    start = np.r_[True, group[order][1:] != group[order][:-1]]
    place = np.arange(len(group))
    first = np.maximum.accumulate(np.where(start, place, 0))
    result = np.empty(len(group), np.int64)
    result[order] = place - first + 1
    return result


def ndcg_at_k(group: Ints, relevance: Floats, score: Floats, k: int) -> Floats:
    """nDCG@k of each group; group ids must be 0..n_groups-1.

    Cost: O(n log n).
    Source: Järvelin and Kekäläinen 2002, with linear gain.
    """

    def dcg(rank: Ints) -> Floats:
        gain = np.where(rank <= k, relevance / np.log2(rank + 1), 0.0)
        return summed(group, gain)

    best = dcg(ranks(group, relevance))
    return _ratio(dcg(ranks(group, score)), best)


def mrr(group: Ints, relevant: Bools, score: Floats) -> Floats:
    """1 / rank of the first relevant row of each group."""
    reciprocal = np.where(relevant, 1.0 / ranks(group, score), 0.0)
    best = np.zeros(group.max() + 1)
    np.maximum.at(best, group, reciprocal)
    return np.where(np.bincount(group, relevant) > 0, best, np.nan)


def recall_at_k(group: Ints, relevant: Bools, score: Floats, k: int) -> Floats:
    """Share of each group's relevant rows among its first k."""
    found = relevant & (ranks(group, score) <= k)
    return _ratio(summed(group, found), summed(group, relevant))


def auc(group: Ints, relevant: Bools, score: Floats) -> Floats:
    """Chance that a relevant row of a group scores above an irrelevant one; ties count half.

    Source: Mann and Whitney 1947.
    """
    order = np.lexsort((score, group))
    g, s = group[order], score[order]
    place = np.arange(len(g), dtype=np.float64)
    change = np.r_[True, (g[1:] != g[:-1]) | (s[1:] != s[:-1])]
    run = np.cumsum(change) - 1
    mean_place = np.bincount(run, place)[run] / np.bincount(run)[run]
    first = np.maximum.accumulate(np.where(np.r_[True, g[1:] != g[:-1]], place, 0))
    rank = np.empty(len(g))
    rank[order] = mean_place - first + 1
    n_relevant = summed(group, relevant)
    n_irrelevant = summed(group, ~relevant)
    above = summed(group, np.where(relevant, rank, 0.0)) - n_relevant * (n_relevant + 1) / 2
    return _ratio(above, n_relevant * n_irrelevant)


def brier(group: Ints, label: Floats, probability: Floats) -> Floats:
    """Mean squared error of the probabilities of each group."""
    return _ratio(summed(group, (probability - label) ** 2), np.bincount(group))


def calibration_bins(group: Ints, label: Floats, probability: Floats, n_bins: int = 10) -> Floats:
    """(groups, bins) sums of probability - label: what the calibration error of any set of groups is made of.

    The expected calibration error of groups is sum over bins |sum over groups| / rows (Naeini et al. 2015).
    """
    place = np.minimum((probability * n_bins).astype(np.int64), n_bins - 1)
    sums = summed(group * n_bins + place, probability - label, (group.max() + 1) * n_bins)
    return sums.reshape(-1, n_bins)


def _ratio(part: Floats, whole: Floats | Ints) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
