"""Wrong labels planted in scikit-learn's own data sets: which estimator finds them, and in how many seconds?

    python benchmarks/opendataval_digits.py --peers /path/to/python-with-opendataval

The protocol is that of OpenDataVal (Jiang et al. 2023, noisy label detection): 1000 training and 100 validation
samples, 20 % of the labels of either moved to another class at random. The validation labels are noisy, too, as they
are there; estimators that read them (games, KNN-Shapley, LAVA, ...) bear that on both sides. Both sides get the same
npz file. Ours standardise the features and append a constant; the peers get them as they are, as in their examples,
and once more standardised. `--race` times ours against its Data-OOB, in turns. F1 is that of two clusters of the values by exact k-means, the lower one called
wrong; it depends on the shape of the values, so average precision, AUROC and precision at the true count stand beside.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import t as student
from sklearn import datasets
from sklearn.metrics import average_precision_score, roc_auc_score

from ecom_pipeline.importance.estimator import Estimator, Evidence, Holdout, SampleValues
from ecom_pipeline.importance.estimators.closed_form import LeaveOneOutCredibility, LeaveOneOutInfluence
from ecom_pipeline.importance.estimators.games import BetaShapley, DataBanzhaf, DataOOB, DataShapley
from ecom_pipeline.importance.estimators.out_of_fold import OutOfFoldConfidence
from ecom_pipeline.importance.folds import out_of_fold_scores

LOADERS = {
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
}
N_TRAIN, N_VALID, FLIPPED = 1000, 100, 0.2
QUICK: list[Estimator] = [LeaveOneOutCredibility(), LeaveOneOutInfluence(), DataOOB(), DataOOB(soft=False)]
SLOW: list[Estimator] = [DataBanzhaf(), BetaShapley(), DataShapley()]
# The peers' runs: evaluators, on how many seeds, with what share of the models of their examples, what else.
RUNS = {
    "fast": (["RandomEvaluator", "KNNShapley(k=10)", "KNNShapley", "LavaEvaluator"], 10, 1.0, []),
    "DataOob": (["DataOob"], 3, 1.0, []),
    "others": (["DataOob with neighbours", "DataOob with trees"], 3, 0.2, []),
    "scaled": (["KNNShapley(k=10)", "DataOob"], 3, 0.2, ["--scaled"]),
    "slow": (["DataBanzhaf", "InfluenceSubsample", "LeaveOneOut", "DVRL"], 1, 1.0, []),
    "AME": (["AME"], 1, 1.0, []),
    "RobustVolume": (["RobustVolumeShapley"], 1, 0.01, []),
    "DataShapley": (["DataShapley", "BetaShapley"], 1, 0.01, []),
}
Found = dict[str, list[tuple[float, ...]]]  # by estimator: a tuple of figures a seed


def samples(data: str, seed: int) -> dict[str, np.ndarray]:
    """Training and validation samples, and which training labels are wrong."""
    features, truth = LOADERS[data](return_X_y=True)
    n_valid = min(N_VALID, len(truth) // 5)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(truth))
    valid, train = order[:n_valid], order[n_valid : n_valid + N_TRAIN]
    n_classes = int(truth.max()) + 1
    seen, wrong = _flip(truth[train], n_classes, generator)
    valid_seen, _ = _flip(truth[valid], n_classes, generator)
    scale = features[train].std(0)
    return {
        "features": features[train],
        "label": np.eye(n_classes)[seen],
        "holdout_features": features[valid],
        "holdout_label": np.eye(n_classes)[valid_seen],
        "wrong": wrong,
        "mean": features[train].mean(0),
        "scale": np.where(scale > 0, scale, 1.0),
    }


def _flip(label: np.ndarray, n_classes: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    wrong = np.zeros(len(label), bool)
    wrong[generator.choice(len(label), round(len(label) * FLIPPED), replace=False)] = True
    return np.where(wrong, (label + generator.integers(1, n_classes, len(label))) % n_classes, label), wrong


def evidence_of(sample: dict[str, np.ndarray]) -> Evidence:
    """What our estimators see."""

    def seen(features: np.ndarray) -> np.ndarray:
        scaled = (features - sample["mean"]) / sample["scale"]
        return np.hstack([scaled, np.ones((len(scaled), 1))]).astype(np.float32)

    held = Holdout(seen(sample["holdout_features"]), sample["holdout_label"])
    return Evidence(label=sample["label"], features=seen(sample["features"]), holdout=held)


def out_of_fold(evidence: Evidence, seed: int, n_folds: int = 5, n_repeats: int = 5) -> SampleValues:
    """Out-of-fold confidence, its scores made on the way."""
    generator = np.random.default_rng(seed)
    fold = np.stack([generator.permutation(len(evidence)) % n_folds for _ in range(n_repeats)], 1)
    scores = out_of_fold_scores(evidence.features, evidence.label, fold, n_folds, evidence.device)
    return OutOfFoldConfidence().fit(Evidence(label=evidence.label, oof_score=scores.score, fold=fold))


def figures(value: np.ndarray, wrong: np.ndarray, seconds: float) -> tuple[float, ...]:
    """Average precision, AUROC, F1 of two clusters, precision at the true count, seconds."""
    lowest = np.argsort(value, kind="stable")
    at_count = wrong[lowest[: wrong.sum()]].mean()
    low = _lower_cluster(value)
    f1 = 2 * (low & wrong).sum() / (low.sum() + wrong.sum())
    return average_precision_score(wrong, -value), roc_auc_score(wrong, -value), f1, at_count, seconds


def _lower_cluster(value: np.ndarray) -> np.ndarray:
    """Exact k-means of numbers with k = 2: the cut with the largest sum of squares between the parts."""
    order = np.argsort(value, kind="stable")
    centred = value[order] - value.mean()
    left, n_left = centred.cumsum()[:-1], np.arange(1, len(value))
    between = left**2 / n_left + (centred.sum() - left) ** 2 / (len(value) - n_left)
    low = np.zeros(len(value), bool)
    low[order[: between.argmax() + 1]] = True
    return low


def ours(folder: Path, data: str, seed: int, sample: dict[str, np.ndarray], with_slow: bool, found: Found) -> None:
    """Run our estimators on a seed, unless their values lie in the folder."""
    evidence = evidence_of(sample)
    chosen = [*QUICK, *(SLOW if with_slow else [])]
    ways: dict[str, Callable[[], SampleValues]] = {_title(one): lambda one=one: one.fit(evidence) for one in chosen}
    ways["oof_confidence (5 folds, 5 repeats)"] = lambda: out_of_fold(evidence, seed)
    for name, fit in ways.items():
        path = folder / f"{data}-{seed}-ours-{name}.npz"
        if not path.exists():
            started = time.perf_counter()
            value = fit().value
            np.savez(path, value=value, seconds=time.perf_counter() - started)
        kept = np.load(path)
        found.setdefault(name, []).append(figures(kept["value"], sample["wrong"], float(kept["seconds"])))


def _title(estimator: Estimator) -> str:
    return f"{estimator.name} (votes)" if getattr(estimator, "soft", True) is False else estimator.name


def theirs(python: str, folder: Path, data: str, seed: int, sample: dict[str, np.ndarray], found: Found) -> None:
    """Run the peers' evaluators on a seed, unless their values lie in the folder."""
    for run, (names, n_seeds, share, more) in RUNS.items():
        if seed >= n_seeds:
            continue
        path = folder / f"{data}-{seed}-peers-{run}.npz"
        if not path.exists():
            _ask(python, folder / f"{data}-{seed}.npz", path, names, seed, share, more)
        values = np.load(path)
        for name in names:
            title = f"peers: {name}{' standardised' if more else ''}{f' ({share:g} of models)' if share < 1 else ''}"
            row = figures(values[name], sample["wrong"], float(values[f"{name} seconds"]))
            found.setdefault(title, []).append(row)


