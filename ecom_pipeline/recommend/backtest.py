"""Would it have helped? Rankers of several past origins, each tested on the period after it; and the one that serves.

On the floor above `evaluation`. The weighted and chosen system, its twin without weights and with rows at random, and the
simple lists all answer the same next visits; everything is chosen before the test period begins.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ecom_pipeline import schema
from ecom_pipeline.recommend.baselines import EASE, ITEM_KNN, OWN, OWN_BY_AGE, POPULAR, TIFU, baseline_scores, tuned
from ecom_pipeline.recommend.candidates import CHANNELS, Catalogue, Retrieval
from ecom_pipeline.recommend.evaluation import (
    DEPTH,
    Figures,
    Lists,
    Truth,
    compare,
    dense_lists,
    figures_by_visit,
    retrieval_figures,
)
from ecom_pipeline.recommend.interactions import Interactions
from ecom_pipeline.recommend.learning import Kept, Learner
from ecom_pipeline.recommend.periods import Origin, Period
from ecom_pipeline.recommend.pilot import Chooser, RowChoice, some
from ecom_pipeline.recommend.private.head import PrivateRanker
from ecom_pipeline.recommend.private.learning import learn_privately
from ecom_pipeline.recommend.private.noise import SYSTEM
from ecom_pipeline.recommend.private.promise import PrivateTraining
from ecom_pipeline.recommend.ranker import Ranker, TreeSearch, fit_ranker, rows_within
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting

log = logging.getLogger(__name__)
CHOSEN, TWIN = "weighted and chosen", "unweighted twin"
DIFFERENCE = f"{CHOSEN} - {TWIN}"
BASELINES = (POPULAR, OWN, OWN_BY_AGE, ITEM_KNN, EASE, TIFU)
PILOT = "linear pilot"  # the weighted system without its trees
SHARE = 1 / 8  # of the rows kept: how much is lost with fewer
_COLUMNS = schema.NEXT_VISIT_EVALUATION.column_names
NO_FIGURES = pd.DataFrame(columns=_COLUMNS)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a system is made of; the twin's differ in the weighting and in how rows are chosen, and in nothing else.

    Attributes:
        retrieval: how many candidates.
        choice: how rows are chosen.
        search: what is tried for the trees.
        n_visits: of a period, learnt from at most.
        n_asked: next visits of a period, chosen and tested on at most.
        seed: of the bootstrap.
        n_processes: in which the system, its twin and the simple lists are made; 1: one after the other.
        private: what rankers may spend of their users' privacy; None: they learn without a promise.
        fit_seconds: of one core, in which the trees of a ranker learn: says how many rows are chosen. None: the choice does.
    """

    retrieval: Retrieval = field(default_factory=Retrieval)
    choice: RowChoice = field(default_factory=lambda: RowChoice(n_rows=100_000))
    search: TreeSearch = field(default_factory=TreeSearch)
    n_visits: int = 2000
    n_asked: int = 1500
    seed: int = 0
    n_processes: int = 1
    private: PrivateTraining | None = None
    fit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Backtest:
    """What came out.

    Attributes:
        ranker: that serves.
        twin: the same without weights and from rows at random, to be seen beside it.
        kept: rows that it learnt from, by period; of a private one none are told.
        evaluation: rows of `next_visit_evaluation`.
    """

    ranker: Ranker | PrivateRanker
    twin: Ranker | PrivateRanker
    kept: Sequence[Kept]
    evaluation: pd.DataFrame


def backtest(
    acts: Interactions, catalogue: Catalogue, weighting: Weighting, origins: Sequence[Origin], settings: Settings
) -> Backtest:
    """Fit and test both systems at every origin that has a test period, and fit those that serve.

    Args:
        acts: interactions until the last origin's validation has ended.
        catalogue: of the items.
        weighting: of the chosen system; `UNWEIGHTED` where none gains.
        origins: as `rolling_origins` gives them, the one that serves last.
        settings: of both systems.

    Cost: for each system and period, one index, the candidates of its visits, and the fits of the search. Memory: the
    candidates of the next visits of two periods, about 150 KB a visit, for each system.
    """
    from joblib import Parallel, delayed

    if settings.fit_seconds is not None:  # once, so that the twin has as many
        learner = _learner(acts, catalogue, UNWEIGHTED, settings, TWIN)
        n_rows = rows_within(settings.fit_seconds, learner.trial_rows(origins[0].train[0]), settings.search)
        log.info("%.4g s are enough for %d rows", settings.fit_seconds, n_rows)
        settings = replace(settings, choice=replace(settings.choice, n_rows=n_rows))
    *tested, _ = origins
    log.info("%d test periods: the system and its twin learn side by side, and simple lists are tuned", len(tested))
    systems = [
        delayed(_system)(acts, catalogue, weighting, origins, settings, CHOSEN),
        delayed(_system)(acts, catalogue, UNWEIGHTED, origins, settings, TWIN),
    ]
    simple = [delayed(_simple)(acts, catalogue, origin, settings) for origin in tested]
    chosen, twin, *baselines = Parallel(n_jobs=settings.n_processes)([*systems, *simple])
    found = [
        _Tested(truth, {**lists, **chosen.lists[number], **twin.lists[number]}, chosen.retrieved[number])
        for number, (truth, lists) in enumerate(baselines)
    ]
    return Backtest(chosen.ranker, twin.ranker, chosen.kept, _evaluation(found, acts.n_items, settings.seed))


