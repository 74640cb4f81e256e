"""Values from neighbours: what a sample does for predictions made by looking at the nearest samples.

On the floor of `importance`. Shapley values of these utilities have closed forms: no model is trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, Holdout, SampleValues, required
from ecom_pipeline.importance.nearest import PAIRS, Distances, Metric, blocks, nearest_first

if TYPE_CHECKING:
    import torch

JudgedOn = Literal["training", "holdout"]
ByRank = Callable[["torch.Tensor"], "torch.Tensor"]  # (b, n) agreement, nearest first -> (b, n) values


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the estimators of this family share.

    Attributes:
        k: how many nearest samples vote on a judge.
        metric: euclidean, or cosine (1 - cosine of the angle; a row of zeros is at distance 1 from everything). The
            constant column is left out. Samples at the same distance keep row order.
        judged_on: holdout: the samples of `evidence.holdout` are the judges. training: every training sample judges
            all others, itself excluded.
    """

    k: int = 10
    metric: Metric = "euclidean"
    judged_on: JudgedOn = "training"

    def __post_init__(self) -> None:
        _check_at_least("k", self.k, 1)
        for field, kinds in (("metric", get_args(Metric)), ("judged_on", get_args(JudgedOn))):
            found = getattr(self, field)
            if found not in kinds:
                raise SampleError(f"{field}: {found!r} is not known. It must be one of {kinds!r}: take one of them.")

    @property
    def needs(self) -> tuple[str, ...]:
        """Features, and the hold-out samples if they are the judges."""
        return ("features",) if self.judged_on == "training" else ("features", "holdout")


@dataclass(frozen=True, slots=True)
class KNNShapley(_Judged):
    """What share of the accuracy of a nearest-neighbour prediction is owed to each sample?

    The utility of a set of samples for one judge is the number of its k nearest that have the judge's label, over k;
    0 for the empty set. Values are Shapley values of the mean utility over judges, and add up to it. Soft labels agree
    by the sum over classes of the products of their shares.

    Attributes:
        depth: None: exact. Otherwise the values of samples beyond a judge's `depth` nearest count as 0 and the nearer
            ones are off by at most 1 / max(k, depth); only the nearest are searched, nothing is sorted. With depth = k
            and judged on training this is cleanlab's `data_shapley_knn`, which then maps v to (v + 1) / 2.

    Departs from the paper where there are fewer than k samples: the farthest is still divided by k, so that values add
    up. Where samples judge one another, the mean is over all of them although none has a say on itself.

    Cost: O(m n d + m n log n) time for m judges, O((n + m) d) memory; not random.
    Source: Jia et al. 2019, Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms, Theorems 1 and 2.

    >>> x = np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)
    >>> evidence = Evidence(label=np.eye(2), features=x, holdout=Holdout(x[:1], np.array([[0.0, 1.0]])))
    >>> KNNShapley(k=1, judged_on="holdout").fit(evidence).value.tolist()
    [-0.5, 0.5]
    """

    depth: int | None = None
    name = "knn_shapley"

    def __post_init__(self) -> None:
        _Judged.__post_init__(self)
        _check_at_least("depth", self.depth, 1)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample, in accuracy; the standard error is over judges."""
        evidence.require(self)
        if self.depth is not None:
            graph = neighbour_graph(evidence, self.depth, self.metric, self.judged_on)
            return knn_shapley_of_graph(graph, evidence.label, _judges(evidence, self.judged_on).label, self.k)
        return _shapley_values(evidence, self, _first_come(self.k))


@dataclass(frozen=True, slots=True)
class SoftLabelKNNShapley(_Judged):
    """The same question for a prediction that divides by the neighbours it has, and guesses when it has none.

    The utility of a set for one judge is the mean agreement of its min(k, size) nearest, and 1 / c for the empty set, c
    the number of classes. Values add up to the mean utility less 1 / c.

    Departs from the paper's formula where there are fewer than k samples, which it does not treat: we take the values
    by definition. Soft labels and judges as in `KNNShapley`.

    Cost: as `KNNShapley`; not random.
    Source: Wang and Jia 2023, A Note on "Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms", Th. 2.

    >>> x = np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)
    >>> evidence = Evidence(label=np.eye(2), features=x, holdout=Holdout(x[:1], np.array([[0.0, 1.0]])))
    >>> SoftLabelKNNShapley(k=1, judged_on="holdout").fit(evidence).value.tolist()
    [-0.75, 0.25]
    """

    name = "soft_label_knn_shapley"

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample, in mean agreement; the standard error is over judges."""
        evidence.require(self)
        return _shapley_values(evidence, self, _fair_share(self.k, 1 / evidence.n_classes))


