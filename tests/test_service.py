import json
import sqlite3
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sparse
from fastapi.testclient import TestClient
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from published import DAY, KEY, N_ITEMS, Shop, copied, make_published_shop, serve

from ecom_pipeline import schema
from ecom_pipeline.errors import PublicationError
from ecom_pipeline.recommend.circumstances import Circumstances
from ecom_pipeline.recommend.interaction_weights import build_interaction_weights
from ecom_pipeline.recommend.interactions import day_of, read_interactions
from ecom_pipeline.recommend.item_item import RidgeByUsers
from ecom_pipeline.recommend.weighting import Weighting
from ecom_pipeline.service import answers, folders
from ecom_pipeline.service.guards import Limits
from ecom_pipeline.service.keys import add_key, read_keys, revoke_key
from ecom_pipeline.service.live import Clock
from ecom_pipeline.service.problems import MEDIA_TYPE
from ecom_pipeline.service.published import journal_until, write_model
from ecom_pipeline.service.search import Words, index_words
from ecom_pipeline.service.storage import read_item_item, write_item_item
from ecom_pipeline.sources.people import keyed_hash

FOUR_PARTS = ("title", "detail", "must", "action")


@pytest.fixture(scope="module")
def shop():
    return make_published_shop()


@pytest.fixture(scope="module")
def published(shop: Shop, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shop.publish(home / "published")
    return home


@pytest.fixture
def home(published, tmp_path):
    return copied(published, tmp_path / "home")


@pytest.fixture
def client(home):
    app, serving = serve(home)
    with TestClient(app, raise_server_exceptions=False) as one:
        yield one
    serving.close()


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["item_id"] for one in answer.json()["results"]]


def recommended(client, user: str, **asked) -> list[str]:
    return ids(client.get(f"/users/{user}/recommendations", params={"top": 5, **asked}))


def send(client, **event) -> dict:
    answer = client.post("/events", json={"action": "purchase", **event})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_served_lists_are_those_of_the_pipeline(client, shop):
    for user in ("u0", "u7", "u39"):
        expected = shop.listed[shop.listed.user_id == keyed_hash(user, KEY)].item_id.tolist()
        assert recommended(client, user) == expected


def test_both_systems_answer_and_a_stranger_gets_what_is_popular(client, shop):
    lists = {
        system: [recommended(client, f"u{n}", system=system) for n in range(8)] for system in ("weighted", "unweighted")
    }
    assert lists["weighted"] != lists["unweighted"]
    stranger = client.get("/users/nobody/recommendations").json()["results"]
    assert all("in the 28 days before" in one["why"] for one in stranger)
    assert "i3" not in {one["item_id"] for one in stranger}


def test_the_very_next_answer_knows_an_event(client):
    before = client.get("/weights/u1").json()["weights"]
    send(client, user_id="u1", item_id="i9", event_id="new", quantity=2)
    after = client.get("/weights/u1").json()["weights"]
    assert after[0]["item_id"] == "i9"
    assert "yesterday or today" in after[0]["why"]
    assert len(after) == len(before) + 1
    assert client.get("/ready").json()["events_since"] == 1


def test_an_event_that_is_sent_again_counts_once(client):
    first = send(client, user_id="u1", item_id="i9", event_id="new")
    weights = client.get("/weights/u1").json()
    again = send(client, user_id="u1", item_id="i9", event_id="new")
    assert (first["kept"], again["kept"], again["repeated"]) == (1, 0, 1)
    assert client.get("/weights/u1").json() == weights


def test_a_session_is_answered_by_what_it_did_and_nothing_else(client):
    stranger = ids(client.get("/sessions/s1/recommendations", params={"top": 5}))
    send(client, session_id="s1", item_id="i9", action="click")
    own = ids(client.get("/sessions/s1/recommendations", params={"top": 5}))
    assert own != stranger
    assert ids(client.get("/sessions/s2/recommendations", params={"top": 5})) == stranger


