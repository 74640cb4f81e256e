"""What the suite of faults looks at can be seen to be wrong; the faults themselves take long: `make soak`."""

import importlib
import shutil

import duckdb
import pytest
from shop import ROOT

from ecom_pipeline.service import folders

GOOD = "ecom: source: 1 file cannot be read, 'a.csv'. It must be there: copy it again."


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("fault_bench")


@pytest.fixture
def homes(tmp_path):
    """Two homes that hold the same."""
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "reports").mkdir(parents=True)
    (one / "reports" / "report.html").write_text("the report")
    with duckdb.connect(str(one / "warehouse.duckdb")) as db:
        db.execute("create table items as select 'a' as item_id, 1.5 as price, now() as landed_at")
        db.execute("create table ledger as select 'items' as asset, date '0001-01-01' as day, '' as made_from")
        db.execute("alter table ledger add column content varchar")
        db.execute("update ledger set content = (select sum(hash(i)::hugeint) || '/' || count(*) from items as i)")
    folders.publish(one / "published", lambda folder: {"n": (folder / "a.txt").write_text("a")}, lambda folder: {})
    shutil.copytree(one, two)
    return one, two


def test_equal_homes_are_equal_and_whole(bench, homes):
    assert bench.differs(*homes) == ""
    assert [bench.unwhole(home) for home in homes] == ["", ""]


def test_one_other_value_in_a_relation_is_seen(bench, homes):
    with duckdb.connect(str(homes[1] / "warehouse.duckdb")) as db:
        db.execute("update items set price = 1.6")
    assert bench.differs(*homes) == "1 differ from an undisturbed run, first 'items'"
    assert bench.unwhole(homes[1]) == "items is not what the ledger says"


def test_the_hour_at_which_a_row_landed_is_no_difference(bench, homes):
    with duckdb.connect(str(homes[1] / "warehouse.duckdb")) as db:
        db.execute("update items set landed_at = landed_at + interval 1 day")
    assert bench.differs(*homes) == ""


def test_what_a_run_took_is_no_difference(bench, homes):
    for home, seconds in zip(homes, (1, 2), strict=True):
        (home / "reports" / "report.html").write_text(f'a <section id="costs">\n{seconds} s\n</section> b')
    assert bench.differs(*homes) == ""


def test_what_is_in_use_no_more_is_no_difference(bench, homes):
    days = {homes[0]: (2,), homes[1]: (1, 2)}
    for home, noted in days.items():
        with duckdb.connect(str(home / "warehouse.duckdb")) as db:
            db.execute("alter table items add column item_text varchar default 'a mug'")
            db.execute("create table training_samples (context_text varchar, item_text varchar)")
            db.execute("create table embeddings as select md5('a mug') as text_hash, 0.5 as embedding")
            db.execute(
                "create table drift (day date, family varchar, figure varchar, part varchar, kind varchar, value int)"
            )
            db.execute("insert into drift values ('2024-05-02', 'events', 'users', '', 'count', 3)")
            for day in noted:
                db.execute("insert into drift values (make_date(2024, 5, ?), 'lists', 'users', '', 'count', 3)", [day])
    with duckdb.connect(str(homes[1] / "warehouse.duckdb")) as db:
        db.execute("insert into embeddings select md5('an old mug'), 0.7")
    assert bench.differs(*homes) == ""
    with duckdb.connect(str(homes[1] / "warehouse.duckdb")) as db:
        db.execute("update embeddings set embedding = 0.6; update drift set value = 4 where family = 'lists'")
    assert bench.differs(*homes) == "2 differ from an undisturbed run, first 'drift'"


def test_another_report_or_published_file_is_seen(bench, homes):
    (homes[1] / "reports" / "report.html").write_text("the Report")
    assert bench.differs(*homes) == "1 differ from an undisturbed run, first 'report'"
    published = homes[1] / "published"
    (published / folders.current(published) / "a.txt").write_text("b")
    assert bench.unwhole(homes[1]) == "the publication is damaged"


@pytest.mark.parametrize(
    ("code", "said", "wrong"),
    [
        (2, GOOD, ""),
        (-11, GOOD, "exit -11"),
        (1, "KeyError: 'a'", "no error of ours"),
        (2, "ecom: source: it cannot be read.", "not of four parts"),
        (1, f"{GOOD}\nTraceback (most recent call last):", "not of four parts"),
    ],
)
def test_an_error_that_lacks_a_part_is_seen(bench, code, said, wrong):
    found = bench.of_four_parts(code, said)
    assert wrong in found
    assert bool(found) == bool(wrong)
