"""How well do the suspects of a run find the labels that an example made wrong?

    ecom suspects --home support-home --top 10000000 --csv suspects.csv
    python examples/worth.py suspects.csv support/planted.csv

Printed are the chance that a wrong label is more suspect than a right one (AUROC), the same among pairs with either label alone,
and how many of the most suspect are wrong.
"""

import argparse
import sys

import numpy as np
import pandas as pd

from ecom_pipeline.benchmark.finding import found

FIRST = (20, 50, 200)


def main(argv: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suspects", help="what `ecom suspects --csv` wrote, with all training samples")
    parser.add_argument("planted", help="`planted.csv` of the example's folder")
    told = parser.parse_args(argv)
    suspects, planted = pd.read_csv(told.suspects), pd.read_csv(told.planted)
    wrong = np.isin(_keys(suspects.context_text, suspects.item_id), _keys(planted["query"], planted.item_id))
    print(f"{len(suspects)} pairs, {wrong.sum()} wrong ({wrong.mean():.1%})")
    for name, value in (
        ("wrong_probability", suspects.wrong_probability),
        ("worth_of_asking", suspects.worth_of_asking),
    ):
        first = np.argsort(-value.to_numpy(), kind="stable")
        shares = ", ".join(f"{wrong[first[:n]].sum()} of the first {n}" for n in FIRST)
        within = found(wrong, -value.to_numpy(), suspects.label.to_numpy())["auroc_within_grade"]
        print(
            f"{name}: AUROC {found(wrong, -value.to_numpy())['auroc']:.3f}, within a label {within:.3f}; {shares} are wrong"
        )


def _keys(text: pd.Series, item: pd.Series) -> np.ndarray:
    """A pair as one text; blanks and capitals make no other query."""
    return (text.str.split().str.join(" ").str.lower() + "\t" + item.astype(str)).to_numpy(str)


if __name__ == "__main__":
    sys.exit(main())
