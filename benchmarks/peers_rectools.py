"""The peers' side of `recommender_peers.py`: a model of RecTools on the interactions of an npz file.

Run by the interpreter that has RecTools, not by ours (peers.md says how to make it).

    python benchmarks/peers_rectools.py acts.npz lists.npz '{"model": "EASE", "regularization": 500}'
"""

import json
import resource
import sys
import time
import warnings

import numpy as np
import pandas as pd
from rectools.dataset import Dataset

K = 100  # length of the lists


def model_of(told: dict):
    """A RecTools model, by its name in the table and its settings."""
    settings = dict(told)
    name = settings.pop("model")
    if name == "popular":
        from rectools.models import PopularModel

        return PopularModel(period=pd.Timedelta(days=28))
    if name == "EASE":
        from rectools.models import EASEModel

        return EASEModel(**settings)
    if name == "item-kNN":
        from implicit.nearest_neighbours import CosineRecommender
        from rectools.models import ImplicitItemKNNWrapperModel

        return ImplicitItemKNNWrapperModel(CosineRecommender(num_threads=1, **settings))
    if name == "iALS":
        from implicit.als import AlternatingLeastSquares
        from rectools.models import ImplicitALSWrapperModel

        return ImplicitALSWrapperModel(AlternatingLeastSquares(num_threads=1, random_state=0, **settings))
    if name == "SASRec":
        from rectools.models import SASRecModel

        return SASRecModel(**settings)
    raise ValueError(f"{name}: no such model here")


def listed(model, dataset: Dataset, users: np.ndarray, *, new: bool) -> np.ndarray:
    """(v, K) items, -1 where a list is shorter; `new`: without what a user had."""
    found = model.recommend(users, dataset, k=K, filter_viewed=new, on_unsupported_targets="ignore")
    lists = np.full((len(users), K), -1)
    place = pd.Series(np.arange(len(users)), index=users)
    lists[place[found.user_id].to_numpy(), found["rank"].to_numpy() - 1] = found.item_id
    return lists


def main() -> None:
    """Fit, recommend, write the lists and what they took."""
    warnings.filterwarnings("ignore")
    source, target, told = sys.argv[1:]
    acts = np.load(source)
    frame = pd.DataFrame(
        {
            "user_id": acts["user"],
            "item_id": acts["item"],
            "weight": acts["count"].astype(float),
            "datetime": pd.Timestamp("2000-01-01") + pd.to_timedelta(acts["day"], unit="D"),
        }
    )
    dataset = Dataset.construct(frame)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.monotonic(), time.process_time()
    model = model_of(json.loads(told))
    model.fit(dataset)
    fitted, cpu_fitted = time.monotonic(), time.process_time()
    lists = {name: listed(model, dataset, acts["asked"], new=name == "new") for name in ("all", "new")}
    note = {
        "fit": fitted - started,
        "fit_cpu": cpu_fitted - cpu,
        "lists": time.monotonic() - fitted,
        "lists_cpu": time.process_time() - cpu_fitted,
        "gib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024**2,
    }
    np.savez(target, note=json.dumps(note), **lists)


if __name__ == "__main__":
    main()
