"""The benchmark: estimators × kinds of wrong labels × tasks × seeds, as rows of `importance_benchmark`.

On the floor of `benchmark`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats
from ecom_pipeline.benchmark import noise
from ecom_pipeline.benchmark.dataset import Dataset, generated
from ecom_pipeline.benchmark.finding import found
from ecom_pipeline.benchmark.training import (
    ORACLE,
    UNWEIGHTED,
    Labels,
    Learner,
    LinearLearner,
    NetworkLearner,
    removal_areas,
    tuned_scores,
)
from ecom_pipeline.benchmark.values import Valued, evidence_of, valued
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.catalogue import AGAINST_BIAS, named
from ecom_pipeline.importance.estimator import Estimator
from ecom_pipeline.importance.preparation import MADE
from ecom_pipeline.importance.selection import Search
from ecom_pipeline.ranking.evaluation import evaluate

COLUMNS = (
    *("estimator", "dataset", "task", "noise_kind", "noise_share", "metric"),
    *("value", "ci_low", "ci_high", "p_value", "n_seeds", "seconds", "peak_mib"),
)
RANDOM = "random"
NoiseKind = noise.Kind | Literal["natural"]
NATURAL: Literal["natural"] = "natural"
TASKS = ("find", "curve", "linear", "network")
_LEARNERS: dict[str, Learner] = {"linear": LinearLearner(), "network": NetworkLearner()}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried.

    Attributes:
        estimators: names.
        noises: kinds and shares of labels made wrong; ("natural", 0): as the data has them.
        tasks: find, curve, linear, network.
        n_seeds: runs with labels made wrong anew.
        search: of the automatic choice.
    """

    estimators: tuple[str, ...]
    noises: tuple[tuple[NoiseKind, float], ...]
    tasks: tuple[str, ...]
    n_seeds: int
    search: Search = field(default_factory=Search)


def run(dataset: Dataset, plan: Plan, device: str) -> pd.DataFrame:
    """Rows of `importance_benchmark` for one dataset.

    Wrong labels are drawn for the training and the validation split alike, as they would come in a shop; the test
    split keeps its labels. Each seed has its own; all estimators and tasks see the same.

    Cost: the estimators once a seed and kind of noise, and the learners' fits.
    """
    rows: list[tuple] = []
    for kind, share in plan.noises:
        seeds = range(plan.n_seeds if kind != NATURAL else 1)
        runs = [_one(dataset, plan, kind, share, seed, device) for seed in seeds]
        log.info("%s: %s %g done, %d seeds", dataset.name, kind, share, len(runs))
        where = (dataset.name, kind, share)
        for task in plan.tasks:
            if task in _LEARNERS:
                rows += _paired(dataset, task, where, [one.scores[task] for one in runs])
            else:
                rows += _averaged(task, where, [one.figures[task] for one in runs], runs)
    return _frame(rows)


def everything(dataset: Dataset, plan: Plan, cost_sizes: Sequence[int], device: str) -> pd.DataFrame:
    """`run` and `cost` as one relation."""
    parts = [run(dataset, plan, device)]
    if cost_sizes:
        parts.append(cost(plan.estimators, sorted(cost_sizes), device))
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def left_out(dataset: Dataset, names: Sequence[str]) -> dict[str, str]:
    """Estimators that cannot be asked about these data, and the first thing that each lacks."""
    evidence = evidence_of(dataset, dataset.train.rows.label, dataset.validation.rows.label, 2, "cpu")
    lacking = {one.name: evidence.lacks(one.needs) for one in named(names)}
    found = {name: [need for need in needs if need not in MADE] for name, needs in lacking.items()}
    return {name: needs[0] for name, needs in found.items() if needs}


