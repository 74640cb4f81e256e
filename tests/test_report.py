import re
import shutil
import subprocess
from dataclasses import replace

import duckdb
import pandas as pd
import pytest

from ecom_pipeline import report
from ecom_pipeline.ranking.baselines import SIMPLE
from ecom_pipeline.report import lists, search

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MODES_KNOWN = ("words in common", "popularity", "category", "price")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"


@pytest.fixture
def page(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as db:
        return report.gather(db, finished.home / "models")


@pytest.fixture
def told(page):
    return page.search


def test_the_page_loads_nothing_from_elsewhere(finished):
    text = (finished.home / "reports" / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?https?://|@import|<script", text)
    assert len(text) < 1_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_real_browser_shows_verdict_figures_and_suspects(finished, tmp_path):
    address = (finished.home / "reports" / "report.html").as_uri()
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path}", "--dump-dom", address]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert shown.count("<svg") == 8
    assert "weighted - unweighted" in shown
    assert "weighted and chosen - unweighted twin" in shown
    assert shown.index("Lists of the whole catalogue") < shown.index("Search: did weights help?")
    assert shown.count('class="why"') == 17 + lists.N_USERS * lists.N_SHOWN
    of_lists, of_search = (part[:300] for part in shown.split('class="verdict"')[1:])
    assert any(words in of_lists for words in ("made lists better", "did harm", "cannot be told from"))
    assert any(words in of_search for words in ("helped", "did harm", "No difference can be told"))


def test_text_of_a_shop_cannot_become_markup(page, tmp_path):
    page.search.suspects.loc[0, "title"] = "<script>alert(1)</script>"
    report.write(page, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_a_text_that_is_in_use_no_more_is_not_counted_as_read(page, finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as db:
        db.begin()
        db.execute(
            "insert into embeddings select md5('a title of last year'), * exclude (text_hash) from embeddings limit 1"
        )
        counts = report.gather(db, finished.home / "models").counts
        db.rollback()
    assert counts == page.counts
    assert counts["texts read"] > 0


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.02, "The weights helped"), (-0.02, -0.01, "The weights did harm"), (-0.01, 0.01, "No difference")],
)
def test_the_verdict_follows_the_interval(told, low, high, words):
    rows = (
        (told.evaluation.model == search.DIFFERENCE)
        & (told.evaluation.metric == "ndcg_at_10")
        & (told.evaluation.slice == "all")
    )
    told.evaluation.loc[rows, ["ci_low", "ci_high"]] = low, high
    assert search.verdict(told).startswith(words)


def test_the_table_in_the_terminal_has_each_model_once(told):
    lines = search.lines(told)
    for model in search.MODELS:
        assert sum(line.startswith(f"{model:<24}") for line in lines) == 1


def test_where_no_weights_are_chosen_the_page_says_so_and_shows_no_slices(page, told, tmp_path):
    told.manifest["inputs"]["estimator"] = "automatic"
    told.trials["chosen"] = told.trials.estimator == "none"
    weighted = told.weights[told.weights.estimator == "oof_confidence"].assign(estimator="automatic", sample_weight=1.0)
    changed = replace(told, weights=pd.concat([told.weights[told.weights.estimator != "automatic"], weighted]))
    assert search.verdict(changed).startswith("No weights are used: none of 12 weightings")
    report.write(replace(page, search=changed), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert text.count("<svg") == 7
    assert "the differences are 0 by construction" in text


def test_the_page_says_what_one_gets_with_how_many_labels_and_what_is_not_there(told):
    words = search.labels_told(told)
    n_all = f"{told.counts['train']:,}"
    assert re.search(rf"\[0\.\d+, [01]\.\d+\] with 50; .* with 500; .* with {n_all}, which is all\.", words)
    assert "There are not 5,000 labelled samples to tell more." in words


def test_the_page_has_a_step_for_each_mode_that_is_known(told):
    assert search.steps(told) == [f"linear: {name}" for name in ("text", *(f"+ {m}" for m in MODES_KNOWN))]


def test_whether_like_items_lend_their_popularity_follows_the_intervals(told):
    columns = told.evaluation.columns
    rows = [
        (f"popularity of like items - {other}", "test", "cold items", "ndcg_at_10", value, low, high, 0.01, 9, 1)
        for other, value, low, high in (("popularity", 0.2, 0.1, 0.3), ("text_similarity", -0.2, -0.3, -0.1))
    ]
    changed = replace(told, evaluation=pd.concat([told.evaluation, pd.DataFrame(rows, columns=columns)]))
    assert "better than their own popularity (+0.200" in search.borrowing_told(changed)
    assert "worse than likeness to the context (-0.200" in search.borrowing_told(changed)
    assert search.borrowing_told(told) == ""


def test_the_strongest_ranking_without_learning_stands_beside_the_weighted_ranker(told):
    for name in SIMPLE:
        assert told.figure(f"weighted - {name}") is not None
    strongest = max(SIMPLE, key=lambda name: told.figure(name).value)
    assert f"weighted - {strongest}" in search.compared(told)
    assert f"The strongest ranking without learning is {strongest}," in search.baseline_told(told)
    assert any(line.startswith(f"weighted - {strongest}") for line in search.lines(told))


def test_seeds_that_left_the_same_ranker_are_told(told):
    twins = told.manifest["twins"]
    for twin in twins.values():
        twin["n_rankers"] = len(twin["seeds"])
    assert search.seeds_told(told) == "Rankers are averaged over 2 seeds."
    twins["weighted"]["n_rankers"] = 1
    assert "Only 1 of 2 weighted and 2 of 2 unweighted rankers differ" in search.seeds_told(told)


def test_a_page_without_a_half_says_so_in_a_sentence(page, tmp_path):
    for half, words in (("lists", report.NO_LISTS), ("search", report.NO_SEARCH)):
        without = replace(page, **{half: None})
        report.write(without, tmp_path / "r.html")
        assert words in (tmp_path / "r.html").read_text()
        assert words in report.lines(without)
        assert words in report.markdown(without)
        assert not any(name.startswith(half) for name in report.headline(without))
