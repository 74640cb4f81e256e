"""What will be bought: golden formulas, coverage, sums, what may not be looked at, and odd series."""

from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.demand import demand_evaluation, demand_forecast
from ecom_pipeline import schema, sources
from ecom_pipeline.demand import metrics
from ecom_pipeline.demand.classical import METHODS, classical_forecasts
from ecom_pipeline.demand.evaluation import CHOSEN, N_TESTED, evaluate
from ecom_pipeline.demand.forecast import LEVELS, Settings, forecast
from ecom_pipeline.demand.global_model import GlobalModel, features, rows_of
from ecom_pipeline.demand.intervals import QUANTILES, Conformal, adapted, ranked
from ecom_pipeline.demand.tables import LIKE_OTHERS
from ecom_pipeline.demand.tables import rows_of as table_of
from ecom_pipeline.demand.weekly import HORIZON, Weekly, content, read_weekly
from ecom_pipeline.errors import ExperimentError
from resources.cluster import Cluster
from resources.compute import Compute
from resources.warehouse import Warehouse

SMALL = Settings(n_rows=3000, n_sample=200)


def test_golden_formulas():
    actual, forecast_ = np.array([[2.0, 4.0]]), np.array([[3.0, 3.0]])
    history = np.array([[1.0, 3.0, 2.0, 2.0]])
    assert metrics.scale(history).tolist() == [1.0]
    assert metrics.scale(history, season=2).tolist() == [1.0]
    assert metrics.mase(actual, forecast_, np.array([0.5])).tolist() == [2.0]
    assert metrics.smape(actual, forecast_) == pytest.approx([100 * (1 / 5 + 1 / 7)])
    assert metrics.owa(10, 2, 20, 1) == 1.25
    low, high = np.array([[1.0, 5.0]]), np.array([[3.0, 6.0]])
    # widths 2 and 1; 4 lies 1 below, which costs 40
    assert metrics.msis(actual, low, high, np.array([0.5])) == pytest.approx([(3 + 40) / 2 / 0.5])
    assert metrics.pinball(np.array([1.0]), np.array([3.0]), 0.9) == pytest.approx([0.2])


@given(st.integers(1, 60), st.sampled_from(QUANTILES), st.integers(0, 999))
def test_a_ranked_error_holds_as_often_as_it_says(m, q, seed):
    errors = np.random.default_rng(seed).permutation(m).astype(float)
    bound = ranked(errors, q)
    # the next of m + 1 exchangeable errors stays below with rank / (m + 1) >= q
    held = m + 1 if np.isinf(bound) else int((errors <= bound).sum())
    assert held / (m + 1) >= q - 1e-9
    assert (held - 1) / (m + 1) < q or held == 0


def test_conformal_intervals_cover_what_comes_next():
    draw = np.random.default_rng(0)
    expected = draw.gamma(1, 5, (6000, 8))
    came = draw.negative_binomial(3, 3 / (3 + expected)).astype(float)
    found = Conformal.fit(came[:3000], expected[:3000], np.zeros(3000, int)).quantiles(expected[3000:])
    new = came[3000:]
    for place, level in enumerate(QUANTILES):
        if level > 0.5:
            assert (new <= found[:, :, place]).mean() == pytest.approx(level, abs=0.015)
        else:
            assert (new >= found[:, :, place]).mean() >= 1 - level - 0.015
    assert (np.diff(found, axis=2) >= 0).all()
    assert (found >= 0).all()


def test_levels_adapt_where_the_shop_has_changed():
    draw = np.random.default_rng(0)
    origin = np.repeat(np.arange(10), 50)
    steady = draw.normal(size=(500, 1))
    growing = steady * (1 + np.arange(10).repeat(50)[:, None] / 3)
    assert adapted(steady, origin, 0.9) == pytest.approx(0.9, abs=0.02)
    assert adapted(growing, origin, 0.9) > 0.915


