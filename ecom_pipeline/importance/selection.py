"""Automatic choice: which estimator, map and strength serve best on validation data, or none at all.

On the floor of `importance`. What "serve" means is the caller's: a function from weights to a figure for every
validation group. The test split is never seen here.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.weights import Kind, WeightMap, Within, lifted

NONE = "none"
_BATCH = 12  # weightings that are fitted together
_N_DRAWS = 500
_NO_CHANGE = 1e-9
_FEWEST_CHANGED = 10  # clusters whose figure a weighting changes; of fewer no standard error can be drawn
_STRENGTHS: dict[Kind, tuple[float, float]] = {
    "power": (0.25, 4.0),
    "temperature": (0.1, 2.0),
    "rank": (0.25, 4.0),
    "drop": (0.02, 0.5),
}
_SCALED_WITHIN: tuple[Within, ...] = ("all", "label")
log = logging.getLogger(__name__)
Utility = Callable[[Floats], Floats]
_Weighting = tuple[str, WeightMap | None]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and what it was chosen from.

    Attributes:
        estimator: whose values, or "none": all samples weigh the same.
        weight_map: how they become weights; None for none.
        gain: estimate, in utility, of what the most certain weighting gains over no weights; cross-fitted: for each part
            of the validation groups it is picked on the other parts, and gains are counted where they had no say.
        gain_low: what the most certain weighting gains at least, with `confidence`, all weightings that were tried
            looked at together. Weights are chosen if and only if it is above 0.
        trials: rows of `weighting_trials`; utility is the mean over groups with the best penalty.
    """

    estimator: str
    weight_map: WeightMap | None
    gain: float
    gain_low: float
    trials: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Search:
    """How hard to look.

    Attributes:
        n_trials: how many combinations are tried beside none.
        clip_quantile: of every map.
        confidence: how sure one must be that weights gain anything; below it, none is chosen. Where no weighting gains
            anything, some is chosen by mistake in at most 1 - confidence of all choices.
        n_parts: divisions of the validation groups, for the estimate of the gain.
        seed: of the combinations, the divisions and the bootstrap.
    """

    n_trials: int = 48
    clip_quantile: float = 0.99
    confidence: float = 0.95
    n_parts: int = 5
    seed: int = 0


def choose(
    values: Mapping[str, Floats],
    label: Floats,
    group: Ints,
    *,
    utility: Utility,
    search: Search,
    cluster: Ints | None = None,
) -> Choice:
    """Which weighting should one train with?

    A trial is an estimator, a map, a strength and whether weights are scaled within labels. The best trial on
    validation looks better than it is, because it is the best of many. So what is tried is laid out before any figure
    is seen, and every trial with every penalty is compared with the unweighted twin at its best penalty, all together:
    the margin is what the largest of these gains, in standard errors, reaches by chance alone, by a bootstrap over
    clusters of groups. The trial with the highest lower bound is taken, if that is above 0. A trial that changes fewer
    than 10 clusters is not looked at, so fewer than 10 never lead to weights.

    Args:
        values: (n,) by estimator.
        label: (n,) of the training samples.
        group: (n,) their groups.
        utility: takes (n, t) weights and gives (t, p, g): how good the model is on each of g validation groups, for
            each penalty of the same grid; NaN where a group has no figure.
        search: how hard to look.
        cluster: (g,) whose each validation group is, such as its user, where several are one's; None: each its own.

    Raises:
        SampleError: if fewer than two validation groups have a figure.

    Cost: the utility of n_trials + 1 weightings, and 1000 (n_parts + 1) n_trials p g multiplications; random under the
        seed.

    Source: Romano and Wolf 2005, Stepwise multiple testing as formalized data snooping, the first step, with
        studentised statistics. That the twin has its best penalty on the same groups makes mistakes rarer.
    """
    draw = np.random.default_rng(search.seed)
    usable = {name: value for name, value in values.items() if np.ptp(value) > 0}
    tried = lay_out(sorted(usable), n_trials=search.n_trials, clip_quantile=search.clip_quantile, draw=draw)
    figures = [_with_figures(utility(np.ones((len(label), 1))))]
    for start in range(0, len(tried), _BATCH):
        batch = tried[start : start + _BATCH]
        weights = [weight_map.weights(lifted(usable[name]), label, group) for name, weight_map in batch]
        figures.append(utility(np.column_stack(weights)))
    return _decide([(NONE, None), *tried], np.concatenate(figures), search=search, cluster=cluster, draw=draw)


def lay_out(
    names: list[str], *, n_trials: int, clip_quantile: float, draw: np.random.Generator
) -> list[tuple[str, WeightMap]]:
    """The weightings to try: a Latin hypercube, so that each name and each kind has its share of every strength.

    Args:
        names: of estimators; without any, nothing is tried.
        n_trials: how many.
        clip_quantile: of every map.
        draw: of the places.

    Source: McKay, Beckman and Conover 1979.
    """
    if not names:
        return []
    place = np.column_stack([(draw.permutation(n_trials) + draw.random(n_trials)) / n_trials for _ in range(4)])
    return [
        (names[int(name * len(names))], _map(kind, strength, within, clip_quantile))
        for name, kind, strength, within in place
    ]