@dataclass(frozen=True, slots=True)
class _Tested:
    truth: Truth
    lists: Mapping[str, Lists]
    retrieved: Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class _System:
    """By test period: lists by name, and of the chosen system what was retrieved; and what serves."""

    lists: list[dict[str, Lists]]
    retrieved: list[dict[str, Figures]]
    ranker: Ranker | PrivateRanker
    kept: list[Kept]


def _system(
    acts: Interactions,
    catalogue: Catalogue,
    weighting: Weighting,
    origins: Sequence[Origin],
    settings: Settings,
    name: str,
) -> _System:
    """All that a system learns and lists, origin by origin."""
    learner = _learner(acts, catalogue, weighting, settings, name)
    if settings.private:
        return _private_system(learner, origins, settings.private, name)
    chooser = learner.chooser(list(origins))
    *tested, serving = origins
    found, retrieved = [], []
    for origin in tested:
        _prepare(learner, chooser, origin, learnt={period for one in origins for period in one.train})
        ranker = learner.fit(origin, chooser, settings.search)
        lists = {name: ranker_lists(learner, origin, ranker)}
        if name == CHOSEN:
            lists[PILOT] = ranker_lists(learner, origin, replace(ranker, trees=""))
            retrieved.append(_retrieved(learner, origin))
        if origin is tested[-1]:
            lists |= _of_fewer_rows(learner, origin, ranker, settings.search, lists[name], name)
        found.append(lists)
        learner.forget(origin.tested_on.first)
    ranker = learner.fit(serving, chooser, settings.search)
    return _System(found, retrieved, ranker, [learner.kept(one, chooser) for one in serving.train if name == CHOSEN])


def _private_system(learner: Learner, origins: Sequence[Origin], asked: PrivateTraining, name: str) -> _System:
    """The same without a pilot, chosen rows, trees and validation. Rankers of earlier origins are tested and let go."""
    *tested, serving = origins
    found, retrieved = [], []
    for origin in tested:
        ranker = learn_privately(learner, origin.train, asked, SYSTEM)
        found.append({name: ranker_lists(learner, origin, ranker)})
        if name == CHOSEN:
            retrieved.append(_retrieved(learner, origin))
        learner.forget(origin.tested_on.first)
    return _System(found, retrieved, learn_privately(learner, serving.train, asked, SYSTEM), [])


def _prepare(learner: Learner, chooser: Chooser, origin: Origin, *, learnt: Collection[Period]) -> None:
    """Everything of each period while its index is at hand: it is the dearest thing, and only one is kept."""
    for period in (*origin.train, origin.validation, origin.tested_on):
        if period in learnt:
            learner.kept(period, chooser)
        if period not in origin.train:
            learner.asked(period)


def _simple(
    acts: Interactions, catalogue: Catalogue, origin: Origin, settings: Settings
) -> tuple[Truth, dict[str, Lists]]:
    """What was taken in a test period, and the simple lists for it."""
    learner = _learner(acts, catalogue, UNWEIGHTED, settings, TWIN)
    truth = Truth.of(acts, learner.next_visits(origin.tested_on), origin.tested_on.first)
    return truth, baseline_lists(acts, origin, truth, learner)


def _learner(acts: Interactions, catalogue: Catalogue, weighting: Weighting, settings: Settings, name: str) -> Learner:
    choice = settings.choice if name == CHOSEN else replace(settings.choice, method="random")
    return Learner(acts, catalogue, weighting, settings.retrieval, choice, settings.n_visits, settings.n_asked)


def ranker_lists(learner: Learner, origin: Origin, ranker: Ranker | PrivateRanker) -> Lists:
    """A ranker's lists for the next visits of the test period."""
    asked = learner.asked(origin.tested_on)
    score = ranker.score(asked.rows)
    new = asked.rows.column("own_days") == 0
    return Lists(asked.lists(score, DEPTH), asked.lists(score, 10, ~new), asked.lists(score, DEPTH, new))


def baseline_lists(acts: Interactions, origin: Origin, truth: Truth, learner: Learner) -> dict[str, Lists]:
    """The simple lists; those that have settings are tuned on the validation period."""
    validation = origin.validation
    settings = tuned(acts, learner.next_visits(validation), validation.first)
    parts: dict[str, list[Lists]] = {}
    for rows, scores in baseline_scores(acts, truth.visits, origin.tested_on.first, settings=settings, names=BASELINES):
        for name, table in scores.items():
            parts.setdefault(name, []).append(dense_lists(table, truth, rows, acts.n_items))
    return {name: Lists.joined(found) for name, found in parts.items()}


