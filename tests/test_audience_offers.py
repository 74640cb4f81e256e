"""What is known of users of made offers, who is compared with whom, and offers that are odd: to come, empty, given to all."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest
from test_audiences import copy_relations

from assets.audiences import audiences
from ecom_pipeline import schema
from ecom_pipeline.audiences import gains
from ecom_pipeline.audiences.evaluation import evaluate, two_models
from ecom_pipeline.audiences.lists import campaign_lists
from ecom_pipeline.audiences.offers import FEATURES, Audience, Offer, last_day_of, read_audience, read_campaigns
from ecom_pipeline.audiences.response import Settings
from ecom_pipeline.audiences.uplift import effect_scores
from resources.compute import Compute
from resources.warehouse import Warehouse

START, N_DAYS, N_USERS, N_CAMPAIGNS = date(2024, 1, 1), 140, 160, 6
LEARNT = ("audiences", "audience_evaluation")
ADDED = 0.4  # by which a campaign raises the chance that somebody buys


def day(n: int) -> date:
    return START + timedelta(days=n)


def made_shop(*, held_out: bool = False, seed: int = 1) -> duckdb.DuckDBPyConnection:
    """Users who come every few days, and campaigns of twelve days every twenty for one item each, given to every second."""
    draw = np.random.default_rng(seed)
    events, users = [], []
    for user in range(N_USERS):
        every = 2 + user % 9
        events += [(f"u{user:03}", "bread", n) for n in range(user % every, N_DAYS, every)]
        for c in range(N_CAMPAIGNS):
            gets = draw.random() < 0.5
            bought = draw.random() < (0.1 + ADDED * gets + 0.2 * (every < 5))
            if gets or held_out:
                redeemed = datetime.combine(day(25 + 20 * c), datetime.min.time()) if gets and bought else None
                users.append((f"c{c}", f"u{user:03}", not gets, redeemed))
            if bought:
                events.append((f"u{user:03}", f"tea{c}", 25 + 20 * c))
    db = duckdb.connect()
    for name in ("items", "cleaned_interactions", "campaigns", "campaign_users", "campaign_items"):
        schema.RELATIONS[name].create(db)
    campaigns = [(f"c{c}", "mail", day(20 + 20 * c), day(31 + 20 * c)) for c in range(N_CAMPAIGNS)]
    put(db, "campaigns", ["campaign_id", "kind", "first_day", "last_day"], campaigns)
    put(db, "campaign_users", ["campaign_id", "user_id", "held_out", "redeemed_at"], users)
    put(db, "campaign_items", ["campaign_id", "item_id"], [(f"c{c}", f"tea{c}") for c in range(N_CAMPAIGNS)])
    titles = ["bread", *(f"tea{c}" for c in range(N_CAMPAIGNS))]
    items = [(title, title, title, "food > tea" if title != "bread" else "food > bread") for title in titles]
    put(db, "items", ["item_id", "title", "item_text", "category"], items)
    rows = [(f"e{n}", day(at), day(at), who, "purchase", what, 1, 2.0) for n, (who, what, at) in enumerate(events)]
    columns = ["event_id", "occurred_at", "day", "user_id", "action", "item_id", "quantity", "price"]
    put(db, "cleaned_interactions", columns, rows)
    return db


def put(db: duckdb.DuckDBPyConnection, table: str, columns: list[str], rows: list[tuple]) -> None:
    db.register("frame", pd.DataFrame(rows, columns=columns))
    db.execute(f"insert into {table} by name from frame")
    db.unregister("frame")


def audience_of(db: duckdb.DuckDBPyConnection) -> tuple[Audience, list[Offer]]:
    offers = read_campaigns(db)
    return read_audience(db, offers), offers


def of(audience: Audience, offer: str, column: str) -> dict[str, float]:
    rows = audience.offer == offer
    return dict(zip(audience.user_id[rows], audience.known[rows, FEATURES.index(column)], strict=True))


@pytest.fixture(scope="module")
def shop():
    with made_shop() as db:
        yield db


@pytest.fixture
def odd(shop):
    """The shop, to be changed: what a test does to it is undone."""
    shop.execute("begin")
    yield shop
    shop.execute("rollback")


def test_what_is_known_of_an_offer_to_come_is_as_of_the_datas_last_day_however_far_it_lies_ahead(odd):
    last = last_day_of(odd)
    for name, ahead in (("soon", 1), ("late", 300)):
        odd.execute(
            "insert into campaigns values (?, 'mail', ?, ?)", [name, *(last + timedelta(ahead + n) for n in (0, 11))]
        )
        odd.execute("insert into campaign_items values (?, 'tea5')", [name])
    audience, _ = audience_of(odd)
    assert of(audience, "late", "recency") == of(audience, "soon", "recency")
    np.testing.assert_array_equal(audience.known[audience.offer == "late"], audience.known[audience.offer == "soon"])
    assert max(of(audience, "late", "visits_28").values()) >= 14
    assert np.isnan(audience.bought[np.isin(audience.offer, ["soon", "late"])]).all()


def test_an_offer_to_come_is_ordered_by_those_that_ended(odd):
    odd.execute("insert into campaigns values ('next', 'mail', ?, ?)", [day(400), day(411)])
    odd.execute("insert into campaign_items values ('next', 'tea5')")
    audience, offers = audience_of(odd)
    rows, told = campaign_lists(audience, offers, last_day_of(odd))
    assert told == {}
    part = rows[rows.audience == "next"]
    assert part.user_id.nunique() == N_USERS == len(part)
    assert not part.given.any()
    assert part.uplift.mean() == pytest.approx(ADDED, abs=0.1)


def test_an_offer_that_was_used_before_it_began_was_not_answered(odd):
    odd.execute("update campaign_users set redeemed_at = ? where campaign_id = 'c2'", [day(3)])
    audience, _ = audience_of(odd)
    assert audience.redeemed[audience.offer == "c2"].sum() == 0
    assert audience.redeemed[audience.offer == "c1"].sum() > 0


def test_campaigns_without_items_are_no_offers_and_those_without_users_are_for_everybody(odd):
    odd.execute("delete from campaign_items where campaign_id = 'c0'")
    odd.execute("delete from campaign_users where campaign_id = 'c5'")
    audience, offers = audience_of(odd)
    assert [offer.name for offer in offers] == ["c1", "c2", "c3", "c4", "c5"]
    rows, told = campaign_lists(audience, offers, day(129))
    assert set(rows.audience) == {"c5"}
    assert (len(rows), rows.given.sum(), told) == (N_USERS, 0, {})


def test_campaigns_that_everybody_got_have_lift_and_no_uplift(odd):
    odd.execute(
        """insert into campaign_users select campaign_id, user_id, false, null
        from campaigns, (select distinct user_id from cleaned_interactions)
        where (campaign_id, user_id) not in (select (campaign_id, user_id) from campaign_users)"""
    )
    audience, offers = audience_of(odd)
    assert audience.given.all()
    rows, told = campaign_lists(audience, offers, day(129))
    assert rows.uplift.isna().all()
    assert told["c5"].startswith("lift only, no uplift: uplift: the 0 users of earlier campaigns on one side")
    figures, told = evaluate(audience, offers)
    assert "effect" not in set(figures.response)
    assert "160 users got the offer and 0 did not" in told["uplift"]


def test_where_users_were_held_out_only_they_are_compared_with():
    """Those who were neither given a campaign nor held out never buy: comparing with them would add to the effect."""
    with made_shop(held_out=True) as db:
        put(
            db,
            "cleaned_interactions",
            ["event_id", "occurred_at", "day", "user_id", "action", "item_id", "quantity", "price"],
            [(f"s{n}", day(1), day(1), f"stranger{n}", "purchase", "bread", 1, 2.0) for n in range(400)],
        )
        audience, offers = audience_of(db)
        strangers = np.char.startswith(audience.user_id, "stranger")
        assert not audience.compared[strangers].any()
        assert audience.compared[~strangers].all()
        figures, told = evaluate(audience, offers)
        assert told["uplift"].startswith("a comparison that was drawn, 100%")
        effect = figures[(figures.response == "effect") & (figures.model == "doubly robust")].iloc[0]
        assert effect.n_users == N_USERS
        assert effect.ci_low < ADDED < effect.ci_high
        uplift = two_models(audience, np.isfinite(audience.bought), audience.known[~strangers])
        assert uplift.mean() == pytest.approx(ADDED, abs=0.06)


def test_a_small_drawn_hold_out_is_not_trimmed():
    draw = np.random.default_rng(0)
    known, given = np.abs(draw.normal(size=(8000, len(FEATURES)))), draw.random(8000) < 0.992
    response = (draw.random(8000) < 0.3 + 0.2 * given).astype(float)
    found = effect_scores(known, response, given, np.arange(8000).astype(str), drawn_share=float(given.mean()))
    assert found.overlap == 1
    low, high = found.average[1:]
    assert low < 0.2 < high


def test_weights_of_offers_have_mean_one_and_do_not_change_as_time_passes():
    settings, age = Settings("logistic", 0.1, 30.0), np.repeat([10.0, 40.0, 100.0], 5)
    assert settings.weight(age).mean() == pytest.approx(1)
    assert settings.weight(age)[0] / settings.weight(age)[5] == pytest.approx(2)
    np.testing.assert_allclose(settings.weight(age + 1000), settings.weight(age))


def test_nothing_that_comes_after_the_first_day_is_known_and_all_before_is(shop):
    audience, offers = audience_of(shop)
    one = next(offer for offer in offers if offer.name == "c2")
    with made_shop() as other:
        other.execute("delete from cleaned_interactions where day >= ? and item_id <> 'bread'", [one.first_day])
        other.execute("update cleaned_interactions set item_id = 'tea2', price = 99 where day >= ?", [one.first_day])
        other.execute("delete from campaign_users where campaign_id > 'c2'")
        other.execute("update campaign_users set redeemed_at = ? where campaign_id = 'c1'", [one.first_day])
        (n_used,) = shop.execute("select count(redeemed_at) from campaign_users where campaign_id = 'c1'").fetchone()
        changed, _ = audience_of(other)
        rows, same = audience.offer == "c2", changed.offer == "c2"
        columns = [n for n, name in enumerate(FEATURES) if name != "n_redeemed"]
        np.testing.assert_array_equal(changed.known[same][:, columns], audience.known[rows][:, columns])
        at = FEATURES.index("n_redeemed")
        assert audience.known[rows][:, at].sum() - changed.known[same][:, at].sum() == n_used  # it had been used before
        other.execute("delete from cleaned_interactions where day = ?", [one.first_day - timedelta(days=1)])
        before, _ = audience_of(other)
        assert not np.array_equal(before.known[before.offer == "c2"], changed.known[same])


def test_only_campaigns_that_had_ended_teach(shop):
    audience, offers = audience_of(shop)
    rows, _ = campaign_lists(audience, offers, day(129))
    running = audience.offer == "c5"
    turned = replace(audience, bought=np.where(running, 1 - audience.bought, audience.bought))
    other, _ = campaign_lists(turned, offers, day(129))
    pd.testing.assert_frame_equal(other, rows)


def warehouse_of(shop, path):
    """A warehouse in a file with what another has of a shop."""
    warehouse = Warehouse(path=str(path))
    with warehouse.connect() as db:
        copy_relations(shop, db, ["items", "cleaned_interactions", "campaigns", "campaign_users", "campaign_items"])
    return warehouse


def made_audiences(warehouse):
    """Names of what learnt anew, and both relations."""
    result = dg.materialize([audiences], resources={"warehouse": warehouse, "compute": Compute(device="cpu")})
    made = result.asset_materializations_for_node("audiences")
    learnt = {one.asset_key.to_user_string() for one in made if "learnt" not in one.metadata}
    return learnt, [warehouse.read(f"select * from {name} order by all") for name in LEARNT]


@pytest.mark.parametrize("one_to_come", [False, True])
def test_a_day_on_which_no_campaign_ends_learns_nothing_and_leaves_what_learning_would_give(
    shop, tmp_path, monkeypatch, one_to_come
):
    monkeypatch.setattr(gains, "N_BOOTSTRAP", 10)
    warehouse = warehouse_of(shop, tmp_path / "warehouse.duckdb")
    with warehouse.connect() as db:
        db.execute("create table later as from cleaned_interactions where day >= ?", [day(110)])
        db.execute("delete from cleaned_interactions where day >= ?", [day(110)])
        db.execute("delete from campaigns where first_day > ? and not ?", [day(110), one_to_come])
    learnt = []
    for n in (110, 111, 112):  # a campaign ends on the second
        with warehouse.connect() as db:
            db.execute("insert into cleaned_interactions from later where day = ?", [day(n)])
        new, relations = made_audiences(warehouse)
        learnt.append(new)
    # who may be asked for a campaign to come is known better every day
    assert learnt == [set(LEARNT), set(LEARNT), {"audiences"} if one_to_come else set()]
    with warehouse.connect() as db:
        fresh = warehouse_of(db, tmp_path / "fresh.duckdb")
    for one, other in zip(relations, made_audiences(fresh)[1], strict=True):
        assert len(one) > 10
        pd.testing.assert_frame_equal(one, other)


def test_audiences_that_went_with_their_campaigns_come_back_with_them(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(gains, "N_BOOTSTRAP", 10)
    warehouse = warehouse_of(shop, tmp_path / "warehouse.duckdb")
    _, first = made_audiences(warehouse)
    with warehouse.connect() as db:
        db.execute("create table aside as from campaign_items; delete from campaign_items")
    assert [one.empty for one in made_audiences(warehouse)[1]] == [True, True]
    with warehouse.connect() as db:
        db.execute("insert into campaign_items from aside")
    for again, before in zip(made_audiences(warehouse)[1], first, strict=True):
        pd.testing.assert_frame_equal(again, before)
