"""Whom to ask: laws of gain, lift and Qini; nothing of later days is known; effects under confounding; bad input; the asset."""

from datetime import date, timedelta
from itertools import pairwise

import dagster as dg
import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from assets.audiences import audiences
from ecom_pipeline import schema, sources
from ecom_pipeline.audiences import gains
from ecom_pipeline.audiences.evaluation import MODEL, RANDOM, evaluate, foretell
from ecom_pipeline.audiences.lists import campaign_lists, item_list, items_of
from ecom_pipeline.audiences.offers import FEATURES, past_windows, read_audience, read_campaigns
from ecom_pipeline.audiences.response import choose_settings, fit_responder
from ecom_pipeline.audiences.uplift import effect_scores, naive_difference
from ecom_pipeline.errors import ExperimentError, InputError
from resources.compute import Compute
from resources.warehouse import Warehouse

scored = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 3)), min_size=2, max_size=30)


def columns(rows):
    return tuple(np.array(column, float) for column in zip(*rows, strict=True))


@given(scored)
def test_a_gain_curve_rises_from_nothing_to_all(rows):
    asked, reached = gains.gain_curve(*columns(rows))
    assert (asked[0], reached[0], asked[-1], reached[-1]) == (0, 0, pytest.approx(1), pytest.approx(1))
    assert (np.diff(asked) > 0).all()
    assert (np.diff(reached) >= -1e-12).all()


@given(scored)
def test_figures_are_as_scikit_learn_has_them_and_a_weight_of_two_is_a_user_twice(rows):
    score, response, weight = columns(rows)
    n = weight.astype(int)
    twice = [np.repeat(column, n) for column in (score, response)]
    for figure in gains.FIGURES.values():
        assert figure(score, response, weight) == pytest.approx(figure(*twice, np.ones(n.sum())), nan_ok=True)
    if 0 < response.sum() < len(response):
        assert gains.area(score, response, weight) == pytest.approx(
            roc_auc_score(response, score, sample_weight=weight)
        )
        assert gains.average_precision(score, response, weight) == pytest.approx(
            average_precision_score(response, score, sample_weight=weight)
        )


@given(scored, st.integers(0, 2**32 - 1))
def test_figures_of_many_draws_are_those_of_each(rows, seed):
    score, response, weight = columns(rows)
    drawn = np.random.default_rng(seed).integers(0, 3, (4, len(score))) * weight
    drawn[0] = 0  # nobody is drawn
    for figure in (*gains.FIGURES.values(), gains.calibration_error, gains.calibration_noise, gains.qini):
        each = [figure(score / 5, response, one) for one in drawn]
        np.testing.assert_allclose(figure(score / 5, response, drawn), each, rtol=1e-9, atol=1e-12)


@given(scored, st.sampled_from([0.2, 0.5, 0.8]))
def test_reach_and_lift_say_the_same_in_two_ways(rows, share):
    score, response, weight = columns(rows)
    if response.any():
        asked = gains.reach(share)(score, response, weight)
        assert gains.lift(asked)(score, response, weight) * asked == pytest.approx(share, abs=1e-9)


def test_the_smallest_list_reaches_its_share_and_one_user_less_does_not():
    chance = np.array([0.5, 0.1, 0.9, 0.3, 0.2])
    n = gains.smallest_list(chance, 0.7)
    best = np.sort(chance)[::-1]
    assert n == 2
    assert best[:n].sum() >= 0.7 * chance.sum() > best[: n - 1].sum()
    assert gains.smallest_list(np.zeros(3), 0.5) == 0


def test_qini_by_hand():
    # gained 0, 1/4, 1/2, 1/2, 1/2 at each quarter: an area of 3/8, where a line to 1/2 has 1/4
    score, effect = np.array([4.0, 3, 2, 1]), np.array([1.0, 1, 0, 0])
    assert gains.qini(score, effect, np.ones(4)) == pytest.approx(0.375 - 0.25)
    assert gains.qini(-score, effect, np.ones(4)) == pytest.approx(-0.125)
    assert gains.qini(np.ones(4), effect, np.ones(4)) == 0


