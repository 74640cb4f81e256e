"""An investor's history, and the instruments that he may buy next, from FAR-Trans (CC BY 4.0).

    python examples/finance.py FOLDER finance

Needed is the folder as its authors give it (doi 10.5525/gla.researchdata.1658), of which `asset_information.csv` and
`transactions.csv` are read. An item is an instrument; a purchase is a `Buy`. What was sold is no regret of the purchase, as a return
in a shop is, so sales are left out. What an investor is likely to buy next is not what he should buy: nothing here knows prices to
come, or what suits whom, and it is no advice.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd


def main(argv: list[str] | None = None) -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of FAR-Trans")
    parser.add_argument("out", type=Path, help="folder to write; it is made where it is missing")
    told = parser.parse_args(argv)
    assets = (
        pd.read_csv(told.data / "asset_information.csv").sort_values("timestamp").drop_duplicates("ISIN", keep="last")
    )
    path = assets[["assetCategory", "assetSubCategory", "sector", "industry"]].fillna("")
    items = pd.DataFrame(
        {
            "item_id": assets.ISIN,
            "title": assets.assetName.where(assets.assetName.str.contains(r"[^\W\d_]"), assets.assetShortName),
            "category": [" > ".join(filter(None, row)) for row in path.itertuples(index=False)],
        }
    )
    acts = pd.read_csv(told.data / "transactions.csv")
    bought = acts[acts.transactionType == "Buy"]
    events = pd.DataFrame(
        {
            "event_id": bought.transactionID,
            "occurred_at": bought.timestamp,
            "user_id": bought.customerID,
            "action": "purchase",
            "item_id": bought.ISIN,
            "quantity": bought.units,
            "price": bought.totalValue / bought.units,
        }
    )
    told.out.mkdir(parents=True, exist_ok=True)
    items.to_csv(told.out / "items.csv", index=False)
    events.to_csv(told.out / "events.csv", index=False)
    print(f"{len(items)} items, {len(events)} purchases of {events.user_id.nunique()} investors: {told.out}")
    print(f"ecom check {told.out}\necom run --source {told.out} --home {told.out}-home")
    print(f"ecom recommend --home {told.out}-home --user ID\nno advice")


if __name__ == "__main__":
    sys.exit(main())
