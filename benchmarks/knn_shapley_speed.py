"""KNN-Shapley beside pyDVL and cleanlab on the same data: seconds, CPU seconds, peak memory, difference of values.

    python benchmarks/knn_shapley_speed.py pydvl --python PEERS/bin/python
    python benchmarks/knn_shapley_speed.py cleanlab --python PYTHON_WITH_CLEANLAB
    python benchmarks/knn_shapley_speed.py graph --samples 200000
    python benchmarks/knn_shapley_speed.py exact --samples 100000 --judges 5000 --dimensions 384 --threads 2

The clock starts when libraries are loaded and data is in memory. Each side runs in a child process of its own, sides in
turn; peak memory is that of the whole child. On a machine that others use, CPU seconds compare better than seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
PEERS = HERE / "peers_knn_shapley.py"
K, N_CLASSES = 10, 10


def prepare(folder: Path, n: int, m: int, d: int) -> Path:
    """Normal features, ten classes whose means differ a little, a tenth of the labels drawn anew."""
    generator = np.random.default_rng(0)
    means = generator.normal(0, 0.5, (N_CLASSES, d)).astype(np.float32)
    y = generator.integers(0, N_CLASSES, n + m)
    x = generator.standard_normal((n + m, d), dtype=np.float32) + means[y]
    redrawn = generator.random(n + m) < 0.1
    y[redrawn] = generator.integers(0, N_CLASSES, redrawn.sum())
    np.savez(folder / "data.npz", x=x[:n], y=y[:n], judge_x=x[n:], judge_y=y[n:], k=K)
    return folder / "data.npz"


def ours(side: str, source: Path, target: Path) -> None:
    """One of our ways, in a process of its own."""
    import torch
    from peers_knn_shapley import timed

    from ecom_pipeline.importance.estimator import Evidence, Holdout, one_hot
    from ecom_pipeline.importance.estimators.neighbours import KNNShapley, knn_shapley_of_graph, neighbour_graph

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with np.load(source) as archive:
        data = dict(archive)
    label = one_hot(data["y"], N_CLASSES)
    if side == "values":
        timed(lambda: knn_shapley_of_graph(data["graph"], label, label, K).value, str(target))
        return
    x = constant_added(data.pop("x"))
    judges = Holdout(constant_added(data.pop("judge_x")), one_hot(data["judge_y"], N_CLASSES))
    evidence = Evidence(label=label, features=x, holdout=judges)
    if side == "graph":
        timed(lambda: neighbour_graph(evidence, K), str(target))
    else:
        timed(lambda: KNNShapley(k=K, judged_on="holdout").fit(evidence).value, str(target))


def constant_added(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features as heads see them."""
    return np.column_stack([x, np.ones(len(x), np.float32)])


def child(python: str, script: Path, threads: int, *arguments: str | Path) -> dict[str, float]:
    """What a side took."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    places = os.pathsep.join([str(HERE.parent), str(HERE)])
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": places}
    command = [python, str(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, took: dict[str, float]) -> None:
    """One line."""
    print(
        f"  {name:<10} {took['seconds']:10.3f} s {took['cpu_seconds']:10.3f} CPU s  peak {took['peak_gib']:6.2f} GiB",
        flush=True,
    )


def beside(peer: str, our_side: str, source: Path, folder: Path, options: argparse.Namespace) -> None:
    """The sides in turn, then ratios of their medians."""
    taken = {peer: [], "ours": []}
    for _ in range(options.rounds):
        taken["ours"].append(
            child(sys.executable, Path(__file__), options.threads, "--side", our_side, source, folder / "ours.npy")
        )
        show("ours", taken["ours"][-1])
        taken[peer].append(child(options.python, PEERS, options.threads, peer, source, folder / "peer.npy"))
        show(peer, taken[peer][-1])
    for unit in ("seconds", "cpu_seconds", "peak_gib"):
        theirs, own = (np.median([took[unit] for took in taken[side]]) for side in (peer, "ours"))
        print(f"  {unit}: {peer} / ours = {theirs / own:,.1f}")
    difference = np.abs(np.load(folder / "ours.npy") - np.load(folder / "peer.npy")).max()
    print(f"  largest difference of values {difference:.2e}")


def main() -> None:
    """Print what each side took."""
    if sys.argv[1] == "--side":
        ours(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pydvl", "cleanlab", "graph", "exact"])
    parser.add_argument("--python", default=sys.executable, help="one that has the peer")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--judges", type=int, default=1000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    n = options.samples or {"pydvl": 10_000, "cleanlab": 30_000, "graph": 200_000, "exact": 100_000}[options.what]
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        source = prepare(folder, n, options.judges, options.dimensions)
        print(f"{options.what}: {n:,} samples, {options.dimensions} dimensions, {options.threads} threads", flush=True)
        if options.what == "pydvl":
            print(f"  {options.judges:,} judges")
            beside("pydvl", "exact", source, folder, options)
        elif options.what == "exact":
            print(f"  {options.judges:,} judges")
            show(
                "exact", child(sys.executable, Path(__file__), options.threads, "--side", "exact", source, folder / "v")
            )
        else:
            graph = folder / "graph.npy"
            show("graph", child(sys.executable, Path(__file__), options.threads, "--side", "graph", source, graph))
            with np.load(source) as archive:
                np.savez(source, **(dict(archive) | {"graph": np.load(graph)}))
            if options.what == "cleanlab":
                beside("cleanlab", "values", source, folder, options)
            else:
                values = child(
                    sys.executable, Path(__file__), options.threads, "--side", "values", source, folder / "v"
                )
                show("values", values)


if __name__ == "__main__":
    main()
