"""Experiments in the service: an arm's list, its header, and an exposure that is on the disk before the answer."""

from collections import Counter
from datetime import timedelta

import duckdb
import pytest
from fastapi.testclient import TestClient
from published import DAY, KEY, copied, make_published_shop, serve

from ecom_pipeline import cleaning, sources
from ecom_pipeline.experiments.plan import read_experiments
from ecom_pipeline.recommend.interactions import day_of
from ecom_pipeline.service.journal.sealing import seal
from ecom_pipeline.service.journal.sqlite import SQLite
from ecom_pipeline.sources.people import keyed_hash


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    make_published_shop().publish(home / "published")
    return home


@pytest.fixture
def home(published, tmp_path):
    home = copied(published, tmp_path / "home")
    write(home)
    return home


def write(home, changes="lists", first=DAY - 3, name="weights", unit="user"):
    (home / "experiments.yaml").write_text(
        f"{name}:\n  arms: {{old: {{share: 0.5, system: unweighted}}, new: {{share: 0.5, system: weighted}}}}\n"
        f"  first_day: {day_of(first)}\n  last_day: {day_of(DAY + 30)}\n  changes: {changes}\n  unit: {unit}\n"
    )


@pytest.fixture
def client(home):
    app, serving = serve(home)
    with TestClient(app, raise_server_exceptions=False) as one:
        one.serving = serving
        yield one
    serving.close()


def ask(client, user, **more):
    return client.get(f"/users/{user}/recommendations", params=more)


def test_a_user_gets_the_list_of_his_arm_and_the_header_says_which(client, home):
    (experiment,) = read_experiments(home / "experiments.yaml")
    seen = Counter()
    for number in range(40):
        user = f"u{number}"
        answer = ask(client, user)
        arm = experiment.assign(keyed_hash(user, KEY))
        assert answer.headers["X-Experiment"] == f"weights={arm.name}"
        assert answer.json()["results"] == ask(client, user, system=arm.system).json()["results"]
        seen[arm.name] += 1
    assert min(seen.values()) > 10
    assert len(client.serving.journal.exposures()) == 40


def test_who_asks_for_a_system_is_in_no_experiment(client):
    answer = ask(client, "u1", system="unweighted")
    assert "X-Experiment" not in answer.headers
    assert client.serving.journal.exposures() == set()


def test_sessions_are_in_experiments_of_sessions_alone(client, home):
    assert "X-Experiment" not in client.get("/sessions/s1/recommendations").headers
    write(home, unit="session")
    assert client.get("/sessions/s1/recommendations").headers["X-Experiment"].startswith("weights=")
    assert "X-Experiment" not in ask(client, "u1").headers


def test_search_takes_part_where_it_is_said_who_searches(client, home):
    write(home, changes="search")
    told = {"query": "mug"}
    assert "X-Experiment" not in client.post("/search", json=told).headers
    assert "X-Experiment" not in client.post("/search", json={**told, "user_id": "null"}).headers
    assert "X-Experiment" not in client.post("/search", json={**told, "user_id": "u1", "by": "none"}).headers
    assert client.post("/search", json={**told, "user_id": "u1"}).headers["X-Experiment"].startswith("weights=")
    assert len(client.serving.journal.exposures()) == 1


def test_outside_its_days_an_experiment_does_nothing(client, home):
    write(home, first=DAY + 10)
    assert "X-Experiment" not in ask(client, "u1").headers


def test_a_broken_file_leaves_what_ran_and_says_so(client, home):
    before = ask(client, "u1").headers["X-Experiment"]
    (home / "experiments.yaml").write_text("weights: {arms: {old: 1.0}}")
    assert ask(client, "u1").headers["X-Experiment"] == before
    assert "experiment 'weights'" in client.get("/ready").json()["experiments_refused"]
    write(home)
    assert ask(client, "u1").headers["X-Experiment"] == before
    assert client.get("/ready").json()["experiments_refused"] == ""


def test_what_cannot_be_kept_is_not_shown(client):
    client.serving.journal.close()
    client.serving.journal.database.folder.joinpath("journal.sqlite").unlink()
    client.serving.journal.database.folder.joinpath("journal.sqlite").mkdir()
    app, _ = client.app, None
    answer = TestClient(app, raise_server_exceptions=False).get("/users/u1/recommendations")
    assert answer.status_code == 503


def test_exposures_are_a_source_of_the_next_run_each_once(client, home, tmp_path):
    for user in ("u1", "u2", "u1"):
        ask(client, user)
    now = client.serving.clock.now()
    seal(SQLite(home / "journal"))
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "items.csv").write_text("item_id,title\ni0,Mug\n")
    (shop / "events.csv").write_text("occurred_at,user_id,action,item_id\n")
    source = sources.find(str(shop))
    source = sources.Source(source.adapter, source.folder, home / "journal")
    with duckdb.connect() as db:
        source.land(db, "exposures", hash_key=KEY)
        cleaning.clean_exposures(db)
        rows = db.execute("select experiment, unit_id, exposed_at from exposures order by unit_id").fetchall()
    assert [row[:2] for row in rows] == [("weights", unit) for unit in sorted(keyed_hash(u, KEY) for u in ("u1", "u2"))]
    assert all(abs(now.replace(tzinfo=None) - at) < timedelta(minutes=1) for *_, at in rows)
