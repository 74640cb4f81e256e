"""What the examples share: their arguments, labels made wrong on request, candidates found by words, and the folder."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

TEST_SHARE = 0.25


def arguments(description: str, data: str) -> argparse.ArgumentParser:
    """A parser for where the data are, where the folder goes, and how many labels are made wrong on purpose."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("data", type=Path, help=data)
    parser.add_argument("out", type=Path, help="folder to write; it is made where it is missing")
    parser.add_argument(
        "--wrong", type=float, default=0.0, help="share of training labels made wrong, to be found again"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    return parser


def mislabelled(labels: pd.Series, share: float, draw: np.random.Generator) -> pd.Series:
    """Labels of which a share, drawn by chance, is another label of the same set, each as likely."""
    names = np.unique(labels)
    code = np.searchsorted(names, labels)
    wrong = draw.random(len(labels)) < share
    code[wrong] = (code[wrong] + draw.integers(1, len(names), wrong.sum())) % len(names)
    return pd.Series(names[code], labels.index)


def likeness(texts: pd.Series, known: pd.Series) -> np.ndarray:
    """(n, m) cosine of the words of n texts and m known ones: a plain search by words.

    Cost: O(n m) numbers in memory.
    """
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit(known)
    return (words.transform(texts) @ words.transform(known).T).toarray()


def write(folder: Path, *, items: pd.DataFrame, judged: pd.DataFrame) -> None:
    """Write `items.csv` and `judgments.parquet`, and `planted.csv` where labels were made wrong; say what to do next.

    Args:
        folder: where.
        items: item_id, title and what else is known.
        judged: query, item_id, relevance, split, and truth: what relevance would be had no label been made wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items.to_csv(folder / "items.csv", index=False)
    judged.drop(columns="truth").to_parquet(folder / "judgments.parquet", index=False)
    wrong = judged[judged.relevance != judged.truth]
    (folder / "planted.csv").unlink(missing_ok=True)
    if len(wrong):
        wrong[["query", "item_id"]].to_csv(folder / "planted.csv", index=False)
    print(
        f"{len(items)} items, {len(judged)} judged pairs of {judged['query'].nunique()} queries, {len(wrong)} made wrong: {folder}"
    )
    print(
        f"ecom check {folder}\necom run --source {folder} --home {folder}-home\necom suspects --home {folder}-home --top 50"
    )