def test_a_user_and_a_session_of_the_same_id_are_two(client):
    send(client, session_id="77", item_id="i9", action="click")
    assert client.get("/weights/77").json()["weights"] == []


def test_a_restart_knows_what_was_acknowledged(home):
    app, serving = serve(home)
    with TestClient(app) as client:
        send(client, user_id="u1", item_id="i9")
        expected = client.get("/weights/u1").json()
    serving.close()
    app, serving = serve(home)
    with TestClient(app) as client:
        assert client.get("/weights/u1").json() == expected
    serving.close()


def test_what_is_dismissed_does_not_count_until_it_is_restored(client):
    item = client.get("/weights/u1").json()["weights"][0]["item_id"]
    before = recommended(client, "u1")
    send(client, user_id="u1", item_id=item, action="dismiss")
    rows = [one for one in client.get("/weights/u1").json()["weights"] if one["item_id"] == item]
    assert rows
    assert all(one["weight"] == 0 and not one["counts"] for one in rows)
    send(client, user_id="u1", item_id=item, action="restore")
    assert recommended(client, "u1") == before


def test_what_was_shown_and_left_weighs_less_and_what_went_back_nothing(client):
    send(client, user_id="u1", item_id="i9", action="purchase")
    weight = {one["item_id"]: one["weight"] for one in client.get("/weights/u1").json()["weights"]}["i9"]
    send(client, user_id="u1", item_id="i9", action="return")
    back = next(one for one in client.get("/weights/u1").json()["weights"] if one["item_id"] == "i9")
    assert weight > 0
    assert back["weight"] == 0
    assert "went back" in back["why"]


events = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, N_ITEMS - 1),
        st.sampled_from(["click", "cart", "purchase", "review", "impression", "dismiss", "restore"]),
    ),
    min_size=1,
    max_size=12,
)


@given(events)
@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])
def test_live_weights_are_those_that_the_next_refresh_starts_from(published, shop, tmp_path_factory, sent):
    home = copied(published, tmp_path_factory.mktemp("one") / "home")
    app, serving = serve(home)
    today = datetime.combine(serving.clock.now().date(), datetime.min.time(), UTC)
    with TestClient(app) as client:
        batch = [
            {
                "event_id": f"n{number}",
                "user_id": "u1",
                "item_id": f"i{item}",
                "action": action,
                "occurred_at": (today - timedelta(days=3 - age, seconds=-number)).isoformat(),
                **({"rating": 5} if action == "review" else {}),
                **({"quantity": 1} if action == "purchase" else {}),
            }
            for number, (age, item, action) in enumerate(sorted(sent, key=lambda one: one[0]))
        ]
        assert client.post("/events", json={"events": batch}).status_code == 200
        told = client.get("/weights/u1", params={"top": 1000}).json()["weights"]
    serving.close()
    live = {(one["item_id"], one["day"]): one["weight"] for one in told}
    rows = pd.DataFrame(batch)
    rows["occurred_at"] = pd.to_datetime([one["occurred_at"] for one in batch]).tz_localize(None)
    rows["occurred_at"] -= pd.Timedelta(days=1)  # the model is asked for its day as if that were tomorrow
    rows["day"] = rows.occurred_at.dt.date
    rows["user_id"] = keyed_hash("u1", KEY)
    shop.db.begin()
    try:
        shop.db.execute("insert into cleaned_interactions by name select * from rows")
        build_interaction_weights(shop.db, shop.given.rankers["weighted"].weighting, DAY, None)
        found = shop.db.execute(
            """select item_id, day, sum(interaction_value) from cleaned_interactions join interaction_weights using (event_id)
            where user_id = ? group by all""",
            [keyed_hash("u1", KEY)],
        ).fetchall()
    finally:
        shop.db.rollback()
    landed = {(item, str(day)): value for item, day, value in found}
    assert live.keys() == landed.keys()
    for key, value in landed.items():
        assert live[key] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_search_finds_by_words_within_filters_and_says_why(client):
    found = client.post("/search", json={"query": "mug i17", "top": 3, "explain": True}).json()["results"]
    assert found[0]["item_id"] == "i17"
    assert "has mug, i17" in found[0]["why"]
    assert found[0]["explain"]["word_rank"] == 1
    cheap = client.post("/search", json={"query": "mug", "top": 50, "max_price": 3}).json()["results"]
    assert {one["item_id"] for one in cheap} == {f"i{n}" for n in range(10)} - {"i3"}
    of_class = client.post("/search", json={"query": "mug", "top": 50, "category": "C1"}).json()["results"]
    assert {one["item_id"] for one in of_class} == {f"i{n}" for n in range(1, 30, 3)}
    assert client.post("/search", json={"query": "zzz"}).json()["results"] == []