def _retrieved(learner: Learner, origin: Origin) -> dict[str, Figures]:
    """How much of what was taken each channel brings, and all together."""
    asked = learner.asked(origin.tested_on)
    truth = Truth.of(learner.acts, learner.next_visits(origin.tested_on), origin.tested_on.first)
    columns = zip(CHANNELS, ("own_weight", "together", "popular_recent", "text", "sequence"), strict=True)
    found = {}
    for place, (channel, column) in enumerate(columns):
        brought = np.flatnonzero(asked.rows.channels[:, place])
        if len(brought):
            found[f"retrieved: {channel}"] = retrieval_figures(some(asked.rows, brought), column, truth, asked.n_items)
    return found | {"retrieved: all": retrieval_figures(asked.rows, None, truth, asked.n_items)}


def _of_fewer_rows(
    learner: Learner, origin: Origin, ranker: Ranker, search: TreeSearch, of_all: Lists, name: str
) -> dict[str, Lists]:
    """Lists of a ranker that learnt from a part of the rows, thinned alike, so that the same offset corrects them; and of all."""
    rows, probability = learner.learnt(origin, ranker.chooser)
    part = np.flatnonzero(np.random.default_rng([learner.choice.seed, 3]).random(len(rows)) < SHARE)
    validation = learner.asked(origin.validation)
    fewer = fit_ranker(some(rows, part), probability[part], ranker.chooser, validation, search=search)
    return {
        _rows_name(name, len(part)): ranker_lists(learner, origin, fewer),
        _rows_name(name, len(rows)): of_all,
    }


def _rows_name(name: str, n_rows: int) -> str:
    return f"{name}, {n_rows:,} rows"


def _evaluation(found: Sequence[_Tested], n_items: int, seed: int) -> pd.DataFrame:
    """All periods' visits one after the other; what was not tried in a period has no figure there."""
    figures = [
        {name: figures_by_visit(lists, one.truth, n_items) for name, lists in one.lists.items()} | dict(one.retrieved)
        for one in found
    ]
    length = [len(one.truth.visits) for one in found]
    models = dict.fromkeys(name for of_period in figures for name in of_period)
    by_model: dict[str, Figures] = {}
    for model in models:
        keys = dict.fromkeys(key for of_period in figures for key in of_period.get(model, {}))
        by_model[model] = {
            key: np.concatenate(
                [of.get(model, {}).get(key, np.full(n, np.nan)) for of, n in zip(figures, length, strict=True)]
            )
            for key in keys
        }
    pairs = [(CHOSEN, other) for other in (TWIN, *BASELINES) if other in by_model]
    user = np.concatenate([one.truth.visits.user for one in found])
    table = compare(by_model, user, np.repeat(np.arange(len(found)), length), pairs, seed=seed)
    return pd.concat([table, _coverage(found, n_items)], ignore_index=True)


def _coverage(found: Sequence[_Tested], n_items: int) -> pd.DataFrame:
    """Share of the catalogue that any first ten of a test period holds; not a mean, so it has no interval."""
    rows = []
    for model in found[-1].lists:
        tops = [one.lists[model].top[:, :10] for one in found if model in one.lists]
        value = float(np.mean([len(np.unique(top[top >= 0])) / n_items for top in tops]))
        n_users = len(np.unique(np.concatenate([one.truth.visits.user for one in found])))
        rows.append((model, "all", "coverage_at_10", value, np.nan, np.nan, n_users))
    return pd.DataFrame(rows, columns=_COLUMNS)


def headline(evaluation: pd.DataFrame) -> dict[str, float]:
    """The figures one would ask for first."""
    rows = evaluation[(evaluation.slice == "all") & (evaluation.metric == "ndcg_at_10")].set_index("model")
    found = {f"{name} nDCG@10": rows.value[name] for name in (CHOSEN, TWIN, DIFFERENCE) if name in rows.index}
    if DIFFERENCE in rows.index:
        found |= {"gain_ndcg_ci_low": rows.ci_low[DIFFERENCE], "gain_ndcg_ci_high": rows.ci_high[DIFFERENCE]}
    return {name.replace(" ", "_"): float(value) for name, value in found.items()}


def chosen_rows(kept: Sequence[Kept], acts: Interactions) -> pd.DataFrame:
    """Rows of `sample_choice`: what a ranker learnt from."""
    parts = [
        pd.DataFrame(
            {
                "user_id": acts.user_ids[one.visits.user[one.rows.visit]],
                "day": pd.to_datetime(one.visits.day[one.rows.visit], unit="D"),
                "item_id": acts.item_ids[one.rows.item],
                "label": one.rows.taken.astype(float),
                "pilot_probability": one.pilot_probability,
                "prediction_gap": np.abs(one.rows.taken - one.pilot_probability),
                "chance": one.chance,
            }
        )
        for one in kept
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=schema.SAMPLE_CHOICE.column_names)
