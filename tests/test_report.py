import re
import shutil
import subprocess
from dataclasses import replace

import duckdb
import pandas as pd
import pytest

from ecom_pipeline import report
from ecom_pipeline.ranking.baselines import SIMPLE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MODES_KNOWN = ("words in common", "popularity", "category", "price")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"


@pytest.fixture
def page(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as db:
        (manifest,) = (finished.home / "models").glob("*/manifest.json")
        return report.gather(db, manifest.parent)


def test_the_page_loads_nothing_from_elsewhere(finished):
    text = (finished.home / "reports" / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?https?://|@import|<script", text)
    assert len(text) < 1_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_real_browser_shows_verdict_figures_and_suspects(finished, tmp_path):
    address = (finished.home / "reports" / "report.html").as_uri()
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path}", "--dump-dom", address]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert shown.count("<svg") == 5
    assert "weighted - unweighted" in shown
    assert shown.count('class="why"') == 15
    for word in ("helped", "did harm", "No difference can be told"):
        if word in shown.split('class="verdict"')[1][:200]:
            break
    else:
        raise AssertionError("the page has no verdict")


def test_text_of_a_shop_cannot_become_markup(page, tmp_path):
    page.suspects.loc[0, "title"] = "<script>alert(1)</script>"
    report.write(page, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.02, "The weights helped"), (-0.02, -0.01, "The weights did harm"), (-0.01, 0.01, "No difference")],
)
def test_the_verdict_follows_the_interval(page, low, high, words):
    rows = (
        (page.evaluation.model == report.DIFFERENCE)
        & (page.evaluation.metric == "ndcg_at_10")
        & (page.evaluation.slice == "all")
    )
    page.evaluation.loc[rows, ["ci_low", "ci_high"]] = low, high
    assert report.verdict(page).startswith(words)


def test_the_table_in_the_terminal_has_each_model_once(page):
    lines = report.lines(page)
    for model in report.MODELS:
        assert sum(line.startswith(f"{model:<24}") for line in lines) == 1


def test_where_no_weights_are_chosen_the_page_says_so_and_shows_no_slices(page, tmp_path):
    page.manifest["inputs"]["estimator"] = "automatic"
    page.trials["chosen"] = page.trials.estimator == "none"
    weighted = page.weights[page.weights.estimator == "oof_confidence"].assign(estimator="automatic", sample_weight=1.0)
    told = replace(page, weights=pd.concat([page.weights[page.weights.estimator != "automatic"], weighted]))
    assert report.verdict(told).startswith("No weights are used: none of 12 weightings")
    report.write(told, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert text.count("<svg") == 4
    assert "the differences are 0 by construction" in text


def test_the_page_says_what_one_gets_with_how_many_labels_and_what_is_not_there(page):
    told = report.labels_told(page)
    n_all = f"{page.counts['train samples']:,}"
    assert re.search(rf"\[0\.\d+, [01]\.\d+\] with 50; .* with 500; .* with {n_all}, which is all\.", told)
    assert "There are not 5,000 labelled samples to tell more." in told


def test_the_page_has_a_step_for_each_mode_that_is_known(page):
    assert report.steps(page) == [f"linear: {name}" for name in ("text", *(f"+ {m}" for m in MODES_KNOWN))]


def test_whether_like_items_lend_their_popularity_follows_the_intervals(page):
    columns = page.evaluation.columns
    rows = [
        (f"popularity of like items - {other}", "test", "cold items", "ndcg_at_10", value, low, high, 9, 1)
        for other, value, low, high in (("popularity", 0.2, 0.1, 0.3), ("text_similarity", -0.2, -0.3, -0.1))
    ]
    told = replace(page, evaluation=pd.concat([page.evaluation, pd.DataFrame(rows, columns=columns)]))
    assert "better than their own popularity (+0.200" in report.borrowing_told(told)
    assert "worse than likeness to the context (-0.200" in report.borrowing_told(told)
    assert report.borrowing_told(page) == ""


def test_the_strongest_ranking_without_learning_stands_beside_the_weighted_ranker(page):
    for name in SIMPLE:
        assert page.figure(f"weighted - {name}") is not None
    strongest = max(SIMPLE, key=lambda name: page.figure(name).value)
    assert f"weighted - {strongest}" in report.compared(page)
    assert f"The strongest ranking without learning is {strongest}," in report.baseline_told(page)
    assert any(line.startswith(f"weighted - {strongest}") for line in report.lines(page))


def test_seeds_that_left_the_same_ranker_are_told(page):
    twins = page.manifest["twins"]
    for twin in twins.values():
        twin["n_rankers"] = len(twin["seeds"])
    assert report.seeds_told(page) == "Rankers are averaged over 2 seeds."
    twins["weighted"]["n_rankers"] = 1
    assert "Only 1 of 2 weighted and 2 of 2 unweighted rankers differ" in report.seeds_told(page)