def weekly(n=60, t=40, seed=0, **more) -> Weekly:
    draw = np.random.default_rng(seed)
    rate = draw.gamma(0.7, 3, n)
    share = (draw.random((n, t + HORIZON)) < 0.2).astype(np.float32)
    units = draw.poisson(rate[:, None] * (1 + 2 * share[:, :t])).astype(np.float32)
    sold = units > 0
    return replace(
        Weekly(
            item_ids=np.array([f"i{k}" for k in range(n)]),
            first_week=date(2024, 1, 1),
            units=units,
            first_sale=np.where(sold.any(1), sold.argmax(1), t),
            money=2 * units,
            category=np.arange(n) % 4,
            categories=("a", "b", "c", "d"),
            promoted={"mailer": share},
        ),
        **more,
    )


@pytest.fixture(scope="module")
def made():
    return weekly(), forecast(weekly(), SMALL)


def test_items_add_up_to_their_categories_quantiles_never_cross_and_nothing_is_below_zero(made):
    series, found = made
    for code in range(4):
        np.testing.assert_allclose(found.units[series.category == code].sum(0), found.of_categories[code])
    for quantiles in (found.quantiles, found.category_quantiles):
        assert (np.diff(quantiles, axis=2) >= 0).all()
        assert (quantiles >= 0).all()
    assert np.isfinite(found.units).all()
    assert list(LEVELS) == sorted(LEVELS, key=lambda name: QUANTILES[LEVELS[name]])
    assert QUANTILES[LEVELS["order_for_95"]] == 0.95


def test_rows_for_people_hold_each_item_and_week_once(made):
    series, found = made
    rows = table_of(series, found)
    assert len(rows) == (60 + 4) * HORIZON
    assert not rows.duplicated(["level", "name", "week"]).any()
    assert rows.week.min() == pd.Timestamp(date(2024, 1, 1) + timedelta(weeks=40))


def test_another_items_history_changes_no_classical_forecast():
    units = weekly(20).units
    alone = classical_forecasts(units[:10], HORIZON)
    for name, table in classical_forecasts(units, HORIZON).items():
        np.testing.assert_allclose(table[:10], alone[name], rtol=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.integers(14, 30))
