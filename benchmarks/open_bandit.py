"""Learn clicks from a bandit's log, be judged on a uniformly random log: do weights against the bandit's choices help?

    python benchmarks/open_bandit.py ../shared/data/obp

The Open Bandit sample: three campaigns, each logged by Bernoulli Thompson sampling and by drawing items at random, with
true propensities. Heads learn from the bandit's log alone. The random log is an unbiased test: it is cut in two by
chance, one half chooses each side's penalty by its log loss, the other is judged, and the reverse; as often as there
are seeds. Intervals by bootstrap over the impressions judged, paired.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR, Evidence, SampleValues, one_hot
from ecom_pipeline.importance.estimators.bias import DensityRatio, InversePropensity
from ecom_pipeline.importance.heads import Weighted, fit_heads
from ecom_pipeline.importance.weights import ess_share

CAMPAIGNS = ("all", "men", "women")
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
N_DRAWS = 1000
CLIPS = {"": 1.0, ", clip 0.1": 0.1, ", clip 0.03": 0.03}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    log, x = read(arguments.folder)
    bandit = (log.behavior_policy == "bts").to_numpy()
    clicked = log.click.to_numpy().astype(float)
    for name, rows in (("learned from", bandit), ("judged on", ~bandit)):
        rate = clicked[rows].mean()
        print(f"{name}: {rows.sum()} impressions, {clicked[rows].sum():.0f} clicks, {rate:.3%}, {x.shape[1]} features")
    bench = Bench(log[bandit], x[bandit], clicked[bandit], log[~bandit], x[~bandit], clicked[~bandit])
    same = {name: bench.chances(bench.weights(weigh)) for name, weigh in inverse_sides().items()}
    scores = {"constant": [np.full(len(bench.truth), bench.clicked.mean())]}
    for seed in range(arguments.seeds):
        half = np.random.default_rng(seed).random(len(bench.truth)) < 0.5
        ratio = bench.chances(bench.weights(DensityRatio(clip=0.1, penalties=(1e-3, 1e-2), seed=seed).fit, half))
        for side, chance in {**same, "density ratio, clip 0.1": ratio}.items():
            scores.setdefault(side, []).append(bench.chosen(chance, half))
    report(bench.truth, scores)


def read(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The log, and (n, d) what heads see: campaign with item, user, position, and the item's own features."""
    log = pd.read_parquet(folder / "obd_sample.parquet")
    affinity = np.nan_to_num(log.filter(like="user-item_affinity_").to_numpy(float))
    own = affinity[np.arange(len(log)), log.item_id.to_numpy()]
    contexts = [pd.read_parquet(folder / f"item_context_{name}.parquet").assign(campaign=name) for name in CAMPAIGNS]
    log = log[["behavior_policy", "campaign", "item_id", "position", "click", "propensity_score"]].join(
        log.filter(like="user_feature_")
    )
    told = log.merge(pd.concat(contexts), on=["campaign", "item_id"], how="left", validate="many_to_one")
    told["item"] = told.campaign + told.item_id.astype(str)
    told["place"] = told.campaign + told.position.astype(str)
    several = [
        name for name in told if name.startswith(("user_feature_", "item_feature_")) and name != "item_feature_0"
    ]
    columns = pd.get_dummies(told[["item", "place", *several]].astype(str), dtype=np.float32).to_numpy()
    number = told.item_feature_0.to_numpy(np.float32)[:, None]
    return log, np.hstack([columns, number, own[:, None], np.ones((len(log), 1))]).astype(np.float32)


def inverse_sides() -> dict[str, Callable[[Evidence], SampleValues]]:
    """How each side that asks the propensities weighs the rows of one campaign."""
    clipped = {f"IPW{name}": InversePropensity("bandit", clip).fit for name, clip in CLIPS.items()}
    return {
        "naive": lambda evidence: SampleValues(np.ones(len(evidence))),
        "IPW, not clipped": InversePropensity("bandit", np.inf).fit,
        **clipped,
    }


