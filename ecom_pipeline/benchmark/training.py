"""Tasks: train with the weights, and remove samples by value. Does a ranker get better?

On the floor of `benchmark`. A linear head and a small network learn the same samples; whatever is chosen (map, strength,
penalty) is chosen on validation labels that are as wrong as the training labels, with as many trials for every side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.benchmark.dataset import Dataset
from ecom_pipeline.benchmark.values import shown_half
from ecom_pipeline.importance.catalogue import ONLY_BY_NAME
from ecom_pipeline.importance.estimator import one_hot
from ecom_pipeline.importance.frames import AUTOMATIC
from ecom_pipeline.importance.heads import PENALTIES, Weighted, fit_heads
from ecom_pipeline.importance.networks import NetworkSettings, fit_networks
from ecom_pipeline.importance.selection import NONE, Search, choose
from ecom_pipeline.importance.weights import WeightMap, lifted
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.metrics import auc, ndcg_at_k

UNWEIGHTED, ORACLE = "unweighted", "oracle"
MAPS = (
    WeightMap("power", 1.0, 0.99, "label"),
    WeightMap("power", 2.0, 0.99, "label"),
    WeightMap("power", 4.0, 0.99, "label"),
    WeightMap("rank", 1.0, 1.0, "label"),
    WeightMap("drop", 0.2, 1.0, "label"),
    WeightMap("drop", 0.4, 1.0, "label"),
)
_REMOVED = (0.1, 0.2, 0.3, 0.4, 0.5)


class Learner(Protocol):
    """A ranker that is quick to fit for many weightings."""

    @property
    def name(self) -> str:
        """What its task is called."""
        ...

    @property
    def grid(self) -> tuple[float, ...]:
        """Settings that are tried."""
        ...

    def scores(
        self, x: NDArray, label: NDArray, weight: NDArray, grid: Sequence[float], judged: Sequence[NDArray], device: str
    ) -> list[Floats]:
        """(t, p, m) scores of each judged split, for (n, t) weights and p settings of the grid."""
        ...


@dataclass(frozen=True, slots=True)
class LinearLearner:
    """Logistic heads; the grid is of penalties."""

    name = "linear"
    grid = PENALTIES

    def scores(
        self, x: NDArray, label: NDArray, weight: NDArray, grid: Sequence[float], judged: Sequence[NDArray], device: str
    ) -> list[Floats]:
        """(t, p, m) logits of each judged split."""
        seen, target, weights = _tensors(device, x, one_hot(label), weight)
        heads = fit_heads(seen, target, Weighted(weights), grid)[:, 0]  # (d, p, t)
        flat = heads.permute(0, 2, 1).flatten(1)  # (d, t p)
        return [
            (part @ flat).T.unflatten(0, (weight.shape[1], len(grid))).double().cpu().numpy()
            for part in _tensors(device, *judged)
        ]


@dataclass(frozen=True, slots=True)
class NetworkLearner:
    """Networks of one hidden layer that train to the end: capacity to learn wrong labels by heart. Weight decays.

    Attributes:
        settings: of every network.
    """

    settings: NetworkSettings = field(default_factory=lambda: NetworkSettings(width=64, n_epochs=20))
    name = "network"
    grid = (0.3, 3.0, 10.0, 30.0)

    def scores(
        self, x: NDArray, label: NDArray, weight: NDArray, grid: Sequence[float], judged: Sequence[NDArray], device: str
    ) -> list[Floats]:
        """(t, p, m) probabilities of label 1 of each judged split; one network at a time would give the same."""
        seen, target, weights = _tensors(device, x, one_hot(label), weight)
        found: list[list[NDArray]] = [[] for _ in judged]
        for part in weights.split(8, 1):  # members at a time: bounds the memory
            members = part.repeat_interleave(len(grid), 1)
            settings = replace(self.settings, weight_decay=tuple(grid) * part.shape[1])
            networks = fit_networks(seen, target, Weighted(members), settings)
            for place, held in zip(found, _tensors(device, *judged), strict=True):
                with torch.no_grad():
                    scores = networks.scores(held)[:, 1].T  # (t p, m)
                place.append(scores.unflatten(0, (part.shape[1], len(grid))).double().cpu().numpy())
        return [np.concatenate(place) for place in found]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels as they are to be learned from, and which of them are wrong.

    Attributes:
        train: (n,) 0 or 1.
        validation: (m,) 0 or 1.
        wrong: (n,) of the training labels; None where the truth is not known.
    """

    train: Floats
    validation: Floats
    wrong: Bools | None