def test_calibration_error_is_the_distance_of_what_is_expected():
    chance = np.repeat([0.1, 0.9], 500)
    truth = (np.random.default_rng(0).random(1000) < chance).astype(float)
    assert gains.calibration_error(chance, truth, np.ones(1000)) < 0.05
    assert gains.calibration_error(1 - chance, truth, np.ones(1000)) > 0.7


def test_an_order_by_chance_lifts_nothing_and_intervals_draw_offers_too():
    draw = np.random.default_rng(0)
    offer, user = np.repeat([f"c{n}" for n in range(6)], 200), np.tile([f"u{n}" for n in range(200)], 6)
    truth = (draw.random(1200) < np.repeat(draw.uniform(0.1, 0.5, 6), 200)).astype(float)
    value, drawn = gains.judged(gains.lift(0.2), draw.random(1200), truth, offer, user)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert low < 1 < high
    assert low < value < high


def confounded(n, seed, effect=0.15):
    """Those who buy much are given the offer more often; it adds the same to everybody's chance."""
    draw = np.random.default_rng(seed)
    known = np.abs(draw.normal(size=(n, len(FEATURES))))
    taste = 2 * (np.log1p(known[:, 0]) - np.log1p(known[:, 1]))
    given_ = draw.random(n) < 1 / (1 + np.exp(-1.5 * taste))
    response = draw.random(n) < np.clip(0.4 + 0.15 * taste + effect * given_, 0.02, 0.98)
    return known, response.astype(float), given_, np.arange(n).astype(str)


def test_doubly_robust_scores_find_the_effect_where_the_plain_difference_does_not():
    found, plain = [], []
    for seed in range(20):
        known, response, given_, user = confounded(1500, seed)
        found.append(effect_scores(known, response, given_, user).average)
        plain.append(naive_difference(response, given_))
    assert np.mean([value for value, *_ in found]) == pytest.approx(0.15, abs=0.03)
    assert np.mean(plain) > 0.25
    assert sum(low <= 0.15 <= high for _, low, high in found) >= 16


def test_uplift_without_a_comparison_is_refused():
    known, response, given_, user = confounded(500, 0)
    with pytest.raises(ExperimentError, match="500 users got the offer and 0 did not"):
        effect_scores(known, response, np.ones(500, bool), user)
    apart = np.where(given_[:, None], known + 50, known)
    with pytest.raises(ExperimentError, match="have a like who did not"):
        effect_scores(apart, response, given_, user)


def test_recent_offers_weigh_more_where_that_foretells_better():
    draw = np.random.default_rng(0)
    offer = np.repeat([f"c{n:02}" for n in range(10)], 300)
    age = np.repeat(np.arange(10)[::-1] * 60.0, 300)
    known = np.abs(draw.normal(size=(3000, len(FEATURES))))
    turned = np.where(np.repeat(np.arange(10), 300) < 5, -1, 1)  # taste changed half-way
    for side, expected in ((turned, False), (np.ones(3000), True)):
        response = (draw.random(3000) < 1 / (1 + np.exp(-2 * side * (known[:, 0] - 0.7)))).astype(float)
        chosen = choose_settings(known, response, offer, age)
        assert (chosen.half_life is None) == expected
        chance = fit_responder(known, response, offer, age, chosen).probability(known)
        assert ((chance > 0) & (chance < 1)).all()


def test_too_little_to_learn_from_is_told():
    with pytest.raises(ExperimentError, match="3 responses and 97 refusals of 1 past offers"):
        fit_responder(np.zeros((100, len(FEATURES))), np.r_[np.ones(3), np.zeros(97)], np.full(100, "c"), np.zeros(100))