@dataclass(frozen=True, slots=True)
class ThresholdKNNShapley(_Judged):
    """The same question for a prediction that asks all samples within a radius.

    The utility of a set for one judge is the mean agreement of its samples within the radius, and 1 / c if there are
    none, c the number of classes. Values add up to the mean utility less 1 / c. Nothing is sorted.

    Attributes:
        radius: in units of the metric; a sample at exactly this distance is within. None: the median over judges of the
            distance to the k-th nearest sample, where the paper tunes it on validation.

    Cost: O(m n d) time for m judges, O((n + m) d) memory; not random.
    Source: Wang, Zhu, Wang, Jia, Mittal 2023, Threshold KNN-Shapley: A Linear-Time and Privacy-Friendly Approach to
    Data Valuation. We write its closed form by the mean of the other samples within the radius.
    """

    radius: float | None = None
    name = "threshold_knn_shapley"

    def __post_init__(self) -> None:
        _Judged.__post_init__(self)
        _check_at_least("radius", self.radius, 0)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One value a sample, in mean agreement; the standard error is over judges. Notes: the radius and who is in."""
        import torch

        evidence.require(self)
        distances = _distances(evidence, self.metric, self.judged_on)
        radius = self._median_radius(distances) if self.radius is None else self.radius
        label, judge = _label_tensors(evidence, self.judged_on)
        harmonic = torch.cat([label.new_zeros(1), (1 / label.new_ones(len(label)).cumsum(0)).cumsum(0)])
        tally, within = _Tally.empty(label), judge.new_zeros(len(judge))
        for rows in blocks(len(judge), PAIRS // len(label)):
            inside = distances.squared(rows) <= distances.squared_steps(radius)  # (b, n)
            count = inside.sum(1, keepdim=True)
            agreement = (judge[rows] @ label.T).mul_(inside)
            others = (count - 1).clamp(min=1).double()
            later = harmonic[count] - 1  # (b, 1) chances of coming second, third and so on, each over its place
            shift = 1 / evidence.n_classes + later * agreement.sum(1, keepdim=True) / others
            value = agreement.mul_(1 + later * (1 + 1 / others)).sub_(shift * inside)
            tally.add(value.div_(count.clamp(min=1)))
            within[rows] = count[:, 0].double()
        nobody = float((within == 0).double().mean())
        notes = {"radius": radius, "mean_within": float(within.mean()), "nobody_within_share": nobody}
        return tally.values(len(judge), notes)

    def _median_radius(self, distances: Distances) -> float:
        farthest = distances.judges.new_zeros(len(distances.judges))
        for rows, _, squared in distances.nearest(self.k):
            farthest[rows] = squared[:, -1] if distances.n_asked else 0.0
        return distances.distance(float(farthest.median()))


@dataclass(frozen=True, slots=True)
class NeighbourAgreement:
    """What share of the k nearest other samples has the same label?

    Attributes:
        k: how many nearest samples are asked; all others if there are fewer.
        metric: as in `KNNShapley`.
        other_groups: ask only samples of other groups (queries, visits), as near-duplicates share a group.

    Soft labels agree as in `KNNShapley`. A sample with nobody to ask has value 1 / c, what a guess among c classes would
    agree; notes count them.

    Cost: O(n² d) time, O(n d) memory; not random.
    Source: the k-nearest-neighbour rule, Cover and Hart 1967; as a sign of wrong labels, Wilson 1972.

    >>> x = np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]], np.float32)
    >>> NeighbourAgreement(k=1).fit(Evidence(label=np.eye(2)[[0, 0, 1]], features=x)).value.tolist()
    [1.0, 1.0, 0.0]
    """

    k: int = 10
    metric: Metric = "euclidean"
    other_groups: bool = False
    name = "neighbour_agreement"

    def __post_init__(self) -> None:
        _Judged(self.k, self.metric)

    @property
    def needs(self) -> tuple[str, ...]:
        """Features, and groups if samples of the same group are not to be asked."""
        return ("features", "group") if self.other_groups else ("features",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One share in [0, 1] a sample."""
        import torch

        evidence.require(self)
        distances = _distances(evidence, self.metric, "training")
        label, _ = _label_tensors(evidence, "training")
        group = torch.as_tensor(required(evidence.group), device=evidence.device) if self.other_groups else None
        value = label.new_full((len(label),), 1 / evidence.n_classes)
        n_alone = 0
        for rows, index, squared in distances.nearest(self.k, group):
            asked = squared.isfinite()
            n_asked, agreed = asked.sum(1), (_agreement(label, index, label[rows]) * asked).sum(1)
            value[rows] = torch.where(n_asked > 0, agreed / n_asked.clamp(min=1), value[rows])
            n_alone += int((n_asked == 0).sum())
        return SampleValues(value.cpu().numpy(), None, {"n_alone": float(n_alone)})


