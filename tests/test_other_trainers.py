"""The page on other trainers: its examples are run on a real export, and its table is held to the columns."""

import re

import numpy as np
import pandas as pd
import pytest
from shop import ROOT, ecom

from ecom_pipeline.ranking.metrics import auc

PAGE = (ROOT / "docs" / "other-trainers.md").read_text(encoding="utf-8")
READING, *EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
TITLES = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    made = tmp_path_factory.mktemp("export")
    ecom("weights", "--export", made / "w.parquet", home=finished.home, check=True)
    return made


def test_every_title_has_one_example():
    assert len(TITLES) == len(EXAMPLES) == 7


@pytest.mark.parametrize("example", EXAMPLES, ids=TITLES)
def test_an_example_runs_on_an_export_and_ranks(folder, monkeypatch, example):
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(READING, names)
    exec(example, names)
    score, held_out = np.asarray(names["score"], float), names["validation"]
    assert np.isfinite(score).all()
    figures = auc(pd.factorize(held_out.group_id)[0], held_out.label.to_numpy() == 1, score)
    assert np.nanmean(figures) > 0.7


def test_what_is_read_is_the_training_split_alone(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(READING, names)
    assert set(names["train"].split) == {"train"}
    assert names["train"].sample_weight.std() > 0


def test_the_table_names_every_column_and_no_other(folder):
    listed = re.findall(r"^\| `(\w+)(?:…)?` \|", PAGE, re.MULTILINE)
    found = pd.read_parquet(folder / "w.parquet").columns
    assert listed == list(dict.fromkeys(re.sub("^feature_.*", "feature_", name) for name in found))
    acts = pd.read_parquet(folder / "w-interactions.parquet").columns
    assert set(
        re.search(r"an act: (.*?), then", PAGE, re.DOTALL)[1].replace("`", "").replace(" (hashed)", "").split(", ")
    ) <= set(acts)


def test_rows_of_a_group_are_neighbours_and_splits_follow_one_another(folder):
    found = pd.read_parquet(folder / "w.parquet")
    runs = found.group_id != found.group_id.shift()
    assert runs.sum() == found.group_id.nunique() > 60
    assert found.split[found.split != found.split.shift()].tolist() == ["train", "validation", "test"]
    assert found.sample_id.is_unique