@pytest.fixture(scope="module")
def journey():
    """500 households of Complete Journey and their campaigns."""
    folder = sources.find("complete-journey").folder
    db = duckdb.connect()
    for name in ("items", "cleaned_interactions", "campaigns", "campaign_users", "campaign_items"):
        schema.RELATIONS[name].create(db)
    db.execute(f"""insert into cleaned_interactions by name
        select 'e' || row_number() over () as event_id, transaction_timestamp as occurred_at,
            transaction_timestamp::date as day, household_id::varchar as user_id, 'purchase' as action,
            product_id::varchar as item_id, quantity, sales_value / nullif(quantity, 0) as price
        from '{folder}/transactions.parquet' where household_id % 5 = 0""")
    db.execute(f"""insert into items by name select product_id::varchar as item_id, product_type as title, product_type as item_text,
        concat_ws(' > ', department, product_category) as category from '{folder}/products.parquet'""")
    db.execute(f"""insert into campaigns select campaign_id::varchar, campaign_type, start_date::date, end_date::date
        from '{folder}/campaign_descriptions.parquet'""")
    db.execute(f"""insert into campaign_users select campaign_id::varchar, household_id::varchar, false, min(redemption_date)
        from '{folder}/campaigns.parquet' left join '{folder}/coupon_redemptions.parquet' using (campaign_id, household_id)
        where household_id % 5 = 0 group by all""")
    db.execute(f"""insert into campaign_items select distinct campaign_id::varchar, product_id::varchar
        from '{folder}/coupons.parquet'""")
    yield db
    db.close()


def copy_of(db):
    other = duckdb.connect()
    copy_relations(
        db,
        other,
        [name for (name,) in db.execute("from duckdb_tables() select table_name where not temporary").fetchall()],
    )
    return other


def copy_relations(db, other, names):
    """Rows of some relations of a warehouse into another."""
    for name in names:
        other.register("frame", db.execute(f"from {name}").df())
        schema.RELATIONS[name].create(other)
        other.execute(f"insert into {name} by name from frame")
        other.unregister("frame")


def test_nothing_of_an_offers_days_is_known_before_it(journey):
    offers = [offer for offer in read_campaigns(journey) if offer.name in ("13", "16")]
    before = read_audience(journey, offers)
    with copy_of(journey) as other:
        first = min(offer.first_day for offer in offers)
        other.execute("delete from cleaned_interactions where day >= ?", [first])
        other.execute(
            "insert into cleaned_interactions by name select 'x' || event_id as event_id, occurred_at + interval 400 day as occurred_at, "
            "day + 400 as day, user_id, action, item_id, quantity * 9 as quantity, price from cleaned_interactions"
        )
        read_campaigns(other)
        offer = [one for one in offers if one.first_day == first]
        after = read_audience(other, offer)
    rows = before.offer == offer[0].name
    assert after.user_id.tolist() == before.user_id[rows].tolist()
    np.testing.assert_allclose(after.known, before.known[rows])
    assert (after.bought != before.bought[rows]).any()


def test_later_campaigns_are_foretold_better_than_by_chance(journey):
    offers = read_campaigns(journey)
    audience = read_audience(journey, offers)
    assert audience.known.shape == (len(audience), len(FEATURES))
    found = foretell(audience, offers, "bought")
    truth = audience.bought[found.rows]
    assert roc_auc_score(truth, found.scores[MODEL]) > roc_auc_score(truth, found.scores[RANDOM]) + 0.2
    chance = found.scores[MODEL]
    assert ((chance >= 0) & (chance <= 1)).all()


def test_whose_campaign_ends_later_teaches_nothing(journey):
    offers = read_campaigns(journey)
    audience = read_audience(journey, offers)
    turned = audience.bought.copy()
    last = audience.offer == offers[-6].name
    turned[last] = 1 - turned[last]
    found = foretell(audience, offers, "bought")
    changed = foretell(
        type(audience)(**{**{n: getattr(audience, n) for n in audience.__dataclass_fields__}, "bought": turned}),
        offers,
        "bought",
    )
    rows = np.isin(audience.offer[found.rows], [one.name for one in offers if one.first_day <= offers[-6].last_day])
    np.testing.assert_allclose(found.scores[MODEL][rows], changed.scores[MODEL][rows])


def test_who_buys_an_item_next_is_told_with_how_good_that_was(journey):
    asked = item_list(journey, items_of(journey, item="1082185"))
    assert asked.users.response_probability.is_monotonic_decreasing
    assert asked.users.user_id.is_unique
    assert "AUC 0." in asked.told
    windows = past_windows(journey, ["1082185"], days=28)
    assert windows[-1].first_day == date(2018, 1, 2)
    assert all(b.first_day - a.first_day == timedelta(days=28) for a, b in pairwise(windows))


