"""ModCloth: train on every rating as a click, test on ratings of 5; do label-free weights beat T-CE and R-CE?

    python benchmarks/modcloth.py ../shared/data/modcloth --seeds 5

Every method has the same recommender, drawn negatives and number of trials; the trials' learning rates and penalties are
the same draws. Trials, epochs and methods are chosen on the rating-5 rows of validation; test is scored once a seed of a
chosen setting. Ratings of training rows are hidden from all but the oracle and the AUROC.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from modcloth_models import METRICS, Clicks, Fitted, Loss, fit, load, metrics
from numpy.typing import NDArray
from scipy.stats import qmc
from sklearn.metrics import roc_auc_score
from torch import Tensor

METHODS = ("plain", "T-CE", "R-CE", "weights of positives", "weights of both", "oracle")
N_EPOCHS, N_FOLDS, SHRINKS = 30, 3, (5.0, 20.0, 100.0)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Graph:
    """Walks user -> item -> user -> item over the training clicks.

    Attributes:
        together: (n_items, n_items) co-clicks, a user of n clicks counting n^-exponent; diagonal 0.
        popularity: (n_items,) share of clicks.
        exponent: how much less an active user counts.
        shrink: pseudo-counts that pull a step towards popularity.
    """

    together: Floats
    popularity: Floats
    exponent: float
    shrink: float


def click_matrix(clicks: Clicks) -> sp.csr_matrix:
    """(n_users, n_items) of 0 and 1."""
    ones = np.ones(len(clicks.user))
    return sp.csr_matrix((ones, (clicks.user.numpy(), clicks.item.numpy())), shape=tuple(clicks.seen.shape))


def build_graph(clicks: Clicks, exponent: float, shrink: float) -> Graph:
    """Cost: O(sum of squared activities) time, O(n_items²) memory."""
    matrix = click_matrix(clicks)
    active = np.maximum(np.asarray(matrix.sum(1)).ravel(), 1)
    together = (matrix.T @ sp.diags(active**-exponent) @ matrix).toarray()
    np.fill_diagonal(together, 0)
    count = np.maximum(np.asarray(matrix.sum(0)).ravel(), 0.5)
    return Graph(together, count / count.sum(), exponent, shrink)


def walk(clicks: Clicks, graph: Graph) -> Tensor:
    """(n_users, n_items) chance that a walk from the user's clicks ends at the item; popularity for new users."""
    reached = graph.together.sum(1)[:, None] + graph.shrink
    step = (graph.together + graph.shrink * graph.popularity) / reached
    matrix = click_matrix(clicks)
    active = np.asarray(matrix.sum(1)).ravel()
    chance = (sp.diags(1 / np.maximum(active, 1)) @ matrix) @ step
    chance[active == 0] = graph.popularity
    return torch.as_tensor(chance, dtype=torch.float32)


def walk_to_own(clicks: Clicks, graph: Graph) -> Floats:
    """(n,) chance that each training click is reached from the user's other clicks, without the user's own edges.

    A user's only click has its item's popularity without that click.
    """
    matrix, value = click_matrix(clicks), np.empty(len(clicks.user))
    place = sp.csr_matrix(
        (np.arange(len(value)) + 1, (clicks.user.numpy(), clicks.item.numpy())), shape=tuple(clicks.seen.shape)
    )
    total = matrix.sum()
    reached = graph.together.sum(1)
    for user in range(matrix.shape[0]):
        own = slice(place.indptr[user], place.indptr[user + 1])
        rows, items = place.data[own] - 1, place.indices[own]
        base = np.maximum(graph.popularity[items] - 1 / total, 0.5 / total)
        n = len(items)
        if n < 2:
            value[rows] = base
            continue
        edge = n**-graph.exponent
        block = np.maximum(graph.together[np.ix_(items, items)] - edge, 0)
        step = (block + graph.shrink * base) / (reached[items][:, None] - edge * (n - 1) + graph.shrink)
        np.fill_diagonal(step, 0)
        value[rows] = step.sum(0) / (n - 1)
    return value


