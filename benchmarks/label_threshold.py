"""Are wrong labels found without being told how many there are? One automatic cut against every filter of cleanlab.

    python benchmarks/label_threshold.py ../shared/data --cache /tmp/label_threshold

Labels are flipped at random (to any other class; or only positives, marked negative), except where a set has wrong
labels of its own: reviews that recommend an item but rate it 1 or 2, or the other way round. All rules get the same
out-of-fold probabilities, the mean of two repeats of five folds; none sees the truth. F1 of finding the wrong labels,
mean over seeds, and the paired difference to the filter that is best on that very set, with its 95 % interval.
Needs cleanlab.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from scipy.stats import t as student
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from ecom_pipeline.benchmark.finding import f1
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.threshold import find_wrong_labels
from ecom_pipeline.language.embeddings import embed
from ecom_pipeline.language.features import Projection
from ecom_pipeline.samples import fold_of

N_FOLDS, N_REPEATS = 5, 2
REVIEWS, MODEL = 4000, "all-MiniLM-L6-v2"
FILTERS = {
    "noise rate": "prune_by_noise_rate",
    "by class": "prune_by_class",
    "both": "both",
    "confident": "confident_learning",
    "argmax": "predicted_neq_given",
    "margin": "low_normalized_margin",
    "self-conf": "low_self_confidence",
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """Samples with the labels that count as true, and labels of their own that are partly wrong, if they have them."""

    features: np.ndarray  # (n, d), the last column is 1
    truth: np.ndarray  # (n,)
    group: np.ndarray  # (n,) text
    observed: np.ndarray | None = None  # (n,)

    def of(self, rows: np.ndarray) -> "Labelled":
        """Some of the samples."""
        observed = None if self.observed is None else self.observed[rows]
        return Labelled(self.features[rows], self.truth[rows], self.group[rows], observed)


@dataclass(frozen=True, slots=True)
class Trial:
    """A set and what is done to its labels."""

    name: str
    samples: Callable[[np.random.Generator], Labelled]
    share: float = 0.0  # of the labels that are flipped, in expectation
    side: int | None = None  # only labels of this class are

    def __str__(self) -> str:
        if not self.share:
            return f"{self.name}, its own noise"
        return f"{self.name}, {self.share:.0%} of {'all' if self.side is None else 'positives'}"


def standardised(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1, then the constant 1."""
    spread = x.std(0)
    return np.column_stack([(x - x.mean(0)) / np.where(spread > 0, spread, 1.0), np.ones(len(x))]).astype(np.float32)


def toy(loaded: object) -> Labelled:
    """A set of scikit-learn; every sample is a group."""
    return Labelled(standardised(loaded.data), loaded.target, np.arange(len(loaded.target)).astype(str))


def crowdflower(folder: Path) -> dict[str, np.ndarray]:
    """Features, labels, grades and queries of the training split."""
    from search_data import N_COMPONENTS, load  # the pipeline's preparation: not loaded where features are kept

    samples, features = load(str(folder / "crowdflower"))
    train = (samples.split == "train").to_numpy()
    x = Projection.fit(features.rows(train), N_COMPONENTS).apply(features.rows(train))
    kept = samples[train]
    return {
        "features": x,
        "label": kept.label.to_numpy().astype(int),
        "grade": kept.relevance.to_numpy().astype(int) - 1,
        "group": kept.group_id.to_numpy().astype(str),
    }


def clothing(folder: Path) -> dict[str, np.ndarray]:
    """Frozen embeddings, recommendation, rating and row of some reviews, chosen at random."""
    frame = pd.read_parquet(folder / "womens_clothing" / "womens_clothing_reviews.parquet")
    frame = frame[frame["Review Text"].notna()]
    frame = frame.iloc[np.sort(np.random.default_rng(0).choice(len(frame), REVIEWS, replace=False))]
    title = frame["Title"].map(lambda one: f"{one}. " if isinstance(one, str) else "")
    found = embed(list(title + frame["Review Text"]), MODEL, 128, 4096, "cpu")
    return {
        "features": standardised(found.embedding),
        "recommended": frame["Recommended IND"].to_numpy().astype(int),
        "rating": frame["Rating"].to_numpy().astype(int),
        "group": frame.index.to_numpy().astype(str),
    }


