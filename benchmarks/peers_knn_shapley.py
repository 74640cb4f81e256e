"""One peer's KNN-Shapley values of prepared data, in a process of its own: prints seconds, CPU seconds and peak memory.

    python benchmarks/peers_knn_shapley.py pydvl|cleanlab DATA.npz VALUES.npy

Run with a Python that has the peer; nothing of this project is imported. `knn_shapley_speed.py` prepares the data.
"""

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Data = Mapping[str, NDArray]
Work = Callable[[], NDArray[np.float64]]


def pydvl(data: Data) -> Work:
    """Exact values over hold-out judges. Features as float64, so that its distances are as precise as can be."""
    from pydvl.valuation import Dataset, KNNShapleyValuation
    from sklearn.neighbors import KNeighborsClassifier

    train = Dataset(data["x"].astype(np.float64), data["y"])
    test = Dataset(data["judge_x"].astype(np.float64), data["judge_y"])
    valuation = KNNShapleyValuation(KNeighborsClassifier(n_neighbors=int(data["k"])), test, progress=False)
    return lambda: valuation.fit(train).result.values


def cleanlab(data: Data) -> Work:
    """Values from a given graph, where samples judge one another; mapped back from (v + 1) / 2."""
    from cleanlab.data_valuation import data_shapley_knn
    from scipy.sparse import csr_matrix

    graph, y, k = data["graph"], data["y"], int(data["k"])
    starts = np.arange(0, graph.size + 1, graph.shape[1])
    sparse = csr_matrix((np.ones(graph.size, np.float32), graph.ravel(), starts), shape=(len(y), len(y)))
    return lambda: 2 * data_shapley_knn(y, knn_graph=sparse, k=k) - 1


def timed(work: Work, into: str) -> None:
    """Do the work once, save what it returns, print what it took as JSON."""
    wall, cpu = time.perf_counter(), time.process_time()
    values = work()
    took = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    np.save(into, values)
    print(json.dumps(took | {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    side, source, target = sys.argv[1:]
    with np.load(source) as archive:
        loaded = dict(archive)
    timed({"pydvl": pydvl, "cleanlab": cleanlab}[side](loaded), target)
