"""Whom to ask about first? Wrong labels are planted, a twentieth is answered by the truth, and the ranker learns anew.

    python benchmarks/relabel_loop.py ../shared/data --cache /tmp/relabel_loop

In each draw the judged queries are divided anew (60 % train, 20 % validation, 20 % test) and a tenth of the training and of
the validation labels is made wrong; test labels are the source's. Each order names the training labels to ask about; they
are answered by the truth, and the linear ranker is fitted and tuned again. Printed are the wrong labels found in a hundred
answers, and how much better the ranker is than after as many answers at random: paired over test queries, each query's
differences averaged over draws, with a 95 % bootstrap interval over queries. Needs cleanlab.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cleanlab.rank import get_label_quality_scores
from label_threshold import kept
from weighting_map import judged_pairs, queries

from ecom_pipeline.benchmark.dataset import Dataset
from ecom_pipeline.benchmark.noise import KINDS, corrupted
from ecom_pipeline.importance.asking import worth_of_asking, wrong_in_query
from ecom_pipeline.importance.estimator import one_hot
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.head_gradients import Head, Samples
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.importance.threshold import find_wrong_labels
from ecom_pipeline.ranking import metrics
from ecom_pipeline.ranking.evaluation import N_BOOTSTRAP, Rows
from ecom_pipeline.ranking.linear import fit_linear

WRONG, ANSWERED, PENALTY = 0.1, 0.05, 0.03
FIRST_SEED = 100  # the order by worth was chosen on draws with lower ones
RANDOM, NOBODY, EVERYTHING = "random", "no answers", "all wrong labels answered"


@dataclass(frozen=True, slots=True)
class Draw:
    """A division of the queries with labels that are partly wrong.

    Attributes:
        dataset: the three splits.
        label: (n,) of training, a share of them wrong.
        held: (m,) of validation, as wrong.
        test_query: (g,) number of each test query among all queries.
        chance: of what is drawn further.
    """

    dataset: Dataset
    label: np.ndarray
    held: np.ndarray
    test_query: np.ndarray
    chance: np.random.Generator

    @property
    def wrong(self) -> np.ndarray:
        """(n,) which training labels are."""
        return self.label != self.dataset.train.rows.label

    @property
    def validation(self) -> Rows:
        """What penalties are chosen on."""
        return Rows(self.dataset.validation.rows.group, self.held, self.held)


def drawn(told: dict[str, np.ndarray], kind: str, seed: int) -> Draw:
    """One draw."""
    chance = np.random.default_rng(seed)
    every, query = np.unique(told["group_id"], return_inverse=True)
    place = chance.permutation(len(every))[query] / len(every)
    split = np.where(place < 0.6, "train", np.where(place < 0.8, "validation", "test"))
    dataset = queries({**told, "split": split})
    train, validation = dataset.train, dataset.validation
    label, held = (corrupted(part.rows.label, part.item, kind, WRONG, chance) for part in (train, validation))
    return Draw(dataset, label, held, np.unique(query[split == "test"]), chance)


def orders(draw: Draw) -> Iterator[tuple[str, np.ndarray]]:
    """(n,) by order: what is asked about first has the highest number."""
    train = draw.dataset.train
    label = one_hot(draw.label)
    score = out_of_fold_scores(train.features, label, draw.dataset.fold, draw.dataset.n_folds, "cpu").score
    probability = find_wrong_labels(label, score).probability
    in_query = wrong_in_query(train.features, draw.label, train.rows.group, "cpu")
    worth = worth_of_asking(probability, in_query)
    along, moved = effects(draw)
    yield RANDOM, draw.chance.random(len(label))
    yield "cleanlab: self-confidence", -get_label_quality_scores(draw.label.astype(int), score.mean(1))
    yield "ecom suspects", probability
    yield "ecom suspects, times influence on validation", probability * along
    yield "wrong in its query", in_query
    yield "ecom suspects --order worth", worth
    yield "worth, times influence on validation", worth * along
    yield "worth, times how far it moves other scores", worth * moved


def effects(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """What turning each label over does, to first order: to the pairwise loss on validation (its fall), and to scores."""
    train, validation = draw.dataset.train, draw.dataset.validation
    samples, held = (
        Samples.on("cpu", train.features, one_hot(draw.label)),
        torch.as_tensor(validation.features).double(),
    )
    head = Head.fitted(samples, PENALTY)[0]
    step = samples.x.double() @ torch.cholesky_inverse(torch.linalg.cholesky(head.hessian(samples, PENALTY)))
    asked = torch.as_tensor(pairwise_gradient((held @ head.theta.double())[:, 0].numpy(), draw.validation))
    along = torch.as_tensor(2 * draw.label - 1) * (step @ (held.T @ asked))
    moved = ((step @ (held.T @ held / len(held))) * step).sum(1).clamp(min=0).sqrt()
    return along.numpy(), moved.numpy()


def pairwise_gradient(score: np.ndarray, rows: Rows) -> np.ndarray:
    """(m,) gradient of the logistic loss of all pairs of a relevant and an irrelevant item, a mean over queries."""
    gradient, n_queries = np.zeros(len(score)), 0
    for group in range(rows.group.max() + 1):
        good, bad = (np.flatnonzero((rows.group == group) & (rows.relevant == one)) for one in (True, False))
        if len(good) and len(bad):
            miss = 1 / (1 + np.exp(score[good][:, None] - score[bad]))
            gradient[good] -= miss.mean(1) / len(good)
            gradient[bad] += miss.mean(0) / len(bad)
            n_queries += 1
    return gradient / max(n_queries, 1)


def learned(draw: Draw, label: np.ndarray) -> dict[str, np.ndarray]:
    """(g,) figures of each test query, of the linear ranker that is taught these labels."""
    dataset = draw.dataset
    ranker = fit_linear(
        dataset.train.features,
        label,
        np.ones((len(label), 1)),
        held_features=dataset.validation.features,
        held=draw.validation,
        penalties=PENALTIES,
        device="cpu",
    ).tuned[0]
    rows, score = dataset.test.rows, (dataset.test.features @ ranker).astype(float)
    return {
        "nDCG@10": metrics.ndcg_at_k(rows.group, rows.relevance, score, 10),
        "AUC": metrics.auc(rows.group, rows.relevant, score),
    }


def measured(draw: Draw) -> tuple[dict[str, float], dict[str, dict[str, np.ndarray]]]:
    """Share of wrong labels among the answers, and the figures of each test query, by order."""
    truth = draw.dataset.train.rows.label
    found, figures = {}, {NOBODY: learned(draw, draw.label), EVERYTHING: learned(draw, truth)}
    for name, first in orders(draw):
        asked = np.argsort(-first, kind="stable")[: int(ANSWERED * len(first))]
        label = draw.label.copy()
        label[asked] = truth[asked]
        found[name] = float(draw.wrong[asked].mean())
        figures[name] = learned(draw, label)
    return found, figures


def interval(frame: pd.DataFrame) -> str:
    """Mean difference over queries and its 95 % interval; columns query and difference."""
    by_query = frame.dropna().groupby("query").difference.agg(["sum", "count"]).to_numpy(float)
    times = np.random.default_rng(0).multinomial(len(by_query), np.full(len(by_query), 1 / len(by_query)), N_BOOTSTRAP)
    means = times @ by_query
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    return f"{by_query[:, 0].sum() / by_query[:, 1].sum():+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    """Print a line an order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where features are kept between runs")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--sets", nargs="+", default=["crowdflower", "esci_ubi"])
    parser.add_argument("--kind", choices=KINDS, default="random", help="how labels are made wrong")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.sets:
        told = kept(arguments.cache, name, lambda name=name: judged_pairs(arguments.folder / name))
        draws = [drawn(told, arguments.kind, seed) for seed in range(FIRST_SEED, FIRST_SEED + arguments.draws)]
        results = [measured(draw) for draw in draws]
        print(f"\n{name}, {arguments.kind}, {len(draws)} draws of {len(draws[0].label)} training labels or so")
        print(f"{'order':<48}{'found in 100':>14}{'nDCG@10 - random':>28}{'AUC - random':>28}")
        for order in results[0][1]:
            found = np.mean([share.get(order, np.nan) for share, _ in results])
            cells = [
                interval(
                    pd.concat(
                        pd.DataFrame(
                            {"query": draw.test_query, "difference": figures[order][metric] - figures[RANDOM][metric]}
                        )
                        for draw, (_, figures) in zip(draws, results, strict=True)
                    )
                )
                for metric in ("nDCG@10", "AUC")
            ]
            print(f"{order:<48}{100 * found:>14.1f}{cells[0]:>28}{cells[1]:>28}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
