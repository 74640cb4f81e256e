"""`ecom check` says what a run would make of a source, and writes nothing."""

import re

import pytest
from shop import write_csv

from ecom_pipeline import cli

ITEMS = [{"item_id": f"i{n}", "title": f"item {n}", "shelf": "7"} for n in range(4)] + [{"item_id": "i9", "title": ""}]


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder and returns its exit code, what it said, and its error."""

    def run(*arguments):
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        monkeypatch.chdir(here)
        monkeypatch.setattr("sys.argv", ["ecom", "check", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        assert list(here.iterdir()) == []
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "source"
    path.mkdir()
    write_csv(path / "items.csv", ITEMS)
    return path


def act(number, **more):
    return {
        "occurred_at": f"2024-05-{number % 20 + 1:02}T10:00:00Z",
        "user_id": f"anna-{number % 3}",
        "action": "purchase",
        "item_id": f"i{number % 4}",
    } | more


def test_columns_rejected_rows_and_what_is_kept_are_said(check, folder):
    rows = [act(n) for n in range(12)]
    rows += [act(12, item_id="no-such"), act(13, action="stare"), act(14, action="stare")]
    write_csv(folder / "events.csv", rows)
    code, said, error = check(folder)
    assert (code, error) == (0, "")
    assert f"{folder} is read as canonical\n  items: items.csv\n  events: events.csv\n" in said
    assert re.search(r"item_id +15  text, the first 'i0'", said)
    assert re.search(r"occurred_at +15  time, UTC, the first '2024-05-01T10:00:00Z'", said)
    assert "kept under attributes: shelf" in said
    assert re.search(r"events: action_unknown +2  .*it is stare; first: events.csv row 14\n", said)
    assert re.search(r"events: item_unknown +1  .*it is no-such; first: events.csv row 13\n", said)
    assert re.search(r"items: title_blank +1  ", said)
    assert "4 items\n  12 events of 3 users in 0 sessions from 2024-05-01 to 2024-05-12: purchase 12\n" in said
    assert re.search(r"for lists: 4 items that 3 users took on 12 days; tested on 2024-05-\d\d to 2024-05-\d\d", said)
    assert said.endswith("A run can go.\n")


def test_too_few_days_for_lists_are_said(check, folder):
    write_csv(folder / "events.csv", [act(n) for n in range(2)])
    _, said, _ = check(folder)
    assert "for lists: 2 items that 2 users took on 2 days; too few days to make and test lists\n" in said


def test_samples_of_search_are_counted_by_split(check, folder):
    judged = [
        {"query": f"q{n}", "item_id": f"i{m}", "relevance": m, "split": split}
        for n, split in enumerate(["train", "train", "validation", "test"])
        for m in range(4)
    ]
    write_csv(folder / "judgments.csv", judged)
    code, said, _ = check(folder)
    assert code == 0
    assert "16 judged pairs of 4 queries, by grade: 0 4, 1 4, 2 4, 3 4\n" in said
    assert "for search, train: 8 samples of 2 queries, 50% with label 1\n" in said
    assert "for search, test: 4 samples of 1 queries, 50% with label 1\n" in said


def test_ids_of_people_are_not_said(check, folder):
    write_csv(folder / "events.csv", [act(n) for n in range(5)])
    _, said, _ = check(folder)
    assert "a keyed hash" in said
    assert "anna" not in said


def test_of_long_files_the_first_rows_are_looked_at_and_of_items_all(check, folder):
    write_csv(folder / "events.csv", [act(n) for n in range(12)])
    write_csv(folder / "events-2.csv", [act(12)])
    _, said, _ = check(folder, "--rows", 3)
    assert "Of 1 files only the first 3 rows were looked at" in said
    assert "events: 4 rows\n" in said
    assert "items: 5 rows\n" in said


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([act(n, action="impression") for n in range(3)], r"training_samples: 0 of 3 events took anything.*bring"),
        ([act(n, occurred_at="soon") for n in range(3)], r"training_samples: 0 of 0 events took anything.*bring"),
    ],
)
def test_where_a_run_could_not_go_the_rows_are_told_and_the_error_is_the_runs_own(check, folder, rows, words):
    write_csv(folder / "events.csv", rows)
    code, said, error = check(folder)
    assert code == 2
    assert "would be rejected" in said
    assert "A run can go" not in said
    assert re.fullmatch(rf"ecom: {words}.*\n", error)


def test_a_source_without_a_sound_item_is_refused(check, folder):
    write_csv(folder / "items.csv", ITEMS[-1:])
    write_csv(folder / "events.csv", [act(1)])
    code, said, error = check(folder)
    assert (code, error[:38]) == (2, "ecom: items: 0 of 1 rows would be kept")
    assert re.search(r"items: title_blank +1  ", said)


def test_settings_of_a_run_hold_and_wrong_ones_are_refused(check, folder, tmp_path):
    judged = [{"query": f"q{n}", "item_id": f"i{m}", "relevance": 1} for n in range(9) for m in range(2)]
    write_csv(folder / "judgments.csv", judged)
    settings = tmp_path / "run.yaml"
    settings.write_text("ops: {training_samples: {config: {relevant_from: high}}}")
    code, _, error = check(folder, "--config", settings)
    assert code == 2
    assert "--config: the settings of 1 asset, 'training_samples', do not hold" in error
    settings.write_text("ops: {training_samples: {config: {relevant_from: 2}}}")
    code, _, error = check(folder, "--config", settings)
    assert code == 2
    assert "have label 0" in error


def test_an_unknown_folder_is_refused(check, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    code, said, error = check(tmp_path)
    assert (code, said) == (2, "")
    assert "that no adapter recognises" in error
