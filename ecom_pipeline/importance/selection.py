"""Automatic choice: which estimator, map and strength serve best on validation data, or none at all.

On the floor of `importance`. What "serve" means is the caller's: a function from weights to a figure for every
validation group. The test split is never seen here. Optuna is imported when a choice is made.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.weights import WeightMap, lifted

NONE = "none"
_BATCH = 12  # trials between two looks of the sampler at what it has found
_STRENGTHS = {"power": (0.25, 4.0), "temperature": (0.1, 2.0), "rank": (0.25, 4.0), "drop": (0.02, 0.5)}
log = logging.getLogger(__name__)
Utility = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and what it was chosen from.

    Attributes:
        estimator: whose values, or "none": all samples weigh the same.
        weight_map: how they become weights; None for none.
        gain: what choosing in this way gained over no weights, on groups that had no say in it; in utility.
        gain_low: lower end of that gain's one-sided interval.
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
        confidence: how sure one must be that choosing gains anything; below it, none is chosen.
        n_parts: divisions of the validation groups, for a gain that the choice had no say in.
        seed: of the sampler, the divisions and the bootstrap.
    """

    n_trials: int = 48
    clip_quantile: float = 0.99
    confidence: float = 0.9
    n_parts: int = 5
    seed: int = 0


def choose(
    values: Mapping[str, NDArray[np.float64]],
    label: NDArray[np.float64],
    group: NDArray[np.int64],
    utility: Utility,
    search: Search,
) -> Choice:
    """Which weighting should one train with?

    A trial is an estimator, a map, a strength and whether weights are scaled within labels. The best trial on
    validation looks better than it is, because it is the best of many; so its gain is measured by cross-fitting: for
    each part of the validation groups, trial and penalty are chosen on the other parts, for the unweighted twin too.
    If the lower bound of that gain is not above 0, no weights are chosen.

    Args:
        values: (n,) by estimator.
        label: (n,) of the training samples.
        group: (n,) their groups.
        utility: takes (n, t) weights and gives (t, p, g): how good the model is on each of g validation groups, for
            each penalty of the same grid; NaN where a group has no figure.
        search: how hard to look.

    Raises:
        SampleError: if fewer than two validation groups have a figure.

    Cost: the utility of n_trials + 1 weightings; random under the seed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=2 * _BATCH)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    usable = {name: value for name, value in values.items() if np.ptp(value) > 0}
    maps: list[tuple[str, WeightMap | None]] = [(NONE, None)]
    found = [_with_figures(utility(np.ones((len(label), 1))))]
    while usable and len(maps) <= search.n_trials:
        asked = [study.ask() for _ in range(min(_BATCH, search.n_trials + 1 - len(maps)))]
        tried = [_suggest(trial, sorted(usable), search.clip_quantile) for trial in asked]
        weights = np.column_stack(
            [weight_map.weights(lifted(usable[name]), label, group) for name, weight_map in tried]
        )
        figures = utility(weights)
        for trial, figure in zip(asked, figures, strict=True):
            study.tell(trial, float(np.nanmean(figure, 1).max()))
        maps += tried
        found.append(figures)
    return _decide(maps, np.concatenate(found), search)


def _suggest(trial, names: list[str], clip_quantile: float) -> tuple[str, WeightMap]:
    name = trial.suggest_categorical("estimator", names)
    kind = trial.suggest_categorical("kind", list(_STRENGTHS))
    low, high = _STRENGTHS[kind]
    strength = trial.suggest_float(f"{kind}_strength", low, high, log=True)
    return name, WeightMap(kind, strength, clip_quantile, trial.suggest_categorical("within", ["all", "label"]))


def _with_figures(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    n_groups = int(np.isfinite(figures).all((0, 1)).sum())
    if n_groups < 2:
        raise SampleError(
            f"validation: {n_groups} of {figures.shape[2]} groups have a figure to choose by; the first figure is "
            f"{float(figures[0, 0, 0]) if figures.size else None!r}. At least 2 groups must hold a relevant and an "
            "irrelevant item: bring more validation data, or name an estimator instead of the automatic choice."
        )
    return figures


def _decide(maps: list[tuple[str, WeightMap | None]], figures: NDArray[np.float64], search: Search) -> Choice:
    """From (t, p, g) figures, the first trial being none."""
    figures = figures[:, :, np.isfinite(figures).all((0, 1))]
    n_groups = figures.shape[2]
    draw = np.random.default_rng(search.seed)
    part = draw.permutation(n_groups) % min(search.n_parts, n_groups)
    gain = np.empty(n_groups)
    for one in np.unique(part):
        own, others = part == one, figures[:, :, part != one].mean(2)
        chosen = np.unravel_index(others.argmax(), others.shape)
        gain[own] = (figures[chosen] - figures[0, others[0].argmax()])[own]
    resampled = gain[draw.integers(n_groups, size=(2000, n_groups))].mean(1)
    gain_low = float(np.quantile(resampled, 1 - search.confidence))
    best_by_trial = figures.mean(2).max(1)
    best = int(best_by_trial.argmax()) if gain_low > 0 else 0
    trials = pd.DataFrame(
        [
            (i, name, *(_settings(m) if m else (None, 0.0, 1.0, None)), best_by_trial[i], i == best)
            for i, (name, m) in enumerate(maps)
        ],
        columns=["trial", "estimator", "kind", "strength", "clip_quantile", "within", "utility", "chosen"],
    )
    log.info(
        "%s chosen of %d trials; gain by choosing %.4f, at least %.4f", maps[best][0], len(maps), gain.mean(), gain_low
    )
    return Choice(maps[best][0], maps[best][1], float(gain.mean()), gain_low, trials)


def _settings(weight_map: WeightMap) -> tuple[str, float, float, str]:
    return weight_map.kind, weight_map.strength, weight_map.clip_quantile, weight_map.within
