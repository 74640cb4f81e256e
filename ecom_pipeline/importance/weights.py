"""From sample values to training weights: a map of its own, so that estimators and weightings combine freely.

On the floor of `importance`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.errors import SampleError

Kind = Literal["power", "temperature", "rank", "drop"]
Within = Literal["all", "label", "group"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class WeightMap:
    """How a value becomes a weight: a map that never falls, clipped above, with mean 1.

    Attributes:
        kind: power: max(0, value) ** strength. temperature: exp(strength * value), values standardised first.
            rank: (rank / n) ** strength, equal values sharing their mean rank. drop: 0 for the share `strength` of
            the samples with the lowest values, else 1.
        strength: 0 makes all weights equal; higher follows the values more closely. For drop in [0, 1).
        clip_quantile: weights above this quantile are lowered to it, so that no sample carries the training.
        within: map and scale to mean 1 all samples together, or those of each label, or of each group (a query, a
            visit). Values such as confidence are lower for the rarer label as a whole; unless weights are scaled
            within the label, the weighted model unlearns how frequent the label is.

    >>> label = np.array([1, 0, 0])
    >>> WeightMap("power", 1.0, 1.0, "all").weights(np.array([0.9, 0.3, -2.0]), label).round(3).tolist()
    [2.25, 0.75, 0.0]
    >>> WeightMap("power", 1.0, 1.0, "label").weights(np.array([0.9, 0.3, 0.1]), label).round(3).tolist()
    [1.0, 1.5, 0.5]
    >>> WeightMap("drop", 0.4, 1.0, "all").weights(np.array([0.9, 0.3, 0.1]), label).round(3).tolist()
    [1.5, 1.5, 0.0]
    """

    kind: Kind
    strength: float
    clip_quantile: float
    within: Within

    def weights(self, value: Floats, label: Floats, group: Ints | None = None) -> Floats:
        """Weights of samples from their values.

        Args:
            value: (n,) finite, higher is worth more.
            label: (n,) in [0, 1]; from 0.5 on it counts as 1. Class numbers do too.
            group: (n,) needed where weights are scaled within the group.

        Returns:
            (n,) >= 0 with mean 1. Under power, a label or group none of whose values is above 0 has weights 0.

        Raises:
            SampleError: under power, if no value is above 0; within the group, if there are no groups.

        Cost: O(n log n).
        """
        if self.kind == "power" and not (value > 0).any():
            raise SampleError(
                f"sample_weight: {len(value)} of {len(value)} values are not above 0; the first is {float(value[0])!r}. "
                "At least one must be: choose another estimator, or the map 'rank'."
            )
        parts = self._parts(label, group)
        order = np.argsort(parts, kind="stable")
        starts = np.flatnonzero(np.diff(parts[order], prepend=-1))
        result = np.zeros(len(value))
        for rows in np.split(order, starts[1:]):
            result[rows] = self._scaled(value[rows])
        return result / result.mean()

    def _parts(self, label: Floats, group: Ints | None) -> Ints:
        """(n,) number of the part that a sample is scaled in."""
        if self.within == "group":
            if group is None:
                raise SampleError(
                    f"group: 1 thing that weights within the group need is not known of these {len(label)} samples; "
                    "first: 'group'. It must be given with 'group': give it, or scale within 'label' or 'all'."
                )
            return group
        return np.round(label + 1e-9).astype(np.int64) if self.within == "label" else np.zeros(len(label), np.int64)

    def _scaled(self, value: Floats) -> Floats:
        raw = getattr(self, f"_{self.kind}")(value)
        if not raw.any():
            return raw
        clipped = np.minimum(raw, np.quantile(raw, self.clip_quantile))
        raw = clipped if clipped.any() else raw
        return raw / raw.mean()

    def _power(self, value: Floats) -> Floats:
        positive = np.maximum(value, 0.0)
        if not positive.any():
            return positive
        return (positive / positive.max()) ** self.strength  # scaled first, so that no power overflows

    def _temperature(self, value: Floats) -> Floats:
        scaled = value / max(np.abs(value).max(), 1e-300)
        spread = scaled.std()
        standard = (scaled - scaled.max()) / spread if spread > 1e-12 else np.zeros(len(value))
        return np.exp(self.strength * standard)

    def _rank(self, value: Floats) -> Floats:
        from scipy.stats import rankdata

        return (rankdata(value) / len(value)) ** self.strength

    def _drop(self, value: Floats) -> Floats:
        n_dropped = min(int(self.strength * len(value)), len(value) - 1)
        kept = np.ones(len(value))
        kept[np.argsort(value, kind="stable")[:n_dropped]] = 0.0
        return kept


def lifted(value: Floats) -> Floats:
    """Values for the power map, which makes nothing of those below 0: where there are any, the lowest becomes 0.

    >>> lifted(np.array([-1.0, 2.0])).tolist(), lifted(np.array([0.5, 2.0])).tolist()
    ([0.0, 3.0], [0.5, 2.0])
    """
    return value - value.min() if value.min() < 0 < np.ptp(value) else value


def ess_share(weight: Floats) -> float:
    """Effective sample size as a share of the samples: (sum w)² / (n sum w²), in (0, 1].

    Source: Kish 1965, Survey Sampling.

    >>> ess_share(np.array([1.0, 1.0])), ess_share(np.array([2.0, 0.0]))
    (1.0, 0.5)
    """
    return float(weight.sum() ** 2 / (len(weight) * (weight**2).sum()))