@pytest.mark.parametrize("asked", [{"item": "none"}, {"category": "NOWHERE"}])
def test_what_is_not_sold_is_told(journey, asked):
    with pytest.raises(InputError, match=r"1 (item_id|category) is unknown: '(none|NOWHERE)'. It must be one of the"):
        items_of(journey, **asked)


def test_an_item_that_hardly_anybody_bought_has_no_list(journey):
    (rare,) = journey.execute(
        "select min(item_id) from (select item_id from cleaned_interactions group by item_id having count(*) = 1)"
    ).fetchone()
    with pytest.raises(ExperimentError, match=r"\d+ responses and \d+ refusals of \d past offers are known"):
        item_list(journey, [rare])


def test_a_shop_without_purchases_or_with_one_user_is_told(journey):
    with copy_of(journey) as other:
        other.execute(
            "delete from cleaned_interactions where user_id <> (select min(user_id) from cleaned_interactions)"
        )
        with pytest.raises(ExperimentError, match="refusals"):
            item_list(other, ["1082185"])
        other.execute("delete from cleaned_interactions")
        with pytest.raises(ExperimentError, match="0 purchases are known"):
            item_list(other, ["1082185"])


def test_campaigns_to_come_are_ordered_and_one_without_others_has_lift_only(journey):
    offers = read_campaigns(journey)
    audience = read_audience(journey, offers)
    rows, told = campaign_lists(audience, offers, date(2018, 1, 1))
    assert set(rows.audience) == {"15", "20", "21", "22", "23"} - told.keys()
    for _, part in rows.groupby("audience"):
        assert part["rank"].tolist() == list(range(1, len(part) + 1))
        assert part.response_probability.is_monotonic_decreasing
        assert part.user_id.is_unique
    everybody = type(audience)(
        **{**{n: getattr(audience, n) for n in audience.__dataclass_fields__}, "given": np.ones(len(audience), bool)}
    )
    alone, told = campaign_lists(everybody, offers, date(2018, 1, 1))
    assert alone.uplift.isna().all()
    assert all(sentence.startswith("lift only, no uplift") for sentence in told.values())


def test_the_asset_orders_users_of_a_real_shop(journey, tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    with warehouse.connect() as db:
        for name in ("items", "cleaned_interactions", "campaigns", "campaign_users", "campaign_items"):
            db.register("frame", journey.execute(f"from {name}").df())
            schema.RELATIONS[name].create(db)
            db.execute(f"insert into {name} by name from frame")
            db.unregister("frame")
    resources = {"warehouse": warehouse, "compute": Compute(device="cpu")}
    assert dg.materialize([audiences], resources=resources).success
    with warehouse.connect() as db:
        for relation in (schema.AUDIENCES, schema.AUDIENCE_EVALUATION):
            assert db.execute(f"select count(*) from {relation.name}").fetchone()[0] > 10
            assert [str(v) for v in schema.violations(db, relation) if v.n_rows] == []
        db.execute("delete from campaign_items")
    assert dg.materialize([audiences], resources=resources).success
    assert warehouse.read("select count(*) as n from audiences").n[0] == 0


def test_without_past_campaigns_each_part_says_why(journey):
    offers = read_campaigns(journey)
    audience = read_audience(journey, offers)
    early = audience.only(np.isin(audience.offer, [offer.name for offer in offers[:3]]))
    figures, told = evaluate(early, offers[:3])
    assert figures.empty
    assert set(told) == {"redeemed", "bought", "uplift"}
    assert all("campaigns have ended" in sentence for sentence in told.values())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_folds_of_users_do_not_depend_on_their_order(seed):
    known, response, given_, user = confounded(400, seed)
    order = np.random.default_rng(seed).permutation(400)
    one = effect_scores(known, response, given_, user)
    other = effect_scores(known[order], response[order], given_[order], user[order])
    np.testing.assert_allclose(other.score, one.score[order], rtol=1e-3, atol=1e-4)
