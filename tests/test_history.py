import sqlite3
from contextlib import closing
from uuid import uuid4

import dagster as dg

from resources.history import files_of, held_open


def keep(file, value):
    """As Dagster keeps an event: somebody comes, writes and leaves."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("insert into events values (?)", [value])
        db.commit()


def test_while_somebody_stays_nobody_who_leaves_writes_the_log_back_and_nothing_is_lost(tmp_path):
    file, log = tmp_path / "index.db", tmp_path / "index.db-wal"
    with closing(sqlite3.connect(file)) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("create table events (value integer)")
    keep(file, 1)
    assert not log.exists()
    with held_open([file, tmp_path / "none.db"]):
        keep(file, 2)
        assert log.stat().st_size > 0
    assert not log.exists()
    assert not (tmp_path / "none.db").exists()
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("select value from events order by 1").fetchall() == [(1,), (2,)]


@dg.asset
def one():
    return 1


def test_a_run_goes_as_ever_in_files_that_are_held(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        run_id = str(uuid4())
        files = [*files_of(instance), *files_of(instance, run_id)]
        assert [file.name for file in files] == ["index.db", "runs.db", f"{run_id}.db"]
        assert all(file.is_file() for file in files)
        job = dg.Definitions(assets=[one]).resolve_implicit_global_asset_job_def()
        with held_open(files):
            assert job.execute_in_process(instance=instance, run_id=run_id).success
            assert all(file.with_name(f"{file.name}-wal").stat().st_size for file in files)
        assert instance.get_run_by_id(run_id).is_success
        assert instance.get_latest_materialization_event(dg.AssetKey("one"))


def test_a_history_without_files_has_none_to_hold():
    with dg.DagsterInstance.ephemeral() as instance:
        assert files_of(instance) == files_of(instance, str(uuid4())) == []
