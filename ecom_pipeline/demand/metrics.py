"""How good forecasts are, each figure by its published definition.

Source: Hyndman and Koehler 2006 (MASE), Makridakis, Spiliotis and Assimakopoulos 2020 (sMAPE, OWA, MSIS), the M5 competition's
guide (scaled pinball loss).
"""

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Floats


def scale(history: NDArray, season: int = 1) -> Floats:
    """(n,) mean absolute error of the seasonal naive forecast within each history; NaN before the first value is left out.

    >>> scale(np.array([[1.0, 3.0, 2.0]])).tolist()
    [1.5]
    """
    step = np.abs(history[:, season:] - history[:, :-season])
    counted = np.isfinite(step).sum(1)
    return np.where(counted, np.nansum(step, 1) / np.maximum(counted, 1), np.nan)


def mase(actual: NDArray, forecast: NDArray, scaled_by: Floats) -> Floats:
    """(n,) mean absolute error over that of the naive forecast."""
    return np.abs(actual - forecast).mean(1) / scaled_by


def smape(actual: NDArray, forecast: NDArray) -> Floats:
    """(n,) symmetric percentage error, 0 to 200."""
    size = np.abs(actual) + np.abs(forecast)
    return 200 * np.where(size > 0, np.abs(actual - forecast) / np.where(size > 0, size, 1), 0.0).mean(1)


def owa(smape_: float, mase_: float, smape_naive: float, mase_naive: float) -> float:
    """Mean of both errors over those of Naive 2, each averaged over the series first."""
    return (smape_ / smape_naive + mase_ / mase_naive) / 2


def msis(actual: NDArray, low: NDArray, high: NDArray, scaled_by: Floats, level: float = 0.95) -> Floats:
    """(n,) width of the interval, and how far it was missed by at 2 / (1 - level), scaled."""
    penalty = 2 / (1 - level)
    missed = np.maximum(low - actual, 0) + np.maximum(actual - high, 0)
    return (high - low + penalty * missed).mean(1) / scaled_by


def pinball(actual: NDArray, quantile: NDArray, level: float) -> NDArray:
    """Loss of a quantile: least, in the mean, for the true one.

    >>> pinball(np.array([2.0]), np.array([1.0]), 0.9).tolist()
    [0.9]
    """
    return np.maximum(level * (actual - quantile), (level - 1) * (actual - quantile))
