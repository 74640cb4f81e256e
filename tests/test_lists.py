import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from acts_store import FIRST, store

from ecom_pipeline import schema
from ecom_pipeline.errors import ModelError
from ecom_pipeline.laws import LAWS
from ecom_pipeline.recommend.backtest import CHOSEN, DIFFERENCE, TWIN, Settings, backtest, chosen_rows
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.catalogue import read_shop, read_titles, read_withdrawn
from ecom_pipeline.recommend.interactions import day_number
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.recommend.lists import NEW_VISITOR, describe_items, make, similar_items
from ecom_pipeline.recommend.periods import origins_of, plan_periods
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.ranker import TreeSearch
from ecom_pipeline.recommend.saved import SavedRanker, is_whole
from ecom_pipeline.recommend.weighting import Weighting

N_DAYS, N_ITEMS = 40, 30
DAY = day_number(FIRST) + N_DAYS
WEIGHTING = Weighting("exponential", 20.0)
SETTINGS = Settings(
    Retrieval(n_own=20, n_together=5, n_popular=5, n_text=3),
    RowChoice("gap", n_rows=400, pilot_rows=500),
    TreeSearch((7,), (10, 20), min_rows=5, n_threads=1),
    n_visits=60,
    n_asked=30,
)


@pytest.fixture(scope="module")
def db():
    with store(n_users=40, n_items=N_ITEMS, n_days=N_DAYS) as connection:
        connection.execute(
            """insert into embeddings select distinct md5(item_text), 'reader', list_transform(range(8),
                d -> (hash(category || d) % 1000)::float / 1000), now()::timestamp from items"""
        )
        connection.execute("""update items set attributes = '{"availability": "Out of stock"}' where item_id = 'i3'""")
        connection.execute(
            "insert into items by name select 'new' as item_id, 'new' as title, 'i4' as item_text, 'c1' as category"
        )
        connection.execute(
            "update embeddings set embedding = list_transform(embedding, x -> x / sqrt(list_sum([y * y for y in embedding])))"
        )
        yield connection


@pytest.fixture(scope="module")
def periods(db):
    return plan_periods(db, n_train=2, n_test=2, length=5, n_items=100)


@pytest.fixture(scope="module")
def tested(db, periods):
    origins = origins_of(periods.assign(**{c: periods[c].astype("datetime64[ns]") for c in ("first_day", "last_day")}))
    shop = read_shop(db, 100, until=origins[-1].validation.end)
    return origins, shop, backtest(shop.acts, shop.catalogue, WEIGHTING, origins, SETTINGS)


@pytest.fixture(scope="module")
def lists(db, tested):
    _, trained_on, found = tested
    saved = SavedRanker(found.ranker, WEIGHTING, SETTINGS.retrieval, tuple(trained_on.catalogue.classes), 100)
    shop = read_shop(db, 100, divisions=saved.divisions)
    ids = shop.acts.item_ids
    told = {"titles": read_titles(db, ids), "withdrawn": read_withdrawn(db, ids)}
    return saved, shop, make(shop, saved, DAY, rules=ListRules(top=5), n_users=25, **told)


def put(db, relation, rows) -> None:
    db.register("rows_of_it", rows)
    db.execute(f"drop table if exists {relation.name}")
    relation.create(db)
    db.execute(f"insert into {relation.name} by name select * from rows_of_it")


def test_relations_keep_their_schema_and_laws(db, periods, tested, lists):
    _, shop, found = tested
    put(db, schema.LEARNING_PERIODS, periods)
    put(db, schema.SAMPLE_CHOICE, chosen_rows(found.kept, shop.acts))
    put(db, schema.NEXT_VISIT_EVALUATION, found.evaluation)
    put(db, schema.ITEM_INDEX, describe_items(lists[1], DAY, withdrawn=read_withdrawn(db, lists[1].acts.item_ids)))
    put(db, schema.RECOMMENDATIONS, lists[2])
    named = ("learning_periods", "sample_choice", "next_visit_evaluation", "item_index", "recommendations")
    for name in named:
        assert db.execute(f"select count(*) from {name}").fetchone()[0] > 0
        assert [str(v) for v in schema.violations(db, schema.RELATIONS[name]) if v.n_rows] == []
    for law in LAWS:
        if law.relation in named:
            assert db.sql(law.broken).fetchall() == [], law.name


def test_a_law_sees_a_withdrawn_item_in_a_list(db, lists):
    put(db, schema.ITEM_INDEX, describe_items(lists[1], DAY, withdrawn=read_withdrawn(db, lists[1].acts.item_ids)))
    put(db, schema.RECOMMENDATIONS, lists[2])
    (law,) = (law for law in LAWS if law.relation == "recommendations")
    db.execute("update recommendations set item_id = 'i3' where rank = 1")
    assert {why for *_, why in db.sql(law.broken).fetchall()} == {"withdrawn"}


def test_all_systems_and_simple_lists_are_judged_in_every_period_with_intervals(tested):
    table = tested[2].evaluation
    rows = table[(table.metric == "ndcg_at_10") & table.slice.str.startswith("all")]
    for model in (CHOSEN, TWIN, DIFFERENCE, "popularity", "own frequency", "EASE", "TIFU-KNN"):
        assert set(rows[rows.model == model].slice) == {"all", "all, test period 1", "all, test period 2"}
    assert (rows.ci_low <= rows.value).all()
    assert (rows.value <= rows.ci_high).all()