def test_what_comes_after_an_origin_changes_nothing_that_is_known_at_it(seed, origin):
    series = weekly(30, seed=seed)
    later = series.units.copy()
    later[:, origin:] = 99
    changed = replace(series, units=later, money=np.where(np.arange(40) < origin, series.money, 9 * later))
    for one, other in zip(
        features(series.until(origin), np.arange(HORIZON), None),
        features(changed.until(origin), np.arange(HORIZON), None),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_promotion_that_is_known_raises_what_is_expected():
    series = weekly(200, 48)
    rows = rows_of(series, range(10, 47, 2), None, n_rows=20_000, seed=0)
    model = GlobalModel.fit(rows)
    share = series.promoted["mailer"].copy()
    share[:, 48:] = 0
    without = model.forecast(replace(series, promoted={"mailer": share}), None)
    share = share.copy()
    share[:, 48:] = 1
    with_it = model.forecast(replace(series, promoted={"mailer": share}), None)
    assert (with_it.sum() / without.sum()) > 1.8  # three times as much is true


def test_odd_series_are_no_fault():
    series = weekly(30)
    units = series.units.copy()
    units[0] = 0  # never sold
    units[1, :-2] = 0
    units[1, -2:] = 5  # two weeks old
    units[2] = 7  # always the same
    sold = units > 0
    odd = replace(series, units=units, first_sale=np.where(sold.any(1), sold.argmax(1), 40))
    found = forecast(odd, SMALL)
    assert np.isfinite(found.quantiles).all()
    assert found.young[[0, 1, 2]].tolist() == [True, True, False]
    assert found.units[2].mean() == pytest.approx(7, rel=0.4)
    methods = table_of(odd, found).query("level == 'item' and name == 'i1'").method.unique().tolist()
    assert methods == [LIKE_OTHERS]
    for table in classical_forecasts(units[:3], HORIZON).values():
        assert np.isfinite(table).all()
    assert classical_forecasts(units[:0], HORIZON)["ETS"].shape == (0, HORIZON)


def test_one_item_alone_is_foretold():
    series = weekly(60).only(np.array([3]))
    assert np.isfinite(forecast(series, SMALL).quantiles).all()


def test_words_tell_what_a_new_item_will_sell():
    series = weekly(40)
    text = np.zeros((40, 12), np.float32)
    text[np.arange(40), np.arange(40) % 12] = 1
    units = series.units.copy()
    units[:, :] = np.where(np.arange(40)[:, None] % 12 == 5, 50, 1)
    units[5, :] = 0
    sold = units > 0
    told = replace(series, text=text, units=units, first_sale=np.where(sold.any(1), sold.argmax(1), 40))
    base = forecast(told, SMALL)
    assert base.young[5]
    assert base.units[5].mean() > 5 * np.median(base.units)


def journey(db, weeks=52, households=4):
    folder = sources.find("complete-journey").folder
    for name in ("items", "cleaned_interactions", "promotions", "embeddings"):
        schema.RELATIONS[name].create(db)
    db.execute(f"""insert into cleaned_interactions by name
        select 'e' || row_number() over () as event_id, transaction_timestamp as occurred_at,
            transaction_timestamp::date as day, household_id::varchar as user_id, 'purchase' as action,
            product_id::varchar as item_id, quantity, sales_value / nullif(quantity, 0) as price
        from '{folder}/transactions.parquet'
        where household_id % {households} = 0 and day < date '2017-01-02' + {7 * weeks} and quantity < 100""")
    db.execute(f"""insert into items by name select product_id::varchar as item_id, product_type as title, product_type as item_text,
        concat_ws(' > ', department, product_category) as category from '{folder}/products.parquet'""")


@pytest.fixture(scope="module")
def shop():
    with duckdb.connect() as db:
        journey(db)
        yield db


def test_units_are_what_was_bought_and_kept_in_whole_weeks(shop):
    series = read_weekly(shop, n_items=500)
    (total,) = shop.execute(
        "select sum(quantity) from cleaned_interactions where day >= '2017-01-02' and item_id = ?", [series.item_ids[0]]
    ).fetchone()
    assert series.units[0].sum() == total
    assert (series.first_week, series.n_weeks) == (date(2017, 1, 2), 52)
    (event,) = shop.execute(
        "select min(event_id) from cleaned_interactions where item_id = ? and day between '2017-03-06' and '2017-03-12' and quantity = 1",
        [series.item_ids[0]],
    ).fetchone()
    with duckdb.connect() as other:
        journey(other, households=8)
        before = read_weekly(other, n_items=50)
        (event,) = other.execute(
            "select min(event_id) from cleaned_interactions where item_id = ? and day between '2017-03-06' and '2017-03-12'",
            [before.item_ids[0]],
        ).fetchone()
        other.execute(
            "insert into cleaned_interactions by name select 'back' as event_id, day + 30 as day, occurred_at, user_id, 'return' as action, "
            "item_id, quantity, event_id as return_of from cleaned_interactions where event_id = ?",
            [event],
        )
        after = read_weekly(other, n_items=50)
    place = list(after.item_ids).index(before.item_ids[0])
    fell = before.units[0] - after.units[place]
    assert np.flatnonzero(fell).tolist() == [9]
    assert content(before) != content(after)


def test_which_items_are_tested_is_known_before_the_weeks_that_are():
    with duckdb.connect() as db:
        journey(db, households=20)
        before = read_weekly(db, n_items=50, n_tested=N_TESTED)
        late = before.monday(before.n_weeks - N_TESTED)
        (item,) = db.execute(
            "select item_id from cleaned_interactions group by item_id having max(day) >= ? order by count(*), item_id limit 1",
            [late],
        ).fetchone()
        db.execute("update cleaned_interactions set quantity = 90000 where item_id = ? and day >= ?", [item, late])
        after = read_weekly(db, n_items=50, n_tested=N_TESTED)
        assert read_weekly(db, n_items=1).item_ids.tolist() == [item]
    assert after.item_ids.tolist() == before.item_ids.tolist()
    assert item not in after.item_ids


def test_promotions_are_shares_of_weeks():
    with duckdb.connect() as db:
        journey(db, households=20)
        (item,) = db.execute("select mode(item_id) from cleaned_interactions").fetchone()
        db.execute("insert into promotions values (?, 'mailer', '2017-12-28', '2018-01-10', 0.7)", [item])
        series = read_weekly(db, n_items=20)
    row = series.promoted["mailer"][list(series.item_ids).index(item)]
    np.testing.assert_allclose(row[51:55], [0.7 * 4 / 7, 0.7, 0.7 * 3 / 7, 0], rtol=1e-5)


@pytest.mark.parametrize(("weeks", "told"), [(10, "10 whole weeks lie between"), (0, "0 purchases are known")])
def test_too_short_a_past_is_told(weeks, told):
    with duckdb.connect() as db:
        journey(db, weeks=weeks)
        if not weeks:
            db.execute("delete from cleaned_interactions")
        with pytest.raises(ExperimentError, match=told):
            read_weekly(db)


def test_past_weeks_are_foretold_better_than_by_a_naive_forecast_and_intervals_cover(shop):
    series = read_weekly(shop, n_items=600)
    figures, chosen = evaluate(series, Settings(n_rows=20_000, n_sample=400))
    assert len(chosen) == 2
    table = figures[figures.slice == "all"].set_index(["method", "metric"]).value
    assert table[CHOSEN, "MASE"] < table["naive", "MASE"]
    assert table[CHOSEN, "inside 95 %"] == pytest.approx(0.95, abs=0.03)
    assert table[CHOSEN, "enough by order_for_95"] == pytest.approx(0.95, abs=0.03)
    assert {"MASE", "scaled pinball"} == set(figures[figures.method.str.startswith("chosen - ")].metric)
    assert set(METHODS) < set(figures.method)


def test_the_assets_forecast_once_a_week(tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    with warehouse.connect() as db:
        journey(db, weeks=45, households=8)
    resources = {"warehouse": warehouse, "compute": Compute(device="cpu"), "cluster": Cluster()}
    settings_ = {"n_items": 300, "n_rows": 5000, "n_sample": 200}
    run_config = {
        "ops": {
            "demand_forecast": {"config": settings_},
            "demand_evaluation": {"config": {**settings_, "n_tested": 200}},
        }
    }

    def run():
        result = dg.materialize([demand_forecast, demand_evaluation], resources=resources, run_config=run_config)
        assert result.success
        (event,) = result.asset_materializations_for_node("demand_forecast")
        return event.metadata

    assert "chosen" in run()
    with warehouse.connect() as db:
        for relation in (schema.DEMAND_FORECAST, schema.DEMAND_EVALUATION):
            assert db.execute(f"select count(*) from {relation.name}").fetchone()[0] > 50
            assert [str(v) for v in schema.violations(db, relation) if v.n_rows] == []
        # a day of a week that is not over
        db.execute(
            "insert into cleaned_interactions by name select 'new' as event_id, date '2017-11-14' as day, occurred_at, user_id, action, "
            "item_id, quantity from cleaned_interactions limit 1"
        )
    assert run()["made"].value == "nothing: the weeks are as they were"
    with warehouse.connect() as db:
        db.execute("delete from cleaned_interactions")
    assert run()["without"].value.startswith("demand: 0 purchases are known")
    assert warehouse.read("select count(*) as n from demand_forecast").n[0] == 0
