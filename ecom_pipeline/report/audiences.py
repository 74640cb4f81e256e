"""Whom to ask: orders of users for campaigns, for the report."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import page as html
from ecom_pipeline.audiences.evaluation import MODEL, RANDOM, SIMPLE, TWIN, UPLIFT
from ecom_pipeline.audiences.gains import smallest_list

SHOWN = (
    "AUC",
    "average precision",
    "lift at 10%",
    "users asked for 50% of the responses",
    "calibration error",
    "calibration error by chance",
)


@dataclass(frozen=True, slots=True)
class AudiencesTold:
    """What is told of campaigns.

    Attributes:
        figures: as the relation `audience_evaluation`.
        lists: a row a campaign to come: audience, response, n_users, expected, n_half (users asked for half of it), mean_uplift.
    """

    figures: pd.DataFrame
    lists: pd.DataFrame

    def row(self, response: str, model: str, metric: str) -> Any:
        """One figure; None where there is none."""
        found = self.figures
        match = found[(found.response == response) & (found.model == model) & (found.metric == metric)]
        return next(match.itertuples(), None)

    @property
    def responses(self) -> list[str]:
        """What was foretold."""
        return [name for name in ("redeemed", "bought") if (self.figures.response == name).any()]


def gather(db: DuckDBPyConnection) -> AudiencesTold | None:
    """What is known; None where there are no campaigns."""
    rows = db.execute("select * from audiences order by audience, rank").df()
    figures = db.execute("select * from audience_evaluation").df()
    if rows.empty and figures.empty:
        return None
    lists = [
        {
            "audience": name,
            "response": part.response.iloc[0],
            "n_users": len(part),
            "expected": part.response_probability.sum(),
            "n_half": smallest_list(part.response_probability.to_numpy(float), 0.5),
            "mean_uplift": part.uplift.mean(),
        }
        for name, part in rows.groupby("audience")
    ]
    return AudiencesTold(figures, pd.DataFrame(lists))


def sentences(told: AudiencesTold) -> list[str]:
    """What the figures say, the main one first."""
    shown = []
    for response in told.responses:
        row = told.row(response, MODEL, "AUC")
        strongest = _strongest(told, response)
        gain = told.row(response, f"{MODEL} - {strongest}", "AUC")
        weights = told.row(response, f"{MODEL} - {TWIN}", "AUC")
        word = "offers that were used" if response == "redeemed" else "purchases of the items"
        shown.append(
            f"For {word}, users who did were put above those who did not in {row.value:.0%} of the cases [{row.ci_low:.0%}, "
            f"{row.ci_high:.0%}], {gain.value:+.1%} [{gain.ci_low:+.1%}, {gain.ci_high:+.1%}] against the strongest simple order, "
            f"{strongest}; {_of_weights(weights)}; over "
            f"{row.n_offers} later campaigns and {row.n_users:,} users."
        )
    effect, plain = (told.row("effect", name, "share that buys more") for name in ("doubly robust", "plain difference"))
    if effect is not None:
        qini = told.row("effect", UPLIFT, "Qini")
        shown.append(
            f"Those who got a campaign bought its items more often than others by {plain.value:+.1%}; with the same people on both "
            f"sides it is {effect.value:+.1%} [{effect.ci_low:+.1%}, {effect.ci_high:+.1%}]. Order by expected uplift: Qini "
            f"{qini.value:+.4f} [{qini.ci_low:+.4f}, {qini.ci_high:+.4f}]."
        )
    return shown


def _strongest(told: AudiencesTold, response: str) -> str:
    return max(SIMPLE, key=lambda name: told.row(response, name, "AUC").value)


def _of_weights(difference: Any) -> str:
    if difference.ci_low == difference.ci_high == 0:
        return "campaigns were not weighed by age, which was not better on the earlier ones"
    return f"weights of campaigns by age {difference.value:+.1%} [{difference.ci_low:+.1%}, {difference.ci_high:+.1%}]"


def for_template(told: AudiencesTold) -> dict[str, Any]:
    """What `audiences.html.j2` is given."""
    return {
        "audiences": told,
        "audiences_sentences": sentences(told),
        "audiences_metrics": SHOWN,
        "audiences_models": (MODEL, TWIN, *SIMPLE, RANDOM),
        "audiences_cell": _cell,
        "audiences_figure": _figure(told),
    }


def _cell(row: Any) -> str:
    return "" if row is None else f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"


def _figure(told: AudiencesTold) -> str:
    """Responses reached by users asked, for each order: by the figures of lift and reach."""
    responses = told.responses
    if not responses:
        return ""
    figure, panes = html.axes(len(responses))
    for response, axes in zip(responses, panes, strict=True):
        for model, colour in ((MODEL, html.BLUE), (_strongest(told, response), html.ORANGE), (RANDOM, html.INK)):
            points = [(0.0, 0.0), (1.0, 1.0)]
            for share in (0.05, 0.1, 0.2):
                row = told.row(response, model, f"lift at {share:.0%}")
                points.append((share, share * row.value))
            for share in (0.5, 0.8):
                row = told.row(response, model, f"users asked for {share:.0%} of the responses")
                points.append((row.value, share))
            x, y = np.array(sorted(points)).T
            axes.plot(x, y, "o-", color=colour, markersize=3, label=model)
        axes.set(xlabel="share of the users who are asked", ylabel=f"share of what is {response}")
        axes.legend(frameon=False, fontsize="small")
    return html.svg(figure)
