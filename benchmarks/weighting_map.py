"""Where do weights beat a tuned unweighted twin? Real data, kinds of noise, capacity of the ranker, amount of data.

    python benchmarks/weighting_map.py ../shared/data --cache /tmp/weighting_map --out rows.parquet

Sets: CrowdFlower (queries), women's clothing and Chinese reviews (random lists of 20 reviews, recommended ones first),
handwritten digits (lists of 20, even ones first). Rankers: a linear head, and a network of one hidden layer that trains
to the end. Both sides have as many trials, chosen on validation whose labels are as wrong as those of training; paired
bootstrap over test lists, seeds averaged within. The rows are those of `importance_benchmark`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from label_threshold import clothing, kept, standardised

from ecom_pipeline.benchmark.dataset import Dataset, Part, from_samples
from ecom_pipeline.benchmark.run import Plan, noises, run
from ecom_pipeline.importance.selection import Search
from ecom_pipeline.language.features import PairFeatures
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.samples import fold_of

LIST = 20
ESTIMATORS = (
    *("oof_confidence", "label_posterior", "stabilised_prediction_gap", "literal_prediction_gap"),
    *("leave_one_out_credibility", "group_kernel"),
)
NOISES = (("natural", 0.0), ("random", 0.2), ("random", 0.4), ("missing_positives", 0.4), ("popular_clicks", 0.1))
_UNKNOWN = ("occurred_at", "propensity", "position")  # of judgments
_COLUMNS = [
    *(
        "split",
        "group_id",
        "item_id",
        "label",
        "relevance",
        "rater_std",
        "occurred_at",
        "propensity",
        "position",
        "fold",
    ),
]


def crowdflower(folder: Path) -> dict[str, np.ndarray]:
    """CrowdFlower's pairs."""
    return judged_pairs(folder / "crowdflower")


def judged_pairs(folder: Path) -> dict[str, np.ndarray]:
    """Frozen pair features of judged pairs, and what the samples are."""
    from search_data import load

    samples, features = load(str(folder))
    judged = (samples.origin == "judgment").to_numpy()
    samples, features = samples[judged], features.rows(judged)
    told = {name: samples[name].to_numpy() for name in _COLUMNS if name not in _UNKNOWN}
    told = {name: values.astype(str) if values.dtype == object else values for name, values in told.items()}
    return {**told, "meeting": features.meeting, "match": features.match}


def queries(told: dict[str, np.ndarray]) -> Dataset:
    """CrowdFlower as a dataset."""
    samples = pd.DataFrame({name: told[name] for name in _COLUMNS if name in told})
    samples["occurred_at"], samples["propensity"], samples["position"] = pd.NaT, np.nan, np.nan
    return from_samples("crowdflower", samples, PairFeatures(told["meeting"], told["match"]), 100, 2)


def chinese(folder: Path) -> dict[str, np.ndarray]:
    """Letter pairs of reviews in 100 components; the packaged language model does not know Chinese."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    frame = pd.read_parquet(folder / "cn_online_shopping" / "online_shopping_10_cats.parquet")
    frame = frame[(frame.cat != "酒店") & frame.review.notna()]
    frame = frame.sample(12_000, random_state=0)
    words = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=5, sublinear_tf=True).fit_transform(
        frame.review
    )
    x = TruncatedSVD(100, random_state=0).fit_transform(words).astype(np.float32)
    category = np.unique(frame.cat, return_inverse=True)[1]
    return {"features": standardised(x), "label": frame.label.to_numpy(float), "item": category}


def lists(name: str, x: np.ndarray, label: np.ndarray, item: np.ndarray, disputed: np.ndarray | None = None) -> Dataset:
    """Single texts as lists of 20 drawn at random: half to train on, a quarter each for validation and test."""
    order = np.random.default_rng(0).permutation(len(x))
    bounds = np.split(order, [len(x) // 2 // LIST * LIST, len(x) * 3 // 4 // LIST * LIST])
    parts = [
        Part(x[rows], Rows(np.arange(len(rows)) // LIST, label[rows], label[rows]), item[rows])
        for rows in (bounds[0], bounds[1], bounds[2][: len(bounds[2]) // LIST * LIST])
    ]
    ids = parts[0].rows.group.astype(str)
    fold = np.column_stack([fold_of(ids, 5, repeat) for repeat in range(2)]).astype(np.int64)
    return Dataset(name, *parts, fold, None if disputed is None else disputed[bounds[0]])


def datasets(folder: Path, cache: Path) -> dict[str, Dataset]:
    """All sets that can be had."""
    from sklearn.datasets import load_digits

    told = kept(cache, "clothing", lambda: clothing(folder))
    rating, recommended = told["rating"], told["recommended"].astype(float)
    contradicts = ((rating <= 2) & (recommended == 1)) | ((rating >= 4) & (recommended == 0))
    reviews = kept(cache, "chinese", lambda: chinese(folder))
    digits = load_digits()
    everyone = np.zeros(len(digits.target), np.int64)
    return {
        "crowdflower": queries(kept(cache, "queries", lambda: crowdflower(folder))),
        "womens_clothing": lists("womens_clothing", told["features"], recommended, rating, contradicts),
        "chinese_reviews": lists("chinese_reviews", reviews["features"], reviews["label"], reviews["item"]),
        "digits": lists(
            "digits", standardised(digits.data.astype(np.float32)), (digits.target % 2 == 0) * 1.0, everyone
        ),
    }


def less(dataset: Dataset, share: float) -> Dataset:
    """The same with a share of the training groups."""
    keep = dataset.train.rows.group < share * (dataset.train.rows.group.max() + 1)
    train = dataset.train
    part = Part(train.features[keep], train.rows.only(keep), train.item[keep])
    disputed = None if dataset.disputed is None else dataset.disputed[keep]
    name = f"{dataset.name}_{share:.0%}"
    return replace(dataset, name=name, train=part, fold=dataset.fold[keep], disputed=disputed)


def main() -> None:
    """Run what is asked for, print gains and write rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where features are kept between runs")
    parser.add_argument("--out", type=Path, required=True, help="Parquet file of the rows")
    parser.add_argument("--sets", nargs="*", help="some of the sets; default: all")
    parser.add_argument("--tasks", nargs="*", default=["linear", "network"])
    parser.add_argument("--noises", nargs="*", help="such as random:0.2; default: five kinds")
    parser.add_argument("--estimators", nargs="*", default=list(ESTIMATORS))
    parser.add_argument("--shares", nargs="*", type=float, default=[1.0], help="shares of the training groups")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=24, help="of the automatic choice")
    told = parser.parse_args()
    torch.set_num_threads(1)
    chosen = noises(told.noises) if told.noises else NOISES
    parts = []
    for name, dataset in datasets(told.folder, told.cache).items():
        for share in told.shares if name in (told.sets or [name]) else []:
            part = dataset if share == 1 else less(dataset, share)
            kinds = tuple(n for n in chosen if n[0] != "popular_clicks" or name in ("crowdflower", "chinese_reviews"))
            plan = Plan(tuple(told.estimators), kinds, tuple(told.tasks), told.seeds, Search(n_trials=told.trials))
            parts.append(run(part, plan, "cpu"))
            pd.concat(parts).to_parquet(told.out, index=False)
            gains = parts[-1][parts[-1].metric == "ndcg_at_10 gain"]
            print(gains.drop(columns=["metric", "seconds", "peak_mib"]).round(4).to_string(index=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
