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

    >>> WeightMap(power=1.0, clip_quantile=1.0).weights(np.array([0.9, 0.3, -2.0])).round(3).tolist()
    [2.25, 0.75, 0.0]
    """

    power: float
    clip_quantile: float

    def weights(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of samples from their values.

        Args:
            value: (n,) finite, higher is worth more.

        Returns:
            (n,) >= 0 with mean 1.

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
        # scaled first, so that no power overflows
        raised = (raw / raw.max()) ** self.power
        if self.power > 0:
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
