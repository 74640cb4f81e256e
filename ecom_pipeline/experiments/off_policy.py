"""What another policy would have earned, from a log with the probabilities with which the logged one acted.

Sources: Horvitz and Thompson 1952 (ips), Hajek 1971 (snips), Dudik, Langford and Li 2011 (doubly robust), Wang, Agarwal and
Dudik 2017 (switch).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import stats

from ecom_pipeline.arrays import Floats
from ecom_pipeline.errors import ExperimentError

Method = Literal["ips", "clipped", "snips", "dr", "switch"]
LEAST_SIZE = 100.0  # effective rows, below which nothing is estimated
CLIP = 20.0


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """What a policy earns a row.

    Attributes:
        method: how it was estimated.
        value: the estimate.
        ci_low: 2.5 %.
        ci_high: 97.5 %.
        effective_size: rows that as good a log of the policy itself would have, (sum w)^2 / sum w^2.
        largest_weight: ratio of the probabilities, at most.
        mean_weight: of the ratios: near 1, unless the logged policy hardly ever does what the other would.
    """

    method: Method
    value: float
    ci_low: float
    ci_high: float
    effective_size: float
    largest_weight: float
    mean_weight: float


def policy_value(
    reward: Floats,
    logged: Floats,
    evaluated: Floats,
    *,
    method: Method = "snips",
    expected: Floats | None = None,
    expected_of_policy: Floats | None = None,
    clip: float = CLIP,
    group: Floats | None = None,
) -> PolicyValue:
    """The mean reward of a policy that did not act.

    Args:
        reward: (n,) of what was done.
        logged: (n,) probability with which the logged policy did it, in (0, 1].
        evaluated: (n,) probability with which the other one would have.
        method: ips weighs each row by the ratio; clipped cuts ratios at `clip`, which biases towards 0; snips divides by
            their sum; dr takes a model of rewards and weighs what it is off by; switch does so below `clip` and trusts the
            model alone above.
        expected: (n,) reward of what was done, by a model that did not see the row; for dr and switch.
        expected_of_policy: (n,) the model's mean reward of the row under the other policy; likewise. For switch: over all
            actions; those above the clip are in it too.
        clip: of ratios.
        group: (n,) rows that are not independent, such as a user's; None: each is alone.

    Raises:
        ExperimentError: if probabilities are none, if a model is asked for and absent, or if the policies overlap so little
            that fewer than `LEAST_SIZE` effective rows are left.

    Cost: O(n). Source: see the module; intervals by the influence of each group, which for snips is the ratio's.
    """
    _refuse(reward, logged, evaluated, method, expected, expected_of_policy)
    weight = evaluated / logged
    size = float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0
    if size < LEAST_SIZE:
        raise ExperimentError(
            f"off-policy value: of {len(reward)} rows only {size:.0f} count; the largest ratio of probabilities is "
            f"{weight.max():.3g}. The policies must overlap so that {LEAST_SIZE:.0f} effective rows are left: log more, or "
            "evaluate a policy that is nearer to the logged one."
        )
    if method == "snips":
        value = float((weight * reward).sum() / weight.sum())
        influence = weight * (reward - value) / weight.mean()
    else:
        each = _each(reward, weight, method, expected, expected_of_policy, clip)
        value = float(each.mean())
        influence = each - value
    if group is not None:
        place = np.unique(group, return_inverse=True)[1]
        influence = np.bincount(place, influence)
    n = len(reward)
    half = stats.norm.ppf(0.975) * np.sqrt((influence**2).sum()) / n
    return PolicyValue(method, value, value - half, value + half, size, float(weight.max()), float(weight.mean()))


def _each(
    reward: Floats,
    weight: Floats,
    method: Method,
    expected: Floats | None,
    expected_of_policy: Floats | None,
    clip: float,
) -> Floats:
    if method == "ips":
        return weight * reward
    if method == "clipped":
        return np.minimum(weight, clip) * reward
    assert expected is not None
    assert expected_of_policy is not None
    kept = weight if method == "dr" else np.where(weight <= clip, weight, 0.0)
    return kept * (reward - expected) + expected_of_policy


def _refuse(
    reward: Floats,
    logged: Floats,
    evaluated: Floats,
    method: str,
    expected: Floats | None,
    expected_of_policy: Floats | None,
) -> None:
    if method not in get_args(Method):
        raise ExperimentError(
            f"off-policy value: 1 method is unknown: {method!r}. It must be one of {', '.join(get_args(Method))}: choose one."
        )
    bad = ~((logged > 0) & (logged <= 1)) | ~((evaluated >= 0) & (evaluated <= 1)) | ~np.isfinite(reward)
    if bad.any() or not len(reward):
        first = int(np.argmax(bad)) if len(reward) else 0
        told = f"row {first} has {logged[first]:g} and {evaluated[first]:g}" if len(reward) else "there are none"
        raise ExperimentError(
            f"off-policy value: {int(bad.sum())} of {len(reward)} rows have no probabilities or no reward; first: {told}. The "
            "logged one must lie in (0, 1], the other in [0, 1], and rewards be finite: mend or leave out these rows."
        )
    if method in ("dr", "switch") and (expected is None or expected_of_policy is None):
        raise ExperimentError(
            f"off-policy value: {method} needs a model of rewards, and {int(expected is None) + int(expected_of_policy is None)} "
            "of its 2 columns are missing; first: expected. Give what it expects of each row, and under the policy: or use snips."
        )
