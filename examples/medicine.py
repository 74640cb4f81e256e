"""A case, and past cases that are like it, from Symptom2Disease. Not for diagnosis.

    python examples/medicine.py cases.parquet medicine

Needed is a table, as Parquet or CSV, with `text` (what is complained of) and `label` (what it was taken for). Half of the cases of
each label are items, the others ask; judged are the twenty past cases that a search by words puts first, relevant where both
were taken for the same. The texts were written for the purpose, by people who were not ill: what is learnt from them is how the
pipeline works, and nothing of medicine. Do not show its answers to anybody who is ill or treats the ill.
"""

import sys

import numpy as np
import pandas as pd
from folder import TEST_SHARE, arguments, likeness, mislabelled, write

N_SHOWN = 20


def main(argv: list[str] | None = None) -> None:
    """Write the folder."""
    told = arguments(__doc__, "the table of cases").parse_args(argv)
    read = pd.read_csv if told.data.suffix == ".csv" else pd.read_parquet
    draw = np.random.default_rng(told.seed)
    cases = read(told.data)[["text", "label"]].drop_duplicates("text")
    cases = cases.iloc[draw.permutation(len(cases))].reset_index(drop=True)
    nth, size = cases.groupby("label").cumcount(), cases.groupby("label").label.transform("size")
    past, asked = (cases[kept].reset_index(drop=True) for kept in (nth < size // 2, nth >= size // 2))
    split = np.where(draw.random(len(asked)) < TEST_SHARE, "test", "train")
    first = (-likeness(asked.text, past.text)).argsort(axis=1, kind="stable")[:, :N_SHOWN]
    query, item = np.repeat(np.arange(len(asked)), first.shape[1]), first.ravel()
    truth = asked.label.to_numpy()[query] == past.label.to_numpy()[item]
    filed, known = (mislabelled(part.label, told.wrong, draw).to_numpy() for part in (asked, past))
    relevant = np.where(split[query] == "test", truth, filed[query] == known[item])
    item_id = np.array([f"case-{n}" for n in range(len(past))])
    judged = pd.DataFrame(
        {
            "query": asked.text.to_numpy()[query],
            "item_id": item_id[item],
            "relevance": relevant.astype(int),
            "truth": truth.astype(int),
            "split": split[query],
        }
    )
    write(told.out, items=pd.DataFrame({"item_id": item_id, "title": past.text}), judged=judged)
    print("not for diagnosis")


if __name__ == "__main__":
    sys.exit(main())
