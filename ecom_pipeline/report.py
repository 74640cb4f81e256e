"""One self-contained HTML page that a product manager can read, and the same figures as text.

On the floor above `ranking`. matplotlib and Jinja2 are imported when a page is written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import page as html
from ecom_pipeline.comparison import baseline_told, seeds_told, strongest_baseline
from ecom_pipeline.importance.estimators.prediction_gap import NEAR_ZERO
from ecom_pipeline.importance.frames import AUTOMATIC
from ecom_pipeline.importance.selection import NONE
from ecom_pipeline.importance.weights import ess_share
from ecom_pipeline.ranking.baselines import SIMPLE

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
SUSPECT_BELOW = 0.5  # the other label is then the more probable one
_STEP = re.compile(r"linear: (text|\+ [^-]+)")
_LABELS = re.compile(r"linear: (\d+) labels")
_LITERAL = "literal_prediction_gap"


@dataclass(frozen=True, slots=True)
class Page:
    """What the page tells.

    Attributes:
        counts: rows in, kept and rejected, samples by split.
        rejected: rule, source, n_rows, reason of the first row.
        estimators: a row an estimator: values, weights, effective sample size.
        weights: estimator, sample_weight, label, oof_score of every training sample.
        trials: weightings tried on validation, the best first.
        suspects: the samples most likely mislabelled.
        evaluation: the relation.
        manifest: how the rankers were made.
    """

    counts: Mapping[str, int]
    rejected: pd.DataFrame
    estimators: pd.DataFrame
    weights: pd.DataFrame
    trials: pd.DataFrame
    suspects: pd.DataFrame
    evaluation: pd.DataFrame
    manifest: Mapping

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
        return self.trials[(np.arange(len(self.trials)) < 6) | (self.trials.trial == 0) | self.trials.chosen]

    def figure(self, model: str, metric: str = "ndcg_at_10", slice_: str = "all") -> pd.Series | None:
        """One figure of the evaluation, or None where it has no value."""
        table = self.evaluation
        found = table[(table.model == model) & (table.metric == metric) & (table.slice == slice_)]
        return None if found.empty else found.iloc[0]


def popularity(db: DuckDBPyConnection) -> dict[str, int]:
    """How often each item was taken before the test period: in behaviour, and among positive training samples."""
    rows = db.execute(
        """select item_id, count(*) from cleaned_interactions
        where action in ('click', 'cart', 'purchase') and occurred_at < coalesce((
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


def suspects(db: DuckDBPyConnection, top: int) -> pd.DataFrame:
    """The training samples most likely mislabelled, flagged ones first, with text, label, score and why."""
    frame = db.execute(
        """with scored as (
            select sample_id, avg(oof_score) as oof_score from fold_predictions group by sample_id)
        select sample_id, item_id, context_text, title, label, oof_score, wrong_probability, flagged
        from label_suspicions join scored using (sample_id) join training_samples using (sample_id)
        order by flagged desc, wrong_probability desc, sample_id limit ?""",
        [top],
    ).df()
    frame["why"] = [
        f"labelled {label:g}; models that did not see it give label 1 a chance of {score:.0%}"
        for label, score in zip(frame.label, frame.oof_score, strict=True)
    ]
    return frame


def gather(db: DuckDBPyConnection, model_folder: Path) -> Page:
    """Read what the page tells."""
    import json

    counts = {}
    for table in ("items", "events", "judgments"):
        (counts[f"{table} in"],) = db.execute(f"select count(*) from raw_{table}").fetchall()[0]
        (counts[f"{table} rejected"],) = db.execute(
            "select count(*) from rejected_rows where source = ?", [table]
        ).fetchall()[0]
    for split, n in db.execute("select split, count(*) from training_samples group by split").fetchall():
        counts[f"{split} samples"] = n
    (counts["texts read"],) = db.execute("select count(*) from embeddings").fetchall()[0]
    (counts["suspects"],) = db.execute("select count(*) from label_suspicions where flagged").fetchall()[0]
    rejected = db.execute(
        """select source, rule, count(*) as n_rows, arg_min(reason, row_number) as first_reason
        from rejected_rows group by source, rule order by n_rows desc, source, rule"""
    ).df()
    weights = db.execute(
        """with scored as (
            select sample_id, avg(oof_score) as oof_score from fold_predictions group by sample_id)
        select estimator, sample_weight, sample_value, label, oof_score from importance_weights
        left join sample_values using (estimator, sample_id) join training_samples using (sample_id)
        join scored using (sample_id)"""
    ).df()
    trials = db.execute("from weighting_trials order by utility desc, trial").df()
    manifest = json.loads((model_folder / "manifest.json").read_text())
    evaluation = db.execute("from evaluation").df()
    return Page(counts, rejected, _estimators(db, weights), weights, trials, suspects(db, 15), evaluation, manifest)


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


def compared(page: Page) -> list[str]:
    """The models and differences of the first table, the one to the strongest ranking without learning among them."""
    return list(dict.fromkeys([*MODELS, f"weighted - {strongest_baseline(page)}"]))


def headline(page: Page) -> dict[str, float]:
    """The figures one would ask for first."""
    found = {model: page.figure(model) for model in MODELS}
    figures = {
        f"{model} nDCG@10".replace(" ", "_"): float(row.value) for model, row in found.items() if row is not None
    }
    difference = found[DIFFERENCE]
    if difference is not None:
        figures |= {"gain_ndcg_ci_low": float(difference.ci_low), "gain_ndcg_ci_high": float(difference.ci_high)}
    return figures


def verdict(page: Page) -> str:
    """One sentence: did the weights help?"""
    row = page.figure(DIFFERENCE)
    if row is None:
        return "Whether the weights help cannot be told: no test group has a relevant item."
    if page.unweighted:
        tried = len(page.trials) - 1
        return f"No weights are used: none of {tried} weightings tried on validation gained anything for certain."
    told = f"{row.value:+.4f} nDCG@10 [{row.ci_low:+.4f}, {row.ci_high:+.4f}] over {row.n_groups} test groups"
    if row.ci_low > 0:
        return f"The weights helped: {told}."
    if row.ci_high < 0:
        return f"The weights did harm: {told}. Train without them."
    return f"No difference can be told between training with and without weights: {told}."


def lines(page: Page) -> list[str]:
    """The short table that a terminal shows."""
    shown = []
    for table in ("items", "events", "judgments"):
        came, gone = page.counts[f"{table} in"], page.counts[f"{table} rejected"]
        if came:
            shown.append(f"{table:<18}{came:>11,} in {came - gone:>11,} kept {gone:>9,} rejected")
    for row in page.rejected.head(6).itertuples():
        shown.append(f"  {row.source + ': ' + row.rule:<38}{row.n_rows:>9,}   {_short(row.first_reason, 90)}")
    if len(page.rejected) > 6:
        n_rows = page.rejected.n_rows[6:].sum()
        shown.append(
            f"  and {len(page.rejected) - 6} more rules{n_rows:>{38 + 9 - len(f'and {len(page.rejected) - 6} more rules')},}   see the report"
        )
    splits = ", ".join(f"{page.counts.get(f'{s} samples', 0):,} {s}" for s in ("train", "validation", "test"))
    shown += [f"{'samples':<18}{splits}; {page.counts['suspects']:,} of train flagged as mislabelled", ""]
    shown.append(f"{'test split':<28}{'nDCG@10':>24}{'MRR':>24}{'AUC':>24}")
    for model in compared(page):
        cells = [
            _cell(page.figure(model, metric), "+" if " - " in model else "") for metric in ("ndcg_at_10", "mrr", "auc")
        ]
        if any(cells):
            shown.append(f"{model:<28}" + "".join(f"{cell:>24}" for cell in cells))
    return [*shown, "", verdict(page), *filter(None, [baseline_told(page)]), seeds_told(page)]


def _short(text: str, width: int) -> str:
    """A text with its middle left out if it is long: both what must hold and what was there are told."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half:]}"


def _cell(row: pd.Series | None, sign: str = "") -> str:
    return "" if row is None else f"{row.value:{sign}.3f} [{row.ci_low:{sign}.3f}, {row.ci_high:{sign}.3f}]"


def markdown(page: Page) -> str:
    """The results as a table for Dagster's UI."""
    head = "| model | " + " | ".join(METRICS.values()) + " |\n|---|" + "---|" * len(METRICS)
    rows = [
        f"| {model} | " + " | ".join(_cell(page.figure(model, metric)) for metric in METRICS) + " |"
        for model in compared(page)
    ]
    return "\n".join([verdict(page), "", head, *rows, "", baseline_told(page), seeds_told(page)])


def write(page: Page, path: Path) -> None:
    """Write the page, all or nothing."""
    from ecom_pipeline.ranking.cold import BORROWED, CUTS
    from ecom_pipeline.ranking.figures import LINEAR

    slices = [name for name in dict.fromkeys(page.evaluation.slice) if name != "all"]
    html.write(
        "report.html.j2",
        path,
        page=page,
        verdict=verdict(page),
        metrics=METRICS,
        models=[model for model in compared(page) if page.figure(model) is not None],
        baseline_told=baseline_told(page),
        seeds_told=seeds_told(page),
        slices=slices,
        cell=_cell,
        weights_figure=_weights_figure(page),
        results_figure=_results_figure(page),
        slices_figure=_slices_figure(page, ["all", *[name for name in slices if name not in CUTS]]),
        steps_figure=_steps_figure(page) if len(steps(page)) > 1 else "",
        labels_figure=_labels_figure(page) if len(labels(page)) > 1 else "",
        labels_told=labels_told(page),
        cuts=[name for name in CUTS if name in slices],
        cold_models=[m for m in (*_ALONE, LINEAR, BORROWED) if page.figure(m, slice_=CUTS[0]) is not None],
        borrowing_told=borrowing_told(page),
    )


def steps(page: Page) -> list[str]:
    """What each mode adds: the models of the ablation, in order."""
    models = page.evaluation.model
    return [name for name in models.unique() if _STEP.fullmatch(name)]


def labels(page: Page) -> dict[int, pd.Series]:
    """The figures of the learning curve by number of labels."""
    found = {name: _LABELS.fullmatch(name) for name in page.evaluation.model.unique()}
    curve = {int(match[1]): page.figure(name) for name, match in found.items() if match}
    return {size: row for size, row in sorted(curve.items()) if row is not None}


def labels_told(page: Page) -> str:
    """One sentence: what one gets with how many labels."""
    from ecom_pipeline.ranking.learning_curve import SIZES

    curve = labels(page)
    parts = [f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}] with {size:,}" for size, row in curve.items()]
    absent = [f"{size:,}" for size in SIZES if size > max(curve, default=0)]
    short = f" There are not {' or '.join(absent)} labelled samples to tell more." if absent else ""
    return f"Test nDCG@10 by number of labelled samples: {'; '.join(parts)}, which is all.{short}"


def borrowing_told(page: Page) -> str:
    """One sentence: does the popularity of like items rank items that training never saw?"""
    from ecom_pipeline.ranking.cold import BORROWED

    told = []
    for other, words in (("popularity", "their own popularity"), ("text_similarity", "likeness to the context")):
        row = page.figure(f"{BORROWED} - {other}", slice_="cold items")
        if row is not None:
            how = "better than" if row.ci_low > 0 else "worse than" if row.ci_high < 0 else "no differently from"
            told.append(f"{how} {words} ({row.value:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}] nDCG@10)")
    return (
        f"Popularity lent by the ten known items most like them ranks these items {', and '.join(told)}."
        if told
        else ""
    )


def _weights_figure(page: Page) -> str:
    figure, (left, right) = html.axes(2)
    chosen = page.weights[page.weights.estimator == page.chosen]
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
    right.set(xlabel=f"weight in training ({page.chosen})")
    left.legend(frameon=False)
    return html.svg(figure)


def _results_figure(page: Page) -> str:
    figure, (left, right) = html.axes(2)
    models = [model for model in _ALONE if page.figure(model) is not None]
    html.forest(left, models, [page.figure(model) for model in models])
    left.set(xlabel="nDCG@10 on the test split")
    metrics = [metric for metric in METRICS if page.figure(DIFFERENCE, metric) is not None]
    figures = [page.figure(DIFFERENCE, metric) for metric in metrics]
    html.forest(right, [METRICS[metric].split(" (")[0] for metric in metrics], figures, zero=True)
    right.set(xlabel="weighted minus unweighted")
    return html.svg(figure)


def _slices_figure(page: Page, slices: list[str]) -> str:
    found = [(name, row) for name in slices if (row := page.figure(DIFFERENCE, slice_=name)) is not None]
    figure, (axes,) = html.axes(1, height=0.9 + 0.3 * len(found))
    html.forest(axes, [f"{name} ({row.n_groups})" for name, row in found], [row for _, row in found], zero=True)
    axes.set(xlabel="weighted minus unweighted, nDCG@10 (number of groups)")
    return html.svg(figure)


def _steps_figure(page: Page) -> str:
    names = steps(page)
    figure, (left, right) = html.axes(2, height=0.9 + 0.3 * len(names))
    html.forest(left, [name.removeprefix("linear: ") for name in names], [page.figure(name) for name in names])
    left.set(xlabel="nDCG@10 on the test split, each with all above it")
    pairs = [page.figure(f"{later} - {earlier}") for earlier, later in pairwise(names)]
    html.forest(right, [name.removeprefix("linear: ") for name in names[1:]], pairs, zero=True)
    right.set(xlabel="difference to the line before")
    return html.svg(figure)


def _labels_figure(page: Page) -> str:
    curve = labels(page)
    figure, (axes,) = html.axes(1)
    values, low, high = (
        np.array([getattr(row, end) for row in curve.values()]) for end in ("value", "ci_low", "ci_high")
    )
    axes.errorbar(list(curve), values, [values - low, high - values], fmt="o-", color=html.BLUE, capsize=3)
    unlabelled = page.figure("text_similarity")
    if unlabelled is not None:
        axes.axhline(unlabelled.value, color=html.INK, linewidth=1, linestyle=":", label="likeness of texts, no labels")
        axes.legend(frameon=False, fontsize="small")
    axes.set(xscale="log", xlabel="labelled samples", ylabel="nDCG@10")
    axes.set_xticks(list(curve), [f"{size:,}" for size in curve])
    axes.minorticks_off()
    return html.svg(figure)
