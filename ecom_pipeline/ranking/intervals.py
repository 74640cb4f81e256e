"""How sure is a mean over groups and seeds that were both drawn? And how many of many findings are more than luck?

On the lowest floor of `ranking`. Groups (or users) and seeds are crossed: each seed's ranker answers every group. The
variance of the mean is what groups bring, plus what seeds bring, less what is counted in both; its degrees of freedom are
those of the two together, so that two or three seeds say openly how little they tell.

Source: Cameron, Gelbach and Miller 2011, Robust Inference With Multiway Clustering, for the sum; Satterthwaite 1946 for the
degrees of freedom; Benjamini and Hochberg 1995 for many findings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats, Ints

N_BOOTSTRAP = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and how sure it is.

    Attributes:
        value: the figure.
        low: end of the 95 % interval; minus infinity where one group is all there is.
        high: the other end.
        p_value: two-sided, that the figure is 0 in truth.
    """

    value: float
    low: float
    high: float
    p_value: float


def draws_of(whose: Ints, seed: int) -> Ints:
    """(1 + draws, groups) how often each group is drawn, all groups of a cluster together; first the sample itself.

    Args:
        whose: (groups,) cluster of each.
        seed: of the bootstrap.
    """
    cluster = np.unique(whose, return_inverse=True)[1]
    n = int(cluster.max()) + 1
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_BOOTSTRAP)
    return np.vstack([np.ones(n, np.int64), times])[:, cluster]


def crossed_interval(drawn: NDArray, n_clusters: int) -> Interval:
    """The mean over seeds with an interval over clusters of groups, and over seeds.

    With S seeds, y_sb the figure of seed s on the b-th draw of the groups and n clusters, the variance of the mean is
    V = V_g + V_s - V_gs: V_g of mean_s y_sb over draws, times n / (n - 1); V_s of the seeds' own figures, over S; V_gs what
    remains of y_sb after its seed and its draw, which both of them hold. Never below either. Student's t has
    V^2 / (V_g^2 / (n - 1) + V_s^2 / (S - 1)) degrees of freedom.

    Args:
        drawn: (seeds, 1 + draws) figures; the first column is the sample itself.
        n_clusters: that were drawn from.

    Cost: O(seeds draws).

    >>> draws = np.random.default_rng(0).normal(size=(1, 2001)) * 0.1
    >>> draws[0, 0] = 0.5
    >>> round(crossed_interval(draws, 1000).high - 0.5, 2)
    0.2
    """
    from scipy.stats import t

    value = float(drawn[:, 0].mean())
    if n_clusters < 2:
        return Interval(value, -np.inf, np.inf, 1.0)
    correction = n_clusters / (n_clusters - 1)
    by_groups = float(np.nanvar(drawn[:, 1:].mean(0), ddof=1)) * correction
    variance, degrees = by_groups, n_clusters - 1.0
    n_seeds = len(drawn)
    if n_seeds > 1:
        by_seeds = float(drawn[:, 0].var(ddof=1)) / n_seeds
        in_both = (float(np.nanvar(drawn[:, 1:], axis=1, ddof=1).mean()) * correction - by_groups) / (n_seeds - 1)
        variance = max(by_groups + by_seeds - in_both, by_groups, by_seeds)
        parts = by_groups**2 / (n_clusters - 1) + by_seeds**2 / (n_seeds - 1)
        degrees = variance**2 / parts if parts > 0 else degrees
    spread = float(np.sqrt(variance))
    if spread == 0:
        return Interval(value, value, value, float(value == 0))
    half = float(t.ppf((1 + LEVEL) / 2, degrees)) * spread
    return Interval(value, value - half, value + half, float(2 * t.sf(abs(value) / spread, degrees)))


def discoveries(p_values: Floats, rate: float = 0.05) -> Bools:
    """(k,) which of many findings to believe, so that of those believed a share of `rate` at most is luck, on average.

    The procedure of Benjamini and Hochberg: with p sorted, all up to the last whose p is at most its rank times rate / k.
    Holds where findings are independent, or depend as comparisons with one common twin do.

    >>> discoveries(np.array([0.04, 0.001, 0.02, 0.9])).tolist()
    [False, True, True, False]
    """
    k = len(p_values)
    order = np.argsort(p_values, kind="stable")
    below = np.flatnonzero(p_values[order] <= rate * np.arange(1, k + 1) / max(k, 1))
    believed = np.zeros(k, bool)
    believed[order[: below[-1] + 1 if len(below) else 0]] = True
    return believed
