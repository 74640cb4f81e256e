"""Each script of `examples/` makes a folder from rows in the layout of its data, and a run could go on it."""

import importlib
import re

import numpy as np
import pandas as pd
import pytest
from shop import ROOT, write_csv

from ecom_pipeline import cli

MATTERS = {
    "card_arrival": ("my new card", "has not come"),
    "lost_card?": ("the card that I lost", "should be blocked"),
    "top_up_failed": ("my top up", "was refused"),
}
DAYS = (
    "since Monday",
    "for a week",
    "again",
    "and I need help",
    "in spite of my call",
    "as I told you",
    "abroad",
    "today",
)


@pytest.fixture
def example(monkeypatch, tmp_path, capsys):
    """Runs a script by name and returns the folder and what was said."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))

    def run(name, data, *more):
        out = tmp_path / name
        importlib.import_module(name).main([str(data), str(out), *more])
        return out, capsys.readouterr().out

    return run


@pytest.fixture
def check(monkeypatch, capsys):
    """What `ecom check` says of a folder."""

    def run(folder):
        monkeypatch.setattr("sys.argv", ["ecom", "check", str(folder)])
        cli.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def questions(tmp_path):
    rows = [
        {"text": f"{what} {why} {when}", "category": matter, "split": split}
        for matter, (what, why) in MATTERS.items()
        for split, days in (("train", DAYS[:6]), ("test", DAYS[6:]))
        for when in days
    ]
    write_csv(tmp_path / "questions.csv", rows)
    return tmp_path / "questions.csv"


@pytest.fixture
def cases(tmp_path):
    of = {"cold": "a sore throat and a runny nose", "migraine": "a headache and light hurts", "allergy": "itching eyes"}
    rows = [
        {"label": label, "text": f"I have {what} {when}, {n}"}
        for label, what in of.items()
        for n in range(5)
        for when in DAYS
    ]
    write_csv(tmp_path / "cases.csv", rows)
    return tmp_path / "cases.csv"


@pytest.fixture
def customers(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    kinds = list(importlib.import_module("insurance").KINDS)[:-1]
    profile = ("MOSTYPE", "MGEMLEEF", "MGEMOMV", "MOSHOOFD", "MINKGEM", "MKOOPKLA", "MHKOOP", "MAUT2")
    draw = np.random.default_rng(0)
    rows = [
        {**{name: int(draw.integers(1, 7)) for name in profile}, **{kind: int(draw.random() < 0.2) for kind in kinds}}
        | {"Purchase": "No"}
        for _ in range(60)
    ]
    write_csv(tmp_path / "customers.csv", rows)
    return tmp_path / "customers.csv"


@pytest.fixture
def investors(tmp_path):
    """Rows in the layout of FAR-Trans, made up."""
    folder = tmp_path / "far-trans"
    folder.mkdir()
    known = [
        ("BOND FUND", "F", "MTF", "Bond", ""),
        ("  &  -", "GROWTH FUND", "MTF", "Equity", ""),
        ("A Shipping", "S", "Stock", "", "Industrials"),
    ]
    assets = [
        {"ISIN": f"XX{n}", "assetName": name, "assetShortName": short, "assetCategory": kind, "assetSubCategory": sub}
        | {"sector": sector, "industry": "", "timestamp": "2018-01-02"}
        for n, (name, short, kind, sub, sector) in enumerate(known)
    ]
    acts = [
        {
            "customerID": f"c{n % 4}",
            "ISIN": f"XX{n % 3}",
            "transactionID": n,
            "transactionType": "Sell" if n == 5 else "Buy",
        }
        | {"timestamp": f"2018-01-{n + 1:02}", "totalValue": 100.0, "units": 4}
        for n in range(12)
    ]
    write_csv(folder / "asset_information.csv", assets)
    write_csv(folder / "transactions.csv", acts)
    return folder


def test_a_question_is_filed_under_one_of_all_matters(example, check, questions):
    folder, said = example("support", questions)
    judged = pd.read_parquet(folder / "judgments.parquet")
    assert judged.groupby("query").relevance.agg(["sum", "size"]).drop_duplicates().to_numpy().tolist() == [[1, 3]]
    assert pd.read_csv(folder / "items.csv").title.tolist() == ["card arrival", "lost card", "top up failed"]
    assert "0 made wrong" in said
    assert check(folder).endswith("A run can go.\n")


def test_solved_questions_of_an_item_are_not_asked(example, questions):
    folder, _ = example("support", questions)
    told = " ".join(pd.read_csv(folder / "items.csv").description)
    assert not any(query in told for query in pd.read_parquet(folder / "judgments.parquet")["query"])


def test_labels_are_made_wrong_in_training_alone_and_said(example, questions):
    clean, _ = example("support", questions)
    truth = pd.read_parquet(clean / "judgments.parquet")
    folder, said = example("support", questions, "--wrong", "0.5")
    judged, planted = pd.read_parquet(folder / "judgments.parquet"), pd.read_csv(folder / "planted.csv")
    changed = judged[judged.relevance != truth.relevance]
    assert set(changed.split) == {"train"}
    assert set(map(tuple, changed[["query", "item_id"]].to_numpy())) == set(map(tuple, planted.to_numpy()))
    assert f"{len(planted)} made wrong" in said


def test_past_cases_do_not_ask_and_it_says_what_it_is_not_for(example, check, cases):
    folder, said = example("medicine", cases)
    judged = pd.read_parquet(folder / "judgments.parquet")
    assert not set(judged["query"]) & set(pd.read_csv(folder / "items.csv").title)
    assert set(judged.split) == {"train", "test"}
    assert "not for diagnosis" in said
    assert check(folder).endswith("A run can go.\n")


def test_of_each_customer_one_policy_is_hidden(example, check, customers):
    folder, _ = example("insurance", customers)
    judged = pd.read_parquet(folder / "judgments.parquet")
    titles = pd.read_csv(folder / "items.csv").set_index("item_id").title
    relevant = judged[judged.relevance == 1]
    assert relevant["query"].nunique() == judged["query"].nunique() == len(relevant)
    held = relevant["query"].str.extract("Holds (.*)[.] District")[0].str.split(", ")
    assert not any(titles[item] in names for item, names in zip(relevant.item_id, held, strict=True))
    assert check(folder).endswith("A run can go.\n")


def test_purchases_of_investors_are_events_and_sales_are_not(example, check, investors):
    folder, _ = example("finance", investors)
    events, items = pd.read_csv(folder / "events.csv"), pd.read_csv(folder / "items.csv")
    assert len(events) == 11
    assert set(events.action) == {"purchase"}
    assert items.title.tolist() == ["BOND FUND", "GROWTH FUND", "A Shipping"]
    assert items.category.tolist() == ["MTF > Bond", "MTF > Equity", "Stock > Industrials"]
    said = check(folder)
    assert re.search(r"3 items\n  11 events of 4 users", said)
    assert said.endswith("A run can go.\n")


def test_worth_counts_the_planted_labels_among_the_suspects(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    rows = [
        {
            "context_text": f"A  Question {n}",
            "item_id": f"i{n}",
            "label": n % 2,
            "wrong_probability": n / 8,
            "worth_of_asking": -n,
        }
        for n in range(8)
    ]
    write_csv(tmp_path / "suspects.csv", rows)
    write_csv(tmp_path / "planted.csv", [{"query": f"a question {n}", "item_id": f"i{n}"} for n in (6, 7)])
    importlib.import_module("worth").main([str(tmp_path / "suspects.csv"), str(tmp_path / "planted.csv")])
    said = capsys.readouterr().out
    assert "8 pairs, 2 wrong (25.0%)" in said
    assert "wrong_probability: AUROC 1.000, within a label 1.000" in said
    assert "worth_of_asking: AUROC 0.000" in said
