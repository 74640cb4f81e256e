"""How long do out-of-fold scores of many samples take, and in how much memory?

    python benchmarks/out_of_fold_scale.py --samples 1000000

Generated features of 384 dimensions in memory, two classes, 5 folds x 2 repeats, the whole grid of 6 penalties: 60 heads.
"""

import argparse
import resource
import sys
import time

import numpy as np

from ecom_pipeline.importance.estimator import one_hot
from ecom_pipeline.importance.folds import out_of_fold_scores


def main() -> None:
    """Print seconds, and the largest resident memory of the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    told = parser.parse_args()
    draw = np.random.default_rng(0)
    x = np.empty((told.samples, told.dimensions + 1), np.float32)
    for start in range(0, told.samples, 100_000):
        rows = x[start : start + 100_000]
        rows[:] = draw.standard_normal(rows.shape, dtype=np.float32)
    x[:, -1] = 1
    wanted = x[:, :50] @ draw.normal(size=50).astype(np.float32) / 5
    label = one_hot((wanted + draw.logistic(size=told.samples) > 0).astype(float))
    fold = np.column_stack([draw.permutation(told.samples) % 5 for _ in range(2)])
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    scores = out_of_fold_scores(x, label, fold, 5, "cpu")
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{told.samples:,} samples x {told.dimensions} dimensions, 60 heads: {seconds:.0f} s, "
        f"{after.ru_utime - before.ru_utime:.0f} s of CPU, peak {after.ru_maxrss / 2**20:.1f} GiB; loss "
        f"{scores.loss.mean():.4f} nats at penalty {scores.penalty:g}"
    )


if __name__ == "__main__":
    sys.exit(main())
