"""A customer's question, and the solved matters that it may belong to, from BANKING77 (CC BY 4.0).

    python examples/support.py questions.parquet support

Needed is a table, as Parquet or CSV, with `text`, `category` (the matter) and `split` (train, test). An item is a solved matter:
its name, and three of its solved questions. A query is any other question; of all matters the one that it was filed under is
relevant.
"""

import sys

import numpy as np
import pandas as pd
from folder import arguments, mislabelled, write

N_TOLD = 3


def main(argv: list[str] | None = None) -> None:
    """Write the folder."""
    told = arguments(__doc__, "the table of questions").parse_args(argv)
    read = pd.read_csv if told.data.suffix == ".csv" else pd.read_parquet
    questions = read(told.data)[["text", "category", "split"]].drop_duplicates("text")
    solved = questions[questions.split == "train"].groupby("category").head(N_TOLD)
    items = solved.groupby("category").text.agg(" ".join).rename("description").reset_index()
    items = items.assign(item_id=items.category, title=items.category.str.strip("?").str.replace("_", " "))
    asked = questions.drop(solved.index).reset_index(drop=True)
    seen = asked.split == "train"
    filed = asked.category.where(~seen, mislabelled(asked.category, told.wrong, np.random.default_rng(told.seed)))
    query, item = np.indices((len(asked), len(items))).reshape(2, -1)
    matter = items.item_id.to_numpy()[item]
    judged = pd.DataFrame(
        {
            "query": asked.text.to_numpy()[query],
            "item_id": matter,
            "relevance": (filed.to_numpy()[query] == matter).astype(int),
            "truth": (asked.category.to_numpy()[query] == matter).astype(int),
            "split": asked.split.to_numpy()[query],
        }
    )
    write(told.out, items=items[["item_id", "title", "description"]], judged=judged)


if __name__ == "__main__":
    sys.exit(main())
