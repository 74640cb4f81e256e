"""What the page and the terminal tell of the lists: did weights and chosen rows help, what is retrieved, and whose lists.

On the floor of `report`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline import page as html
from ecom_pipeline.errors import InputError
from ecom_pipeline.recommend.backtest import BASELINES, CHOSEN, DIFFERENCE, PILOT, TWIN
from ecom_pipeline.recommend.lists import NEW_VISITOR
from ecom_pipeline.recommend.trials import chosen_weighting
from ecom_pipeline.report.comparison import best_trials, cell, figure_of, how, strongest_of
from ecom_pipeline.samples import TAKEN

N_USERS = 3  # whose lists are shown beside their histories
N_SHOWN = 8  # of each
COLUMNS = {
    ("all", "ndcg_at_10"): "nDCG@10",
    ("all", "recall_at_10"): "recall@10",
    ("all", "recall_at_100"): "recall@100",
    ("all", "hit_rate_at_10"): "hit rate@10",
    ("repeat", "ndcg_at_10"): "nDCG@10 of repeats",
    ("explore", "ndcg_at_10"): "nDCG@10 of new items",
    ("all", "coverage_at_10"): "catalogue shown to those tested",
    ("all", "novelty_at_10_bits"): "novelty, bits",
}
SLICES = ("popular items", "rare items", "long histories", "short histories")
_ROWS = re.compile(rf"({CHOSEN}|{TWIN}), ([\d,]+) rows")


@dataclass(frozen=True, slots=True)
class ListsTold:
    """What is told of the lists.

    Attributes:
        evaluation: the relation `next_visit_evaluation`; empty where there were too few days to learn from.
        trials: weightings of past acts, the best first.
        weighed_by: what makes weights differ, or none.
        n_acts: that are weighed.
        n_users: who have a list.
        n_items: that are ranked.
        n_learnt: rows that the ranker in use learnt from.
        n_taken: of them, with label 1.
        made_for: the day of the lists.
        users: of a few users: user_id, history (title, times, last) and list (rank, title, reason).
    """

    evaluation: pd.DataFrame
    trials: pd.DataFrame
    weighed_by: str
    n_acts: int
    n_users: int
    n_items: int
    n_learnt: int
    n_taken: int
    made_for: str
    users: list[tuple[str, pd.DataFrame, pd.DataFrame]]

    def figure(self, model: str, metric: str = "ndcg_at_10", slice_: str = "all") -> pd.Series | None:
        """One figure, or None where it has no value."""
        return figure_of(self.evaluation, model, metric, slice_)

    @property
    def strongest(self) -> str | None:
        """The strongest simple list; None where nothing was tested."""
        return strongest_of(self.evaluation, BASELINES)

    @property
    def models(self) -> list[str]:
        """Of the first table."""
        pilot = [] if self.private else [PILOT]
        return [CHOSEN, TWIN, *pilot, *BASELINES, DIFFERENCE, f"{CHOSEN} - {self.strongest}"]

    @property
    def private(self) -> bool:
        """Whether the rankers learnt privately: then they had no pilot, and no row is told."""
        return self.figure(DIFFERENCE) is not None and self.figure(PILOT) is None

    @property
    def periods(self) -> list[tuple[str, pd.Series]]:
        """The difference to the twin in each test period."""
        rows = self.evaluation[(self.evaluation.model == DIFFERENCE) & (self.evaluation.metric == "ndcg_at_10")]
        own = rows[rows.slice.str.startswith("all, ")]
        return [(row.slice.removeprefix("all, "), row) for row in own.itertuples()]

    @property
    def retrieved(self) -> list[str]:
        """The channels, and all of them together."""
        return [name for name in self.evaluation.model.unique() if name.startswith("retrieved: ")]


def gather(db: DuckDBPyConnection) -> ListsTold | None:
    """Read what is told; None where nobody took anything."""
    (n_acts,) = db.execute("select count(*) from interaction_weights").fetchall()[0]
    if not n_acts:
        return None
    (n_users, made_for) = db.execute(
        "select count(distinct user_id) filter (where user_id <> ?), max(made_for)::varchar from recommendations",
        [NEW_VISITOR],
    ).fetchall()[0]
    (n_items,) = db.execute("select count(*) from item_index").fetchall()[0]
    n_learnt, n_taken = db.execute("select count(*), count(*) filter (where label > 0) from sample_choice").fetchall()[
        0
    ]
    trials = db.execute("from interaction_trials order by utility desc, trial").df()
    evaluation = db.execute("from next_visit_evaluation").df()
    weighed_by = ", ".join(chosen_weighting(db).reasons)
    counts = (n_acts, n_users, n_items, n_learnt, n_taken, made_for)
    return ListsTold(evaluation, trials, weighed_by, *counts, _users(db))


def _users(db: DuckDBPyConnection) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """The same few users on every day, as long as they have lists: those whose ids' hashes come first."""
    chosen = db.execute(
        "select distinct user_id from recommendations where user_id <> ? order by md5(user_id) limit ?",
        [NEW_VISITOR, N_USERS],
    ).fetchall()
    return [(user, history_of(db, user, N_SHOWN), list_of(db, user, N_SHOWN)) for (user,) in chosen]


