"""Learn from clicks, be judged on relevance: does weighting clicks by the inverse of their examination help?

    python benchmarks/position_bias.py ../shared/data/crowdflower ../shared/data/retrotech

Queries are CrowdFlower's. A logging ranker, with noise from session to session, shows 20 items; a position is examined
by a known curve, an examined item is clicked the more often the better its grade. There are three such rankers:
`cosine` of the texts, which is a fair one; `unrelated`, of the first ten principal components of the features the one
that correlates least with the gain; `contrary`, the one of them that correlates most, the wrong way round. Heads see
what all three sort by. They learn from the clicks alone: as they come, or weighted. Every side has its
own penalty out of one grid, the one with the highest nDCG@10 on the judged relevance of the validation queries. Five
rotations, so that each query is tested once; paired bootstrap over all of them, seeds of clicks averaged within a query
first. The gain of nDCG is 2^(grade - 1) - 1: grades are 1 to 4, and the lowest is worth nothing.

`--cache` keeps the features between runs.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.bias import InverseExamination
from ecom_pipeline.importance.examination import AllPairs, ClickCounts, PositionBasedModel
from ecom_pipeline.importance.heads import Weighted, fit_heads
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.ranking.evaluation import Rows, evaluate
from ecom_pipeline.ranking.metrics import ndcg_at_k, ranks
from ecom_pipeline.samples import fold_of

N_ROTATIONS, N_COMPONENTS, PAGE = 5, 50, 20
NOISE = 0.5  # of the logging ranker's sessions, in spreads of its score
CARELESS = 0.1  # share of examined items of the lowest grade that are clicked, as in Ai et al. 2018
LOGGERS = ("cosine", "unrelated", "contrary")
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class Shop:
    """All judged pairs: (n,) group, gain and label; and what heads see."""

    group: np.ndarray
    group_id: np.ndarray
    gain: np.ndarray
    label: np.ndarray
    pairs: PairFeatures

    @property
    def attraction(self) -> np.ndarray:
        """Share of examinations that end in a click."""
        return CARELESS + (1 - CARELESS) * self.gain / 7

    def logged_score(self, logger: str, projected: np.ndarray) -> np.ndarray:
        """What the logging ranker sorts by, in spreads."""
        score = self.pairs.match[:, 0]
        related = np.array([np.corrcoef(column, self.gain)[0, 1] for column in projected[:, :10].T])
        if logger == "unrelated":
            score = projected[:, np.abs(related).argmin()]
        if logger == "contrary":
            most = np.abs(related).argmax()
            score = -np.sign(related[most]) * projected[:, most]
        return (score / score.std()).astype(float)


@dataclass(frozen=True)
class Clicks:
    """Impressions: (i,) row of the pair, position from 1, and whether it was clicked."""

    row: np.ndarray
    position: np.ndarray
    clicked: np.ndarray


def main() -> None:
    """Print a table for each curve and number of sessions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crowdflower")
    parser.add_argument("retrotech", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sessions", type=int, nargs="+", default=[5, 20, 100])
    parser.add_argument("--loggers", nargs="+", choices=LOGGERS, default=list(LOGGERS))
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    shop = read(arguments.crowdflower, arguments.cache)
    place = np.arange(1, PAGE + 1.0)
    curves = {"1/k": 1 / place, "1/k^2": place**-2, "RetroTech": retrotech_curve(arguments.retrotech)[:PAGE]}
    for n_sessions in arguments.sessions:
        for name, curve in curves.items():
            for logger in arguments.loggers:
                compare(shop, name, curve, logger, n_sessions, arguments.seeds)


def read(folder: str, cache: Path | None) -> Shop:
    """The judged pairs as the pipeline makes them."""
    if cache and (cache / "features.npz").exists():
        samples, stored = pd.read_parquet(cache / "samples.parquet"), np.load(cache / "features.npz")
        pairs = PairFeatures(stored["meeting"], stored["match"])
    else:
        from search_data import load  # the pipeline's preparation: not needed where features are kept

        samples, pairs = load(folder)
        if cache:
            cache.mkdir(parents=True, exist_ok=True)
            samples.to_parquet(cache / "samples.parquet")
            np.savez(cache / "features.npz", meeting=pairs.meeting, match=pairs.match)
    group = np.unique(samples.group_id, return_inverse=True)[1]
    gain = 2.0 ** (samples.relevance.to_numpy() - 1) - 1
    return Shop(group, samples.group_id.to_numpy(), gain, samples.label.to_numpy(), pairs)


def retrotech_curve(folder: Path) -> np.ndarray:
    """Both fits of a log with 1.775 million impressions; the first is returned."""
    log = pd.read_parquet(folder / "sessions.parquet")
    counts = ClickCounts.of(log["query"], log.doc_id, log["rank"] + 1, log.clicked)
    fits = [kind().fit(counts) for kind in (AllPairs, PositionBasedModel)]
    print(
        f"RetroTech, {counts.n_shown.sum():.0f} impressions; standard errors over its {counts.query.max() + 1} queries"
    )
    for k in (1, 2, 3, 5, 10, 20, 30):
        told = "  ".join(f"{f.examination[k - 1]:.4f} (se {f.stderr[k - 1]:.4f})" for f in fits)
        print(f"  position {k:>2}: harvested, position-based model  {told}")
    return fits[0].examination


def simulate(shop: Shop, rows: np.ndarray, logged: np.ndarray, curve: np.ndarray, n_sessions: int, seed: int) -> Clicks:
    """Sessions of every query among the rows."""
    generator = np.random.default_rng(seed)
    parts = []
    for _ in range(n_sessions):
        score = logged + NOISE * generator.gumbel(size=len(rows))
        rank = ranks(shop.group[rows], score)
        shown = rank <= PAGE
        chance = curve[rank[shown] - 1] * shop.attraction[rows][shown]
        parts.append((np.flatnonzero(shown), rank[shown], generator.random(shown.sum()) < chance))
    return Clicks(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def weighed(clicks: Clicks, n: int, estimator: InverseExamination | None) -> np.ndarray:
    """(2, n) weight of each pair as a positive and as a negative, summed over its impressions."""
    value = np.ones(len(clicks.row))
    if estimator:
        value = estimator.fit(Evidence(label=one_hot(clicks.clicked), position=clicks.position)).value
    return np.stack([np.bincount(clicks.row, value * (clicks.clicked == took), n) for took in (True, False)])


def unbiased(clicks: Clicks, n: int, curve: np.ndarray) -> np.ndarray:
    """(2, n) the pointwise loss of Saito et al. 2020: a click is 1/p positive and 1 - 1/p negative."""
    positive = np.bincount(clicks.row, clicks.clicked / curve[clicks.position - 1], n)
    return np.stack([positive, np.bincount(clicks.row, minlength=n) - positive])


def sides(shop: Shop, rows: np.ndarray, clicks: Clicks, curve: np.ndarray, error: dict) -> dict[str, np.ndarray]:
    """What each side learns from: (2, n) weights of positives and negatives."""
    counts = ClickCounts.of(shop.group[rows][clicks.row], clicks.row, clicks.position, clicks.clicked)
    fitted = {kind.__name__: kind(n_bootstrap=0).fit(counts).examination for kind in (AllPairs, PositionBasedModel)}
    for name, found in fitted.items():
        error.setdefault(name, []).append(np.abs(np.log(found[1:] / curve[1 : len(found)] * curve[0])).mean())
    weigh = partial(weighed, clicks, len(rows))
    given = partial(InverseExamination, tuple(curve))
    return {
        "naive": weigh(None),
        "IPW, true curve": weigh(given(clip=np.inf, self_normalised=False)),
        "IPW, true, self-normalised": weigh(given()),
        "IPW, true, clip 0.03": weigh(given(clip=0.03)),
        "IPW, harvested": weigh(InverseExamination(tuple(fitted["AllPairs"]))),
        "IPW, position-based model": weigh(InverseExamination(tuple(fitted["PositionBasedModel"]))),
        "unbiased pointwise, true curve": unbiased(clicks, len(rows), curve),
    }


def compare(shop: Shop, name: str, curve: np.ndarray, logger: str, n_sessions: int, n_seeds: int) -> None:
    """All sides on all rotations and seeds."""
    rotation = np.array(fold_of(shop.group_id, N_ROTATIONS, 0))
    scores = {"logging ranker": np.zeros((n_seeds, len(rotation)))}
    error: dict[str, list] = {}
    chosen: dict[str, list] = {}
    n_clicks = []
    for test in range(N_ROTATIONS):
        held = (rotation == test, rotation == (test + 1) % N_ROTATIONS)
        rows = np.flatnonzero(~(held[0] | held[1]))
        projected = Projection.fit(shop.pairs.rows(rows), N_COMPONENTS).apply(shop.pairs)
        logged = shop.logged_score(logger, projected)
        scores["logging ranker"][:, held[0]] = logged[held[0]]
        attraction = shop.attraction[rows]
        members = {("oracle", None): np.stack([attraction, 1 - attraction])}  # the same whatever the seed
        for seed in range(n_seeds):
            clicks = simulate(shop, rows, logged[rows], curve, n_sessions, seed)
            n_clicks.append(clicks.clicked.sum())
            members |= {(side, seed): w for side, w in sides(shop, rows, clicks, curve, error).items()}
        x, x_test, x_held = (torch.as_tensor(projected[part]) for part in (rows, *held))
        weight = torch.as_tensor(np.stack([w.ravel() for w in members.values()], 1), dtype=torch.float32)
        y = torch.as_tensor(one_hot(np.repeat([1.0, 0.0], len(rows))), dtype=torch.float32)
        heads = fit_heads(torch.cat([x, x]), y, Weighted(weight), PENALTIES)[:, 0]  # (d, p, m)
        for member, (side, seed) in enumerate(members):
            best = _best_penalty(shop, held[1], x_held @ heads[:, :, member])
            chosen.setdefault(side, []).append(PENALTIES[best])
            place = scores.setdefault(side, np.zeros((n_seeds, len(rotation))))
            place[slice(None) if seed is None else seed, held[0]] = (x_test @ heads[:, best, member]).numpy()
    errors = ", ".join(f"{kind} {np.mean(found):.3f}" for kind, found in error.items())
    print(f"\nexamination {name}, logging ranker {logger}, {n_sessions} sessions a query, {n_seeds} seeds")
    print(f"  {np.mean(n_clicks):.0f} training clicks; mean |log error| of the curve, positions 2..{PAGE}: {errors}")
    _print(shop, scores, chosen)


def _best_penalty(shop: Shop, held: np.ndarray, score: torch.Tensor) -> int:
    group = np.unique(shop.group[held], return_inverse=True)[1]
    ndcg = [np.nanmean(ndcg_at_k(group, shop.gain[held], s, 10)) for s in score.double().numpy().T]
    return int(np.argmax(ndcg))


def _print(shop: Shop, scores: dict, chosen: dict) -> None:
    against = [(side, "naive") for side in scores if side != "naive"]
    everything = {"all": np.ones(len(shop.group), bool)}
    table = evaluate(Rows(shop.group, shop.label, shop.gain), scores, everything, [], against, "test", 0)
    table = table[table.metric == "ndcg_at_10"].set_index("model")
    for side in scores:
        line = f"  {side:<32} nDCG@10 {table.value[side]:.4f}"
        if side != "naive":
            gap = table.loc[f"{side} - naive"]
            line += f"  minus naive {gap.value:+.4f} [{gap.ci_low:+.4f}, {gap.ci_high:+.4f}]"
        if side in chosen:
            line += f"  median penalty {np.median(chosen[side]):g}"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