def tuned_scores(
    dataset: Dataset,
    labels: Labels,
    values: Mapping[str, NDArray],
    learner: Learner,
    search: Search,
    device: str,
    asked_holdout: frozenset[str] = frozenset(),
) -> dict[str, Floats]:
    """(m,) test scores of the ranker trained with each estimator's weights, each tuned on validation.

    Every side has as many trials: an estimator 6 maps times the learner's grid; the unweighted twin and the oracle,
    who have no map to choose, a grid 6 times as fine. `automatic` is what `selection.choose` takes, `oracle` has
    weight 0 for the wrong labels. Estimators in `asked_holdout` are tuned on the half of validation that they did not
    ask, and the automatic choice leaves them out, as it does the literal prediction gap.
    """
    held = _rows(dataset, labels)
    unseen = ~shown_half(held.group)
    kept = held.only(unseen) if asked_holdout else held
    weights = [weight_map.weights(lifted(value), labels.train) for value in values.values() for weight_map in MAPS]
    plain = [np.ones(len(labels.train))]
    if labels.wrong is not None:
        plain.append((~labels.wrong) / (~labels.wrong).mean())
    given = (dataset.train.features, labels.train)
    judged = (dataset.validation.features, dataset.test.features)
    result = {}
    fine = np.geomspace(learner.grid[0], learner.grid[-1], len(MAPS) * len(learner.grid))
    validated, tested = learner.scores(*given, np.column_stack(plain), tuple(fine), judged, device)
    for name, on_validation, on_test in zip((UNWEIGHTED, ORACLE), validated, tested, strict=False):
        result[name] = on_test[_best(held, on_validation)]
    if weights:
        validated, tested = learner.scores(*given, np.column_stack(weights), learner.grid, judged, device)
        shape = (len(values), -1, len(judged[0]))
        by_trial = validated.reshape(shape), tested.reshape(len(values), -1, len(judged[1]))
        for name, on_validation, on_test in zip(values, *by_trial, strict=True):
            blind = name in asked_holdout
            result[name] = on_test[_best(kept, on_validation[:, unseen]) if blind else _best(held, on_validation)]
        honest = {name: value for name, value in values.items() if name not in asked_holdout | ONLY_BY_NAME}
        automatic = _automatic(dataset, labels, honest, learner, search, device)
        result[AUTOMATIC] = result[UNWEIGHTED] if automatic is None else automatic
    return result


def _automatic(
    dataset: Dataset, labels: Labels, values: Mapping[str, NDArray], learner: Learner, search: Search, device: str
) -> Floats | None:
    """Test scores under the chosen weights, or None where none are chosen: then the twin is what one trains."""
    held = _rows(dataset, labels)
    kept: dict[int, Floats] = {}

    def utility(weight: Floats) -> Floats:
        judged = (dataset.validation.features, dataset.test.features)
        validated, tested = learner.scores(dataset.train.features, labels.train, weight, learner.grid, judged, device)
        figures = np.array([[_figure(held, score) for score in trial] for trial in validated])
        for figure, trial in zip(figures, tested, strict=True):
            kept[len(kept)] = trial[int(np.nanmean(figure, 1).argmax())]
        return figures

    choice = choose(values, labels.train, dataset.train.rows.group, utility=utility, search=search)
    return None if choice.estimator == NONE else kept[int(choice.trials.trial[choice.trials.chosen].iloc[0])]


def removal_areas(
    dataset: Dataset, labels: Labels, values: Mapping[str, NDArray], device: str
) -> dict[str, dict[str, float]]:
    """What removing the least worth, and training on the most worth alone, does to test nDCG@10 of a linear head.

    Returns:
        By estimator, `removal_gain`: mean over 10 to 50 % removed from the bottom of nDCG@10 less that of the whole;
        `addition_gain`: the same, training on the top 10 to 50 % alone. The penalty is the one that is best on
        validation for the whole.
    """
    learner, held = LinearLearner(), _rows(dataset, labels)
    given, n = (dataset.train.features, labels.train), len(labels.train)
    judged = (dataset.validation.features, dataset.test.features)
    validated, tested = learner.scores(*given, np.ones((n, 1)), learner.grid, judged, device)
    best = _best(held, validated[0])
    test = dataset.test.rows
    whole = np.nanmean(ndcg_at_k(test.group, test.relevance, tested[0, best], 10))
    masks = []
    for value in values.values():
        rank = np.empty(n)
        rank[np.argsort(value, kind="stable")] = (np.arange(n) + 0.5) / n
        masks += [rank > share for share in _REMOVED] + [rank > 1 - share for share in _REMOVED]
    weight = np.column_stack([mask / mask.mean() for mask in masks])
    (scores,) = learner.scores(*given, weight, learner.grid[best : best + 1], judged[1:], device)
    ndcg = np.array([np.nanmean(ndcg_at_k(test.group, test.relevance, score, 10)) for score in scores[:, 0]]) - whole
    gains = ndcg.reshape(len(values), 2, len(_REMOVED)).mean(2)
    return {
        name: {"removal_gain": float(removed), "addition_gain": float(added)}
        for name, (removed, added) in zip(values, gains, strict=True)
    }


def _rows(dataset: Dataset, labels: Labels) -> Rows:
    """Validation as one would have it: wrong labels are wrong there too. Where nothing is, grades say more."""
    clean = np.array_equal(labels.validation, dataset.validation.rows.label)
    relevance = dataset.validation.rows.relevance if clean else labels.validation
    return Rows(dataset.validation.rows.group, labels.validation, relevance)


def _figure(rows: Rows, score: Floats) -> Floats:
    """(g,) mean of nDCG@10 and AUC: either alone is rough on few groups."""
    return (ndcg_at_k(rows.group, rows.relevance, score, 10) + auc(rows.group, rows.relevant, score)) / 2


def _best(rows: Rows, scores: Floats) -> int:
    return int(np.argmax([np.nanmean(_figure(rows, score)) for score in scores]))


def _tensors(device: str, *arrays: NDArray) -> list[torch.Tensor]:
    return [torch.as_tensor(array, dtype=torch.float32, device=device) for array in arrays]
