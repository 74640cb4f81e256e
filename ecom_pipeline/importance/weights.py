"""From sample values to training weights: a map of its own, so that estimators and weightings combine freely.

On the floor of `importance`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.errors import SampleError


@dataclass(frozen=True, slots=True)
class WeightMap:
    """weight = max(0, value) ** power, clipped above at a quantile, with mean 1.

    Attributes:
        power: 0 makes all weights equal; higher follows the values more closely.
        clip_quantile: weights above this quantile are lowered to it, so that no sample carries the training.
        within_label: scale each label's weights to mean 1 of their own. Values such as confidence are lower for the
            rarer label as a whole; without this, the weighted model unlearns how frequent the label is.

    >>> WeightMap(1.0, 1.0, False).weights(np.array([0.9, 0.3, -2.0]), np.array([1, 0, 0])).round(3).tolist()
    [2.25, 0.75, 0.0]
    >>> WeightMap(1.0, 1.0, True).weights(np.array([0.9, 0.3, 0.1]), np.array([1, 0, 0])).round(3).tolist()
    [1.0, 1.5, 0.5]
    """

    power: float
    clip_quantile: float
    within_label: bool

    def weights(self, value: NDArray[np.float64], label: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of samples from their values.

        Args:
            value: (n,) finite, higher is worth more.
            label: (n,) in [0, 1]; from 0.5 on it counts as 1.

        Returns:
            (n,) >= 0 with mean 1. A label none of whose values is above 0 has weights 0.

        Raises:
            SampleError: if no value is above 0.

        Cost: O(n log n).
        """
        raw = np.maximum(value, 0.0)
        if not (raw > 0).any():
            raise SampleError(
                f"sample_weight: {len(value)} of {len(value)} values are not above 0; the first is {float(value[0])!r}. "
                "At least one must be: choose another estimator."
            )
        classes = (label >= 0.5).astype(int) if self.within_label else np.zeros(len(label), int)
        result = np.zeros(len(value))
        for one in np.unique(classes):
            rows = classes == one
            result[rows] = self._scaled(raw[rows])
        return result / result.mean()

    def _scaled(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        if not raw.any():
            return raw
        raised = (raw / raw.max()) ** self.power  # scaled first, so that no power overflows
        clipped = np.minimum(raised, np.quantile(raised, self.clip_quantile))
        raised = clipped if clipped.any() else raised
        return raised / raised.mean()


def ess_share(weight: NDArray[np.float64]) -> float:
    """Effective sample size as a share of the samples: (sum w)² / (n sum w²), in (0, 1].

    Source: Kish 1965, Survey Sampling.

    >>> ess_share(np.array([1.0, 1.0])), ess_share(np.array([2.0, 0.0]))
    (1.0, 0.5)
    """
    return float(weight.sum() ** 2 / (len(weight) * (weight**2).sum()))