def test_the_same_texts_make_the_same_index_of_words(tmp_path):
    index_words(["red mug", "", "blue mug jar", "saucer"], tmp_path)
    number = json.loads((tmp_path / "vocab.index.json").read_text())
    # not as in a set, which each process orders anew
    assert list(number) == ["", "blue", "jar", "mug", "red", "saucer"]
    assert list(number.values()) == list(range(6))
    red_mug, nothing, blue_mug, saucer = Words.read(tmp_path).scores("Red mug")
    assert red_mug > blue_mug > nothing == saucer == 0


def test_similar_items_and_texts(client):
    assert ids(client.get("/items/i4/similar", params={"top": 3}))
    assert ids(client.post("/similar", json={"text": "mug i8"}))[0] == "i8"
    answer = client.get("/items/none/similar")
    assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA_TYPE)
    assert all(answer.json()[part] for part in FOUR_PARTS)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/search", {"query": " "}, "query"),
        ("/search", {"query": "mug", "unknown": 1}, "unknown"),
        ("/events", {"user_id": "u", "action": "stare", "item_id": "i"}, "action"),
        ("/events", {"action": "click", "item_id": "i"}, "user_id or session_id"),
        ("/events", {"user_id": "NULL", "action": "click", "item_id": "i"}, "of nobody"),
        (
            "/events",
            {"user_id": "u", "action": "click", "item_id": "i", "occurred_at": "2999-01-01T00:00:00Z"},
            "possible",
        ),
        *(
            ("/events", {"user_id": "u", "action": "click", "item_id": "i", "occurred_at": at}, "possible")
            for at in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00")
        ),
        ("/search", {"query": "mug", "top": True}, "top"),
        ("/events", {"events": []}, "events"),
    ],
)
def test_bad_requests_are_told_in_four_parts_and_nothing_is_kept(client, path, body, said):
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA_TYPE)
    assert all(answer.json()[part] for part in FOUR_PARTS)
    assert said in answer.text
    assert client.get("/ready").json()["events_since"] == 0


def test_of_a_batch_with_one_bad_event_none_is_kept(client):
    good = {"user_id": "u1", "action": "click", "item_id": "i1"}
    answer = client.post("/events", json={"events": [good, {**good, "occurred_at": "1980-01-01T00:00:00Z"}]})
    assert answer.status_code == 422
    assert "number 2" in answer.text
    assert client.get("/ready").json()["events_since"] == 0


def test_the_journal_holds_no_id_as_it_came(client, home):
    send(client, user_id="jane@example.org", session_id="visit-1234", item_id="i1")
    kept = b"".join(file.read_bytes() for file in (home / "journal").iterdir())
    assert b"i1" in kept
    assert b"jane" not in kept
    assert b"visit-1234" not in kept


def test_large_bodies_and_too_many_requests_are_refused(home):
    app, serving = serve(home, limits=Limits(body_bytes=500, per_second=3))
    with TestClient(app) as client:
        assert client.post("/search", json={"query": "mug " * 200}).status_code == 413
        codes = [client.get("/health").status_code for _ in range(6)]
    serving.close()
    assert codes[-1] == 429
    assert codes[0] == 200


