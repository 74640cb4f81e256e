"""`ecom audience`, and what is told of campaigns that have no list."""

import dagster as dg
import pandas as pd
import pytest
from shop import ecom
from test_audience_offers import N_USERS, audience_of, day, made_shop

from assets.audiences import audiences
from ecom_pipeline import schema
from ecom_pipeline.audiences.evaluation import evaluate, foretell
from ecom_pipeline.audiences.lists import item_list, items_of, list_of
from ecom_pipeline.errors import ExperimentError, InputError
from ecom_pipeline.report import audiences as report
from resources.compute import Compute
from resources.warehouse import Warehouse


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with the made shop, three campaigns more, and the asset's relations."""
    folder = tmp_path_factory.mktemp("home")
    warehouse = Warehouse(path=str(folder / "warehouse.duckdb"))
    with made_shop() as shop, warehouse.connect() as db:
        odd = [("next", "mail", day(145), day(160)), ("empty", "mail", day(145), day(160))]
        shop.executemany("insert into campaigns values (?, ?, ?, ?)", odd)
        shop.execute("insert into campaign_items values ('next', 'tea5')")
        for name in ("items", "cleaned_interactions", "campaigns", "campaign_users", "campaign_items"):
            frame = shop.execute(f"from {name}").df()
            schema.RELATIONS[name].create(db)
            db.register("frame", frame)
            db.execute(f"insert into {name} by name from frame")
            db.unregister("frame")
    resources = {"warehouse": warehouse, "compute": Compute(device="cpu")}
    assert dg.materialize([audiences], resources=resources).success
    return folder, warehouse


def test_the_asset_keeps_its_promises_and_ranks_are_unique(home):
    _, warehouse = home
    with warehouse.connect() as db:
        for relation in (schema.AUDIENCES, schema.AUDIENCE_EVALUATION):
            assert [str(v) for v in schema.violations(db, relation) if v.n_rows] == []
        rows = db.execute("from audiences order by rank").df()
        told = report.gather(db)
    assert rows["rank"].tolist() == list(range(1, N_USERS + 1))
    assert rows.response_probability.is_monotonic_decreasing
    shown = report.for_template(told)
    assert "Those who got a campaign bought its items more often than others" in shown["audiences_sentences"][-1]
    assert "<svg" in shown["audiences_figure"]


def test_the_command_writes_whom_to_ask_and_says_how_many_give_half(home, tmp_path):
    folder, _ = home
    table = tmp_path / "list.csv"
    told = ecom("audience", "--campaign", "next", "--top", 50, "--csv", table, home=folder, check=True).stdout
    found = pd.read_csv(table)
    assert len(found) == 50
    assert found.response_probability.between(0, 1).all()
    assert f"of {N_USERS} users are expected to respond; the best" in told
    told = ecom("audience", "--category", "food > bread", "--days", 3, "--top", 3, home=folder, check=True).stdout
    assert len(told.splitlines()) == 2 + 3


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "0 of --item, --category and --campaign are given"),
        (["--item", "tea1", "--campaign", "next"], "2 of --item, --category and --campaign are given"),
        (["--campaign", "none"], "1 campaign is unknown: 'none'. It must be one of the 8, the first 'c0'"),
        (["--item", "coffee"], "1 item_id is unknown: 'coffee'. It must be one of the 7 of the catalogue"),
        (["--item", "bread"], "640 responses and 0 refusals of 4 past offers are known"),
    ],
)
def test_what_cannot_be_told_ends_with_2(home, asked, words):
    folder, _ = home
    refused = ecom("audience", *asked, home=folder)
    assert refused.returncode == 2
    assert words in refused.stderr.replace("\n", " ")


def test_a_campaign_without_a_list_says_why(home):
    _, warehouse = home
    with warehouse.connect() as db:
        for campaign, words in (
            ("none", "is unknown: 'none'"),
            ("empty", "campaign 'empty' has 0 items"),
            ("c1", "campaign 'c1' ended on 2024-02-21; 1 have lists, the first 'next'"),
        ):
            with pytest.raises(InputError, match=words):
                list_of(db, campaign)
        db.execute("begin")
        db.execute("delete from audiences")
        with pytest.raises(InputError, match="'next' has no list, for too few users answered"):
            list_of(db, "next")
        db.execute("delete from campaigns")
        with pytest.raises(InputError, match="0 campaigns are known, so 'next' is not"):
            list_of(db, "next")
        db.execute("rollback")


def test_later_campaigns_that_nobody_answered_judge_nothing():
    with made_shop() as db:
        db.execute("update campaign_users set redeemed_at = null where campaign_id >= 'c4'")
        audience, offers = audience_of(db)
        with pytest.raises(ExperimentError, match=r"0 of \d+ users of the 2 campaigns that are tested responded"):
            foretell(audience, offers, "redeemed")
        figures, told = evaluate(audience, offers)
    assert set(figures.response) == {"bought", "effect"}
    assert told["redeemed"].startswith("audience: 0 of")


def test_a_shop_of_one_user_is_told():
    with made_shop() as db:
        db.execute("delete from cleaned_interactions where user_id <> 'u000'")
        with pytest.raises(ExperimentError, match="There must be 20 of each, of 2 offers or more"):
            item_list(db, items_of(db, item="bread"))
