"""What the page and the terminal tell of search: what judged and searched pairs are worth, and did their weights help?

On the floor of `report`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import ledger
from ecom_pipeline import page as html
from ecom_pipeline.importance.estimators.prediction_gap import NEAR_ZERO
from ecom_pipeline.importance.frames import AUTOMATIC
from ecom_pipeline.importance.selection import NONE
from ecom_pipeline.importance.weights import ess_share
from ecom_pipeline.ranking.baselines import SIMPLE
from ecom_pipeline.report import answers
from ecom_pipeline.report.comparison import (
    baseline_told,
    best_trials,
    cell,
    figure_of,
    how,
    seeds_told,
    strongest_baseline,
)
from ecom_pipeline.report.doubts import SUSPECT_BELOW, n_flagged, suspects
from ecom_pipeline.samples import TAKEN
from ecom_pipeline.schema import SPLITS

METRICS = {
    "ndcg_at_10": "nDCG@10",
    "mrr": "MRR",
    "recall_at_5": "recall@5",
    "auc": "AUC",
    "brier": "Brier score (lower is better)",
    "calibration_error": "calibration error (lower is better)",
}
DIFFERENCE = "weighted - unweighted"
MODELS = ("weighted", "unweighted", *SIMPLE, DIFFERENCE)
_ALONE = tuple(model for model in MODELS if " - " not in model)
_STEP = re.compile(r"linear: (text|\+ [^-]+)")
_LABELS = re.compile(r"linear: (\d+) labels")
_LITERAL = "literal_prediction_gap"


@dataclass(frozen=True, slots=True)
class SearchTold:
    """What is told of search.

    Attributes:
        counts: of the samples of each split, and of those that are flagged as mislabelled ("suspects").
        estimators: a row an estimator: values, weights, effective sample size.
        weights: estimator, sample_weight, label, oof_score of every training sample.
        trials: weightings tried on validation, the best first.
        suspects: the samples most likely mislabelled.
        evaluation: the relation.
        manifest: how the rankers were made.
        answers: what raters answered and what it did; None where nobody did.
    """

    counts: Mapping[str, int]
    estimators: pd.DataFrame
    weights: pd.DataFrame
    trials: pd.DataFrame
    suspects: pd.DataFrame
    evaluation: pd.DataFrame
    manifest: Mapping
    answers: answers.AnswersTold | None

    @property
    def chosen(self) -> str:
        """The estimator whose weights were trained with."""
        return self.manifest["inputs"]["estimator"]

    @property
    def unweighted(self) -> bool:
        """Whether the choice was not to weight, so that both twins are one."""
        return self.chosen == AUTOMATIC and bool(self.trials[self.trials.chosen].estimator.eq(NONE).all())

    @property
    def best_trials(self) -> pd.DataFrame:
        """The best weightings tried, with none and the chosen one always among them."""
        return best_trials(self.trials)

    def figure(self, model: str, metric: str = "ndcg_at_10", slice_: str = "all") -> pd.Series | None:
        """One figure of the evaluation, or None where it has no value."""
        return figure_of(self.evaluation, model, metric, slice_)


def popularity(db: DuckDBPyConnection) -> dict[str, int]:
    """How often each item was taken before the test period: in behaviour, and among positive training samples."""
    rows = db.execute(
        f"""select item_id, count(*) from cleaned_interactions
        where {TAKEN} and occurred_at < coalesce((
            select min(occurred_at) from training_samples where split = 'test'), 'infinity'::timestamp)
        group by item_id
        union all
        select item_id, count(*) from training_samples
        where split = 'train' and origin = 'judgment' and label >= 0.5 group by item_id"""
    )
    counts: dict[str, int] = {}
    for item, n in rows.fetchall():
        counts[item] = counts.get(item, 0) + n
    return counts


def gather(db: DuckDBPyConnection, models: Path) -> SearchTold | None:
    """Read what is told; None where nothing was judged and nobody searched.

    Args:
        db: a connection to the warehouse.
        models: folder of all fine-tuned models.
    """
    name = ledger.entries(db, "fine_tuned_model")[ledger.WHOLE].content
    if not name:
        return None
    counts = dict(db.execute("select split, count(*) from training_samples group by split").fetchall())
    counts["suspects"] = n_flagged(db)
    weights = db.execute(
        """with scored as (
            select sample_id, avg(oof_score) as oof_score from fold_predictions group by sample_id)
        select estimator, sample_weight, sample_value, label, oof_score from importance_weights
        left join sample_values using (estimator, sample_id) join training_samples using (sample_id)
        join scored using (sample_id)"""
    ).df()
    trials = db.execute("from weighting_trials order by utility desc, trial").df()
    manifest = json.loads((models / name / "manifest.json").read_text())
    evaluation = db.execute("from evaluation").df()
    return SearchTold(
        counts=counts,
        estimators=_estimators(db, weights),
        weights=weights,
        trials=trials,
        suspects=suspects(db, 15),
        evaluation=evaluation,
        manifest=manifest,
        answers=answers.gather(db, evaluation),
    )


def _estimators(db: DuckDBPyConnection, weights: pd.DataFrame) -> pd.DataFrame:
    (repeats,) = db.execute("select count(distinct repeat) from fold_predictions").fetchall()[0]
    rows = []
    for name, part in weights.groupby("estimator"):
        literal = name == _LITERAL
        near = (part.sample_value.abs() > 1 / (NEAR_ZERO * repeats)).sum() + (part.sample_value == 0).sum()
        rows.append(
            {
                "estimator": name,
                "n_negative": int((part.sample_value < 0).sum()),
                "n_divided_by_nearly_zero": int(near) if literal else 0,
                "ess_share": ess_share(part.sample_weight.to_numpy()),
                "largest_weight": part.sample_weight.max(),
                "n_weight_zero": int((part.sample_weight == 0).sum()),
            }
        )
    return pd.DataFrame(rows)


def compared(told: SearchTold) -> list[str]:
    """The models and differences of the first table, the one to the strongest ranking without learning among them."""
    return list(dict.fromkeys([*MODELS, f"weighted - {strongest_baseline(told)}"]))


def headline(told: SearchTold) -> dict[str, float]:
    """The figures one would ask for first."""
    found = {model: told.figure(model) for model in MODELS}
    figures = {
        f"{model} nDCG@10".replace(" ", "_"): float(row.value) for model, row in found.items() if row is not None
    }
    difference = found[DIFFERENCE]
    if difference is not None:
        figures |= {"gain_ndcg_ci_low": float(difference.ci_low), "gain_ndcg_ci_high": float(difference.ci_high)}
    return figures


def verdict(told: SearchTold) -> str:
    """One sentence: did the weights help?"""
    row = told.figure(DIFFERENCE)
    if row is None:
        return "Whether the weights help cannot be told: no test group has a relevant item."
    if told.unweighted:
        tried = len(told.trials) - 1
        return f"No weights are used: none of {tried} weightings tried on validation gained anything for certain."
    gain = f"{row.value:+.4f} nDCG@10 [{row.ci_low:+.4f}, {row.ci_high:+.4f}] over {row.n_groups} test groups"
    if row.ci_low > 0:
        return f"The weights helped: {gain}."
    if row.ci_high < 0:
        return f"The weights did harm: {gain}. Train without them."
    return f"No difference can be told between training with and without weights: {gain}."


def lines(told: SearchTold) -> list[str]:
    """The short table that a terminal shows."""
    splits = ", ".join(f"{told.counts.get(split, 0):,} {split}" for split in SPLITS)
    shown = [f"{'samples':<18}{splits}; {told.counts['suspects']:,} of train flagged as mislabelled", ""]
    shown.append(f"{'search, test split':<28}{'nDCG@10':>24}{'MRR':>24}{'AUC':>24}")
    for model in compared(told):
        cells = [cell(told.figure(model, metric), signed=" - " in model) for metric in ("ndcg_at_10", "mrr", "auc")]
        if any(cells):
            shown.append(f"{model:<28}" + "".join(f"{one:>24}" for one in cells))
    return [*shown, "", verdict(told), *filter(None, [baseline_told(told)]), seeds_told(told), *answers_told(told)]


def markdown(told: SearchTold) -> str:
    """The results as a table."""
    head = "| model | " + " | ".join(METRICS.values()) + " |\n|---|" + "---|" * len(METRICS)
    rows = [
        f"| {model} | "
        + " | ".join(cell(told.figure(model, metric), signed=" - " in model) for metric in METRICS)
        + " |"
        for model in compared(told)
    ]
    return "\n".join([verdict(told), "", head, *rows, "", baseline_told(told), seeds_told(told), *answers_told(told)])


def answers_told(told: SearchTold) -> list[str]:
    """What raters' answers did, where there are any."""
    return [answers.sentences(told.answers)] if told.answers else []