def history_of(db: DuckDBPyConnection, user_id: str, n: int) -> pd.DataFrame:
    """What a user took that weighs most: title, days, last_day, weight."""
    return db.execute(
        f"""select title, count(distinct day) as days, max(day)::date::varchar as last_day, sum(interaction_weight) as weight
        from cleaned_interactions as e join interaction_weights using (event_id) join items using (item_id)
        where {identity.actor("e")} = ? and {TAKEN}
        group by item_id, title order by weight desc, item_id limit ?""",
        [user_id, n],
    ).df()


def list_of(db: DuckDBPyConnection, user_id: str, n: int) -> pd.DataFrame:
    """A user's list: rank, item_id, title, score, channel, reason."""
    return db.execute(
        """select rank, item_id, title, score, channel, reason from recommendations join items using (item_id)
        where user_id = ? and rank <= ? order by rank""",
        [user_id, n],
    ).df()


def known_user(db: DuckDBPyConnection, ids: Sequence[str]) -> str | None:
    """The first of some ids, of a user or of a session, that has a list."""
    names = [name for person in ids for name in identity.actors_of(person)]
    rows = db.execute("select distinct user_id from recommendations where list_contains(?, user_id)", [names])
    found = {user for (user,) in rows.fetchall()}
    return next((name for name in names if name in found), None)


def alike(db: DuckDBPyConnection, item_id: str, n: int) -> tuple[str, pd.DataFrame]:
    """An item's title, and what is like it: rank, item_id, title, score, reason.

    Raises:
        InputError: if the catalogue has no such item.
    """
    title = db.execute("select title from items where item_id = ?", [item_id]).fetchone()
    if title is None:
        (n_items,) = db.execute("select count(*) from items").fetchall()[0]
        raise InputError(
            f"--item: 1 id is unknown: {item_id!r}. It must be an item_id of the catalogue, which has {n_items:,} items: "
            "look it up in the relation items, or in rejected_rows."
        )
    return title[0], db.execute(
        """select rank, similar_item_id as item_id, title, score,
            case channel when 'together' then 'taken by the same users' else 'its words are alike' end as reason
        from similar_items as s join items as i on i.item_id = similar_item_id
        where s.item_id = ? and rank <= ? order by rank""",
        [item_id, n],
    ).df()


def verdict(told: ListsTold) -> str:
    """One sentence: did weighted acts and chosen rows make lists better?"""
    row = told.figure(DIFFERENCE)
    if row is None:
        return "There were too few days to learn lists from: only what is popular is listed, for everybody alike."
    n_periods = len(told.periods) or 1
    figure = (
        f"{row.value:+.4f} nDCG@10 [{row.ci_low:+.4f}, {row.ci_high:+.4f}] over {row.n_users:,} users and "
        f"{n_periods} test period{'s' if n_periods > 1 else ''}"
    )
    weighed = _what_differs(told)
    if row.ci_low > 0:
        return f"{weighed} made lists better than the unweighted twin's: {figure}."
    if row.ci_high < 0:
        return (
            f"{weighed} did harm: {figure} against the unweighted twin. To serve as the twin does, set n_trials: 0 of "
            "interaction_trials and choice: random of ranker."
        )
    return f"{weighed} cannot be told from the unweighted twin: {figure}."


def _what_differs(told: ListsTold) -> str:
    """In what a system differs from its twin."""
    if told.private:
        return (
            "Weighted acts" if told.weighed_by != "none" else "Noise alone (no weighting of acts was certain to help)"
        )
    if told.weighed_by != "none":
        return "Weighted acts and rows chosen by gap, together,"
    return "Rows chosen by gap (no weighting of acts was certain to help)"


def baseline_told(told: ListsTold) -> str:
    """One sentence: are the lists better than the strongest simple ones?"""
    row = told.figure(f"{CHOSEN} - {told.strongest}")
    if row is None:
        return ""
    return (
        f"The strongest simple list is {told.strongest}, picked on the test visits in its favour; the lists are {how(row)} it: "
        f"{row.value:+.4f} nDCG@10 [{row.ci_low:+.4f}, {row.ci_high:+.4f}]."
    )