def neighbour_graph(evidence: Evidence, k: int, metric: Metric = "euclidean", judged_on: JudgedOn = "training") -> Ints:
    """Which training samples are nearest to each judge?

    Args:
        evidence: with features, and hold-out samples if they are the judges.
        k: how many are wanted; fewer come back if there are fewer.
        metric, judged_on: as in `KNNShapley`.

    Returns:
        (m, min(k, samples that may be asked)) int64 rows of samples, nearest first, equal distances in row order.

    Cost: O(m n d) time, O((n + m) d + m k) memory; not random.
    """
    distances = _distances(evidence, metric, judged_on)
    graph = np.empty((len(distances.judges), min(k, distances.n_asked)), np.int64)
    for rows, index, _ in distances.nearest(k):
        graph[rows] = index.cpu().numpy()  # kept one by one, small pieces would scatter the heap
    return graph


def knn_shapley_of_graph(graph: Ints, label: Floats, judge_label: Floats, k: int) -> SampleValues:
    """KNN-Shapley values of samples when only the nearest neighbours of each judge are known.

    Args:
        graph: (m, depth) rows of the samples nearest to each judge, nearest first.
        label: (n, c) share of each class of the samples.
        judge_label: (m, c) the same of the judges; `label` itself where the samples judge one another.
        k: how many neighbours vote.

    Returns:
        (n,) values as `KNNShapley` with this depth; 0 for a sample that is in nobody's neighbourhood.

    Raises:
        SampleError: if the graph names rows that are not there.

    Cost: O(m depth c) time, O(n + m depth) memory; not random.
    Source: Jia et al. 2019, Theorem 2, with K* = depth.

    >>> knn_shapley_of_graph(np.array([[0, 1]]), np.eye(2), np.array([[1.0, 0.0]]), 1).value.tolist()
    [1.0, 0.0]
    """
    import torch

    outside = np.flatnonzero((graph < 0) | (graph >= len(label)))
    if outside.size:
        raise SampleError(
            f"graph: {outside.size} of {graph.size} neighbours are not among the {len(label)} samples; "
            f"first: {int(graph.flat[outside[0]])!r}. Each must be a row number: leave judges with too few neighbours out."
        )
    samples, judges = (torch.as_tensor(shares, dtype=torch.float64) for shares in (label, judge_label))
    index = torch.as_tensor(graph, dtype=torch.int64)
    m, depth = index.shape
    factor = 1 / samples.new_ones(max(depth - 1, 0)).cumsum(0).clamp(min=k)
    tally = _Tally.empty(samples)
    for rows in blocks(m if depth else 0, PAIRS // max(depth * samples.shape[1], 1)):
        hit = _agreement(samples, index[rows], judges[rows])
        tally.add_at(index[rows], _from_far_to_near(hit, factor, hit.new_zeros(len(hit))))
    return tally.values(m, {})


def _check_at_least(field: str, found: float | None, lowest: int) -> None:
    if found is not None and not found >= lowest:
        raise SampleError(f"{field}: {found!r} is too little. It must be {lowest} at least: take more.")


def _judges(evidence: Evidence, judged_on: JudgedOn) -> Holdout:
    return (
        required(evidence.holdout) if judged_on == "holdout" else Holdout(required(evidence.features), evidence.label)
    )


def _distances(evidence: Evidence, metric: Metric, judged_on: JudgedOn) -> Distances:
    judges = required(evidence.holdout).features if judged_on == "holdout" else None
    return Distances.between(required(evidence.features), judges, metric, evidence.device)


def _label_tensors(evidence: Evidence, judged_on: JudgedOn) -> list["torch.Tensor"]:
    """(n, c) and (m, c) shares of samples and judges."""
    import torch

    labels = (evidence.label, _judges(evidence, judged_on).label)
    return [torch.as_tensor(label, dtype=torch.float64, device=evidence.device) for label in labels]


@dataclass(frozen=True, slots=True)
class _Tally:
    """Sums over judges of each sample's values and of their squares."""

    total: "torch.Tensor"
    squares: "torch.Tensor"

    @classmethod
    def empty(cls, label: "torch.Tensor") -> "_Tally":
        return cls(label.new_zeros(len(label)), label.new_zeros(len(label)))

    def add(self, value: "torch.Tensor") -> None:
        """(b, n) values by b judges."""
        self.total.add_(value.sum(0))
        self.squares.add_(value.square_().sum(0))

    def add_at(self, index: "torch.Tensor", value: "torch.Tensor") -> None:
        """(b, k) values of the samples with these rows."""
        self.total.index_add_(0, index.flatten(), value.flatten())
        self.squares.index_add_(0, index.flatten(), value.square().flatten())

    def values(self, n_judges: int, notes: dict[str, float]) -> SampleValues:
        """Means over judges, and their standard errors."""
        mean, square = ((part / n_judges).cpu().numpy() for part in (self.total, self.squares))
        if n_judges < 2:
            return SampleValues(mean, None, notes)
        return SampleValues(mean, np.sqrt(np.maximum(square - mean**2, 0) / (n_judges - 1)), notes)


def _shapley_values(evidence: Evidence, how: _Judged, by_rank: ByRank) -> SampleValues:
    distances = _distances(evidence, how.metric, how.judged_on)
    label, judge = _label_tensors(evidence, how.judged_on)
    tally, n_asked = _Tally.empty(label), distances.n_asked
    for rows in blocks(len(judge) if n_asked else 0, PAIRS // len(label)):
        index = nearest_first(distances.squared(rows))[:, :n_asked]
        hit = (judge[rows] @ label.T).gather(1, index)
        tally.add(hit.new_zeros(len(hit), len(label)).scatter_(1, index, by_rank(hit)))
    return tally.values(len(judge), {})


def _first_come(k: int) -> ByRank:
    """Every sample of the k nearest counts 1 / k."""

    def by_rank(hit: "torch.Tensor") -> "torch.Tensor":
        rank = hit.new_ones(hit.shape[1]).cumsum(0)  # 1, 2, ...
        return _from_far_to_near(hit, 1 / rank[:-1].clamp(min=k), hit[:, -1] / max(k, len(rank)))

    return by_rank


def _fair_share(k: int, guess: float) -> ByRank:
    """Every sample of the min(k, n) nearest counts 1 / min(k, n); without any, agreement is a guess."""

    def by_rank(hit: "torch.Tensor") -> "torch.Tensor":
        rank = hit.new_ones(hit.shape[1]).cumsum(0)  # 1, 2, ...
        n = len(rank)
        farthest = (hit[:, -1] - guess) / n  # it comes first; then it comes among the first k
        if n == 1:
            return farthest[:, None]
        others = hit[:, :-1].mean(1)
        farthest += (hit[:, -1] - others) * float((1 / rank[1 : min(k, n)]).sum()) / n
        alike = min(k, n - 1)  # sizes of sets in which each of two neighbouring ranks would count
        spread = rank[:-1].clamp(max=k) / rank[:-1] * (n - 1) - alike
        factor = (float((1 / rank[:alike]).sum()) + spread / k) / (n - 1)
        return _from_far_to_near(hit, factor, farthest)

    return by_rank


def _from_far_to_near(hit: "torch.Tensor", factor: "torch.Tensor", farthest: "torch.Tensor") -> "torch.Tensor":
    """(b, n): the farthest's value, and for each nearer rank the drop in agreement to the next times its factor."""
    import torch

    value = torch.zeros_like(hit)
    torch.cumsum((hit[:, :-1] - hit[:, 1:]).mul_(factor), 1, out=value[:, 1:])
    return torch.sub((farthest + value[:, -1])[:, None], value, out=value)


def _agreement(label: "torch.Tensor", index: "torch.Tensor", judge: "torch.Tensor") -> "torch.Tensor":
    """(b, k) how far each judge agrees with the samples of these rows."""
    share, only = judge.max(1)
    if bool((share == 1).all()):  # hard: one class to look up, however many there are
        return label[index, only[:, None]]
    return (label[index] @ judge[:, :, None]).squeeze(2)
