"""The page that ranks the estimators: figures with intervals, sortable, with plots.

On the floor of `benchmark`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecom_pipeline import page as html
from ecom_pipeline.benchmark.run import NATURAL, RANDOM
from ecom_pipeline.benchmark.training import ORACLE, UNWEIGHTED
from ecom_pipeline.importance.frames import AUTOMATIC
from ecom_pipeline.ranking.intervals import discoveries

_NOISE = {
    "random": "labels turned over at random",
    "missing_positives": "positives called negative",
    "popular_clicks": "negatives at popular items called positive",
    NATURAL: "labels as they are",
}
_LEARNER = {"linear": "linear head", "network": "small network"}
_REFERENCES = (RANDOM, UNWEIGHTED, ORACLE)
_PLOTTED = 12


@dataclass(frozen=True, slots=True)
class Board:
    """One table: estimators by metrics, best first.

    Attributes:
        title: what was done with what.
        told: a sentence on how to read it.
        metrics: columns.
        rows: an estimator's name, its figure for each metric (a row of the relation, or None), seconds and MiB.
        figure: the best with their intervals, as SVG.
    """

    title: str
    told: str
    metrics: Sequence[str]
    rows: Sequence[tuple]
    figure: str


def write(figures: pd.DataFrame, path: Path, lacking: Mapping[str, str], note: str = "") -> None:
    """Write the page.

    Args:
        figures: rows of `importance_benchmark`.
        path: of the page.
        lacking: estimators that were left out, and what the data lack for each.
        note: a sentence on what the figures are of, shown on top.
    """
    html.write(
        "benchmark.html.j2",
        path,
        note=note,
        lacking=lacking,
        verdicts=verdicts(figures),
        boards=[*_finding(figures), *_curves(figures), *_training(figures)],
        cost=_cost(figures),
        references=_REFERENCES,
        cell=_cell,
    )


def headline(figures: pd.DataFrame) -> dict[str, float | str]:
    """The best at finding wrong labels and at training, for the metadata."""
    told: dict[str, float | str] = {}
    for (dataset, kind, share), best in _best_finders(figures):
        where = f"{dataset}/{kind}_{share:g}"
        told |= {f"{where}/best_at_finding": best.estimator, f"{where}/{best.metric}": float(best.value)}
    return told


def verdicts(figures: pd.DataFrame) -> list[str]:
    """What a reader should take home, a sentence each."""
    said = []
    for (dataset, kind, share), best in _best_finders(figures):
        what = "what is disputed, within a grade," if kind == NATURAL else "them"
        said.append(
            f"{dataset}, {_noise(kind, share)}: {best.estimator} finds {what} best, AUROC {_cell(best)}, in "
            f"{best.seconds:.2g} s."
        )
    gains = figures[(figures.metric == "ndcg_at_10 gain") & figures.task.isin(_LEARNER)]
    for (task, dataset, kind, share), part in gains.groupby(["task", "dataset", "noise_kind", "noise_share"]):
        said.append(f"{dataset}, {_noise(kind, share)}, {_LEARNER[task]}: {_whether_it_helps(part)}")
    return said


def _best_finders(figures: pd.DataFrame) -> Iterator[tuple[tuple, pd.Series]]:
    """Dataset, kind and share of noise, and the row of the estimator with the highest AUROC; for natural within grades."""
    own = figures[~figures.estimator.isin(_REFERENCES)]
    lead = np.where(own.noise_kind == NATURAL, "auroc_within_grade", "auroc")
    for where, part in _by_noise(own[own.metric == lead]):
        yield where, part.nlargest(1, "value").iloc[0]


def _whether_it_helps(gains: pd.DataFrame) -> str:
    own = gains[~gains.estimator.isin([*_REFERENCES, AUTOMATIC])]
    certain = own[discoveries(own.p_value.fillna(1).to_numpy())]
    helped, harmed = certain[certain.value > 0].nlargest(3, "value"), (certain.value < 0).sum()
    if helped.empty:
        told = f"no estimator's weights beat the tuned unweighted twin for certain; {harmed} of {len(own)} did harm"
    else:
        names = ", ".join(f"{row.estimator} {_cell(row, '+')}" for row in helped.itertuples())
        told = f"weights helped for certain with {(certain.value > 0).sum()} of {len(own)} estimators, most with {names}; {harmed} did harm"
    oracle, automatic = (gains[gains.estimator == name] for name in (ORACLE, AUTOMATIC))
    if len(automatic):
        told += f"; the automatic choice {_cell(automatic.iloc[0], '+')}"
    if len(oracle):
        told += f"; who knows the wrong labels {_cell(oracle.iloc[0], '+')}"
    return told + " (nDCG@10; certain: by the procedure of Benjamini and Hochberg, 5 % of those told may be luck)."


def _finding(figures: pd.DataFrame) -> list[Board]:
    boards = []
    for (dataset, kind, share), part in _by_noise(figures[figures.task == "find"]):
        within = "auroc_within_grade" in set(part.metric)
        lead = "auroc_within_grade" if within else "auroc"
        metrics = [
            lead,
            *(m for m in ("auroc", "average_precision", "precision_at_count", "f1_two_means") if m != lead),
        ]
        told = (
            "Raters disagreed, or users took the item back. 0.5 is chance; within a grade, as grades differ in it."
            if kind == NATURAL
            else "AUROC: chance that a wrong label has the lower value; 0.5 is chance. F1: lower of two clusters of values."
        )
        boards.append(_board(part, f"Find: {dataset}, {_noise(kind, share)}", told, metrics))
    return boards


def _curves(figures: pd.DataFrame) -> list[Board]:
    told = (
        "Test nDCG@10 of a linear head less that of training on everything: mean over removing the lowest 10 to 50 %, "
        "and over training on the highest 10 to 50 % alone."
    )
    return [
        _board(part, f"Remove and add: {dataset}, {_noise(kind, share)}", told, ["removal_gain", "addition_gain"])
        for (dataset, kind, share), part in _by_noise(figures[figures.task == "curve"])
    ]


def _training(figures: pd.DataFrame) -> list[Board]:
    told = (
        "Test split, against the unweighted twin that was tuned with as many trials; 95 % intervals of a paired "
        "bootstrap over groups, and over seeds. The oracle has weight 0 for the wrong labels."
    )
    metrics = ["ndcg_at_10 gain", "auc gain", "ndcg_at_10", "auc", "ndcg_at_10 gain / oracle's"]
    return [
        _board(part[part.task == task], f"Train a {name}: {dataset}, {_noise(kind, share)}", told, metrics)
        for task, name in _LEARNER.items()
        for (dataset, kind, share), part in _by_noise(figures[figures.task == task])
    ]


def _board(part: pd.DataFrame, title: str, told: str, metrics: Sequence[str]) -> Board:
    by_metric: Mapping = {metric: rows.set_index("estimator") for metric, rows in part.groupby("metric")}
    metrics = [metric for metric in metrics if metric in by_metric]
    lead = by_metric[metrics[0]].sort_values("value", ascending=False)
    others = [name for name in dict.fromkeys(part.estimator) if name not in lead.index]
    rows = []
    for name in [*lead.index, *others]:
        cells = [by_metric[m].loc[name] if name in by_metric[m].index else None for m in metrics]
        first = next(cell for cell in cells if cell is not None)
        rows.append((name, cells, first.seconds, first.peak_mib))
    shown = lead[lead.ci_low.notna()].head(_PLOTTED)
    figure, (axes,) = html.axes(1, height=0.7 + 0.24 * len(shown))
    html.forest(axes, list(shown.index), list(shown.itertuples()), zero="gain" in metrics[0])
    axes.set(xlabel=metrics[0])
    return Board(title, told, metrics, rows, html.svg(figure) if len(shown) else "")


def _cost(figures: pd.DataFrame) -> list[tuple]:
    """An estimator's name, seconds at each size, growth and MiB at the largest."""
    part = figures[figures.task == "cost"]
    sizes = sorted(part.dataset.unique(), key=lambda name: int(name.rsplit("_", 1)[1]))
    rows = []
    for name, own in part.groupby("estimator", sort=False):
        seconds = own[own.metric == "seconds"].set_index("dataset")
        growth = own[own.metric == "growth"].value
        told = [(size.rsplit("_", 1)[1], seconds.value.get(size)) for size in sizes]
        peak = seconds.peak_mib.get(sizes[-1])
        rows.append((name, told, growth.iloc[0] if len(growth) else None, peak))
    return sorted(rows, key=lambda row: row[1][-1][1] or 0)


def _by_noise(figures: pd.DataFrame) -> Any:
    return figures.groupby(["dataset", "noise_kind", "noise_share"], sort=False)


def _noise(kind: str, share: float) -> str:
    return f"{share:.0%} {_NOISE[kind]}" if share else _NOISE[kind]


def _cell(row: Any, sign: str = "") -> str:
    if row is None:
        return ""
    if pd.isna(row.ci_low):
        return f"{row.value:{sign}.3f}"
    return f"{row.value:{sign}.3f} [{row.ci_low:{sign}.3f}, {row.ci_high:{sign}.3f}]"
