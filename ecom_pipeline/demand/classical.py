"""Forecasts of each series by itself, by statsforecast: exponential smoothing, Theta, and methods for intermittent demand."""

import numpy as np

from ecom_pipeline.arrays import Singles

METHODS = ("naive", "ETS", "Theta", "Croston SBA", "TSB")
_SEASON = 52
_ALPHA = 0.1  # of TSB, as its authors take it


def classical_forecasts(units: Singles, horizon: int, methods: tuple[str, ...] = METHODS) -> dict[str, Singles]:
    """(n, horizon) by each method; of series too short or all zero too.

    Args:
        units: (n, T) weeks, the last one last.
        horizon: weeks ahead.
        methods: some of `METHODS`.

    Returns:
        By method, at least 0. naive is the same week of the last year where there are two years, else the last week.

    Cost: a millisecond a series for all of them, on one core.
    """
    found = {}
    if "naive" in methods:
        last = (
            units[:, -_SEASON:][:, :horizon] if units.shape[1] >= 2 * _SEASON else np.repeat(units[:, -1:], horizon, 1)
        )
        found["naive"] = last.astype(np.float32)
    asked = [name for name in methods if name != "naive"]
    if asked and len(units):
        import pandas as pd
        from statsforecast import StatsForecast
        from statsforecast.models import TSB, AutoETS, CrostonSBA, Theta

        makers = {
            "ETS": AutoETS(season_length=1, model="ZNN", alias="ETS"),
            "Theta": Theta(season_length=1, alias="Theta"),
            "Croston SBA": CrostonSBA(alias="Croston SBA"),
            "TSB": TSB(_ALPHA, _ALPHA, alias="TSB"),
        }
        n, t = units.shape
        frame = pd.DataFrame(
            {"unique_id": np.repeat(np.arange(n), t), "ds": np.tile(np.arange(t), n), "y": units.ravel().astype(float)}
        )
        answered = StatsForecast(models=[makers[name] for name in asked], freq=1, n_jobs=1).forecast(
            df=frame, h=horizon
        )
        for name in asked:
            table = answered[name].to_numpy(float).reshape(n, horizon)
            found[name] = np.maximum(np.nan_to_num(table), 0.0).astype(np.float32)
    return {name: found.get(name, np.zeros((0, horizon), np.float32)) for name in methods}
