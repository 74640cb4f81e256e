"""A customer of an insurer, and the policy that he also holds, from the TIC benchmark (CoIL 2000).

    python examples/insurance.py Caravan.csv insurance

Needed is the table of 5,822 customers as R's package ISLR has it, as CSV. It says how many policies of each of 22 kinds a customer
holds, and what his district is like; it has no times. Of each customer who holds two kinds or more one, drawn by chance, is
hidden: the query is all else that is known, the items are the kinds that he is not seen to hold, and the hidden one is relevant.
The owner of the data, Sentient Machine Research, lets them be used for research and teaching that earns nothing.
"""

import sys

import numpy as np
import pandas as pd
from folder import TEST_SHARE, arguments, write

KINDS = {
    "AWAPART": "private third party insurance",
    "AWABEDR": "third party insurance of a firm",
    "AWALAND": "third party insurance in agriculture",
    "APERSAUT": "car policy",
    "ABESAUT": "delivery van policy",
    "AMOTSCO": "motorcycle or scooter policy",
    "AVRAAUT": "lorry policy",
    "AAANHANG": "trailer policy",
    "ATRACTOR": "tractor policy",
    "AWERKT": "agricultural machines policy",
    "ABROM": "moped policy",
    "ALEVEN": "life insurance",
    "APERSONG": "private accident insurance",
    "AGEZONG": "family accidents insurance",
    "AWAOREG": "disability insurance",
    "ABRAND": "fire policy",
    "AZEILPL": "surfboard policy",
    "APLEZIER": "boat policy",
    "AFIETS": "bicycle policy",
    "AINBOED": "property insurance",
    "ABYSTAND": "social security insurance",
    "Purchase": "mobile home policy",
}
DISTRICTS = (
    *("successful hedonists", "driven growers", "average family", "career loners", "living well"),
    *("cruising seniors", "retired and religious", "family with grown ups", "conservative families", "farmers"),
)


def main(argv: list[str] | None = None) -> None:
    """Write the folder."""
    told = arguments(__doc__, "the table of customers").parse_args(argv)
    draw = np.random.default_rng(told.seed)
    table = pd.read_csv(told.data).assign(Purchase=lambda all_of: all_of.Purchase == "Yes")
    table = table[(table[list(KINDS)] > 0).sum(axis=1) >= 2].reset_index(drop=True)
    held = table[list(KINDS)].to_numpy(int) > 0
    hidden = np.where(held, draw.random(held.shape), -1).argmax(1)
    every = np.arange(len(table))
    offered = ~held
    test = draw.random(len(table)) < TEST_SHARE
    wrong = ~test & (draw.random(len(table)) < told.wrong)
    filed = np.where(wrong, np.where(offered, draw.random(held.shape), -1).argmax(1), hidden)
    offered[every, hidden] = True
    shown = held & (np.arange(len(KINDS)) != hidden[:, None])
    texts = np.array([described(row, list(kinds)) for row, kinds in zip(table.itertuples(), shown, strict=True)])
    query, item = np.nonzero(offered)
    judged = pd.DataFrame(
        {
            "query": texts[query],
            "item_id": np.array(list(KINDS))[item],
            "relevance": (filed[query] == item).astype(int),
            "truth": (hidden[query] == item).astype(int),
            "split": np.where(test, "test", "train")[query],
        }
    )
    write(told.out, items=pd.DataFrame({"item_id": list(KINDS), "title": list(KINDS.values())}), judged=judged)


def described(customer: object, shown: list[bool]) -> str:
    """A customer in words: what he is seen to hold, and his district."""
    holds = ", ".join(name for name, there in zip(KINDS.values(), shown, strict=True) if there)
    district = (
        f"{DISTRICTS[customer.MOSHOOFD - 1]}, type {customer.MOSTYPE}, aged {10 * customer.MGEMLEEF + 10} to "
        f"{10 * customer.MGEMLEEF + 20}, {customer.MGEMOMV} in a household, income {customer.MINKGEM} of 9, "
        f"purchasing power {customer.MKOOPKLA} of 8, home owners {customer.MHKOOP} of 9, two cars {customer.MAUT2} of 9"
    )
    return f"Holds {holds}. District: {district}."


if __name__ == "__main__":
    sys.exit(main())