@dataclass(frozen=True)
class Bench:
    """The bandit's rows, what heads see of them and their clicks; the same of the random log."""

    log: pd.DataFrame
    x: np.ndarray
    clicked: np.ndarray
    random_log: pd.DataFrame
    x_random: np.ndarray
    truth: np.ndarray

    def weights(self, fit: Callable[[Evidence], SampleValues], half: np.ndarray | None = None) -> np.ndarray:
        """(n,) weights; the features of a half of the random log, without its clicks, are the target."""
        weight = np.empty(len(self.log))
        for one in CAMPAIGNS:  # each has its own number of items, and so its own scale of propensities
            rows = (self.log.campaign == one).to_numpy()
            aim = (self.random_log.campaign == one).to_numpy() & (True if half is None else half)
            propensity = self.log.propensity_score.to_numpy()[rows]
            weight[rows] = fit(
                Evidence(
                    label=one_hot(self.clicked[rows]),
                    propensity=propensity,
                    features=self.x[rows],
                    target=self.x_random[aim],
                )
            ).value
        return weight

    def chances(self, weight: np.ndarray) -> np.ndarray:
        """(n_random, p) probability of a click by heads of each penalty."""
        print(f"  effective sample size {ess_share(weight):.1%}, largest weight {weight.max():.1f}", flush=True)
        x, y, w = (
            torch.as_tensor(values, dtype=torch.float32) for values in (self.x, one_hot(self.clicked), weight[:, None])
        )
        heads = fit_heads(x, y, Weighted(w), GRID)[:, 0, :, 0]
        chance = torch.sigmoid(torch.as_tensor(self.x_random) @ heads).double().numpy()
        return np.clip(chance, CREDIBLE_FLOOR, 1 - CREDIBLE_FLOOR)

    def chosen(self, chance: np.ndarray, half: np.ndarray) -> np.ndarray:
        """(n_random,) probabilities of each half under the penalty that the other half chose."""
        loss = -np.log(np.where(self.truth[:, None] > 0, chance, 1 - chance))
        score = np.empty(len(self.truth))
        for part in (half, ~half):
            score[part] = chance[part, loss[~part].mean(0).argmin()]
        return score


def report(clicked: np.ndarray, scores: dict) -> None:
    """Means over seeds, and paired intervals of the difference from naive."""
    generator = np.random.default_rng(0)
    n = len(clicked)
    draws = np.vstack([np.ones(n), generator.multinomial(n, np.full(n, 1 / n), N_DRAWS)]).astype(np.float32)
    likelihood = {side: np.where(clicked > 0, np.stack(s), 1 - np.stack(s)) for side, s in scores.items()}
    loss = {side: draws @ -np.log(found).mean(0) / n for side, found in likelihood.items()}
    auc = {side: np.mean([_auc(clicked, score, draws) for score in values], 0) for side, values in scores.items()}
    print(f"{len(scores['naive'])} seeds of the cut; means, and differences from naive with 95 % intervals")
    for side in scores:
        line = f"  {side:<26}"
        for name, figures, unit in (("log loss, millinats", loss, 1000), ("AUC", auc, 1)):
            gap = (figures[side] - figures["naive"]) * unit
            low, high = np.quantile(gap[1:], [0.025, 0.975])
            line += f"  {name} {figures[side][0] * unit:.4f} ({gap[0]:+.4f} [{low:+.4f}, {high:+.4f}])"
        low, high = np.quantile(auc[side][1:], [0.025, 0.975])
        print(f"{line}  AUC itself [{low:.3f}, {high:.3f}]", flush=True)


def _auc(clicked: np.ndarray, score: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(draws,) chance that a click scores above a skip, rows counted as often as drawn."""
    order = np.argsort(score, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    result = []
    for some in np.array_split(draws, 20):
        drawn = some[:, order].astype(float)
        hit = np.add.reduceat(drawn * clicked[order], start, 1)
        miss = np.add.reduceat(drawn * (1 - clicked[order]), start, 1)
        below = np.cumsum(miss, 1) - miss / 2
        result.append((hit * below).sum(1) / (hit.sum(1) * miss.sum(1)))
    return np.concatenate(result)


if __name__ == "__main__":
    sys.exit(main())