def kept(cache: Path, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `make` returns, made once."""
    file = cache / f"{name}.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, **make())
    return dict(np.load(file))


def trials(folder: Path, cache: Path) -> list[Trial]:
    """Every set and noise."""
    digits, cancer, wine = toy(load_digits()), toy(load_breast_cancer()), toy(load_wine())
    queries = kept(cache, "crowdflower", lambda: crowdflower(folder))
    relevant = Labelled(queries["features"], queries["label"], queries["group"])
    graded = Labelled(queries["features"], queries["grade"], queries["group"])
    told = kept(cache, "clothing", lambda: clothing(folder))
    liked = Labelled(told["features"], told["recommended"], told["group"])
    clear = told["rating"] != 3  # a rating in the middle contradicts nothing
    own = Labelled(liked.features, (told["rating"] > 3).astype(int), liked.group, told["recommended"]).of(clear)

    def always(samples: Labelled) -> Callable[[np.random.Generator], Labelled]:
        return lambda _: samples

    result = []
    for share in (0.2, 0.4):
        some = Trial("digits 1000", lambda rng: digits.of(np.sort(rng.permutation(len(digits.truth))[:1000])), share)
        result += [some, Trial("digits 1797", always(digits), share)]
    result += [Trial("wine", always(wine), share) for share in (0.2, 0.4)]
    result += [Trial("breast cancer", always(cancer), share) for share in (0.1, 0.2, 0.4)]
    result += [Trial("breast cancer", always(cancer), share, 1) for share in (0.2, 0.4)]
    result += [Trial("CrowdFlower", always(relevant), share) for share in (0.1, 0.2, 0.4)]
    result += [Trial("CrowdFlower", always(relevant), share, 1) for share in (0.2, 0.4)]
    result += [Trial("CrowdFlower grades", always(graded), share) for share in (0.2, 0.4)]
    result += [Trial("clothing", always(liked), share) for share in (0.1, 0.2, 0.4)]
    result += [Trial("clothing", always(liked), share, 1) for share in (0.2, 0.4)]
    return [*result, Trial("clothing", always(own))]


def flipped(samples: Labelled, trial: Trial, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Labels as they are observed."""
    if samples.observed is not None:
        return samples.observed
    wrong = rng.random(len(samples.truth)) < trial.share
    if trial.side is not None:
        wrong &= samples.truth == trial.side
    other = (samples.truth + rng.integers(1, n_classes, len(samples.truth))) % n_classes
    return np.where(wrong, other, samples.truth)


def measured(trial: Trial, seed: int) -> dict[str, float]:
    """Figures of one seed."""
    rng = np.random.default_rng(seed)
    samples = trial.samples(rng)
    n_classes = int(samples.truth.max()) + 1
    observed = flipped(samples, trial, n_classes, rng)
    label, wrong = np.eye(n_classes)[observed], observed != samples.truth
    fold = np.column_stack([fold_of(samples.group, N_FOLDS, seed * N_REPEATS + one) for one in range(N_REPEATS)])
    score = out_of_fold_scores(samples.features, label, fold, N_FOLDS, "cpu").score
    found = find_wrong_labels(label, score)
    figures = {"wrong": wrong.mean(), "flagged": found.wrong.mean(), "ours": f1(wrong, found.wrong)}
    figures["precision"] = (found.wrong & wrong).sum() / max(found.wrong.sum(), 1)
    figures["recall"] = (found.wrong & wrong).sum() / max(wrong.sum(), 1)
    figures["expected"] = found.f1
    for name, filter_by in FILTERS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it says so where a class has few samples
            said = find_label_issues(observed, score.mean(1), filter_by=filter_by, n_jobs=1)
        figures[name] = f1(wrong, said)
    return figures


def main() -> None:
    """Print a row a set and noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where features are kept between runs")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    columns = ["wrong", "flagged", "precision", "recall", "expected", "ours", *FILTERS]
    print(f"{'':<36}" + "".join(f"{one:>11}" for one in columns) + "   ours - best filter, 95 %")
    for trial in trials(arguments.folder, arguments.cache):
        table = pd.DataFrame([measured(trial, seed) for seed in range(arguments.seeds)])
        best = table[list(FILTERS)].mean().idxmax()
        difference = table.ours - table[best]
        wide = student.ppf(0.975, len(table) - 1) * difference.sem()
        low, middle, high = difference.mean() - wide, difference.mean(), difference.mean() + wide
        line = f"{trial!s:<36}" + "".join(f"{table[one].mean():>11.3f}" for one in columns)
        print(f"{line}   {middle:+.3f} [{low:+.3f}, {high:+.3f}] {best}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
