"""Which weighting of interactions makes lists better? Tried on validation visits; none is chosen unless one gains for certain.

On the floor above `baselines`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats, Singles
from ecom_pipeline.importance.selection import most_certain
from ecom_pipeline.recommend.best import best_columns, top_items
from ecom_pipeline.recommend.interactions import KINDS, NEVER, Interactions, Visits
from ecom_pipeline.recommend.item_item import ItemItem, Neighbours, history_value
from ecom_pipeline.recommend.metrics import hits, ndcg
from ecom_pipeline.recommend.retrieval import evidence
from ecom_pipeline.recommend.weighting import IGNORED, UNWEIGHTED, Weighting

log = logging.getLogger(__name__)
# of the item-item channel beside the own history: each weighting has its best, the twin too. The last is a list of what is
# new alone: where nobody takes a thing twice, a weighting must gain over that, or it gains by hiding the own history
BLENDS = (0.0, 0.03, 0.3, 3.0, np.inf)
MOST_VISITS = 1200  # of one period that weightings are tried on
_HALF_LIVES = (4.0, 720.0)


@dataclass(frozen=True, slots=True)
class WeightingChoice:
    """What was chosen.

    Attributes:
        weighting: the one to use; `UNWEIGHTED` where none gains for certain.
        gain_low: what the most certain one gains at least, in nDCG@10.
        trials: rows of `interaction_trials`.
    """

    weighting: Weighting
    gain_low: float
    trials: pd.DataFrame


def chosen_weighting(db: DuckDBPyConnection) -> Weighting:
    """The weighting that `interaction_trials` chose."""
    row = db.execute("select * exclude (trial, utility, chosen) from interaction_trials where chosen").df()
    return Weighting(**row.iloc[0].to_dict())


def lay_out(acts: Interactions, *, n_trials: int, has_text: bool, draw: np.random.Generator) -> list[Weighting]:
    """Weightings that these interactions can tell apart, spread evenly over what each setting may be.

    Half of them vary age alone, which is what helped wherever anything did; a quarter vary the rest alone.

    Args:
        acts: says which kinds of act, pieces and returns there are.
        n_trials: how many.
        has_text: whether titles have vectors.
        draw: of the places.

    Source: Latin hypercube, McKay, Beckman and Conover 1979.
    """
    place = np.column_stack([(draw.permutation(n_trials) + draw.random(n_trials)) / n_trials for _ in range(6)])
    kinds = np.array([name == "purchase" for name in KINDS])
    n_acts = acts.n_acts.sum(0)
    mixed = n_acts[kinds].sum() > 0 and n_acts[~kinds].sum() > 0
    pieces = bool((acts.quantity > 1).any())
    returns = bool((acts.returned < NEVER).any())
    opinions = ("behaviour", "text") if has_text else ("behaviour",)
    found = []
    low, high = _HALF_LIVES
    for number, (form, age, kind, quantity, opinion, strength) in enumerate(place.tolist()):
        aged, rest = number % 4 != 3, number % 2 == 1
        found.append(
            Weighting(
                age_form=("exponential", "hyperbolic", "square_root")[int(form * 3)] if aged else "none",
                half_life=round(low * (high / low) ** age, 1) if aged else 60.0,
                light_act=round(0.1 + 0.9 * kind, 2) if mixed and rest else 1.0,
                quantity=round(quantity, 2) if pieces and rest else 0.0,
                returned=float(kind > 0.5) if returns and rest else 1.0,
                evidence=opinions[int(opinion * len(opinions))] if rest else "none",
                evidence_strength=round(0.25 + 1.75 * strength, 2) if rest else 0.0,
                ignored=IGNORED,
            )
        )
    return [one for one in dict.fromkeys(found) if not one.plain]


def lay_out_more(acts: Interactions, kinds: Sequence[str], *, n: int, draw: np.random.Generator) -> list[Weighting]:
    """Weightings by how acts came about: each kind that these interactions know in its turn, every second one with age.

    Args:
        acts: with their circumstances, or none are known.
        kinds: "position", "propensity" and "promotion", as columns of `Circumstances` are called.
        n: how many.
        draw: of the places.
    """
    how = acts.circumstances
    told = [kind for kind in kinds if how is not None and how.tells(kind)]
    if how is None or not told:
        return []
    usual = {kind: float(np.nanmedian(getattr(how, kind))) for kind in told}
    place = np.column_stack([(draw.permutation(n) + draw.random(n)) / n for _ in range(3)])
    found = []
    for number, (form, age, strength) in enumerate(place.tolist()):
        low, high = _HALF_LIVES
        kind, aged = told[number % len(told)], number // len(told) % 2 == 1
        found.append(
            Weighting(
                age_form=("exponential", "hyperbolic", "square_root")[int(form * 3)] if aged else "none",
                half_life=round(low * (high / low) ** age, 1) if aged else 60.0,
                by_position=round(strength, 2) if kind == "position" else 0.0,
                usual_position=usual[kind] if kind == "position" else 1.0,
                by_propensity=round(strength, 2) if kind == "propensity" else 0.0,
                usual_propensity=usual[kind] if kind == "propensity" else 1.0,
                promoted_act=round(2 * strength, 2) if kind == "promotion" else 1.0,
                ignored=IGNORED,
            )
        )
    return [one for one in dict.fromkeys(found) if not one.plain]


def choose_weighting(
    acts: Interactions,
    periods: Sequence[tuple[int, int]],
    *,
    n_trials: int,
    confidence: float,
    text: Singles | None,
    seed: int,
    n_processes: int = 1,
    more_kinds: Sequence[str] = (),
    n_more: int = 0,
) -> WeightingChoice:
    """Try weightings on next visits of some periods, and take the one whose gain is most certain.

    A list is the own history's weights plus a share of what an item-item model says of the weighted history, or that alone
    for what is new; the share is each weighting's best of a few, the unweighted twin's too. The rule is that of `importance.selection`: the bound
    looks at all trials together, drawing whole users.

    Args:
        acts: interactions.
        periods: first day and end of each.
        n_trials: weightings beside none.
        confidence: how sure one must be.
        text: (items, d) unit vectors, or None.
        seed: of the lay-out, the visits and the bootstrap.
        n_processes: in which periods are looked at.
        more_kinds: as in `lay_out_more`; the trials of these stand beside the others and change none of them.
        n_more: trials of these.

    Cost: for each trial and period, an item-item product and sort of at most 1200 visits x items.
    """
    from joblib import Parallel, delayed

    draw = np.random.default_rng(seed)
    more = lay_out_more(acts, more_kinds, n=n_more, draw=np.random.default_rng([seed, 1]))
    tried = [UNWEIGHTED, *lay_out(acts, n_trials=n_trials, has_text=text is not None, draw=draw), *more]
    asked = [(first, acts.next_visits(first, end)) for first, end in periods]
    asked = [(first, visits.only(np.sort(draw.permutation(len(visits))[:MOST_VISITS]))) for first, visits in asked]
    found = Parallel(n_jobs=n_processes)(delayed(_figures)(acts, visits, first, tried, text) for first, visits in asked)
    table = np.concatenate([np.empty((len(tried), len(BLENDS), 0)), *found], axis=2)  # there may be no period
    whose = np.concatenate([np.empty(0, np.int64), *(visits.user for _, visits in asked)])
    valid = np.isfinite(table).all((0, 1))
    best, gain_low = 0, 0.0
    if valid.sum() > 1 and len(tried) > 1:
        (trial, _), gain_low = most_certain(
            table[:, :, valid], np.unique(whose[valid], return_inverse=True)[1], confidence=confidence, draw=draw
        )
        best = int(trial) if gain_low > 0 else 0
    utility = table[:, :, valid].mean(2).max(1) if valid.any() else np.zeros(len(tried))
    rows = [
        {"trial": number, **one.settings(), "utility": utility[number], "chosen": number == best}
        for number, one in enumerate(tried)
    ]
    log.info("weighting %s of %d trials; gain at least %.4f", tried[best], len(tried) - 1, gain_low)
    return WeightingChoice(tried[best], gain_low, pd.DataFrame(rows))


def _figures(acts: Interactions, visits: Visits, day: int, tried: Sequence[Weighting], text: Singles | None) -> Floats:
    """(t, blends, v) nDCG@10."""
    known = acts.before(day)
    taken = known.matrix(np.ones(len(known), np.float32))
    taken.data[:] = 1
    together = Neighbours.fit(taken, 100)
    at, item = acts.taken(visits)
    n_taken = np.bincount(at, minlength=len(visits))
    found = np.empty((len(tried), len(BLENDS), len(visits)))
    pairs, pair = known.pairs()
    opinions = {}
    for kind in {one.evidence for one in tried}:
        asked = evidence(
            known, pairs, pair, day=day, weighting=Weighting(evidence=kind, evidence_strength=1.0), text=text
        )
        opinions[kind] = None if asked is None else asked[pair]
    for number, weighting in enumerate(tried):
        matrix = known.matrix(weighting.as_of(known, day, opinions[weighting.evidence]))
        found[number] = blended_ndcg(matrix, together, visits, (at, item, n_taken))
    return found


def blended_ndcg(
    matrix: sparse.csr_matrix, together: ItemItem, visits: Visits, truth: tuple[NDArray, NDArray, NDArray]
) -> Floats:
    """(blends, v) nDCG@10 of lists from weights of every user's items."""
    at, item, n_taken = truth
    found = np.empty((len(BLENDS), len(visits)))
    for rows in visits.blocks(max(8, 10_000_000 // matrix.shape[1])):
        own = matrix[visits.user[rows]]
        value = own.copy()
        value.data = history_value(value.data)
        others = together.scores(value)
        others /= np.maximum(others.sum(1, keepdims=True), 1e-9)
        # whatever the blend, a list holds nothing but own items and the best ten of the others
        cells = own.tocoo()  # an act that weighs 0 is a cell too
        visit, code = cells.row, cells.col
        share = own.data / np.maximum(np.asarray(own.sum(1)).ravel(), 1e-9)[visit]
        beside = others[visit, code]
        others[visit, code] = -np.inf
        best = best_columns(others, 10)
        n, k = best.shape
        new = np.r_[np.zeros(len(visit), bool), np.ones(n * k, bool)]
        visit, code = np.r_[visit, np.repeat(np.arange(n), k)], np.r_[code, best.ravel()]
        share = np.r_[share, np.zeros(n * k)]
        beside = np.r_[beside, np.take_along_axis(others, best, 1).ravel()]
        shown = np.isfinite(beside)
        visit, code, share, beside, new = visit[shown], code[shown], share[shown], beside[shown], new[shown]
        inside = (at >= rows.start) & (at < rows.stop)
        for place, blend in enumerate(BLENDS):
            score = share + blend * beside if np.isfinite(blend) else np.where(new, beside, -np.inf)
            top = top_items(visit, code, score, n_visits=n, k=10)
            hit = hits(top, at[inside] - rows.start, item[inside], matrix.shape[1])
            found[place, rows] = ndcg(hit, n_taken[rows])
    return found
