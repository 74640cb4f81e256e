"""Influence, TracIn, TRAK and DataInf against dattri's, on the same features: agreement, wrong labels found, seconds.

    python benchmarks/gradient_peers.py --peers-python /path/to/python/with/dattri

Digits of scikit-learn: 1000 to train, 20 % of their labels flipped to another class, 400 clean ones as holdout, pixels
standardised. Both sides value the same samples for the same head: our clock runs over fitting it and
valuing, dattri is given our fitted coefficients and its clock runs over its own calls alone, for the pairs of training
and holdout samples whose mean we compare. One thread each, in turn for each seed, the second of two runs. dattri gets
all training samples as one batch, which suits it best. TRAK's subsets are the same, its projections are not, as both
are random; `unprojected` is TRAK with every gradient whole, `no ridge` the paper's.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from ecom_pipeline.importance.estimator import Estimator, Evidence, Holdout, one_hot
from ecom_pipeline.importance.estimators.datainf import DAMPING, DataInf
from ecom_pipeline.importance.estimators.gradients import (
    PENALTY,
    LastLayerInfluence,
    SelfInfluence,
    SelfTracIn,
    TracIn,
    Trak,
)
from ecom_pipeline.importance.estimators.out_of_fold import OutOfFoldConfidence
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.head_gradients import Head, Samples

N_TRAIN, N_HOLDOUT, N_CLASSES, FLIPPED = 1000, 400, 10, 0.2
N_STEPS, N_HEADS, N_PROJECTIONS = 100, 5, 512
PEER = Path(__file__).with_name("peers_gradients.py")


def noisy_digits(seed: int) -> tuple[Evidence, np.ndarray]:
    """Digits with flipped labels, and which of them are right."""
    pixels, digit = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pixels))[: N_TRAIN + N_HOLDOUT]
    pixels, digit = pixels[order], digit[order]
    spread = pixels[:N_TRAIN].std(0)
    pixels = (pixels - pixels[:N_TRAIN].mean(0)) / np.where(spread > 0, spread, 1)
    features = np.c_[pixels, np.ones(len(pixels))].astype(np.float32)
    wrong = np.zeros(N_TRAIN, bool)
    wrong[rng.choice(N_TRAIN, int(FLIPPED * N_TRAIN), replace=False)] = True
    seen = np.where(wrong, (digit[:N_TRAIN] + rng.integers(1, N_CLASSES, N_TRAIN)) % N_CLASSES, digit[:N_TRAIN])
    fold = np.stack([rng.permutation(N_TRAIN) % 5 for _ in range(5)], 1)
    label = one_hot(seen, N_CLASSES)
    scores = out_of_fold_scores(features[:N_TRAIN], label, fold, 5, "cpu")
    holdout = Holdout(features[N_TRAIN:], one_hot(digit[N_TRAIN:], N_CLASSES))
    return Evidence(features=features[:N_TRAIN], label=label, holdout=holdout, oof_score=scores.score), ~wrong


def problem_for_peers(evidence: Evidence, penalty: float, seed: int) -> dict[str, np.ndarray]:
    """Our heads and the numbers that stand in the definitions, as dattri's side reads them."""
    train = Samples.on("cpu", evidence.features, evidence.label)
    head = Head.fitted(train, penalty)[0]
    gradients = next(head.gradients(train))[1]
    mean_square = gradients.squared_norm().double().sum().item() / (N_TRAIN * head.theta.numel())
    path, step = descent(train, penalty)
    rng = np.random.default_rng(seed)
    taught = np.zeros((N_TRAIN, N_HEADS), np.float32)
    for member in range(N_HEADS):
        taught[rng.permutation(N_TRAIN)[: N_TRAIN // 2], member] = 1
    members = Head.fitted(train, penalty, torch.as_tensor(taught))
    penalised = np.full(train.x.shape[1], penalty, np.float32)
    penalised[-1] *= 1e-6
    return {
        "x": evidence.features,
        "y": evidence.observed,
        "held_x": evidence.holdout.features,
        "held_y": evidence.holdout.label.argmax(1),
        "theta": whole(head),
        "penalised": penalised,
        "path": np.stack([whole(each) for each in path]),
        "step": np.float32(step),
        "members": np.stack([whole(each) for each in members]),
        "regularization": np.float32(DAMPING * mean_square),
    }


def descent(train: Samples, penalty: float) -> tuple[list[Head], float]:
    """The heads that TracIn comes by, and its step."""
    step = 1 / (0.5 * torch.linalg.eigvalsh(train.x.T @ train.x)[-1].item() / len(train) + penalty)
    path = [Head.start(train)]
    for _ in range(N_STEPS - 1):
        downhill = path[-1].mean_gradient(train) + path[-1].pull(penalty)
        path.append(Head(path[-1].theta - step * downhill, path[-1].basis))
    return path, step


def whole(head: Head) -> np.ndarray:
    """(c, d) coefficients of all logits."""
    return (head.theta @ head.basis.T).T.numpy()


def ranks(values: np.ndarray) -> np.ndarray:
    """Places in order."""
    return values.argsort().argsort()


def timed(estimator: Estimator, evidence: Evidence) -> tuple[np.ndarray, float]:
    """Values, and seconds of fit and values together, in the second of two runs."""
    estimator.fit(evidence)
    started = time.perf_counter()
    value = estimator.fit(evidence).value
    return value, time.perf_counter() - started


def compare(python: Path, seed: int, penalty: float) -> dict[str, tuple[float, ...]]:
    """A row for each method: rank correlation, AUROC of both, seconds of both."""
    evidence, right = noisy_digits(seed)
    problem = problem_for_peers(evidence, penalty, seed)
    projected = {
        "influence": LastLayerInfluence(penalty),
        "tracin": TracIn(N_STEPS, 1.0, penalty),
        "datainf": DataInf(DAMPING, penalty),
        "trak": Trak(N_HEADS, 0.5, N_PROJECTIONS, 1.0, penalty, seed),
    }
    unprojected = {"trak": Trak(N_HEADS, 0.5, 10**6, 1.0, penalty, seed)}
    as_published = {"trak": Trak(N_HEADS, 0.5, N_PROJECTIONS, 0.0, penalty, seed)}
    rows = {}
    for title, n_projections, ridge, ours in (
        ("", N_PROJECTIONS, penalty * N_TRAIN, projected),
        (", unprojected", 0, penalty * N_TRAIN, unprojected),
        (", no ridge", N_PROJECTIONS, 0.0, as_published),
    ):
        settings = {"n_projections": np.int64(n_projections), "ridge": np.float32(ridge)}
        theirs = of_peer(python, problem | settings, list(ours))
        for name, estimator in ours.items():
            value, seconds = timed(estimator, evidence)
            agreement = np.corrcoef(ranks(value), ranks(theirs[name]))[0, 1]
            both = (roc_auc_score(right, value), roc_auc_score(right, theirs[name]))
            rows[name + title] = (agreement, *both, seconds, theirs[f"{name}_seconds"])
    for estimator in (SelfInfluence(penalty), SelfTracIn(N_STEPS, 1.0, penalty)):
        value, seconds = timed(estimator, evidence)
        rows[estimator.name] = (np.nan, roc_auc_score(right, value), np.nan, seconds, np.nan)
    usual = OutOfFoldConfidence()  # no seconds: its cost is the out-of-fold scores, which are given here
    rows[usual.name] = (np.nan, roc_auc_score(right, usual.fit(evidence).value), np.nan, np.nan, np.nan)
    return rows


def of_peer(python: Path, problem: dict[str, np.ndarray], methods: list[str]) -> dict[str, np.ndarray]:
    """What dattri says of the problem, from its own process."""
    with tempfile.TemporaryDirectory() as home:
        given, found = Path(home) / "problem.npz", Path(home) / "scores.npz"
        np.savez(given, **problem)
        settings = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        subprocess.run([python, PEER, given, found, *methods], check=True, env=settings)
        return dict(np.load(found))


def main() -> None:
    """Print the mean of every figure over seeds, with its spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--penalty", type=float, default=PENALTY)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [compare(args.peers_python, seed, args.penalty) for seed in range(args.seeds)]
    print(f"{args.seeds} seeds, penalty {args.penalty}: mean (standard deviation over seeds); ratio: median")
    print(
        f"{'method':<20}{'rank corr.':>16}{'AUROC ours':>16}{'AUROC dattri':>16}{'s ours':>9}{'s dattri':>10}{'ratio':>8}"
    )
    for name in runs[0]:
        figures = np.array([run[name] for run in runs], float)  # (seeds, 5)
        cells = [
            f"{mean:.3f} ({sd:.3f})" for mean, sd in zip(figures[:, :3].mean(0), figures[:, :3].std(0), strict=True)
        ]
        ratio = np.median(figures[:, 4] / figures[:, 3])
        seconds = figures[:, 3:].mean(0)
        print(
            f"{name:<20}"
            + "".join(f"{cell:>16}" for cell in cells)
            + f"{seconds[0]:>9.2f}{seconds[1]:>10.2f}{ratio:>8.1f}"
        )


if __name__ == "__main__":
    main()
