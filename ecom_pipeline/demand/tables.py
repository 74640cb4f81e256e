"""Forecasts as rows, for people and for whoever orders."""

import numpy as np
import pandas as pd

from ecom_pipeline.demand.forecast import LEVELS, Forecast
from ecom_pipeline.demand.weekly import HORIZON, Weekly

COLUMNS = ("level", "name", "week", "units", "low_95", "low_80", "high_80", "order_for_95", "high_95", "method")
LIKE_OTHERS = "items whose words are alike"


def rows_of(weekly: Weekly, found: Forecast) -> pd.DataFrame:
    """A row an item or category, and week, as the relation `demand_forecast`."""
    method = np.where(found.young, LIKE_OTHERS, str(found.choice))
    items = _rows(weekly, "item", weekly.item_ids, found.units, found.quantiles, method)
    names = np.array(weekly.categories, str)
    told = np.full(len(names), "the sum of its items")
    categories = _rows(weekly, "category", names, found.of_categories, found.category_quantiles, told)
    return pd.concat([items, categories], ignore_index=True)[list(COLUMNS)]


def _rows(
    weekly: Weekly, level: str, names: np.ndarray, units: np.ndarray, quantiles: np.ndarray, method: np.ndarray
) -> pd.DataFrame:
    weeks = [weekly.monday(weekly.n_weeks + step) for step in range(HORIZON)]
    frame = pd.DataFrame(
        {
            "level": level,
            "name": np.repeat(names, HORIZON),
            "week": pd.to_datetime(weeks * len(names)) if len(names) else pd.to_datetime([]),
            "units": units.ravel(),
            "method": np.repeat(method, HORIZON),
        }
    )
    for name, place in LEVELS.items():
        frame[name] = quantiles[:, :, place].ravel()
    return frame