def for_template(told: SearchTold) -> dict[str, Any]:
    """What `search.html.j2` is given."""
    from ecom_pipeline.ranking.cold import BORROWED, CUTS
    from ecom_pipeline.ranking.figures import LINEAR

    slices = [name for name in dict.fromkeys(told.evaluation.slice) if name != "all"]
    return {
        "search": told,
        "metrics": METRICS,
        "models": [model for model in compared(told) if told.figure(model) is not None],
        "baseline_told": baseline_told(told),
        "seeds_told": seeds_told(told),
        "answers_told": answers_told(told),
        "cell": cell,
        "weights_figure": _weights_figure(told),
        "results_figure": _results_figure(told),
        "slices_figure": _slices_figure(told, ["all", *[name for name in slices if name not in CUTS]]),
        "steps_figure": _steps_figure(told) if len(steps(told)) > 1 else "",
        "labels_figure": _labels_figure(told) if len(labels(told)) > 1 else "",
        "labels_told": labels_told(told),
        "cuts": [name for name in CUTS if name in slices],
        "cold_models": [m for m in (*_ALONE, LINEAR, BORROWED) if told.figure(m, slice_=CUTS[0]) is not None],
        "borrowing_told": borrowing_told(told),
    }


def steps(told: SearchTold) -> list[str]:
    """What each mode adds: the models of the ablation, in order."""
    models = told.evaluation.model
    return [name for name in models.unique() if _STEP.fullmatch(name)]


