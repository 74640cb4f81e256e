"""Which samples are nearest: exact distances, ranks with ties in row order, and the nearest few, in blocks.

On the floor of `importance`. No matrix of all pairs is ever held.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ecom_pipeline.arrays import Singles
from ecom_pipeline.errors import SampleError

if TYPE_CHECKING:
    import torch

Metric = Literal["euclidean", "cosine"]
PAIRS = 1 << 22  # distances at a time: 32 MiB. Less fits the cache better, but threads then wait for one another more
_ASKING, _SEARCHED = (
    64,
    1 << 12,
)  # judges and samples at a time when only the nearest are wanted: 2 MiB stay in the cache
_GRID_BITS = 25.4  # the longest row is at most so many bits long: sums of products stay below 2**53, hence exact


@dataclass(frozen=True, slots=True)
class Distances:
    """How far is each sample from those who judge it?

    Rows are rounded to a grid, so that squared distances are whole numbers and come out exact: rounding errors would
    put copies of a sample at different distances, in an order that depends on the device and the number of threads. The
    grid is a power of two, about 2**-25 of the longest row from the middle; whole numbers of moderate size are on it
    themselves. One row much longer than all others makes it coarse for them.

    Attributes:
        samples: (n, d + 2) float64 rows in steps of the grid, their squared lengths, and 1.
        judges: (m, d + 2) the same of the judges.
        step: of the grid, in units of the features; under cosine of rows of length 1.
        metric: euclidean, or cosine (1 - cosine of the angle; a row of zeros is at distance 1 from everything).
        is_own: whether the judges are the samples themselves.
    """

    samples: "torch.Tensor"
    judges: "torch.Tensor"
    step: float
    metric: Metric
    is_own: bool

    @classmethod
    def between(cls, features: Singles, judges: Singles | None, metric: Metric, device: str) -> "Distances":
        """From samples to judges.

        Args:
            features: (n, d) float32; the last column is the constant 1 and left out.
            judges: (m, d) the same; None: every sample judges all others.
            metric: see above.
            device: of torch.

        Raises:
            SampleError: if there are no rows, or features that are not finite.

        Cost: O((n + m) d) time and memory; not random.
        """
        import torch

        sources = [features] if judges is None else [features, judges]
        tables = [_table(rows, metric, device) for rows in sources]
        parts = [table[:, :-2] for table in tables]
        middle = torch.zeros_like(parts[0][0])
        if metric == "euclidean":
            low = torch.stack([part.amin(0) for part in parts]).amin(0)
            middle = (low + torch.stack([part.amax(0) for part in parts]).amax(0)) / 2
        longest = math.sqrt(max(float(_squared_lengths(part, middle).max()) for part in parts))
        step = 2.0 ** math.ceil(math.log2(longest) - _GRID_BITS) if longest else 1.0
        for table, part in zip(tables, parts, strict=True):
            part.div_(step).round_().sub_((middle / step).round())
            table[:, -2] = _squared_lengths(part, torch.zeros_like(middle))
            if metric == "cosine":
                table[:, -2].masked_fill_(table[:, -2] == 0, step**-2)  # no direction: right angles to all
        return cls(tables[0], tables[-1], step, metric, judges is None)

    @property
    def n_asked(self) -> int:
        """How many samples a judge may ask: not itself."""
        return len(self.samples) - self.is_own

    def squared(self, rows: slice, columns: slice = slice(0, None)) -> "torch.Tensor":
        """(b, n) squared distances of some judges to some samples, in steps; infinite to itself."""
        judges = self.judges[rows].clone()
        judges[:, :-2] *= -2
        judges[:, -2:] = judges[:, -2:].flip(1)
        result = judges @ self.samples[columns].T  # -2 z x + 1 x x + z z 1
        if self.is_own:
            result.diagonal(rows.start - columns.start).fill_(math.inf)
        return result

    def nearest(
        self, k: int, group: "torch.Tensor | None" = None
    ) -> Iterator[tuple[slice, "torch.Tensor", "torch.Tensor"]]:
        """Who are the nearest to each judge?

        Args:
            k: how many are wanted.
            group: (n,) a judge does not ask samples of its own group; only where samples judge one another.

        Yields:
            A block of judges; (b, min(k, n_asked)) rows of the samples, nearest first, equal distances in row order;
            and their squared distances in steps, up to a part in 2**51 / n above exact, infinite for those who may not
            be asked.

        Cost: O(m n d) time, O(m k) memory for all blocks; not random.
        """
        import torch

        n = len(self.samples)
        mask = _row_mask(n)
        for rows in blocks(len(self.judges), _ASKING):
            best = torch.empty(rows.stop - rows.start, 0, dtype=torch.int64, device=self.samples.device)
            for columns in blocks(n, _SEARCHED):
                squared = self.squared(rows, columns)
                if group is not None:
                    squared.masked_fill_(group[rows, None] == group[columns], math.inf)
                found = torch.cat([best, _key(squared, columns.start, n)], 1)
                best = found.topk(min(k, self.n_asked, found.shape[1]), 1, largest=False).values
            rounded_down = (best & ~mask).view(torch.float64)
            yield rows, best & mask, rounded_down * (1 + (mask + 1) * 2.0**-52)

    def distance(self, squared_steps: float) -> float:
        """In units of the metric."""
        squared = squared_steps * self.step**2
        return squared / 2 if self.metric == "cosine" else math.sqrt(squared)

    def squared_steps(self, distance: float) -> float:
        """The inverse of `distance`."""
        return (2 * distance if self.metric == "cosine" else distance**2) / self.step**2


def nearest_first(squared: "torch.Tensor") -> "torch.Tensor":
    """(b, n) rows of the samples by distance, equal ones in row order; overwrites the distances.

    Cost: O(b n log n).

    >>> import torch
    >>> nearest_first(torch.tensor([[4.0, 0.0, 9.0, 0.0]], dtype=torch.float64)).tolist()
    [[1, 3, 0, 2]]
    """
    import torch

    key = _key(squared, 0, squared.shape[1])
    if key.device.type != "cpu":
        key = key.sort(1).values
    else:  # numpy sorts 64-bit numbers in place over ten times as fast as torch, and lets other threads run
        parts = np.array_split(key.numpy(), torch.get_num_threads())
        with ThreadPoolExecutor(len(parts)) as threads:
            list(threads.map(lambda part: part.sort(1), parts))
    return key.bitwise_and_(_row_mask(squared.shape[1]))


def blocks(n: int, size: int) -> list[slice]:
    """Parts of n rows, of this size, or 1 if it is less."""
    size = max(size, 1)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _row_mask(n: int) -> int:
    return (1 << (n - 1).bit_length()) - 1


def _key(squared: "torch.Tensor", first: int, n: int) -> "torch.Tensor":
    """(b, columns) int64 in the order of the distances, equal ones by row, whose number is in the last bits.

    The bits of floats >= 0 are in the order of the floats, and of n rows those that differ by more than a part in
    2**51 / n are still told apart.
    """
    import torch

    key = squared.view(torch.int64).bitwise_and_(~_row_mask(n))
    return key.bitwise_or_(torch.arange(first, first + squared.shape[1], device=key.device))


def _table(features: Singles, metric: Metric, device: str) -> "torch.Tensor":
    """(n, d + 1) float64: features without the constant column, then room for squared lengths, then 1."""
    import torch

    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if bad.size or not len(features):
        raise SampleError(
            f"features: {bad.size} of {len(features)} samples have values that are not finite; the first is row "
            f"{int(bad[0]) if bad.size else None!r}. There must be samples, with finite features: repair or drop them."
        )
    table = torch.ones(len(features), features.shape[1] + 1, dtype=torch.float64, device=device)
    table[:, :-2] = torch.as_tensor(features[:, :-1], device=device)
    if metric == "cosine":
        length = _squared_lengths(table[:, :-2], torch.zeros_like(table[0, :-2])).sqrt_()
        table[:, :-2] /= length.masked_fill_(length == 0, 1)[:, None]
    return table


def _squared_lengths(rows: "torch.Tensor", middle: "torch.Tensor") -> "torch.Tensor":
    """(n,) from the middle."""
    import torch

    return torch.cat([(rows[part] - middle).square_().sum(1) for part in blocks(len(rows), _SEARCHED)])