def noises(told: Sequence[str]) -> tuple[tuple[NoiseKind, float], ...]:
    """Kinds and shares from words such as "random:0.2" and "natural".

    Raises:
        SampleError: if a word is not of that form.

    >>> noises(["natural", "random:0.2"])
    (('natural', 0.0), ('random', 0.2))
    """
    read = [_noise_of(word) for word in told]
    wrong = [word for word, noise_and_share in zip(told, read, strict=True) if noise_and_share is None]
    if wrong:
        raise SampleError(
            f"noises: {len(wrong)} of {len(told)} cannot be read; first: {wrong[0]!r}. Each must be 'natural', or one "
            f"of {', '.join(noise.KINDS)} with a share above 0 and below 1, such as 'random:0.2': correct it."
        )
    return tuple(dict.fromkeys(one for one in read if one is not None))


def _noise_of(word: str) -> tuple[NoiseKind, float] | None:
    """Kind and share from a word; None where it makes no sense."""
    name, _, told = word.partition(":")
    try:
        share = float(told or 0)
    except ValueError:
        return None
    if name == NATURAL:
        return (NATURAL, share) if share == 0 else None
    kind = next((kind for kind in noise.KINDS if kind == name), None)
    return (kind, share) if kind and 0 < share < 1 else None


def tasks(names: Sequence[str]) -> tuple[str, ...]:
    """Tasks by name, in the order in which the leaderboard shows them.

    Raises:
        SampleError: if a name is not known.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise SampleError(
            f"tasks: {len(unknown)} of {len(names)} names are not known; first: {unknown[0]!r}. Each must be one of "
            f"{', '.join(TASKS)}: correct it."
        )
    return tuple(name for name in TASKS if name in names)


def cost(estimators: Sequence[str], sizes: Sequence[int], device: str, seed: int = 0) -> pd.DataFrame:
    """Seconds and memory of each estimator on generated data of several sizes, and how time grows.

    Returns:
        Rows of `importance_benchmark` with task cost: `seconds` at each size, and `growth` beside the largest: the
        exponent b of seconds ~ n^b between the two largest sizes.
    """
    rows = []
    before: dict[str, tuple[int, float]] = {}
    for n in sizes:
        dataset = generated(n, seed)
        labels = _labels(dataset, "random", 0.2, seed)
        evidence = evidence_of(dataset, labels.train, labels.validation, 2, device)
        for name, one in valued(evidence, named(estimators), dataset.n_folds).items():
            where = (name, dataset.name, "cost", "random", 0.2)
            told = (None, None, None, 1, one.seconds, one.peak_mib)
            rows.append((*where, "seconds", one.seconds, *told))
            if name in before and n == sizes[-1]:
                smaller, less = before[name]
                growth = np.log(max(one.seconds, 1e-4) / max(less, 1e-4)) / np.log(n / smaller)
                rows.append((*where, "growth", float(growth), *told))
            before[name] = (n, one.seconds)
        log.info("cost at %d samples done", n)
    return _frame(rows)


def _frame(rows: Sequence[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({name: float for name in COLUMNS[6:] if name != "n_seeds"})


@dataclass(frozen=True, slots=True)
class _Run:
    """One seed: figures by task and estimator, test scores by learner and model, and what each estimator cost."""

    figures: dict[str, dict[str, dict[str, float]]]
    scores: dict[str, dict[str, Floats]]
    cost: dict[str, Valued]


def _one(dataset: Dataset, plan: Plan, kind: NoiseKind, share: float, seed: int, device: str) -> _Run:
    labels = _labels(dataset, kind, share, seed)
    evidence = evidence_of(dataset, labels.train, labels.validation, 2, device)
    told = valued(evidence, named(plan.estimators), dataset.n_folds)
    values = {name: one.value for name, one in told.items()}
    guess = np.random.default_rng([seed, 1]).random(len(labels.train))
    figures = {}
    if "find" in plan.tasks:
        judged = _graded(dataset, named(plan.estimators), device) if kind == NATURAL else values
        sorting = {name: value for name, value in judged.items() if name not in AGAINST_BIAS} | {RANDOM: guess}
        figures["find"] = _found(dataset, labels, sorting)
    if "curve" in plan.tasks:
        figures["curve"] = removal_areas(dataset, labels, values | {RANDOM: guess}, device)
    asked = frozenset(one.name for one in named(values) if "holdout" in one.needs)
    scores = {
        task: tuned_scores(dataset, labels, values, learner, plan.search, device, asked)
        for task, learner in _LEARNERS.items()
        if task in plan.tasks
    }
    return _Run(figures, scores, told)


def _graded(dataset: Dataset, estimators: Sequence[Estimator], device: str) -> dict[str, Floats]:
    """Values of the grades as classes: raters disagree about a grade, not about which side of the middle it is on."""
    grades, number = np.unique(
        np.concatenate([part.rows.relevance for part in (dataset.train, dataset.validation)]), return_inverse=True
    )
    split = len(dataset.train.rows.relevance)
    evidence = evidence_of(dataset, number[:split], number[split:], len(grades), device)
    return {name: one.value for name, one in valued(evidence, estimators, dataset.n_folds).items()}


def _labels(dataset: Dataset, kind: NoiseKind, share: float, seed: int) -> Labels:
    clean = dataset.train.rows.label, dataset.validation.rows.label
    if kind == NATURAL:
        return Labels(*clean, None)
    draw = np.random.default_rng(seed)
    train, held = (
        noise.corrupted(label, part.item, kind, share, draw)
        for label, part in zip(clean, (dataset.train, dataset.validation), strict=True)
    )
    return Labels(train, held, train != clean[0])


def _found(dataset: Dataset, labels: Labels, values: dict[str, NDArray]) -> dict[str, dict[str, float]]:
    if labels.wrong is not None:
        return {name: found(labels.wrong, value) for name, value in values.items()} if labels.wrong.any() else {}
    if dataset.disputed is None or not dataset.disputed.any():
        return {}
    grade = dataset.train.rows.relevance
    return {
        name: found(dataset.disputed, value) | found(dataset.disputed, value, grade) for name, value in values.items()
    }


def _averaged(task: str, where: tuple, figures: Sequence[dict], runs: Sequence[_Run]) -> Iterator[tuple]:
    """Mean over seeds with the interval of Student's t."""
    from scipy.stats import t

    for name in figures[0]:
        for metric in figures[0][name]:
            seen = np.array([one[name][metric] for one in figures])
            half = t.ppf(0.975, len(seen) - 1) * seen.std(ddof=1) / np.sqrt(len(seen)) if len(seen) > 1 else np.nan
            told = (seen.mean(), seen.mean() - half, seen.mean() + half, None, len(seen), *_cost(name, runs))
            yield (name, where[0], task, *where[1:], metric, *told)


