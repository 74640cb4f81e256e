"""Services as several machines run them, on one journal: one is killed under load, and the server goes away."""

import hashlib
import http.client
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from datetime import date

import duckdb
import pytest
from acts_store import FIRST
from fastapi.testclient import TestClient
from postgres import PASSWORD
from published import KEY, make_published_shop, serve
from test_serve import ask, served

from ecom_pipeline import cleaning, sources
from ecom_pipeline.service.journal.opening import open_database
from ecom_pipeline.service.journal.sealing import seal
from ecom_pipeline.sources.people import keyed_hash

N_CLIENTS, N_BEFORE, N_AFTER = 4, 80, 40
HASH_KEY = hashlib.sha256(b"tests").digest()  # as a home makes it of ECOM_HASH_KEY


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Client(threading.Thread):
    """Buys one thing again and again at one machine, at another one when that is gone, and looks each time at the other.

    Attributes:
        done: events that were acknowledged.
        unseen: what another machine did not know of in the very next request.
    """

    def __init__(self, number: int, ports: list[int], stop: threading.Event) -> None:
        super().__init__()
        self.user, self.item = keyed_hash(f"u{number}", KEY), f"i{number + 10}"
        self.ports, self.stopped = ports[number % 2 :] + ports[: number % 2], stop
        self.done, self.unseen, self.failures = [], [], 0

    def run(self) -> None:
        before = self.known_to(self.ports[1])
        while not self.stopped.is_set():
            name = f"{self.item}-{len(self.done)}"
            told = {"event_id": name, "user_id": self.user, "action": "purchase", "item_id": self.item}
            try:
                ask(self.ports[0], "/events", told)
                self.done.append(name)
            except (OSError, http.client.HTTPException):  # it may be kept: it is sent again, to the other one
                self.failures += 1
                self.ports = self.ports[::-1]
                continue
            try:
                if self.known_to(self.ports[1]) - before < len(self.done):
                    self.unseen.append(name)
            except (OSError, http.client.HTTPException):
                self.ports = [self.ports[0]] * 2

    def known_to(self, port: int) -> int:
        weights = ask(port, f"/weights/{self.user}?top=1000")["weights"]
        return sum(one["times"] for one in weights if one["item_id"] == self.item)


@pytest.fixture(scope="module")
def shop():
    return make_published_shop()


def test_of_two_machines_one_is_killed_and_no_acknowledged_event_is_lost_or_doubled(
    shop, tmp_path, connection, monkeypatch
):
    monkeypatch.setenv("ECOM_JOURNAL", connection)
    home, ports, stop = tmp_path / "home", [free_port(), free_port()], threading.Event()
    shop.publish(home / "published")
    with ExitStack() as running:
        # the second one loads while the first one does
        later = threading.Thread(target=lambda: running.enter_context(served(home, ports[1])))
        later.start()
        first = running.enter_context(served(home, ports[0]))
        later.join()
        clients = [Client(number, ports, stop) for number in range(N_CLIENTS)]
        for one in clients:
            one.start()
        wait_for(clients, N_BEFORE)
        os.kill(first.pid, signal.SIGKILL)
        wait_for(clients, sum(len(one.done) for one in clients) + N_AFTER)
        stop.set()
        for one in clients:
            one.join()
        names = [name for one in clients for name in one.done]
        assert [one.unseen for one in clients] == [[]] * N_CLIENTS
        assert sum(one.failures for one in clients) >= N_CLIENTS // 2
        known = ask(ports[1], "/ready")["events_since"]
        assert len(names) <= known <= len(names) + N_CLIENTS  # of the last ones the answer may not have come
        again = [{"event_id": name, "user_id": "u0", "action": "purchase", "item_id": "i0"} for name in names]
        assert ask(ports[1], "/events", {"events": again[:900]})["kept"] == 0
    landed, cleaned = in_warehouse(tmp_path, open_database(home / "journal", connection, HASH_KEY))
    assert sorted(landed) == sorted(cleaned) == sorted(set(landed))
    assert set(names) <= set(landed)
    assert len(landed) == known


def wait_for(clients: list[Client], n: int) -> None:
    deadline = time.monotonic() + 60
    while sum(len(one.done) for one in clients) < n:
        assert time.monotonic() < deadline
        assert all(one.is_alive() for one in clients)
        time.sleep(0.01)


def in_warehouse(folder, database) -> tuple[list[str], list[str]]:
    """Ids of events of the journal that have landed, and of those that are clean."""
    shop = folder / "shop"
    shop.mkdir()
    (shop / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Mug {n}\n" for n in range(30)))
    (shop / "events.csv").write_text("occurred_at,user_id,action,item_id\n")
    seal(database)
    database.close()
    found = sources.find(str(shop))
    source = sources.Source(found.adapter, found.folder, database.folder)
    with duckdb.connect() as db:
        for _ in range(2):  # the second one finds nothing new
            for table in ("items", "events"):
                source.land(db, table, hash_key=HASH_KEY)
        cleaning.clean_items(db)
        cleaning.clean_events(db, FIRST, date(2030, 1, 1), cleaning.Limits(0, None, None, None))
        return [
            [name for (name,) in db.execute(f"select event_id from {relation}").fetchall()]
            for relation in ("raw_events", "cleaned_interactions")
        ]


def test_while_the_server_is_away_that_is_told_and_what_needs_no_journal_is_answered(
    shop, tmp_path, postgres, connection, caplog
):
    shop.publish(tmp_path / "published")
    app, house = serve(tmp_path, database=open_database(tmp_path / "journal", connection, KEY))
    sent = {"event_id": "a", "user_id": "u1", "action": "click", "item_id": "i1"}
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/events", json=sent).json()["kept"] == 1
        postgres.stop()
        asked = [("POST", "/events"), ("GET", "/ready"), ("GET", "/users/u1/recommendations")]
        for method, path in asked:
            answer = client.request(method, path, json={**sent, "event_id": "b"} if method == "POST" else None)
            assert (answer.status_code, answer.json()["type"]) == (503, "journal-closed")
            assert set(answer.json()) >= {"title", "detail", "must", "action"}
        assert client.post("/search", json={"query": "mug"}).status_code == 200
        assert "ecom_journal_refused 1.0" in client.get("/metrics").text
        postgres.start()
        time.sleep(1.1)
        assert client.get("/ready").json()["events_since"] == 1
        assert client.post("/events", json={**sent, "event_id": "b"}).json()["kept"] == 1
        assert client.get("/weights/u1").status_code == 200
        assert "ecom_journal_refused 0.0" in client.get("/metrics").text
    house.close()
    assert "ECOM_JOURNAL names" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_publication_that_comes_while_the_server_is_away_is_taken_when_it_is_back(
    shop, tmp_path, postgres, connection
):
    shop.publish(tmp_path / "published")
    _, serving = serve(tmp_path, database=open_database(tmp_path / "journal", connection, KEY))
    postgres.stop()
    name = shop.publish(tmp_path / "published", journal=1)
    taken = serving.refresh()
    postgres.start()
    time.sleep(1.1)
    assert (taken, serving.refused, serving.refresh(), serving.model.name) == (False, "", True, name)
    serving.close()
