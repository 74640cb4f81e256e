"""How much noise a promise needs, and what some noise promises: Google's `dp-accounting`, extra `private`.

On the floor of `noise`. Privacy loss distributions, rounded so that what is told is never less than what is spent.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import log, sqrt
from typing import Any

from ecom_pipeline.errors import InputError

_STEP = 1e-3  # of privacy losses, which are rounded up to multiples: an epsilon of 3 is told 1e-6 too high


@dataclass(frozen=True, slots=True)
class Releases:
    """Sums of users' clipped contributions that are let out, each with noise of its own.

    Attributes:
        n: how many, all trainings together.
        sample_rate: chance of each user to be in one, by a coin of its own; 1: all are in all.
    """

    n: int
    sample_rate: float = 1.0

    def epsilon(self, noise_multiplier: float, delta: float) -> float:
        """What is promised, at a delta, by noise of so many clip norms.

        Two sets of data are neighbours if one user's rows are in one and not in the other.

        Cost: without sampling milliseconds; with it about a second.

        Source: Gaussian mechanism composed exactly (Balle and Wang 2018 is its closed form); with sampling, Zhu, Dong and
        Wang 2022, as `PLDAccountant` has it.
        """
        return float(_accountant().compose(self.event(noise_multiplier)).get_epsilon(delta))

    def noise_multiplier(self, epsilon: float, delta: float) -> float:
        """The least noise, in clip norms, with which an epsilon holds at a delta.

        Cost: some twenty times that of `epsilon`, once a process.
        """
        return _least_noise(self, epsilon, delta)

    def event(self, noise_multiplier: float) -> Any:
        """All of them together, as the library has it."""
        accounting = accountants()
        one = accounting.GaussianDpEvent(noise_multiplier)
        if self.sample_rate < 1:
            one = accounting.PoissonSampledDpEvent(self.sample_rate, one)
        return accounting.SelfComposedDpEvent(one, self.n)


@lru_cache(maxsize=64)
def _least_noise(releases: Releases, epsilon: float, delta: float) -> float:
    accounting = accountants()
    usual = releases.sample_rate * sqrt(releases.n * 2 * log(1.25 / delta)) / epsilon  # of the textbook
    return float(
        accounting.calibrate_dp_mechanism(
            _accountant,
            releases.event,
            target_epsilon=epsilon,
            target_delta=delta,
            bracket_interval=accounting.LowerEndpointAndGuess(usual / 5, usual),
            tol=1e-4 * usual,
        )
    )


def _accountant() -> Any:
    return accountants().pld.PLDAccountant(value_discretization_interval=_STEP)


def accountants() -> Any:
    """The library.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import dp_accounting
    except ImportError as error:
        raise InputError(
            f"private: 1 package is missing: {error}. dp-accounting must be installed where a ranker is to learn privately, "
            "as nothing else says what is spent: pip install 'ecom-pipeline[private]', or leave `private` out."
        ) from error
    return dp_accounting