def labels(told: SearchTold) -> dict[int, pd.Series]:
    """The figures of the learning curve by number of labels."""
    found = {name: _LABELS.fullmatch(name) for name in told.evaluation.model.unique()}
    curve = {int(match[1]): told.figure(name) for name, match in found.items() if match}
    return {size: row for size, row in sorted(curve.items()) if row is not None}


def labels_told(told: SearchTold) -> str:
    """One sentence: what one gets with how many labels."""
    from ecom_pipeline.ranking.learning_curve import SIZES

    curve = labels(told)
    parts = [f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}] with {size:,}" for size, row in curve.items()]
    absent = [f"{size:,}" for size in SIZES if size > max(curve, default=0)]
    short = f" There are not {' or '.join(absent)} labelled samples to tell more." if absent else ""
    return f"Test nDCG@10 by number of labelled samples: {'; '.join(parts)}, which is all.{short}"


def borrowing_told(told: SearchTold) -> str:
    """One sentence: does the popularity of like items rank items that training never saw?"""
    from ecom_pipeline.ranking.cold import BORROWED

    parts = []
    for other, words in (("popularity", "their own popularity"), ("text_similarity", "likeness to the context")):
        row = told.figure(f"{BORROWED} - {other}", slice_="cold items")
        if row is not None:
            parts.append(
                f"{how(row, 'no differently from')} {words} ({row.value:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}] nDCG@10)"
            )
    return (
        f"Popularity lent by the ten known items most like them ranks these items {', and '.join(parts)}."
        if parts
        else ""
    )