def _ask(
    python: str, samples_file: Path, values_file: Path, names: list[str], seed: int, share: float, more: list[str]
) -> None:
    script = str(Path(__file__).with_name("peers_opendataval.py"))
    command = [python, script, str(samples_file), str(values_file), "--seed", str(seed), "--share", str(share), *more]
    subprocess.run([*command, "--evaluators", *names], check=True, capture_output=True)


def race(python: str, folder: Path, n_rounds: int) -> None:
    """Seconds of our leave-one-out and of the peers' Data-OOB, in turns on the same samples; ours before and after.

    Its models are alike and fitted one by one, so a tenth of the 1000 is timed, and the time multiplied by ten.
    """
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for seed in range(n_rounds):
        sample, path = samples("digits", seed), folder / f"race-{seed}.npz"
        np.savez(path, **sample)
        evidence = evidence_of(sample)
        LeaveOneOutCredibility().fit(evidence)  # the first call of a process loads libraries
        clocks = []
        for turn in range(4):
            if turn == 2:
                _ask(python, path, folder / "race-values.npz", ["DataOob"], seed, 0.1, [])
            wall, cpu = time.perf_counter(), time.process_time()
            LeaveOneOutCredibility().fit(evidence)
            clocks.append((time.perf_counter() - wall, time.process_time() - cpu))
        peer = np.load(folder / "race-values.npz")
        pair = 10 * np.array([peer["DataOob seconds"], peer["DataOob cpu seconds"]])
        mean = np.mean(clocks, 0)
        print(
            f"seed {seed}: ours {mean[0]:.2f} s ({mean[1]:.2f} s of a core), Data-OOB {pair[0]:.1f} s ({pair[1]:.1f}); "
            f"{pair[0] / mean[0]:.0f} times as fast ({pair[1] / mean[1]:.0f})",
            flush=True,
        )