def lines(told: ListsTold) -> list[str]:
    """The short table that a terminal shows."""
    learnt = f"{told.n_learnt:>11,} of candidates, {told.n_taken:,} of them taken"
    shown = [
        f"{'acts weighed':<18}{told.n_acts:>11,} by {told.weighed_by}",
        f"{'lists':<18}{told.n_users:>11,} users, of {told.n_items:,} items, for {told.made_for}",
        f"{'rows learnt from':<18}{'not told, as the rankers learnt privately' if told.private else learnt}",
        "",
    ]
    if told.figure(DIFFERENCE) is None:
        return [*shown, verdict(told)]
    columns = [("all", "ndcg_at_10"), ("explore", "ndcg_at_10"), ("all", "recall_at_100")]
    shown.append(f"{'next visit':<44}" + "".join(f"{COLUMNS[one]:>25}" for one in columns))
    for model in told.models:
        cells = [cell(told.figure(model, metric, slice_), signed=" - " in model) for slice_, metric in columns]
        shown.append(f"{model:<44}" + "".join(f"{one:>25}" for one in cells))
    return [*shown, "", verdict(told), baseline_told(told)]


def markdown(told: ListsTold) -> str:
    """The results as a table."""
    if told.figure(DIFFERENCE) is None:
        return verdict(told)
    head = "| next visit | " + " | ".join(COLUMNS.values()) + " |\n|---|" + "---|" * len(COLUMNS)
    rows = [
        f"| {model} | "
        + " | ".join(cell(told.figure(model, metric, slice_), signed=" - " in model) for slice_, metric in COLUMNS)
        + " |"
        for model in told.models
    ]
    return "\n".join([verdict(told), "", head, *rows, "", baseline_told(told)])


def for_template(told: ListsTold) -> dict[str, Any]:
    """What `lists.html.j2` is given."""
    return {
        "lists": told,
        "lists_figure": results_figure(told) if told.figure(DIFFERENCE) is not None else "",
        "lists_columns": COLUMNS,
        "lists_cell": cell,
        "lists_baseline": baseline_told(told),
        "rows_figure": rows_figure(told) if rows_curve(told) else "",
        "lists_trials": best_trials(told.trials),
    }


def results_figure(told: ListsTold) -> str:
    """Every model, and the difference to the twin in each test period and slice."""
    models = [model for model in told.models if " - " not in model]
    differences = [("all", told.figure(DIFFERENCE)), *told.periods]
    differences += [
        ("repeats", told.figure(DIFFERENCE, slice_="repeat")),
        ("new items", told.figure(DIFFERENCE, slice_="explore")),
        *((name, told.figure(DIFFERENCE, slice_=name)) for name in SLICES),
    ]
    differences = [(name, row) for name, row in differences if row is not None]
    figure, (left, right) = html.axes(2, height=1.2 + 0.28 * max(len(models), len(differences)))
    html.forest(left, models, [told.figure(model) for model in models])
    left.set(xlabel="nDCG@10 of next visits")
    html.forest(right, [name for name, _ in differences], [row for _, row in differences], zero=True)
    right.set(xlabel=f"{CHOSEN} minus {TWIN}")
    return html.svg(figure)


def rows_curve(told: ListsTold) -> dict[str, list[tuple[int, pd.Series]]]:
    """By system: rows learnt from and nDCG@10 in the last test period, the fewest first."""
    found: dict[str, list[tuple[int, pd.Series]]] = {}
    for name in told.evaluation.model.unique():
        match = _ROWS.fullmatch(name)
        if match:
            found.setdefault(match[1], []).append((int(match[2].replace(",", "")), told.figure(name)))
    return {name: sorted(rows, key=lambda one: one[0]) for name, rows in found.items()}


def rows_figure(told: ListsTold) -> str:
    """Quality against rows, for rows chosen by gap and for rows at random."""
    figure, (axes,) = html.axes(1)
    for (name, rows), colour in zip(rows_curve(told).items(), (html.BLUE, html.ORANGE), strict=False):
        value, low, high = (np.array([getattr(row, end) for _, row in rows]) for end in ("value", "ci_low", "ci_high"))
        sizes = [size for size, _ in rows]
        axes.errorbar(sizes, value, [value - low, high - value], fmt="o-", color=colour, capsize=3, label=name)
    axes.set(
        xscale="log", xlabel="rows that the trees learnt from, beside the pilot's", ylabel="nDCG@10, last test period"
    )
    axes.legend(frameon=False, fontsize="small")
    return html.svg(figure)
