"""Values read off the graph that samples make: does a label agree with the labels around it?

On the floor of `importance`. A sample's own label is never asked about itself.
"""

from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR, Evidence, SampleValues, required
from ecom_pipeline.importance.group_stacks import in_parts, stacks

_BLOCK = 1 << 21  # numbers at a time: bounds the memory of groups that are dealt with together
_MOST_SHRUNK = 1e4  # edges; where nodes are no more different than chance makes them


@dataclass(frozen=True, slots=True)
class GraphAgreement:
    """How probable is the label, from what its user's and its item's other labels say?

    Users and items are the nodes of a graph, samples its edges. Each node leans some way from the mean label: a user is
    harsh, an item is liked. In each round a node tells every edge how it leans, from its other edges alone, less what
    their far ends lean; a node of few edges is shrunk to the mean. The prediction is the mean plus both leanings.

    Attributes:
        shrinkage: edges' worth of evidence that a node does not lean at all. None: what the labels ask for, users and
            items each: the spread within nodes over that between nodes.
        rounds: how often nodes tell.

    Messages never turn back along the edge they came from, so with unique (user, item) pairs the own label stays out
    exactly up to three rounds; later it can come back around a cycle, weakened by each shrinkage on the way. Where the
    shrinkage is not given, it is one figure of all labels, the own one among them. Classes are leaned to separately and
    probabilities cut at 0 and scaled to 1. Where a user or an item has one sample, only the other speaks; where both
    have, the mean of the rest.

    Cost: O(n c rounds) time, O(n c) memory; not random.
    Source: two-way random effects by backfitting (Buja, Hastie, Tibshirani 1989) in the non-backtracking form of belief
    propagation (Pearl 1988); the shrinkage by the moments of Henderson 1953, method 1; trust by agreement along a
    bipartite graph is of Kumar et al. 2018, REV2. Departs from it in that labels of any number of classes are predicted
    rather than ratings scored for fraud.

    >>> label = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    >>> evidence = Evidence(label=label, user=np.array([0, 1, 2]), item=np.array([5, 5, 5]))
    >>> GraphAgreement(shrinkage=1.0, rounds=1).fit(evidence).value.round(4).tolist()
    [0.5, 0.5, 0.0]
    """

    shrinkage: float | None = None
    rounds: int = 3
    name = "graph_agreement"
    needs = ("user", "item")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One probability a sample."""
        evidence.require(self)
        label = evidence.label
        ends = [np.unique(ids, return_inverse=True)[1] for ids in (required(evidence.user), required(evidence.item))]
        total = label.sum(0)
        others = len(label) - 1
        mean = (total - label) / others if others else np.full(label.shape, 1 / label.shape[1])
        # leaning is linear in the mean, whose factor has its own column: each edge then puts in a mean without itself
        told = np.hstack([label, np.full((len(label), 1), -1.0)])
        given = self.shrinkage
        shrinkage = [_asked_for(end, label) if given is None else given for end in ends]
        leaning = [np.zeros(told.shape), np.zeros(told.shape)]
        for _ in range(self.rounds):
            # both ends tell at once, from what the others said in the round before
            leaning = [_from_others(ends[end], told - leaning[1 - end], shrinkage[end]) for end in (0, 1)]
        both = leaning[0] + leaning[1]
        notes = {"user_shrinkage": shrinkage[0], "item_shrinkage": shrinkage[1]}
        return _agreement(label, mean * (1 + both[:, -1:]) + both[:, :-1], notes)


@dataclass(frozen=True, slots=True)
class GroupAgreement:
    """How probable is the label, from the labels of the most alike items of the same query or visit?

    Labels spread along edges between the nearest samples of a group, with a restart at each step, so that an item hears
    of its neighbours' neighbours too. What it would hear of its own label on the way is taken out to the letter.

    Attributes:
        k: nearest samples of the group that a sample is joined to; joined it is where either is near the other.
        sharpness: edges weigh exp(sharpness · (cosine - 1)).
        onward: chance that a label goes on to the next neighbour instead of stopping, in [0, 1).
        shrinkage: in edges to a sample just like this one; as if so many labels had the mean of the rest of the group.
        largest_group: groups of more samples are dealt with in parts of this size, to bound the memory.

    A group of one sample gets the mean label of all others. Features are centred within the group first: what all its
    samples share tells nothing.

    Cost: O(sum of g² (d + c) + g³ over groups of g samples), g at most `largest_group`; O(g²) memory, groups of one
    size at a time; not random.
    Source: Zhu and Ghahramani 2002, Learning from Labeled and Unlabeled Data with Label Propagation, in the form with
    restarts of Zhou et al. 2003. Departs in leaving the own label out: row i of the matrix that spreads the labels is
    used without its entry i.

    >>> x = np.array([[1.0, 0, 1], [1, 0, 1], [-1, 0, 1], [-1, 0, 1]], np.float32)
    >>> label = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> evidence = Evidence(label=label, features=x, group=np.zeros(4, int))
    >>> GroupAgreement(k=1, shrinkage=0.0).fit(evidence).value.round(4).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    k: int = 10
    sharpness: float = 2.0
    onward: float = 0.5
    shrinkage: float = 1.0
    largest_group: int = 2000
    name = "group_agreement"
    needs = ("group", "features")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One probability a sample."""
        evidence.require(self)
        label = evidence.label
        n = len(label)
        prediction = np.full(label.shape, 1 / label.shape[1]) if n == 1 else (label.sum(0) - label) / max(n - 1, 1)
        for stack in stacks(in_parts(required(evidence.group), self.largest_group)):
            k = stack.shape[1]
            size = max(1, _BLOCK // (k * k))
            for start in range(0, len(stack) if k > 1 else 0, size):
                rows = stack[start : start + size]
                prediction[rows] = self._within(required(evidence.features)[rows], label[rows], evidence.device)
        return _agreement(label, prediction)

    def _within(self, features: Singles, label: Floats, device: str) -> Floats:
        """(b, g, c) predictions for the samples of b groups of g samples each."""
        import torch

        x = torch.as_tensor(features, device=device).double()
        y = torch.as_tensor(label, device=device)
        g = x.shape[1]
        x = torch.nn.functional.normalize(x - x.mean(1, keepdim=True), dim=2, eps=1e-6)
        cosine = x @ x.mT
        cosine.diagonal(dim1=1, dim2=2).fill_(-np.inf)
        least = cosine.topk(min(self.k, g - 1), 2).values[..., -1:] - 1e-9  # equals are all near, however they round
        near = (cosine >= least) | (cosine >= least.mT)
        near.diagonal(dim1=1, dim2=2).fill_(False)
        edge = torch.where(near, torch.exp(self.sharpness * (cosine - 1)), 0.0)
        degree = edge.sum(2, keepdim=True)
        step = edge / degree
        spread = step @ torch.linalg.inv(torch.eye(g, device=device) - self.onward * step)
        spread = (1 - self.onward) * spread  # rows add up to 1
        spread.diagonal(dim1=1, dim2=2).fill_(0.0)  # the own label, along every path back
        spread = spread / spread.sum(2, keepdim=True).clamp(min=1e-12)
        rest = (y.sum(1, keepdim=True) - y) / (g - 1)
        return ((degree * (spread @ y) + self.shrinkage * rest) / (degree + self.shrinkage)).cpu().numpy()


def _from_others(end: Ints, told: Floats, shrinkage: float) -> Floats:
    """(n, c + 1) how the node at one end of each edge leans, from its other edges."""
    n_others = np.bincount(end)[end] - 1.0
    sums = np.stack([np.bincount(end, column) for column in told.T], 1)[end] - told
    return sums / np.maximum(n_others + shrinkage, 1e-12)[:, None]


def _asked_for(end: Ints, label: Floats) -> float:
    """Spread of the labels within nodes over that between nodes: the shrinkage at which the error is least."""
    count = np.bincount(end)
    n, n_nodes = len(end), len(count)
    centred = label - label.mean(0)
    sums = np.stack([np.bincount(end, column) for column in centred.T], 1)
    between = (sums**2 / count[:, None]).sum()
    within = ((centred**2).sum() - between) / max(n - n_nodes, 1)
    spread = (between - (n_nodes - 1) * within) / max(n - (count**2).sum() / n, 1e-12)
    return float(np.clip(within / max(spread, 1e-12), 0.1, _MOST_SHRUNK))


def _agreement(label: Floats, prediction: Floats, notes: dict[str, float] | None = None) -> SampleValues:
    """Probability of the label under predictions that may lie outside of [0, 1]."""
    kept = np.maximum(prediction, CREDIBLE_FLOOR)
    kept /= kept.sum(1, keepdims=True)
    return SampleValues(
        (label * kept).sum(1), None, {**(notes or {}), "mean_agreement": float((label * kept).sum(1).mean())}
    )
