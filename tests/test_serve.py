"""The service as it is started: killed under load, started again, and read by the next refresh."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import duckdb
import pytest
from shop import ecom

N_SENT = 300


@contextmanager
def served(home, port):
    command = [
        sys.executable,
        "-m",
        "ecom_pipeline.cli",
        "serve",
        "--home",
        str(home),
        "--port",
        str(port),
        "--rate",
        "100000",
    ]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                ask(port, "/ready")
                break
            except urllib.error.URLError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def ask(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    return shutil.copytree(finished.home, tmp_path_factory.mktemp("served") / "home")


@pytest.fixture(scope="module")
def port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def acknowledged(home, port):
    """Ids of events that were acknowledged before the service was killed while four clients sent more."""
    done, stop = [], threading.Event()

    def send(client: int) -> None:
        for number in range(10_000):
            name = f"live-{client}-{number}"
            event = {
                "event_id": name,
                "user_id": f"person-{number % 5}",
                "action": "purchase",
                "item_id": f"i{client}-0-0",
            }
            try:
                if stop.is_set():
                    return
                ask(port, "/events", event)
                done.append(name)
            except (OSError, http.client.HTTPException):  # an answer that the kill cut is no acknowledgement
                return

    with served(home, port) as process:
        clients = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for one in clients:
            one.start()
        deadline = time.monotonic() + 60
        while len(done) < N_SENT and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        stop.set()
        for one in clients:
            one.join()
    assert len(done) >= N_SENT
    return done


@pytest.fixture(scope="module")
def answers(home, port, acknowledged):
    """What the service says when it is started again after the kill."""
    again = [
        {"event_id": name, "user_id": "person-0", "action": "purchase", "item_id": "i0-0-0"}
        for name in acknowledged[:900]
    ]
    asked = {"query": "footwear for running", "top": 5, "explain": True}
    with served(home, port):
        return SimpleNamespace(
            repeated=ask(port, "/events", {"events": again}),
            since=ask(port, "/ready")["events_since"],
            weights=ask(port, "/weights/person-0?top=1000")["weights"],
            search={
                by: ask(port, "/search", {**asked, "by": by})["results"] for by in ("weighted", "unweighted", "none")
            },
            suspects=ask(port, "/suspects?top=3"),
        )


def test_after_a_kill_each_acknowledged_event_is_in_the_answers_once(acknowledged, answers):
    assert (answers.repeated["kept"], answers.repeated["repeated"]) == (0, len(acknowledged[:900]))
    # of the last ones the answer may not have come
    assert len(acknowledged) <= answers.since <= len(acknowledged) + 4
    live = sum(one["times"] for one in answers.weights if one["day"] == answers.weights[0]["day"])
    assert live >= sum(int(name.split("-")[2]) % 5 == 0 for name in acknowledged)


def test_search_by_meaning_and_by_the_twins(answers):
    found = answers.search
    assert all(one["explain"]["ranked_by"] == by for by in ("weighted", "unweighted") for one in found[by])
    assert {one["explain"]["ranked_by"] for one in found["none"]} == {"words and meaning"}
    assert any("shoes" in one["title"] or "sneakers" in one["title"] for one in found["weighted"])
    assert any(one["explain"]["meaning_rank"] for one in found["none"])
    assert answers.suspects["grades"]
    assert all(one["agreeing"] and one["disagreeing"] for one in answers.suspects["suspects"])


@pytest.fixture(scope="module")
def refreshed(home, port, acknowledged, config):
    """The warehouse after a refresh that read the journal, and one more that had nothing to read."""
    first = ecom("run", "--config", config, home=home, check=True)
    second = ecom("run", "--config", config, home=home, check=True)
    assert "nothing is new" in second.stderr
    return first


def test_the_next_refresh_reads_each_acknowledged_event_once(home, acknowledged, refreshed):
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as db:
        rows = db.execute("select event_id from raw_events where file like 'journal/%'").fetchall()
        n_kept, n_rejected = (
            db.execute(query).fetchone()[0]
            for query in (
                "select count(*) from cleaned_interactions where event_id like 'live-%'",
                "select count(*) from rejected_rows where file like 'journal/%'",
            )
        )
    names = [name for (name,) in rows]
    assert len(names) == len(set(names)) == n_kept + n_rejected
    assert set(acknowledged) <= set(names)
    assert len(names) <= len(acknowledged) + 4


def test_the_next_model_knows_them_from_the_warehouse_and_not_twice(home, port, refreshed):
    with served(home, port):
        ready = ask(port, "/ready")
        assert ready["events_since"] == 0
        with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as db:
            (user,) = db.execute(
                "select user_id from cleaned_interactions where event_id like 'live-%' limit 1"
            ).fetchone()
            (expected,) = db.execute(
                "select count(*) from interaction_weights join cleaned_interactions using (event_id) where user_id = ?",
                [user],
            ).fetchone()
        assert sum(one["times"] for one in ask(port, f"/weights/{user}?top=1000")["weights"]) == expected


def test_without_keys_no_other_address_is_served(home):
    refused = ecom("serve", "--host", "0.0.0.0", "--port", "0", home=home)
    assert refused.returncode == 2
    assert re.search(r"1 address .* 0 keys .* must bring a key: make one by `ecom keys add NAME`", refused.stderr)


def test_keys_are_made_listed_and_revoked(tmp_path):
    secret = ecom("keys", "add", "shop", "--scope", "events", home=tmp_path, check=True).stdout.strip()
    assert secret.startswith("ecom_")
    listed = ecom("keys", "list", home=tmp_path, check=True).stdout
    assert "shop" in listed
    assert secret not in listed
    assert ecom("keys", "add", "shop", home=tmp_path).returncode == 2
    ecom("keys", "revoke", "shop", home=tmp_path, check=True)
    assert ecom("keys", "list", home=tmp_path, check=True).stdout == ""
    assert ecom("keys", "revoke", "shop", home=tmp_path).returncode == 2


def test_before_a_run_there_is_nothing_to_serve_and_that_is_said(tmp_path):
    refused = ecom("serve", "--port", "0", home=tmp_path / "home")
    assert refused.returncode == 1
    assert "0 are in" in refused.stderr
    assert "`ecom run` first" in refused.stderr