def _cost(name: str, runs: Sequence[_Run]) -> tuple[float, float]:
    costs = [one.cost[name] for one in runs if name in one.cost]
    if not costs:
        return (np.nan, np.nan)
    return float(np.mean([one.seconds for one in costs])), float(np.max([one.peak_mib for one in costs]))


def _paired(dataset: Dataset, task: str, where: tuple, runs: Sequence[dict[str, NDArray]]) -> Iterator[tuple]:
    """Differences to the unweighted twin on the test split, with intervals over its groups and the seeds."""
    test = dataset.test.rows
    stacked = {name: np.stack([one[name] for one in runs]) for name in runs[0]}
    pairs = [(name, UNWEIGHTED) for name in stacked if name != UNWEIGHTED]
    everything = {"all": np.ones(len(test.group), bool)}
    table = evaluate(test, stacked, everything, [], pairs, "test", 0)
    gains = {}
    for row in table[table.metric.isin(["ndcg_at_10", "auc"])].itertuples():
        name, _, minus = row.model.partition(" - ")
        metric = f"{row.metric} gain" if minus else row.metric
        gains[name, metric] = row.value
        told = (row.value, row.ci_low, row.ci_high, row.p_value, row.n_seeds, None, None)
        yield (name, where[0], task, *where[1:], metric, *told)
    for (name, metric), gain in gains.items():
        best = gains.get((ORACLE, metric), 0.0)
        if metric.endswith("gain") and name != ORACLE and best > 0.001:  # a share of nothing is nothing
            told = (gain / best, None, None, None, len(runs), None, None)
            yield (name, where[0], task, *where[1:], f"{metric} / oracle's", *told)