def estimate(folder: str) -> dict[str, Floats]:
    """(n,) values of each training click by each estimator: higher is more credible. No rating is read."""
    torch.set_num_threads(1)
    clicks = load(folder)
    count = np.bincount(clicks.item.numpy(), minlength=clicks.seen.shape[1])[clicks.item.numpy()].astype(float)
    active = np.bincount(clicks.user.numpy())[clicks.user.numpy()].astype(float)
    reached = walk_to_own(clicks, build_graph(clicks, 1.0, 20.0))
    whole = fit(clicks, "gmf", Loss(), 0.01, 0.03, 9, 0).model
    fold = np.random.default_rng(0).permutation(len(count)) % N_FOLDS
    held_out = np.empty(len(count))
    for part in range(N_FOLDS):
        rows = torch.as_tensor(np.flatnonzero(fold != part))
        model = fit(clicks, "gmf", Loss(), 0.01, 0.03, 9, 0, rows).model
        held_out[fold == part] = _confidence(clicks, model, torch.as_tensor(np.flatnonzero(fold == part)))
    return {
        "out-of-fold confidence": held_out,
        "in-sample confidence (T-CE, R-CE)": _confidence(clicks, whole, torch.arange(len(count))),
        "graph walk, own edges left out": reached,
        "graph walk over popularity": reached / count,
        "popularity": count,
        "inverse popularity": 1 / count,
        "inverse activity of the user": 1 / active,
    }


def _confidence(clicks: Clicks, model: torch.nn.Module, rows: Tensor) -> Floats:
    with torch.no_grad():
        return torch.sigmoid(model(clicks.user[rows], clicks.item[rows])[0]).double().numpy()


def draw(method: str, estimators: list[str], rng: np.random.Generator) -> dict:
    """A method's own settings of one trial."""
    if method == "T-CE":
        return {"drop_max": rng.uniform(0.02, 0.5), "drop_steps": int(np.exp(rng.uniform(np.log(20), np.log(700))))}
    if method == "R-CE":
        return {"power": float(np.exp(rng.uniform(np.log(0.02), 0.0))), "also_negatives": bool(rng.random() < 0.5)}
    if method == "weights of positives":
        return {"estimator": str(rng.choice(estimators)), "power": rng.uniform(0.1, 1.0)}
    if method == "weights of both":
        return {
            "scale": float(np.exp(rng.uniform(np.log(0.02), np.log(0.5)))),
            "odds": float(np.exp(rng.uniform(np.log(0.03), np.log(0.3)))),
            "exponent": float(rng.choice([0.5, 1.0])),
            "shrink": float(rng.choice(SHRINKS)),
            "estimator": str(rng.choice(estimators)),
            "power": float(rng.choice([0.0, 0.5])),
        }
    return {}


def weights(value: Floats, power: float) -> Floats:
    """(n,) value^power, lowered to its 99 % quantile, with mean 1.

    >>> weights(np.array([0.25, 0.25, 1.0, 1.0]), 0.5).round(3).tolist()
    [0.667, 0.667, 1.333, 1.333]
    """
    raised = (value / value.max()) ** power
    raised = np.minimum(raised, np.quantile(raised, 0.99))
    return raised / raised.mean()


