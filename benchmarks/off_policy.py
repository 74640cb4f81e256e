"""What one bandit's log says of the other, against what the other truly earned: the Open Bandit sample.

    python benchmarks/off_policy.py ../shared/data/obp

Three campaigns, each logged by a random policy and by Bernoulli Thompson sampling. Of the second the log has the probability of
each act alone, so the first is evaluated on it (its probability is the same for every item), by each method, and held against
its own log; rows of a campaign are estimated together. The model of rewards is a logistic regression on item, place and the
visitor's features, in five folds.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from open_bandit import read

from ecom_pipeline.experiments.off_policy import policy_value

METHODS = ("ips", "clipped", "snips", "dr", "switch")


def main() -> None:
    """Print a table a campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    log, _ = read(parser.parse_args().folder)
    for campaign, rows in log.groupby("campaign"):
        truth = rows[rows.behavior_policy == "random"]
        logged = rows[rows.behavior_policy == "bts"].reset_index(drop=True)
        n_items = truth.item_id.nunique()
        own = truth.click.mean()
        error = 1.96 * np.sqrt(own * (1 - own) / len(truth))
        print(
            f"{campaign}: random earns {own:.5f} ± {error:.5f} in its own log of {len(truth):,}; "
            f"bandit {logged.click.mean():.5f}, {len(logged):,}, {n_items} items"
        )
        chance = np.full(len(logged), 1 / n_items)
        expected, of_policy = model(logged, n_items)
        for method in METHODS:
            found = policy_value(
                logged.click.to_numpy(float),
                logged.propensity_score.to_numpy(float),
                chance,
                method=method,
                expected=expected,
                expected_of_policy=of_policy,
            )
            holds = found.ci_low - error <= own <= found.ci_high + error
            print(
                f"  {method:<8}{found.value:.5f} [{found.ci_low:.5f}, {found.ci_high:.5f}]  effective {found.effective_size:8,.0f}"
                f"  largest ratio {found.largest_weight:8.1f}  {'holds' if holds else 'misses'}"
            )


def model(logged: pd.DataFrame, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Chance of a click by a model that did not see the row: of what was shown, and of an item drawn from all."""
    visitor = pd.get_dummies(logged[[c for c in logged if c.startswith("user_feature_")] + ["position"]].astype(str))
    items = pd.get_dummies(logged.item_id.astype(str)).reindex(columns=[str(n) for n in range(n_items)], fill_value=0)
    x = np.hstack([visitor.to_numpy(float), items.to_numpy(float)])
    y = logged.click.to_numpy()
    expected, of_policy = np.empty(len(x)), np.empty(len(x))
    for train, held in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        fitted = LogisticRegression(C=0.1, max_iter=500).fit(x[train], y[train])
        expected[held] = fitted.predict_proba(x[held])[:, 1]
        base = x[held].copy()
        base[:, visitor.shape[1] :] = 0
        logit = (base @ fitted.coef_[0] + fitted.intercept_[0])[:, None] + fitted.coef_[0][visitor.shape[1] :]
        of_policy[held] = (1 / (1 + np.exp(-logit))).mean(1)
    return expected, of_policy


if __name__ == "__main__":
    main()
