"""Noise in whole numbers, so that no gap between floating-point numbers tells what it was added to.

On the lowest floor of `recommend.private`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ecom_pipeline.arrays import Bools, Floats, Ints

_BITS = 53  # of a float's mantissa


@dataclass(frozen=True, slots=True)
class RandomSource:
    """Where noise comes from.

    Attributes:
        draw: so many random bytes.
        name: for the manifest. A seed can be known: with one there is noise, and no promise.
        secure: whether nobody can foretell the bytes.
    """

    draw: Callable[[int], bytes]
    name: str
    secure: bool

    def uniform(self, size: int) -> Floats:
        """(size,) in (0, 1], each to its last bit: the smallest is 2^-107.

        Two words of 53 bits, so that small ones, which become the tail of a normal, are as exact as large ones.
        """
        high, low = np.frombuffer(self.draw(16 * size), np.uint64).reshape(2, size) >> np.uint64(64 - _BITS)
        return (high + (low + 0.5) * 2.0**-_BITS) * 2.0**-_BITS

    def chosen(self, size: int, share: float) -> Bools:
        """(size,) each true with the same chance, by a coin of its own: Poisson sampling."""
        return self.uniform(size) < share

    def whole_normal(self, size: int, sd: float) -> Ints:
        """(size,) normal with mean 0 and a standard deviation, rounded to whole numbers.

        Whole numbers plus a rounded normal are the rounding of whole numbers plus a normal, so what the Gaussian mechanism
        promises holds for the sum too. By inversion in the lower tail, where `ndtri` is exact to a few units of the last
        place.
        """
        from scipy.special import ndtri

        tail = ndtri(self.uniform(size) / 2)  # below 0
        sign = np.where(self.uniform(size) < 0.5, -1.0, 1.0)
        return np.rint(sign * tail * sd).astype(np.int64)


SYSTEM = RandomSource(os.urandom, "the operating system", secure=True)


def seeded(seed: int) -> RandomSource:
    """A source for measurements that are to come out the same again; whoever knows the seed can take the noise away."""
    return RandomSource(np.random.default_rng(seed).bytes, f"seed {seed}", secure=False)
