"""Gradient steps in which no user counts for more than a norm, and noise hides what one user adds (DP-SGD by users).

On the floor of `rows`.
"""

import logging

import numpy as np
import scipy.sparse as sparse

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.recommend.private.noise import RandomSource
from ecom_pipeline.recommend.private.promise import PrivateTraining
from ecom_pipeline.recommend.private.rows import UserRows

log = logging.getLogger(__name__)
START = -2.0  # the constant where learning begins: about one in eight kept rows was taken, in whichever shop
GRID = 2**16  # whole numbers in a standard deviation of the noise


def user_gradients(rows: UserRows, coefficients: Floats) -> Floats:
    """(u, d + 1) gradient of each user's mean logistic loss.

    In double precision: what is rounded afterwards must not hang on where in memory other users' rows lie.

    Cost: O(n d) time; memory of the result.
    """
    n = np.diff(rows.start)
    off = 1 / (1 + np.exp(-(rows.x @ coefficients[:-1] + coefficients[-1]))) - rows.taken
    off /= np.repeat(n, n)
    of_user = sparse.csr_matrix((off, np.arange(len(off)), rows.start), shape=(rows.n_users, len(off)))
    return np.column_stack([of_user @ rows.x, np.asarray(of_user.sum(1))])


def clipped(gradient: Floats, norm: float) -> Floats:
    """(u, d) each row as it is, or shortened to a norm."""
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    return gradient * np.minimum(1, norm / np.maximum(length, 1e-300))


def whole_parts(gradient: Floats, norm: float, unit: float) -> Ints:
    """(u, d) each row shortened to a norm and rounded to multiples of a unit; the norm of what is left is not above it.

    Args:
        gradient: (u, d) by user.
        norm: of a row, at most, with what rounding adds.
        unit: of the whole numbers.
    """
    room = unit * np.sqrt(gradient.shape[1]) / 2  # by which rounding may lengthen a row
    return np.rint(clipped(gradient, max(norm * (1 - 1e-9) - room, 0.0)) / unit).astype(np.int64)


def noisy_sum(gradient: Floats, norm: float, noise_multiplier: float, source: RandomSource) -> Floats:
    """(d,) sum over users, none of whom adds more than a norm, with noise of so many norms.

    Args:
        gradient: (u, d) by user.
        norm: of a user, at most.
        noise_multiplier: standard deviation of the noise in norms; with 0 nothing is promised.
        source: of the noise.
    """
    if noise_multiplier == 0:
        return clipped(gradient, norm).sum(0)
    unit = noise_multiplier * norm / GRID
    total = whole_parts(gradient, norm, unit).sum(0) + source.whole_normal(gradient.shape[1], GRID)
    return total * unit


def learn(rows: UserRows, asked: PrivateTraining, noise_multiplier: float, source: RandomSource) -> Floats:
    """(d + 1,) coefficients: the mean of those after each step of the second half, as of all candidates.

    All of it but the sums of `noisy_sum` is arithmetic on what has been let out already. How many users there are is taken as
    known.

    Args:
        rows: of all users.
        asked: norm, steps, rates.
        noise_multiplier: that keeps the promise; with 0 nothing is promised.
        source: of noise and of who is in a step.

    Cost: `steps` times O(n d); the noise makes it random.

    Source: McMahan, Ramage, Talwar and Zhang 2018, with the gradient of a user's mean loss as what he adds.
    """
    d = rows.x.shape[1] + 1
    coefficients, speed, mean = np.r_[np.zeros(d - 1), START], np.zeros(d), np.zeros(d)
    half = asked.steps // 2
    for step in range(asked.steps):
        gradient = user_gradients(rows, coefficients)
        if asked.sample_rate < 1:
            gradient = gradient[source.chosen(rows.n_users, asked.sample_rate)]
        total = noisy_sum(gradient, asked.clip_norm, noise_multiplier, source)
        speed = asked.momentum * speed + total / (asked.sample_rate * rows.n_users)
        coefficients = coefficients - asked.learning_rate * (1 - asked.momentum) * speed
        if step >= half:
            mean += coefficients / (asked.steps - half)
    mean[-1] += np.log(asked.kept_share)  # rows that were not taken were thinned
    log.info("%d steps over %d users, %d rows", asked.steps, rows.n_users, len(rows.x))
    return mean
