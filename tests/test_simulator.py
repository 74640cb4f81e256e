"""Shoppers of known taste walk through the real service: what is told is the truth, and a readout of it covers that."""

import numpy as np
import pytest
from fastapi.testclient import TestClient
from published import DAY, KEY, make_published_shop, serve

from ecom_pipeline.experiments.plan import read_experiments
from ecom_pipeline.experiments.simulator import Habits, looking, walk
from ecom_pipeline.recommend.interactions import day_of
from ecom_pipeline.sources.people import keyed_hash

ITEMS = [f"i{n}" for n in range(20)]
PRICES = dict.fromkeys(ITEMS, 2.0)
GOOD, BAD = ITEMS, ITEMS[::-1]


def taste(shopper, items):
    return np.array([0.5 if int(item[1:]) < 5 else 0.05 for item in items])


def go(n=300, habits=None, seed=0, n_visits=2, lists=None):
    told = []
    each = lists or {"old": BAD[:10], "new": GOOD[:10]}

    def answer(shopper):
        arm = ("old", "new")[int(shopper) % 2]
        return each[arm], arm

    found = walk(
        [str(n) for n in range(n)],
        taste,
        PRICES,
        answer=answer,
        lists=lambda shopper, arm: each[arm],
        tell=told.extend,
        arms=("old", "new"),
        n_visits=n_visits,
        habits=habits,
        seed=seed,
    )
    return found, told


def test_what_is_drawn_is_what_was_expected():
    found, told = go(2000)
    for arm in ("old", "new"):
        rows = found.shoppers[found.shoppers.arm == arm]
        error = rows.revenue.std() / np.sqrt(len(rows))
        assert abs(rows.revenue.mean() - rows[f"expected_{arm}"].mean()) < 4 * error
    assert found.n_events == len(told)
    spent = sum(event["price"] for event in told if event["action"] == "purchase")
    assert spent == pytest.approx(found.shoppers.revenue.sum())


def test_the_true_effect_is_as_computed_by_hand():
    found, _ = go(10, Habits(attention=1.0), n_visits=1)
    looked = 1 / np.arange(1, 11)
    by_hand = 2.0 * (looked @ taste("", GOOD[:10]) - looked @ taste("", BAD[:10]))
    assert found.effect("new", "old") == pytest.approx(by_hand)


def test_the_same_lists_have_no_effect_and_novelty_fades():
    same = {"old": GOOD[:10], "new": GOOD[:10]}
    assert go(lists=same)[0].effect("new", "old") == 0
    first, later = (go(lists=same, habits=Habits(novelty=0.5), n_visits=n)[0].effect("new", "old") / n for n in (1, 8))
    assert first > 2 * later > 0
    assert looking(3, Habits(attention=0.0), visit=0, novel=False).tolist() == [1, 1, 1]


def test_bots_click_on_everything_and_buy_nothing():
    found, told = go(200, Habits(bots=1.0))
    assert found.shoppers.revenue.sum() == 0
    assert {event["action"] for event in told} == {"impression", "click"}


def test_shoppers_drive_the_real_service_and_each_gets_the_list_of_his_arm(tmp_path):
    make_published_shop().publish(tmp_path / "published")
    (tmp_path / "experiments.yaml").write_text(
        "weights:\n  arms: {unweighted: {share: 0.5, system: unweighted}, weighted: {share: 0.5, system: weighted}}\n"
        f"  first_day: {day_of(DAY)}\n  last_day: {day_of(DAY + 30)}\n  changes: lists\n"
    )
    app, serving = serve(tmp_path)
    with TestClient(app) as client:
        asked, told = [], []

        def show(shopper, system=None):
            answer = client.get(
                f"/users/{shopper}/recommendations", params={"top": 5} | ({"system": system} if system else {})
            )
            return [row["item_id"] for row in answer.json()["results"]], answer.headers.get("X-Experiment", "")

        def answer(shopper):
            items, header = show(shopper)
            asked.append((shopper, items, header))
            return items, header.partition("=")[2]

        def tell(events):
            sent = [{"user_id": asked[-1][0], **event} for event in events]
            told.append(client.post("/events", json={"events": sent}).json()["kept"])

        found = walk(
            [f"u{n}" for n in range(20)],
            lambda shopper, items: np.full(len(items), 0.3),
            {f"i{n}": 1.0 + n % 7 for n in range(30)},
            answer=answer,
            lists=lambda shopper, arm: show(shopper, arm)[0],
            tell=tell,
            arms=("unweighted", "weighted"),
            n_visits=2,
        )
        (experiment,) = read_experiments(tmp_path / "experiments.yaml")
        assert found.n_events == sum(told) == client.get("/ready").json()["events_since"]
        for row in found.shoppers.itertuples():
            assert row.arm == experiment.assign(keyed_hash(row.user_id, KEY)).name
        assert found.shoppers.expected_weighted.mean() > 0
    serving.close()