def _map(kind: float, strength: float, within: float, clip_quantile: float) -> WeightMap:
    """A map from places in [0, 1); strengths are even on the scale of logarithms."""
    chosen = [*_STRENGTHS][int(kind * len(_STRENGTHS))]
    low, high = _STRENGTHS[chosen]
    return WeightMap(chosen, low * (high / low) ** strength, clip_quantile, _SCALED_WITHIN[int(within * 2)])


def _with_figures(figures: Floats) -> Floats:
    n_groups = int(np.isfinite(figures).all((0, 1)).sum())
    if n_groups < 2:
        raise SampleError(
            f"validation: {n_groups} of {figures.shape[2]} groups have a figure to choose by; the first figure is "
            f"{float(figures[0, 0, 0]) if figures.size else None!r}. At least 2 groups must hold a relevant and an "
            "irrelevant item: bring more validation data, or name an estimator instead of the automatic choice."
        )
    return figures


def _decide(
    maps: list[_Weighting],
    figures: Floats,
    *,
    search: Search,
    cluster: Ints | None,
    draw: np.random.Generator,
) -> Choice:
    """From (t, p, g) figures, the first trial being none."""
    valid = np.logical_and.reduce(np.isfinite(figures), axis=(0, 1))
    figures = figures[:, :, valid]
    whose = np.arange(len(valid)) if cluster is None else np.asarray(cluster)
    whose = np.unique(whose[valid], return_inverse=True)[1]
    gain = gain_low = 0.0
    best = 0
    if len(maps) > 1:
        top, gain_low = most_certain(figures, whose, confidence=search.confidence, draw=draw)
        gain = _cross_fitted(figures, whose, search=search, draw=draw)
        best = int(top[0]) if gain_low > 0 else 0
    log.info("%s chosen of %d trials; gain %.4f, at least %.4f", maps[best][0], len(maps), gain, gain_low)
    return Choice(maps[best][0], maps[best][1], gain, gain_low, _trials(maps, figures.mean(2).max(1), best))


def most_certain(
    figures: Floats, whose: Ints, *, confidence: float, draw: np.random.Generator
) -> tuple[tuple[int, int], float]:
    """Trial and penalty with the highest lower bound of the gain, and that bound; trial 0, which is none, has 0."""
    _, n_penalties, n_groups = figures.shape
    twin = int(figures[0].mean(1).argmax())
    difference = (figures[1:] - figures[0, twin]).reshape(-1, n_groups)
    sizes = np.bincount(whose)
    sums = np.zeros((len(sizes), len(difference)))
    np.add.at(sums, whose, difference.T)  # (clusters, trials x penalties)
    changes = np.flatnonzero((np.abs(sums) > _NO_CHANGE).sum(0) >= _FEWEST_CHANGED)
    if not len(changes):
        return (0, twin), 0.0
    gain = difference[changes].mean(1)
    centred = (sums[:, changes] - sizes[:, None] * gain)[sizes > 0]
    scale = np.sqrt((centred**2).sum(0))
    low = gain - _margin(centred, confidence=confidence, draw=draw) * scale / n_groups
    place = int(changes[low.argmax()])
    return (1 + place // n_penalties, place % n_penalties), float(low.max())


def _margin(sums: Floats, *, confidence: float, draw: np.random.Generator) -> float:
    """What the largest of many t statistics stays below with this confidence, where no true mean is above 0.

    Args:
        sums: (clusters, statistics), centred.
        confidence: of the margin.
        draw: of clusters, with replacement.
    """
    n = len(sums)
    times = draw.multinomial(n, np.full(n, 1 / n), size=_N_DRAWS).astype(np.float64)
    total = times @ sums
    spread = np.sqrt(np.maximum(times @ sums**2 - total**2 / n, 0.0))
    statistic = np.divide(total, spread, out=np.zeros_like(total), where=spread > _NO_CHANGE)
    return float(np.quantile(statistic.max(1), confidence, method="higher"))


def _cross_fitted(figures: Floats, whose: Ints, *, search: Search, draw: np.random.Generator) -> float:
    """Mean gain over groups of what is the most certain on the other parts, the twin's penalty too."""
    n_clusters = int(whose.max()) + 1
    part = (draw.permutation(n_clusters) % min(search.n_parts, n_clusters))[whose]
    gain = np.empty(figures.shape[2])
    for held in np.unique(part):
        own, others = part == held, figures[:, :, part != held]
        picked, _ = most_certain(others, whose[part != held], confidence=search.confidence, draw=draw)
        gain[own] = (figures[picked] - figures[0, others[0].mean(1).argmax()])[own]
    return float(gain.mean())


def _trials(maps: list[_Weighting], utility: Floats, best: int) -> pd.DataFrame:
    rows = [
        (i, name, *(_settings(m) if m else (None, 0.0, 1.0, None)), utility[i], i == best)
        for i, (name, m) in enumerate(maps)
    ]
    columns = ["trial", "estimator", "kind", "strength", "clip_quantile", "within", "utility", "chosen"]
    return pd.DataFrame(rows, columns=columns)


def _settings(weight_map: WeightMap) -> tuple[str, float, float, str]:
    return weight_map.kind, weight_map.strength, weight_map.clip_quantile, weight_map.within