def make_loss(method: str, own: dict, clicks: Clicks, values: dict[str, Floats]) -> Loss:
    """The loss of one trial; weights of positives have mean 1 before `scale`."""
    if method in ("T-CE", "R-CE"):
        return Loss(**own)
    if method == "oracle":
        return Loss(positive=torch.as_tensor(~clicks.low / (~clicks.low).mean(), dtype=torch.float32))
    if method == "plain":
        return Loss()
    weight = weights(values[own["estimator"]], own["power"]) * own.get("scale", 1.0)
    positive = torch.as_tensor(weight, dtype=torch.float32)
    if method == "weights of positives":
        return Loss(positive=positive)
    odds = walk(clicks, build_graph(clicks, own["exponent"], own["shrink"])) * (own["odds"] * clicks.seen.shape[1])
    return Loss(positive=positive, missed=odds / (1 + odds))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one method reached: the chosen settings and (n_seeds, n_test_users, 4) metrics on test."""

    method: str
    chosen: dict
    validation: float
    ess: float
    test: Floats


def run(method: str, folder: str, kind: str, n_trials: int, n_seeds: int, values: dict[str, Floats]) -> Outcome:
    """Search on validation with seed 0, then the best trial with the seeds 1..n_seeds on test."""
    torch.set_num_threads(1)
    clicks = load(folder)
    rng = np.random.default_rng(0)
    grid = qmc.scale(qmc.LatinHypercube(2, seed=0).random(n_trials), np.log([0.003, 1e-4]), np.log([0.03, 1e-1]))

    def train(setting: dict, seed: int) -> Fitted:
        loss = make_loss(method, setting["own"], clicks, values)
        return fit(clicks, kind, loss, setting["rate"], setting["penalty"], N_EPOCHS, seed)

    trials = [
        {"rate": rate, "penalty": penalty, "own": draw(method, list(values), rng)}
        for rate, penalty in np.exp(grid).tolist()
    ]
    scored = []
    for setting in trials:
        scored.append(train(setting, 0).score)
        print(f"# {kind} {method}: {scored[-1]:.5f} {setting}", flush=True)
    chosen = trials[int(np.argmax(scored))]
    is_new = ~clicks.seen.any(1)
    found, validated = [], []
    for seed in range(1, n_seeds + 1):
        fitted = train(chosen, seed)
        validated.append(fitted.score)
        found.append(metrics(fitted.model.scores(clicks.test.user, is_new), clicks.test))
    loss = make_loss(method, chosen["own"], clicks, values)
    weight = torch.ones(1) if loss.positive is None else loss.positive.double()
    ess = float(weight.sum() ** 2 / (weight**2).sum() / len(weight))
    return Outcome(method, chosen, float(np.mean(validated)), ess, np.stack(found))


def references(folder: str, chosen: dict) -> dict[str, Floats]:
    """(1, n_test_users, 4) of popularity and of the walk that weighted the negatives, as recommenders."""
    clicks = load(folder)
    graph = build_graph(clicks, chosen["exponent"], chosen["shrink"])
    popular = torch.as_tensor(graph.popularity).expand(len(clicks.test.user), -1)
    return {
        "popularity": metrics(popular, clicks.test)[None],
        "the walk itself": metrics(walk(clicks, graph)[clicks.test.user], clicks.test)[None],
    }


def relative_gain(ours: Floats, theirs: Floats, n_draws: int = 2000) -> Floats:
    """(3,) relative difference of means and its 95 % interval; paired bootstrap over users.

    Args:
        ours, theirs: (n_users,) means over seeds.
    """
    rows = np.random.default_rng(0).integers(len(ours), size=(n_draws, len(ours)))
    drawn = ours[rows].mean(1) / theirs[rows].mean(1) - 1
    return np.array([ours.mean() / theirs.mean() - 1, *np.quantile(drawn, [0.025, 0.975])])


def report(kind: str, outcomes: list[Outcome], folder: str) -> None:
    """Print the chosen settings, the metrics on test and the gains over the better of T-CE and R-CE."""
    by_name = {one.method: one for one in outcomes}
    for one in outcomes:
        print(f"{kind} {one.method}: validation {one.validation:.5f}, ESS {one.ess:.2f}, {one.chosen}")
    tests = {one.method: one.test for one in outcomes} | references(folder, by_name["weights of both"].chosen["own"])
    print(f"\n| {kind} | " + " | ".join(METRICS) + " |\n|---" + "|---" * len(METRICS) + "|")
    for name, test in tests.items():
        by_seed = test.mean(1)
        spread = by_seed.std(0, ddof=1) if len(by_seed) > 1 else np.zeros(4)
        print(
            f"| {name} | "
            + " | ".join(f"{m:.4f} (sd {s:.4f})" for m, s in zip(by_seed.mean(0), spread, strict=True))
            + " |"
        )
    print("\nrelative difference to the better of T-CE and R-CE, metric by metric")
    for name, test in tests.items():
        cells = []
        for column in range(len(METRICS)):
            peers = [tests[peer][..., column].mean(0) for peer in ("T-CE", "R-CE")]
            gain, low, high = relative_gain(test[..., column].mean(0), max(peers, key=np.mean))
            cells.append(f"{gain:+.1%} [{low:+.1%}, {high:+.1%}]")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Print the AUROC of each estimator, then a table a recommender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--recommenders", nargs="+", choices=("gmf", "neumf"), default=["gmf"])
    arguments = parser.parse_args()
    low = load(arguments.folder).low
    values = estimate(arguments.folder)
    print(f"AUROC of finding the {low.mean():.1%} of training clicks rated 3 or less")
    for name, value in values.items():
        print(f"| {name} | {roc_auc_score(low, -value):.4f} |", flush=True)
    for kind in arguments.recommenders:
        with ProcessPoolExecutor(arguments.processes) as pool:
            one = partial(
                run,
                folder=arguments.folder,
                kind=kind,
                n_trials=arguments.trials,
                n_seeds=arguments.seeds,
                values=values,
            )
            report(kind, list(pool.map(one, METHODS)), arguments.folder)


if __name__ == "__main__":
    main()
