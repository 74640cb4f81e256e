"""Do the intervals of `ranking.intervals` hold the truth? Groups and seeds drawn with known effects, many times.

    python benchmarks/interval_coverage.py [--runs 1000] [--draws 500]

A figure of seed s and group g is the truth, plus a normal effect of g (1), of s, and of both (0.5). What seeds bring is stated
as a multiple of what groups bring to the mean: 0, a third, as much, three times. Beside it the bootstrap that drew seeds from
the seeds at hand, which is too narrow by the square root of (S - 1) / S and knows nothing of Student's t. The last column has
skewed groups (an exponential). Bar: 94 to 96 %.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from ecom_pipeline.ranking.intervals import crossed_interval

SHARES = (0.0, 1 / 3, 1.0, 3.0)


def covered(n_seeds: int, n_groups: int, share: float, *, skewed: bool, options: argparse.Namespace) -> np.ndarray:
    """(2,) share of the runs in which the interval, and the plain bootstrap over both, hold the truth."""
    draw = np.random.default_rng([n_seeds, n_groups, int(10 * share), skewed])
    hit = np.zeros(2)
    for _ in range(options.runs):
        of_group = draw.exponential(size=n_groups) - 1 if skewed else draw.normal(size=n_groups)
        of_seed = draw.normal(size=(n_seeds, 1)) * share / np.sqrt(n_groups)
        figure = of_group + of_seed + 0.5 * draw.normal(size=(n_seeds, n_groups))
        times = draw.multinomial(n_groups, np.full(n_groups, 1 / n_groups), options.draws)
        drawn = figure @ np.vstack([np.ones(n_groups), times]).T / n_groups
        found = crossed_interval(drawn, n_groups)
        seeds = draw.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), options.draws) / n_seeds
        low, high = np.quantile((seeds * drawn[:, 1:].T).sum(1), [0.025, 0.975])
        hit += [found.low <= 0 <= found.high, low <= 0 <= high]
    return hit / options.runs


def main() -> None:
    """Print one row a number of seeds and groups."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500)
    options = parser.parse_args()
    print("| seeds | groups | " + " | ".join(f"seeds bring {share:.2g}" for share in SHARES) + " | skewed groups |")
    print("|---|---|" + "---|" * (len(SHARES) + 1))
    for n_seeds in (1, 2, 3, 5, 10):
        for n_groups in (27, 160, 1500):
            cases = [(share, False) for share in SHARES if n_seeds > 1 or share == 0] + [(0.0, True)]
            cells = [covered(n_seeds, n_groups, share, skewed=skewed, options=options) for share, skewed in cases]
            told = [f"{100 * cell[0]:.1f} ({100 * cell[1]:.1f})" for cell in cells]
            told[1:1] = [""] * (len(SHARES) + 1 - len(told))
            print(f"| {n_seeds} | {n_groups} | " + " | ".join(told) + " |", flush=True)


if __name__ == "__main__":
    main()
