"""How often does the automatic choice take weights that gain nothing, and how often does it find those that do?

    python benchmarks/false_choices.py --runs 200

Validation figures are generated, everything else is `choose` as it is by default. Half of the training samples are good,
and of 8 estimators 3 see that through noise. Each sample pulls each validation group's figure its own way, so that
weightings that are alike make the same mistakes; any weighting differs from none by 0.1 in a group (standard deviation).
A true gain is that of every weighting whose correlation with what is good is at least 0.3.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ecom_pipeline.importance.selection import NONE, Search, Utility, choose, lay_out
from ecom_pipeline.importance.weights import lifted

N_SAMPLES, N_PENALTIES, PER_USER = 240, 5, 5
GOOD = np.arange(N_SAMPLES) % 2
LABEL, GROUP = np.arange(N_SAMPLES) // 2 % 2, np.arange(N_SAMPLES) // 12
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """How figures come about.

    Attributes:
        n_groups: of validation.
        gain: of weightings that follow what is good.
        tails: of a group's differences: normal, heavy (Student's t with 3 degrees of freedom) or skewed (exponential:
            most groups gain little and few lose much).
        alike: whether weightings that are alike make the same mistakes; else each makes its own.
        per_user: groups that share their differences.
    """

    n_groups: int
    gain: float = 0.0
    tails: str = "normal"
    alike: bool = True
    per_user: int = 1

    @property
    def user(self) -> NDArray[np.int64]:
        """(g,) of each group."""
        return np.arange(self.n_groups) // self.per_user

    def noise(self, draw: np.random.Generator, *shape: int) -> Floats:
        """(..., g) of mean 0 and standard deviation 1."""
        size = (*shape, self.user.max() + 1)
        kinds = {
            "normal": draw.standard_normal,
            "heavy": lambda size: draw.standard_t(3, size) / np.sqrt(3),
            "skewed": lambda size: 1 - draw.standard_exponential(size),
        }
        return kinds[self.tails](size)[..., self.user]

    def utility(self, draw: np.random.Generator) -> Utility:
        """Figures of weightings."""
        level = 0.6 + 0.01 * draw.normal(size=(N_PENALTIES, 1)) + 0.02 * self.noise(draw, N_PENALTIES)
        pull = self.noise(draw, N_SAMPLES)

        def of(weights: Floats) -> Floats:
            differs = np.ptp(weights, 0) > 0
            tilt = (weights - 1) / np.maximum(np.linalg.norm(weights - 1, axis=0), 1e-12)  # (n, t)
            own = tilt.T @ pull if self.alike else self.noise(draw, weights.shape[1]) * differs[:, None]
            helps = (GOOD - 0.5) @ tilt / np.linalg.norm(GOOD - 0.5) >= 0.3
            change = 0.1 * own[:, None] + 0.02 * self.noise(draw, weights.shape[1], N_PENALTIES)
            return level + differs[:, None, None] * (change + self.gain * helps[:, None, None])

        return of


def estimators(draw: np.random.Generator) -> dict[str, Floats]:
    """Values of 8 estimators, 3 of which see what is good."""
    return {f"estimator {i}": draw.normal(size=N_SAMPLES) + (2.0 * GOOD if i < 3 else 0) for i in range(8)}


def half_and_half(
    values: dict[str, Floats], utility: Utility, user: NDArray[np.int64], *, seed: int, level: float
) -> bool:
    """The simpler way: choose on one half of the users, and confirm by a paired t test on the other."""
    draw = np.random.default_rng(seed)
    tried = lay_out(sorted(values), n_trials=Search().n_trials, clip_quantile=0.99, draw=draw)
    weights = [how.weights(lifted(values[name]), LABEL.astype(float), GROUP) for name, how in tried]
    figures = utility(np.column_stack([np.ones(N_SAMPLES), *weights]))
    figures = figures.reshape(*figures.shape[:2], user.max() + 1, -1).mean(3)
    first = draw.permutation(figures.shape[2]) % 2 == 0
    seen = figures[:, :, first].mean(2)
    gain = (figures[np.unravel_index(seen.argmax(), seen.shape)] - figures[0, seen[0].argmax()])[~first]
    standard_error = gain.std(ddof=1) / np.sqrt(len(gain))
    return bool(gain.mean() > student.ppf(1 - level, len(gain) - 1) * standard_error > 0)


def shares(world: World, n_runs: int, *, clustered: bool = True) -> tuple[float, float, float]:
    """Runs in which weights were chosen; in which by the simpler way; and the mean of `gain` less the true one."""
    chosen, simpler, off = [], [], []
    for seed in range(n_runs):
        values = estimators(np.random.default_rng([seed, 1]))
        search = Search(seed=seed)
        found = choose(
            *(values, LABEL.astype(float), GROUP),
            utility=world.utility(np.random.default_rng([seed, 2])),
            search=search,
            cluster=world.user if clustered else None,
        )
        chosen.append(found.estimator != NONE)
        again = world.utility(np.random.default_rng([seed, 2]))
        simpler.append(half_and_half(values, again, world.user, seed=seed, level=1 - search.confidence))
        off.append(found.gain - world.gain)
    return float(np.mean(chosen)), float(np.mean(simpler)), float(np.mean(off))


def nulls() -> Iterator[tuple[str, World, bool]]:
    """Worlds in which no weighting gains anything."""
    for n_groups, tails, alike in itertools.product((20, 160, 1000), ("normal", "heavy", "skewed"), (True, False)):
        words = f"{n_groups} groups, {tails}, {'alike' if alike else 'each its own'}"
        yield words, World(n_groups, tails=tails, alike=alike), True
    for n_groups, clustered in itertools.product((160, 1000), (True, False)):
        words = f"{n_groups} groups of {n_groups // PER_USER} users, {'told' if clustered else 'not told'}"
        yield words, World(n_groups, per_user=PER_USER), clustered


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    n_runs = parser.parse_args().runs
    print(f"{'no weighting gains':<48}{'chosen':>10}{'halves':>10}{'gain':>10}")
    for words, world, clustered in nulls():
        chosen, simpler, off = shares(world, n_runs, clustered=clustered)
        print(f"{words:<48}{chosen:>10.1%}{simpler:>10.1%}{off:>+10.4f}", flush=True)
    print(f"\n{'true gain':<48}{'chosen':>10}{'halves':>10}{'off':>10}")
    for n_groups, gain in itertools.product((20, 160, 1000), (0.005, 0.01, 0.02, 0.04)):
        chosen, simpler, off = shares(World(n_groups, gain), n_runs)
        print(f"{f'{n_groups} groups, {gain:+.3f}':<48}{chosen:>10.1%}{simpler:>10.1%}{off:>+10.4f}", flush=True)


if __name__ == "__main__":
    main()
