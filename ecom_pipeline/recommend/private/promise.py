"""What private training is asked for, what it promises, and what it does not.

On the floor of `accounting`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ecom_pipeline.errors import InputError
from ecom_pipeline.recommend.private.accounting import Releases

UNIT = "user"
GIVEN = (
    "candidates and their columns: what goes together, popularity, repeats, usual gaps and prices are counted over all users",
    "which items are ranked, and how many users had a visit in the days that are learnt from",
    "figures of the evaluation, and whatever else lies beside the ranker: histories, lists, samples",
)
WEIGHTED = "the weighting of past acts, which was chosen on validation visits"
SEQUENCES = "the model of sequences, which learns from all users"


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """What private training is asked for. All but the first two were set on public data, and on no other.

    Attributes:
        epsilon: that all trainings of a run may spend together.
        delta: chance that more is spent; below one in the number of users.
        clip_norm: L2 norm of what one user adds to a step, at most.
        steps: of a training.
        sample_rate: chance of each user to be in a step; 1: all are in all.
        learning_rate: of a step along the mean gradient.
        momentum: of the steps.
        n_visits: of a user that are learnt from, at most.
        kept_share: of the candidates that were not taken, drawn row by row.
        user_share: chance of each user to be learnt from at all, by his id's hash; a number of users would say who else is there.
        n_trainings: on the same users, whose results may all be seen: the ranker and its twin.
    """

    epsilon: float
    delta: float = 1e-6
    clip_norm: float = 0.1
    steps: int = 60
    sample_rate: float = 1.0
    learning_rate: float = 5.0
    momentum: float = 0.9
    n_visits: int = 4
    kept_share: float = 0.1
    user_share: float = 1.0
    n_trainings: int = 2

    @property
    def releases(self) -> Releases:
        """All noisy sums that are let out."""
        return Releases(self.n_trainings * self.steps, self.sample_rate)


@dataclass(frozen=True, slots=True)
class Promise:
    """What holds of a ranker that learnt privately.

    Whoever has it can hardly tell whether one user's rows were among those that it learnt from: whatever he sees is at most
    e^epsilon times as likely with them as without, or the other way round, but for a chance of delta.

    Attributes:
        epsilon: spent by all trainings together, as the accountant has it.
        delta: at which.
        noise_multiplier: standard deviation of the noise in a sum, in clip norms.
        clip_norm: L2 norm of what one user adds to a sum, at most.
        sample_rate: chance of each user to be in a sum.
        steps: sums of a training.
        n_trainings: on the same users.
        n_users: that were learnt from.
        noise: where it came from.
        unit: whose rows come or go.
        given: what is taken as known, and not covered.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    clip_norm: float
    sample_rate: float
    steps: int
    n_trainings: int
    n_users: int
    noise: str
    unit: str = UNIT
    given: tuple[str, ...] = GIVEN

    @classmethod
    def of(cls, asked: PrivateTraining, n_users: int, *, noise: str, given: Sequence[str] = GIVEN) -> "Promise":
        """The least noise that keeps what was asked for.

        Raises:
            InputError: if there are too few users for it.
        """
        _require_users(asked, n_users)
        multiplier = asked.releases.noise_multiplier(asked.epsilon, asked.delta)
        _require_signal(asked, n_users, multiplier)
        return cls(
            epsilon=asked.releases.epsilon(multiplier, asked.delta),
            delta=asked.delta,
            noise_multiplier=multiplier,
            clip_norm=asked.clip_norm,
            sample_rate=asked.sample_rate,
            steps=asked.steps,
            n_trainings=asked.n_trainings,
            n_users=n_users,
            noise=noise,
            given=tuple(given),
        )

    def to_json(self) -> dict:
        """Plain values."""
        return {**asdict(self), "given": list(self.given)}

    @classmethod
    def from_json(cls, plain: dict) -> "Promise":
        """From `to_json`."""
        return cls(**{**plain, "given": tuple(plain["given"])})


def _require_users(asked: PrivateTraining, n_users: int) -> None:
    if asked.delta * n_users >= 1:
        raise InputError(
            f"private: delta is {asked.delta!r}, and {n_users} users are learnt from. It must be below one in their number, or "
            "whole users may be told: lower delta, or leave `private` out."
        )


def _require_signal(asked: PrivateTraining, n_users: int, multiplier: float) -> None:
    """In the mean over a training's steps, noise has this standard deviation in clip norms; all users together have 1."""
    noise = multiplier / (asked.steps**0.5 * asked.sample_rate * max(n_users, 1))
    if noise > 0.05:
        raise InputError(
            f"private: {n_users} users are too few for epsilon {asked.epsilon!r}: each coefficient would learn with noise of "
            f"{noise:.2f} of what all users together can say. It must be at most 0.05: raise epsilon, learn from longer "
            "periods, or leave `private` out."
        )