def _weights_figure(told: SearchTold) -> str:
    figure, (left, right) = html.axes(2)
    chosen = told.weights[told.weights.estimator == told.chosen]
    confidence = np.where(chosen.label >= 0.5, chosen.oof_score, 1 - chosen.oof_score)
    for label, colour in ((1, html.BLUE), (0, html.ORANGE)):
        of_label = (chosen.label >= 0.5) == bool(label)
        left.hist(
            confidence[of_label.to_numpy()],
            40,
            range=(0, 1),
            alpha=0.6,
            color=colour,
            label=f"label {label}",
        )
        right.hist(chosen.sample_weight[of_label], 40, alpha=0.6, color=colour, label=f"label {label}")
    left.axvline(SUSPECT_BELOW, color=html.INK, linewidth=1, linestyle=":")
    left.set(xlabel="confidence in the label, by models that did not see it", ylabel="training samples")
    right.set(xlabel=f"weight in training ({told.chosen})")
    left.legend(frameon=False)
    return html.svg(figure)


def _results_figure(told: SearchTold) -> str:
    figure, (left, right) = html.axes(2)
    models = [model for model in _ALONE if told.figure(model) is not None]
    html.forest(left, models, [told.figure(model) for model in models])
    left.set(xlabel="nDCG@10 on the test split")
    metrics = [metric for metric in METRICS if told.figure(DIFFERENCE, metric) is not None]
    figures = [told.figure(DIFFERENCE, metric) for metric in metrics]
    html.forest(right, [METRICS[metric].split(" (")[0] for metric in metrics], figures, zero=True)
    right.set(xlabel="weighted minus unweighted")
    return html.svg(figure)


def _slices_figure(told: SearchTold, slices: list[str]) -> str:
    found = [(name, row) for name in slices if (row := told.figure(DIFFERENCE, slice_=name)) is not None]
    figure, (axes,) = html.axes(1, height=0.9 + 0.3 * len(found))
    html.forest(axes, [f"{name} ({row.n_groups})" for name, row in found], [row for _, row in found], zero=True)
    axes.set(xlabel="weighted minus unweighted, nDCG@10 (number of groups)")
    return html.svg(figure)


def _steps_figure(told: SearchTold) -> str:
    names = steps(told)
    figure, (left, right) = html.axes(2, height=0.9 + 0.3 * len(names))
    html.forest(left, [name.removeprefix("linear: ") for name in names], [told.figure(name) for name in names])
    left.set(xlabel="nDCG@10 on the test split, each with all above it")
    pairs = [told.figure(f"{later} - {earlier}") for earlier, later in pairwise(names)]
    html.forest(right, [name.removeprefix("linear: ") for name in names[1:]], pairs, zero=True)
    right.set(xlabel="difference to the line before")
    return html.svg(figure)


def _labels_figure(told: SearchTold) -> str:
    curve = labels(told)
    figure, (axes,) = html.axes(1)
    values, low, high = (
        np.array([getattr(row, end) for row in curve.values()]) for end in ("value", "ci_low", "ci_high")
    )
    axes.errorbar(list(curve), values, [values - low, high - values], fmt="o-", color=html.BLUE, capsize=3)
    unlabelled = told.figure("text_similarity")
    if unlabelled is not None:
        axes.axhline(unlabelled.value, color=html.INK, linewidth=1, linestyle=":", label="likeness of texts, no labels")
        axes.legend(frameon=False, fontsize="small")
    axes.set(xscale="log", xlabel="labelled samples", ylabel="nDCG@10")
    axes.set_xticks(list(curve), [f"{size:,}" for size in curve])
    axes.minorticks_off()
    return html.svg(figure)
