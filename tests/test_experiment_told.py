"""How experiments are told: at the terminal, before and after, and on the page."""

import subprocess

import pytest
from experiment_shop import FILE, MAY, exposed, shop, year
from shop import ecom

from ecom_pipeline import page as html
from ecom_pipeline import schema
from ecom_pipeline.experiments.plan import Arm, Experiment
from ecom_pipeline.experiments.readings import every_readout
from ecom_pipeline.report import experiments as told
from resources.warehouse import Warehouse

WEIGHTS = Experiment("weights", (Arm("unweighted", 0.5), Arm("weighted", 0.5)), *MAY)
LATE = FILE.replace("weights:", "late:").replace("2024-05", "2025-05")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "experiments.yaml").write_text(FILE + LATE)
    with (
        shop(year(), exposed(WEIGHTS), "weights") as db,
        Warehouse(path=str(folder / "warehouse.duckdb")).connect() as target,
    ):
        for table in ("cleaned_interactions", "exposures"):
            target.register("frame", db.execute(f"from {table}").df())
            schema.RELATIONS[table].create(target)
            target.execute(f"insert into {table} by name from frame")
    return folder


def test_what_an_experiment_showed_is_printed_with_both_intervals(home):
    shown = ecom("experiment", "weights", home=home, check=True).stdout
    assert shown.startswith("weighted: revenue a unit ")
    assert "sample ratio: p = 0." in shown
    assert "one look" in shown
    assert "any look" in shown
    for figure in (
        "before: revenue",
        "revenue, past taken out",
        "revenue, the highest 1 % cut",
        "revenue, 90 % quantile",
    ):
        assert f"weighted: {figure}" in shown
    assert "weighted: revenue, past taken out, up to 3 purchases before" in shown


def test_before_the_start_the_terminal_says_what_could_be_seen(home):
    shown = ecom("experiment", "weights", "--plan", home=home, check=True).stdout
    assert "as from 2024-03-29 to 2024-04-28" in shown
    assert "is found in 80% of the cases" in shown


@pytest.mark.parametrize(
    ("name", "words"),
    [("third", "1 name is unknown: 'third'"), ("late", "2 of 2 arms have too few units; first: 'unweighted' with 0")],
)
def test_what_cannot_be_told_is_an_error_of_the_one_who_asked(home, name, words):
    answer = ecom("experiment", name, home=home)
    assert isinstance(answer, subprocess.CompletedProcess)
    assert answer.returncode == 2
    assert words in answer.stderr


def test_the_page_has_a_section_that_begins_with_the_verdict(home, tmp_path):
    with Warehouse(path=str(home / "warehouse.duckdb")).connect() as db:
        rows, _ = every_readout(db, [WEIGHTS, Experiment("late", WEIGHTS.arms, *MAY)])
        schema.EXPERIMENT_READOUT.create(db)
        db.register("found_rows", rows)
        db.execute("insert into experiment_readout by name from found_rows")
        page = told.gather(db)
        db.execute("delete from experiment_readout")
        assert told.gather(db) is None
    assert page.names == ["late", "weights"]
    assert told.verdict(page).startswith("Experiment late: experiment 'late': 2 of 2 arms have too few units")
    html.write("experiments.html.j2", tmp_path / "part.html", **told.for_template(page))
    text = (tmp_path / "part.html").read_text()
    assert "Does it sell more?" in text
    assert text.count("<svg") == 1  # of the one that can be read
    assert text.index("weighted ") < text.index("<table")