def show(data: str, found: Found) -> None:
    """The table, best average precision first; means, with 95 % t-intervals over seeds."""
    columns = ("AP", "AUROC", "F1", "P@count", "seconds")
    print(f"\n{data}\n{'estimator':<44}{'n':>3}  " + "".join(f"{column:>24}" for column in columns))
    for name, rows in sorted(found.items(), key=lambda item: -np.mean(item[1], 0)[0]):
        table = np.array(rows)
        n, mean = len(table), table.mean(0)
        cells = ""
        for i in range(len(columns)):
            digits = 2 if i == 4 else 3
            cell = f"{mean[i]:.{digits}f}"
            if n > 1:
                half = student.ppf(0.975, n - 1) * table[:, i].std(ddof=1) / np.sqrt(n)
                cell += f" [{mean[i] - half:.{digits}f}, {mean[i] + half:.{digits}f}]"
            cells += f"{cell:>24}"
        print(f"{name:<44}{n:>3}  {cells}")


def main() -> None:
    """Print a table a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["digits"], choices=list(LOADERS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--slow-seeds", type=int, default=3, help="for our games")
    parser.add_argument("--peers", help="the Python that has OpenDataVal; without it, only ours run")
    parser.add_argument("--folder", type=Path, help="keeps samples and values; what lies there is not rerun")
    parser.add_argument("--race", type=int, metavar="ROUNDS", help="only time ours against the peers' Data-OOB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = arguments.folder or Path(home)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.race:
            race(arguments.peers, folder, arguments.race)
            return
        for data in arguments.data:
            found: Found = {}
            for seed in range(arguments.seeds):
                sample = samples(data, seed)
                np.savez(folder / f"{data}-{seed}.npz", **sample)
                ours(folder, data, seed, sample, seed < arguments.slow_seeds, found)
                if arguments.peers:
                    theirs(arguments.peers, folder, data, seed, sample, found)
            show(data, found)


if __name__ == "__main__":
    main()
