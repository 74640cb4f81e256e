"""What one bandit's log says of the other, against what the other truly earned: the Open Bandit sample, both ways.

    python benchmarks/off_policy.py ../shared/data/obp [--prior prior_bts.yaml]

Three campaigns, each logged by a random policy and by Bernoulli Thompson sampling. The random one is evaluated on the bandit's
log: its probability is the same for every item. The bandit is evaluated on the random log where its parameters are there
(`obp/policy/conf/prior_bts.yaml` of the repository st-tech/zr-obp): the log has its probabilities of what was shown alone, so
those of all items are drawn from its prior, as obp draws them. Estimates are held against the mean in the policy's own log,
whose error counts too. The model of rewards is a logistic regression on item, place and the visitor's features, in five folds.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from open_bandit import read

from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments.off_policy import policy_value

METHODS = ("ips", "clipped", "snips", "dr", "switch")
PLACES, N_DRAWS = 3, 100_000
PUBLISHED = (
    1.198126  # of the campaign for all, in the README of obp: ips of the bandit over the random policy's own mean
)


def main() -> None:
    """Print a table a campaign and direction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prior", type=Path)
    asked = parser.parse_args()
    priors = yaml.safe_load(asked.prior.read_text()) if asked.prior else {}
    log, _ = read(asked.folder)
    for campaign, rows in log.groupby("campaign"):
        random, bandit = (rows[rows.behavior_policy == name].reset_index(drop=True) for name in ("random", "bts"))
        n_items = random.item_id.nunique()
        even = np.full((n_items, PLACES), 1 / n_items)
        print(f"{campaign}: the random policy, on the bandit's log")
        held_against(bandit, even, random.click)
        if campaign in priors:
            print(f"{campaign}: the bandit, on the random policy's log")
            by_place = thompson(priors[campaign])
            held_against(random, by_place, bandit.click)
            if campaign == "all":
                ratio = policy_value(*columns(random, by_place), method="ips").value / random.click.mean()
                print(f"  ips over the random policy's mean {ratio:.6f}; published {PUBLISHED}")


def thompson(prior: Mapping[str, list[float]]) -> np.ndarray:
    """(items, places) probability of an item at a place: the highest draws of its prior, in order."""
    draw, n_blocks = np.random.RandomState(12345), 20
    counts = np.zeros((len(prior["alpha"]), PLACES))
    for _ in range(n_blocks):
        drawn = draw.beta(prior["alpha"], prior["beta"], (N_DRAWS // n_blocks, len(counts)))
        order = np.argsort(-drawn, axis=1)
        for place in range(PLACES):
            counts[:, place] += np.bincount(order[:, place], minlength=len(counts))
    return counts / N_DRAWS


def columns(logged: pd.DataFrame, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, the logged probabilities, and those of the other policy."""
    evaluated = policy[logged.item_id, logged.position - 1]
    return logged.click.to_numpy(float), logged.propensity_score.to_numpy(float), evaluated


def held_against(logged: pd.DataFrame, policy: np.ndarray, own: pd.Series) -> None:
    """Print each estimate of a policy beside its own mean."""
    true, error = own.mean(), 1.96 * own.std() / np.sqrt(len(own))
    print(f"  own log {true:.5f} [{true - error:.5f}, {true + error:.5f}], {len(own):,} rows")
    expected, of_policy = model(logged, policy)
    for method in METHODS:
        try:
            found = policy_value(
                *columns(logged, policy), method=method, expected=expected, expected_of_policy=of_policy
            )
        except ExperimentError as refused:
            print(f"  refused: {refused}")
            return
        apart = abs(found.value - true) > np.hypot((found.ci_high - found.ci_low) / 2, error)
        print(
            f"  {method:<8}{found.value:.5f} [{found.ci_low:.5f}, {found.ci_high:.5f}]{'  apart' if apart else '  agrees'}"
            f"   effective {found.effective_size:6,.0f}, mean ratio {found.mean_weight:.2f}, largest {found.largest_weight:.0f}"
        )


def model(logged: pd.DataFrame, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chance of a click by a model that did not see the row: of what was shown, and of what the policy would show."""
    visitor = pd.get_dummies(logged[[c for c in logged if c.startswith("user_feature_")] + ["position"]].astype(str))
    names = [str(n) for n in range(len(policy))]
    items = pd.get_dummies(logged.item_id.astype(str)).reindex(columns=names, fill_value=0)
    x, y = np.hstack([visitor.to_numpy(float), items.to_numpy(float)]), logged.click.to_numpy()
    chance = policy.T[logged.position.to_numpy() - 1]  # (n, items)
    expected, of_policy = np.empty(len(x)), np.empty(len(x))
    for train, held in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        fitted = LogisticRegression(C=0.1, max_iter=500).fit(x[train], y[train])
        expected[held] = fitted.predict_proba(x[held])[:, 1]
        of_item = fitted.coef_[0][visitor.shape[1] :]
        logit = x[held][:, : visitor.shape[1]] @ fitted.coef_[0][: visitor.shape[1]] + fitted.intercept_[0]
        of_policy[held] = (chance[held] / (1 + np.exp(-logit[:, None] - of_item))).sum(1)
    return expected, of_policy


if __name__ == "__main__":
    main()