def test_keys_reach_as_far_as_their_scopes_and_only_hashes_of_them_are_kept(home):
    file = home / "keys.json"
    secrets = {scope: add_key(file, scope, [scope]) for scope in ("read", "events", "label")}
    asked = {
        "read": ("GET", "/users/u1/recommendations", None),
        "events": ("POST", "/events", {"user_id": "u1", "action": "click", "item_id": "i1"}),
        "label": ("GET", "/suspects", None),
    }
    app, serving = serve(home, keys=file)
    with TestClient(app) as client:
        for needed, (method, path, body) in asked.items():
            assert client.request(method, path, json=body).status_code == 401
            for scope, secret in secrets.items():
                answer = client.request(method, path, json=body, headers={"Authorization": f"Bearer {secret}"})
                assert answer.status_code == (200 if scope == needed else 403)
        revoke_key(file, "read")
        assert client.get(asked["read"][1], headers={"Authorization": f"Bearer {secrets['read']}"}).status_code == 401
        assert client.get("/health").status_code == 200
    serving.close()
    assert not any(secret in file.read_text() for secret in secrets.values())
    assert file.stat().st_mode & 0o777 == 0o600
    assert [key.name for key in read_keys(file)] == ["events", "label"]


def test_no_page_elsewhere_may_call(client):
    answer = client.get("/users/u1/recommendations", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_another_model_takes_over_while_requests_run_and_each_is_answered_by_one(home, shop):
    app, serving = serve(home)
    former, names, wrong, stop = serving.model.name, [], [], threading.Event()
    with TestClient(app, raise_server_exceptions=False) as client:

        def ask() -> None:
            while not stop.is_set():
                answer = client.get("/users/u5/recommendations")
                if answer.status_code != 200:
                    wrong.append(answer.text)
                names.append(answer.json().get("model"))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for one in threads:
            one.start()
        try:
            name = shop.publish(home / "published", journal=1)
            assert serving.refresh()
            before, deadline = len(names), time.monotonic() + 30
            while len(names) < before + 20 and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            stop.set()
            for one in threads:
                one.join()
    serving.close()
    assert wrong == []
    assert set(names) == {former, name}


def test_a_broken_publication_leaves_the_old_one_serving_and_is_told(home, shop, client):
    former = client.get("/ready").json()["model"]
    name = shop.publish(home / "published", journal=1)
    broken = home / "published" / name / "acts" / "day.npy"
    broken.write_bytes(broken.read_bytes()[:-8] + b"\0" * 8)
    assert not client.app.state.house.serving.refresh()
    ready = client.get("/ready").json()
    assert ready["model"] == former
    assert "1 of" in ready["refused"]
    assert "ecom_publication_refused 1.0" in client.get("/metrics").text
    assert client.get("/users/u1/recommendations").json()["model"] == former


def test_a_publication_that_was_damaged_is_mended_by_publishing_again(home, shop, client):
    serving, folder = client.app.state.house.serving, home / "published"
    former = folders.pointer(folder)
    name = shop.publish(folder, journal=1)
    (folder / name / "acts" / "day.npy").write_bytes(b"")
    assert not serving.refresh()
    assert not folders.current_is_whole(folder)
    assert shop.publish(folder, journal=1) == name
    assert folders.current_is_whole(folder)
    assert serving.refresh()
    assert client.get("/ready").json()["model"] == name
    assert client.get("/ready").json()["refused"] == ""
    assert former["name"] in folders.history(folder)


def test_what_is_told_of_a_refused_publication_goes_when_it_goes(home, shop, client):
    serving, pointer = client.app.state.house.serving, home / "published" / "current.json"
    former = pointer.read_text()
    name = shop.publish(home / "published", journal=1)
    (home / "published" / name / "acts" / "day.npy").write_bytes(b"")
    assert not serving.refresh()
    assert client.get("/ready").json()["refused"]
    pointer.write_text(former)  # somebody went back
    assert not serving.refresh()
    assert client.get("/ready").json()["refused"] == ""


def test_a_publication_that_fails_its_test_is_not_switched_to(home, shop):
    former = folders.pointer(home / "published")
    others = Shop(shop.db, shop.given, shop.listed.assign(item_id="i3"))
    with pytest.raises(PublicationError, match="0% of the items in lists"):
        others.publish(home / "published", journal=2)
    assert folders.pointer(home / "published") == former
    assert {one.name for one in (home / "published").iterdir()} == {former["name"], "current.json"}


def test_the_latest_three_are_kept_and_the_same_again_is_the_same(home, shop):
    names = [shop.publish(home / "published", journal=n) for n in (1, 2, 3)]
    assert folders.history(home / "published") == names[::-1]
    assert shop.publish(home / "published", journal=3) == names[-1]
    assert {one.name for one in (home / "published").glob("*/")} == set(names)


def test_a_publication_holds_safe_formats_alone(published):
    files = [file for file in (published / "published").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".npy", ".json", ".parquet", ".safetensors", ".txt"}
    told = json.loads(
        (published / "published" / folders.current(published / "published") / "manifest.json").read_text()
    )
    assert told["day"] == DAY


def test_histories_of_the_publication_are_those_of_the_warehouse(shop, client):
    acts, served = read_interactions(shop.db, 100, untaken=True), client.app.state.house.serving.model.acts
    for name in ("user", "item", "day", "n_acts", "quantity", "returned", "price", "shown"):
        np.testing.assert_array_equal(getattr(acts, name), getattr(served, name))


def weights_of(client, user: str) -> dict[tuple[str, str], float]:
    told = client.get(f"/weights/{user}", params={"top": 1000}).json()["weights"]
    return {(one["item_id"], one["day"]): one["weight"] for one in told}


def test_what_lists_had_shown_before_the_publication_weighs_less_still(shop, tmp_path):
    acts = shop.given.shop.acts
    row = int(np.flatnonzero((acts.day < DAY - 5) & (acts.returned > DAY))[0])
    shown = np.array([acts.place_in_time(acts.user[row], acts.item[row], DAY - 1)])
    weight = {}
    for name, places in (("unshown", acts.shown), ("shown", shown)):
        known = replace(shop.given.shop, acts=replace(acts, shown=places))
        shop.publish(tmp_path / name / "published", shop=known)
        app, serving = serve(tmp_path / name)
        with TestClient(app) as client:
            key = (str(acts.item_ids[acts.item[row]]), str(day_of(acts.day[row])))
            weight[name] = weights_of(client, acts.user_ids[acts.user[row]])[key]
        serving.close()
    assert weight["shown"] == pytest.approx(weight["unshown"] / 1.1)


def test_events_of_a_batch_without_times_happened_in_its_order(client):
    acts = [("dismiss", "i5"), ("purchase", "i5"), ("purchase", "i6"), ("dismiss", "i6")]
    batch = [{"user_id": "z", "action": action, "item_id": item} for action, item in acts]
    assert client.post("/events", json={"events": batch}).status_code == 200
    times = [kept.event.occurred_at for kept in client.app.state.house.serving.journal.after(0)]
    assert sorted(set(times)) == times
    assert {item: weight > 0 for (item, _), weight in weights_of(client, "z").items()} == {"i5": True, "i6": False}


def test_of_events_of_one_instant_a_dismissal_is_the_last(client):
    at = client.app.state.house.serving.clock.now().isoformat()
    for action in ("dismiss", "purchase"):
        send(client, user_id="z", item_id="i5", action=action, occurred_at=at)
    assert list(weights_of(client, "z").values()) == [0]


def test_a_dismissal_holds_for_all_that_was_before_it_as_days_pass(client):
    live = client.app.state.house.serving.live
    item = client.get("/weights/u1").json()["weights"][0]["item_id"]
    send(client, user_id="u1", item_id=item, action="dismiss")
    live.clock = Clock(live.clock.lag - timedelta(days=5))
    assert {weight for (one, _), weight in weights_of(client, "u1").items() if one == item} == {0}


def test_what_went_back_in_part_was_taken(client):
    send(client, user_id="z", item_id="i5", quantity=3)
    for pieces, gone in ((1, False), (3, False), (2, True)):  # the second is of more than is left
        send(client, user_id="z", item_id="i5", action="return", quantity=pieces)
        assert (list(weights_of(client, "z").values()) == [0]) == gone


def test_of_a_published_day_on_which_an_item_was_clicked_too_not_all_went_back(shop, client):
    acts = shop.given.shop.acts
    bought, other = acts.n_acts[:, 2], acts.n_acts.sum(1) - acts.n_acts[:, 2]
    latest = np.r_[(acts.user[1:] != acts.user[:-1]) | (acts.item[1:] != acts.item[:-1]), True]
    row = int(np.flatnonzero((bought > 0) & (other > 0) & latest & (acts.returned > DAY))[0])
    user, item = str(acts.user_ids[acts.user[row]]), str(acts.item_ids[acts.item[row]])
    send(client, user_id=user, item_id=item, action="return", quantity=float(acts.quantity[row]))
    assert weights_of(client, user)[item, str(day_of(acts.day[row]))] > 0


def test_what_is_like_an_item_is_sold_and_as_many_as_were_asked_for(client):
    found = {number: ids(client.get(f"/items/i{number}/similar", params={"top": 50})) for number in range(N_ITEMS)}
    assert all("i3" not in alike for alike in found.values())
    assert all(found.values())


def test_of_an_item_that_is_not_ranked_its_text_tells_even_if_it_has_none(client):
    model = client.app.state.house.serving.model
    model.first_similar[:] = 0  # as if nothing were known to be like anything
    assert len(ids(client.get("/items/i4/similar", params={"top": 3}))) == 3
    model.search.texts[model.place["i4"]] = ""
    assert ids(client.get("/items/i4/similar")) == []


def test_ids_may_hold_slashes(client):
    answer = client.get("/items/a%2Fb/similar")
    assert (answer.status_code, answer.json()["type"]) == (404, "item-id-unknown")
    send(client, user_id="a/b", item_id="i5")
    assert [item for item, _ in weights_of(client, "a%2Fb")] == ["i5"]
    for kind in ("users", "sessions"):
        assert client.get(f"/{kind}/a%2Fb/recommendations").status_code == 200


@pytest.mark.parametrize(
    "host", ["elsewhere.example", "127.0.0.1.elsewhere.example:8000", "localhost@elsewhere.example"]
)
def test_without_keys_a_page_elsewhere_cannot_have_its_name_lead_here(client, host):
    assert client.get("/ready", headers={"Host": host}).status_code == 421
    assert client.get("/ready", headers={"Host": "[::1]:8000"}).status_code == 200


def test_keys_that_are_made_up_do_not_get_round_the_rate(home):
    add_key(home / "keys.json", "one", ["read"])
    app, serving = serve(home, keys=home / "keys.json", limits=Limits(per_second=3))
    with TestClient(app) as client:
        codes = [client.get("/suspects", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(8)]
    serving.close()
    assert codes[0] == 401
    assert codes[-1] == 429


def test_methods_that_are_made_up_are_one_figure(client):
    for number in range(3):
        assert client.request(f"ASK{number}", "/health").status_code == 405
    assert "ASK" not in client.get("/metrics").text


def test_the_log_of_a_failure_names_nobody(client, caplog, monkeypatch):
    monkeypatch.setattr(answers, "weights", lambda *_, **__: 1 / 0)
    assert client.get("/weights/jane@example.org").status_code == 500
    assert "failed" in caplog.text
    assert "jane" not in caplog.text


def test_what_asks_nothing_of_the_journal_is_answered_without_it(client):
    serving = client.app.state.house.serving
    serving.journal.database._idle.put(sqlite3.connect(":memory:", check_same_thread=False))  # has no tables
    assert client.get("/users/u1/recommendations").status_code == 503
    assert ids(client.post("/search", json={"query": "mug"}))
    assert ids(client.get("/items/i4/similar"))


def test_a_model_of_another_version_is_refused_and_says_what_to_do(tmp_path):
    model = RidgeByUsers.fit(sparse.csr_matrix(np.eye(3, 5, dtype=np.float32)), 2.0)
    told = write_item_item(tmp_path, model)
    again = read_item_item(tmp_path, told)
    history = sparse.csr_matrix(np.ones((1, 5), np.float32))
    np.testing.assert_array_equal(again.scores(history), model.scores(history))
    (tmp_path / "inverse.npy").unlink()
    with pytest.raises(
        PublicationError, match=r"1 parts of RidgeByUsers are missing; first: 'inverse'.*publishes it again"
    ):
        read_item_item(tmp_path, told)


def test_events_that_landed_and_wait_to_be_cleaned_are_still_the_journals(tmp_path):
    with duckdb.connect() as db:
        for relation in (schema.CLEANED_INTERACTIONS, schema.REJECTED_ROWS):
            relation.create(db)
        db.execute(
            "create table landed_files as select 'events' as relation, unnest(['journal/events-000000000001-000000000002.parquet', 'journal/events-000000000003-000000000004.parquet', 'events.csv']) as file"
        )
        db.execute(
            "create table raw_events as select file, row_number, 'e' || row_number || file as event_id from landed_files, range(1, 3) as r(row_number)"
        )
        assert journal_until(db) == 0
        first = "journal/events-000000000001-000000000002.parquet"
        rows = [(f"e{n}{first}", "2026-01-01", "2026-01-01", "click", "i1") for n in (1,)]
        db.executemany(
            "insert into cleaned_interactions (event_id, occurred_at, day, action, item_id) values (?, ?, ?, ?, ?)",
            rows,
        )
        assert journal_until(db) == 0
        db.execute(
            "insert into rejected_rows by name select 'events' as source, ? as file, 2 as row_number, 'r' as rule, '' as reason, '' as raw",
            [first],
        )
        assert journal_until(db) == 2
        db.execute(
            "insert into rejected_rows by name select 'events' as source, file, row_number, 'r' as rule, '' as reason, '' as raw from raw_events where file like 'journal/events-000000000003%'"
        )
        assert journal_until(db) == 4


def test_a_query_is_kept_without_addresses_and_a_recording_takes_no_event_of_today(client, home):
    send(client, user_id="u1", item_id="i1", action="click", query="gift for jane@example.org")
    (kept,) = client.app.state.house.serving.journal.after(0)
    assert kept.event.query == "gift for (masked)"
    today = {"user_id": "u1", "item_id": "i1", "action": "click", "occurred_at": datetime.now(UTC).isoformat()}
    answer = client.post("/events", json=today)
    assert answer.status_code == 422
    assert "its data end on 2024-02-09" in answer.json()["must"]


def test_how_acts_came_about_is_published_and_known_of_events_since(shop, tmp_path):
    acts = shop.given.shop.acts
    place = np.linspace(1, 9, len(acts)).astype(np.float32)
    nothing = np.full(len(acts), np.nan, np.float32)
    how, weighting = Circumstances(place, nothing, nothing), Weighting(by_position=1.0, usual_position=5.0)
    rankers = {name: replace(one, weighting=weighting) for name, one in shop.given.rankers.items()}
    known = replace(shop.given.shop, acts=replace(acts, circumstances=how))
    given = replace(shop.given, shop=known, rankers=rankers)
    folders.publish(tmp_path / "published", lambda part: write_model(part, shop.db, given), lambda _: {})
    app, serving = serve(tmp_path)
    with TestClient(app) as client:
        row = int(np.flatnonzero(acts.n_acts.sum(1) == 1)[0])
        key = (str(acts.item_ids[acts.item[row]]), str(day_of(acts.day[row])))
        assert weights_of(client, acts.user_ids[acts.user[row]])[key] == pytest.approx(place[row] / 5)
        send(client, user_id="z", item_id="i5", action="purchase", position=10)
        send(client, user_id="z", item_id="i6", action="purchase")
        assert sorted(weights_of(client, "z").values()) == [1, 2]
    serving.close()