def test_the_twin_has_as_many_rows_in_its_seconds_as_the_system(tested, caplog):
    origins, shop, _ = tested
    with caplog.at_level("INFO"):
        found = backtest(shop.acts, shop.catalogue, WEIGHTING, origins, replace(SETTINGS, fit_seconds=60.0))
    assert len([line for line in caplog.messages if line.startswith("60 s are enough for ")]) == 1
    assert found.ranker.n_rows == pytest.approx(found.twin.n_rows, rel=0.02)  # all that each of them retrieves
    assert found.ranker.n_rows > 2 * SETTINGS.choice.n_rows


def test_side_by_side_they_come_to_the_same_figures(tested):
    origins, shop, found = tested
    both = backtest(shop.acts, shop.catalogue, WEIGHTING, origins, replace(SETTINGS, n_processes=2))
    pd.testing.assert_frame_equal(both.evaluation, found.evaluation)
    assert both.ranker.trees == found.ranker.trees


def test_the_difference_is_that_of_the_two_systems(tested):
    table = tested[2].evaluation
    of = table[(table.metric == "ndcg_at_10") & (table.slice == "all")].set_index("model").value
    assert of[DIFFERENCE] == pytest.approx(of[CHOSEN] - of[TWIN], abs=1e-9)


def test_curves_have_fewer_rows_of_both_systems(tested):
    models = set(tested[2].evaluation.model)
    for name in (CHOSEN, TWIN):
        sizes = sorted(int(model.split(", ")[1].split()[0]) for model in models if model.startswith(f"{name}, "))
        assert len(sizes) == 2
        assert sizes[0] < sizes[1] / 4


def test_the_later_channels_are_asked_the_more_they_bring(tested):
    table = tested[2].evaluation
    of = table[(table.metric == "recall") & (table.slice == "all")].set_index("model").value
    channels = [name for name in of.index if name.startswith("retrieved: ") and name != "retrieved: all"]
    assert set(channels) == {"retrieved: own", "retrieved: together", "retrieved: popular", "retrieved: text"}
    assert of["retrieved: all"] == pytest.approx(sum(of[name] for name in channels), abs=0.3)
    assert of["retrieved: all"] >= max(of[name] for name in channels)


def test_a_ranker_that_was_written_scores_as_before(tmp_path, tested, lists):
    saved, shop, _ = lists
    saved.write(tmp_path / "ranker", {})
    again = SavedRanker.read(tmp_path / "ranker")
    told = {"titles": shop.acts.item_ids, "withdrawn": np.zeros(shop.acts.n_items, bool)}
    first, second = (make(shop, one, DAY, rules=ListRules(top=5), n_users=25, **told) for one in (saved, again))
    pd.testing.assert_frame_equal(first, second)
    assert {path.suffix for path in (tmp_path / "ranker").iterdir()} == {".json", ".txt"}


@pytest.mark.parametrize("file", ["trees.txt", "manifest.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_ranker_of_which_a_part_is_gone_is_not_read(tmp_path, lists, file, share):
    lists[0].write(tmp_path / "ranker", {})
    assert is_whole(tmp_path / "ranker")
    os.truncate(tmp_path / "ranker" / file, int((tmp_path / "ranker" / file).stat().st_size * share))
    assert not is_whole(tmp_path / "ranker")
    with pytest.raises(
        ModelError, match=r"ranker: 1 folder cannot be read.* must be as it was written: start `ecom run`"
    ):
        SavedRanker.read(tmp_path / "ranker")


def test_those_who_came_last_get_a_list_and_strangers_what_is_popular(lists):
    _, shop, rows = lists
    last = {user: shop.acts.day[shop.acts.user == code].max() for code, user in enumerate(shop.acts.user_ids)}
    listed = set(rows.user_id) - {NEW_VISITOR}
    assert len(listed) == 25
    assert min(last[user] for user in listed) >= max(last[user] for user in last if user not in listed)
    stranger = rows[rows.user_id == NEW_VISITOR]
    assert stranger.reason.str.contains("in the 28 days before").all()
    assert stranger.score.is_monotonic_decreasing


def test_without_a_ranker_there_is_the_list_of_strangers_alone(db):
    shop = read_shop(db, 100)
    told = {"titles": shop.acts.item_ids, "withdrawn": np.zeros(shop.acts.n_items, bool)}
    rows = make(shop, None, DAY, rules=ListRules(top=5), n_users=25, **told)
    assert set(rows.user_id) == {NEW_VISITOR}
    assert len(rows) == 5


def test_an_item_that_nobody_took_is_found_by_its_text(db):
    shop = read_shop(db, 100)
    rows = similar_items(shop.acts, DAY, by_text=shop.catalogue.by_text, top=3)
    new = rows[shop.acts.item_ids[rows.item] == "new"]
    assert new["rank"].tolist() == [1, 2, 3]
    assert set(new.channel) == {"text"}
    assert shop.acts.item_ids[new.similar_item.iloc[0]] == "i4"  # the same words
    assert set(rows[rows.channel == "together"].item) == set(np.flatnonzero(shop.acts.item_ids != "new"))
