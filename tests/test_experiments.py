"""Who gets which arm, what counts, and what a readout may say: golden values, laws, and every kind of bad input."""

import re
from datetime import date, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from experiment_shop import FILE, HALVES, MAY, PLAIN, exposed, shop, written, year
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from assets.experiments import experiment_readout
from ecom_pipeline import schema
from ecom_pipeline.errors import ExperimentError
from ecom_pipeline.experiments import power
from ecom_pipeline.experiments.effects import MAIN, quantile_effect
from ecom_pipeline.experiments.plan import Arm, Experiment, named, place, read_experiments
from ecom_pipeline.experiments.readings import every_readout, read_experiment
from ecom_pipeline.experiments.readout import holm, read_out, tail_share
from ecom_pipeline.experiments.sequences import fixed_half_width, half_width
from ecom_pipeline.experiments.units import read_units
from resources.home import Home
from resources.warehouse import Warehouse


def test_a_unit_falls_where_the_hash_says():
    assert place("arms:weights", "77") == int("d9e8981ef72e1", 16) / 16**13
    assert PLAIN.assign("person") == PLAIN.assign("person")


def test_the_golden_places_of_the_documentation_are_ours():
    text = (Path(__file__).parents[1] / "docs" / "experiments.md").read_text()
    golden = re.findall(r"^\| `((?:layer|arms):\w+)` \| `(\S+)` \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(golden) == 6
    assert [f"{place(salt, unit):.12f}" for salt, unit, _ in golden] == [told for *_, told in golden]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.text(max_size=9))
def test_arms_get_their_shares_and_another_salt_draws_anew(parts, salt):
    arms = tuple(Arm(f"arm{n}", part / sum(parts)) for n, part in enumerate(parts))
    one = Experiment("e", arms, *MAY, salt=f"a{salt}")
    other = Experiment("e", arms, *MAY, salt=f"b{salt}")
    units = [f"unit-{n}" for n in range(3000)]
    got, drawn_anew = ([experiment.assign(unit).name for unit in units] for experiment in (one, other))
    seen = [got.count(arm.name) for arm in arms]
    assert stats.chisquare(seen, [arm.share * 3000 for arm in arms]).pvalue > 1e-6
    table = pd.crosstab(np.array(got), np.array(drawn_anew))
    assert stats.chi2_contingency(table).pvalue > 1e-6  # one says nothing of the other


@given(st.text(min_size=1, max_size=9))
def test_two_parts_of_a_layer_share_no_unit_and_together_have_all(unit):
    parts = [Experiment(f"e{n}", HALVES, *MAY, traffic=(n / 2, (n + 1) / 2)) for n in range(2)]
    assert sum(part.assign(unit) is not None for part in parts) == 1


def test_a_file_says_what_experiments_there_are(tmp_path):
    (found,) = read_experiments(written(tmp_path, FILE))
    assert found.control == Arm("unweighted", 0.5, "unweighted")
    assert (found.changes, found.unit, found.days_before) == ("lists", "user", 28)
    assert read_experiments(tmp_path / "absent.yaml") == ()
    assert read_experiments(written(tmp_path, "")) == ()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("arms: {", "arms: [", "cannot be read"),
        (", weighted: {share: 0.5, system: weighted}", "", "number of arms cannot be taken: 1"),
        ("share: 0.5, system: weighted", "share: 0.6, system: weighted", "sum of shares cannot be taken: 1.1"),
        ("share: 0.5, system: weighted", "share: -1, system: weighted", "'weighted' cannot be taken: -1"),
        ("system: weighted", "system: better", "'better'. It must be one of weighted, unweighted"),
        ("2024-05-31", "2024-04-30", "2024-05-01 to 2024-04-30"),
        ("2024-05-31", "soon", "pair of days"),
        ("changes: lists", "changes: prices", "'prices'. It must be one of lists, search, elsewhere"),
        ("changes: lists", "traffic: [0.5, 0.2]", "0 <= from < to <= 1"),
        ("changes: lists", "days_before: -3", "a number of days, 0 or more"),
        ("changes: lists", "colour: red", "'colour'"),
        ("  first_day: 2024-05-01\n", "", "write all three"),
        ("  changes: lists\n", "  changes: lists\n  changes: search\n", "'changes' stands twice"),
        ("weighted: {share: 0.5, system: weighted}}", "unweighted: {share: 0.5}}", "'unweighted' stands twice"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path, old, new, told):
    assert old in FILE
    with pytest.raises(ExperimentError, match=r"must be|cannot be read") as error:
        read_experiments(written(tmp_path, FILE.replace(old, new)))
    assert told in str(error.value)


def test_two_experiments_of_a_layer_on_the_same_units_and_days_are_refused(tmp_path):
    other = FILE.replace("weights:", "colours:")
    with pytest.raises(ExperimentError, match=r"2 share units .* 'weights' and 'colours'"):
        read_experiments(written(tmp_path, FILE + other))
    assert len(read_experiments(written(tmp_path, FILE + other.replace("changes: lists", "layer: second")))) == 2
    with pytest.raises(ExperimentError, match=r"2 change lists on the same days .* 'weights' and 'colours'"):
        read_experiments(written(tmp_path, FILE + other + "  layer: second\n"))
    alike = other.replace("changes: lists", "layer: second\n  salt: weights")
    with pytest.raises(ExperimentError, match=r"2 in different layers have the salt 'weights' .* and 'colours'"):
        read_experiments(written(tmp_path, FILE + alike))
    assert len(read_experiments(written(tmp_path, FILE + alike.replace("2024-05", "2024-06").replace("31", "30")))) == 2
    with pytest.raises(
        ExperimentError, match=r"1 name is unknown: 'third'. It must be one of the 1 .* first 'weights'"
    ):
        named(read_experiments(written(tmp_path, FILE)), "third")


def test_what_counts_is_what_was_kept_between_exposure_and_last_day():
    events = [
        ("a", "2024-05-09 09:00", 3, 2),  # before
        ("a", "2024-04-01 09:00", 100, 1),  # too long before
        ("a", "2024-05-10 11:00", 5, 2),
        ("a", "2024-05-10 12:00", 7, 3, 1),  # of which one goes back later
        ("a", "2024-06-01 00:00", 100, 1),  # after the last day
        ("b", "2024-05-20 00:00", None, 1),
    ]
    exposures = [
        ("a", "new", "2024-05-10 10:00"),
        ("b", "old", "2024-05-11 10:00"),
        ("c", "old", "2024-05-12 10:00"),
        ("c", "new", "2024-05-13 10:00"),
        ("d", "third", "2024-05-13 10:00"),
        ("f", "new", "2024-04-13 10:00"),  # not of the experiment's days
    ]
    with shop(events, exposures) as db:
        found = read_units(db, PLAIN)
    assert (found.n_in_two_arms, found.n_foreign, found.n_unpriced) == (1, 1, 1)
    rows = found.units.set_index("unit_id")[["arm", "revenue", "purchases", "pieces", "visits", "before_revenue"]]
    assert rows.to_dict("split")["data"] == [["new", 24.0, 2.0, 4.0, 1.0, 6.0], ["old", 0.0, 1.0, 1.0, 1.0, 0.0]]


def drawn(n=2000, effect=0.0, seed=0, arms=("old", "new"), **columns):
    draw = np.random.default_rng(seed)
    past = draw.gamma(1, 20, n)
    arm = draw.integers(0, len(arms), n)
    revenue = np.maximum(past + draw.normal(0, 8, n) + effect * (arm == 1), 0)
    purchases = draw.poisson(3, n).astype(float)
    return pd.DataFrame(
        {
            "unit_id": np.arange(n).astype(str),
            "arm": np.array(arms)[arm],
            "revenue": revenue,
            "purchases": purchases,
            "pieces": purchases,
            "visits": np.minimum(purchases, 2),
            "before_revenue": past,
            "before_purchases": draw.poisson(2, n).astype(float),
            "before_pieces": purchases,
            "before_visits": 1.0,
            **columns,
        }
    )


def figure(found, metric=MAIN, arm="new", segment="all"):
    rows = found.rows
    (row,) = rows[(rows.metric == metric) & (rows.arm == arm) & (rows.segment == segment)].itertuples()
    return row


def test_a_planted_effect_is_found_and_the_past_makes_its_interval_narrower():
    found = read_out(drawn(effect=4), PLAIN, n_planned=2000)
    with_past, without = figure(found), figure(found, "revenue")
    assert with_past.verdict == "higher"
    assert with_past.ci_low < 4 < with_past.ci_high
    assert with_past.variance_taken > 0.7
    assert (with_past.ci_high - with_past.ci_low) / (without.ci_high - without.ci_low) < 0.6
    assert with_past.sequence_low < with_past.ci_low < with_past.ci_high < with_past.sequence_high
    assert "higher" in found.verdict


def test_a_forecast_made_before_the_exposure_takes_more_variance_out():
    units = drawn()
    forecast = units.revenue * 0.9 + np.random.default_rng(1).normal(0, 2, len(units))
    more = figure(read_out(units.assign(forecast=forecast), PLAIN, n_planned=2000))
    assert more.variance_taken > figure(read_out(units, PLAIN, n_planned=2000)).variance_taken + 0.02


def test_lost_units_leave_no_verdict_however_large_the_effect():
    units = drawn(4000, effect=20)
    lost = units[(units.arm == "old") | (np.arange(len(units)) % 5 > 0)]
    found = read_out(lost, PLAIN, n_planned=4000)
    assert found.sample_ratio_p < 0.001
    assert found.verdict.startswith("No verdict")
    assert set(found.rows.verdict[~found.rows.metric.str.startswith("before")]) == {
        "no verdict: units are missing or were drawn otherwise than planned"
    }


def test_many_units_of_two_arms_leave_no_verdict():
    assert read_out(drawn(), PLAIN, n_planned=2000, n_in_two_arms=300).verdict.startswith("No verdict: 13.0%")
    few = read_out(drawn(effect=4), PLAIN, n_planned=2000, n_in_two_arms=3)
    assert few.warnings[0] == "3 users met two arms and are left out"
    assert figure(few).verdict == "higher"


def test_before_the_last_day_only_the_sequence_speaks():
    units = drawn(effect=1.0, seed=3)
    over, running = (read_out(units, PLAIN, n_planned=2000, over=over) for over in (True, False))
    row = figure(over)
    assert row.ci_low > 0 > row.sequence_low
    assert (figure(over).verdict, figure(running).verdict) == ("higher", "no difference is shown")


def test_equal_outcomes_and_no_past_are_no_fault():
    units = drawn().assign(revenue=0.0, purchases=0.0, visits=0.0, before_revenue=0.0, before_purchases=0.0)
    found = read_out(units, PLAIN, n_planned=2000)
    assert figure(found).verdict == "no difference is shown"
    assert figure(found).effect == 0
    assert found.warnings == ("nobody bought in the 28 days before: no past can be taken out",)


@pytest.mark.parametrize(
    ("columns", "effect"),
    [
        ({"revenue": lambda units: np.where(units.arm == "new", 5.0, 0.0)}, 5.0),  # nothing varies within an arm
        ({"revenue": lambda units: 0.1 * units.visits}, None),  # each visit costs the same
        ({"revenue": lambda units: units.before_revenue}, None),  # the past says it all
        ({"revenue": 5.0}, 0.0),
    ],
)
def test_without_any_spread_there_is_no_interval_and_no_verdict(columns, effect):
    found = read_out(drawn(400).assign(**columns), PLAIN, n_planned=400)
    if effect is not None:
        assert figure(found).effect == pytest.approx(effect)
    assert found.rows.p_value.between(0, 1).all()
    without = found.rows[found.rows.ci_low.isna()]
    assert len(without)
    assert set(without.verdict) <= {"no difference is shown", "balanced"}


def test_three_arms_are_each_compared_with_the_first():
    arms = (Arm("old", 1 / 3), Arm("new", 1 / 3), Arm("newer", 1 / 3))
    found = read_out(drawn(3000, effect=4, arms=("old", "new", "newer")), Experiment("e", arms, *MAY), n_planned=3000)
    assert figure(found).verdict == "higher"
    assert figure(found, arm="newer").verdict == "no difference is shown"


def test_users_of_a_cluster_are_not_taken_as_independent():
    draw = np.random.default_rng(0)
    units = drawn(4000)
    units["cluster_id"] = (np.arange(4000) % 200).astype(str)
    of_cluster = draw.normal(0, 10, 200)
    units["arm"] = np.where(np.arange(4000) % 200 % 2, "new", "old")
    units["revenue"] = units.revenue + 30 + of_cluster[np.arange(4000) % 200]
    alone = figure(read_out(units, PLAIN, n_planned=4000), "revenue")
    together = figure(read_out(units, Experiment("e", HALVES, *MAY, unit="cluster"), n_planned=200), "revenue")
    assert together.effect == pytest.approx(alone.effect)
    assert together.n_units == 100
    # 20 users share a cluster's 100 of about 560: the error grows by the root of 1 + 19 * .18
    assert (together.ci_high - together.ci_low) / (alone.ci_high - alone.ci_low) == pytest.approx(2.1, abs=0.35)


def test_a_cluster_that_met_both_arms_is_left_out_and_many_leave_no_verdict():
    units = drawn(4000)
    units["cluster_id"] = [f"{arm} {n % 200}" for n, arm in enumerate(units.arm)]
    of_clusters = Experiment("e", HALVES, *MAY, unit="cluster")
    moved = units.assign(cluster_id=units.cluster_id.replace({"old 7": "new 7"}))
    found = read_out(moved, of_clusters, n_planned=400)
    assert found.warnings[0] == "1 clusters met two arms and are left out"
    assert not found.verdict.startswith("No verdict")
    mixed = read_out(
        units.assign(cluster_id=(np.arange(4000) % 150).astype(str)).pipe(_mostly_whole), of_clusters, n_planned=150
    )
    assert mixed.verdict.startswith("No verdict")


def _mostly_whole(units):
    """A third of the clusters has both arms."""
    number = units.cluster_id.astype(int)
    whole = np.where(number % 2, "new", "old")
    return units.assign(arm=np.where(number % 3 > 0, whole, units.arm))


def test_arms_are_corrected_together_and_so_are_other_figures_at_a_look():
    arms = tuple(Arm(name, 0.25) for name in "abcd")
    rows = read_out(drawn(2000, effect=2.5, arms=tuple("abcd")), Experiment("e", arms, *MAY), n_planned=2000).rows
    main = rows[(rows.metric == MAIN) & (rows.segment == "all")]
    assert main.p_adjusted.tolist() == pytest.approx(holm(main.p_value.to_numpy()).tolist())
    assert main.p_adjusted.iloc[0] == pytest.approx(3 * main.p_value.iloc[0])
    units = drawn(effect=0.0)
    units["purchases"] += 0.37 * (units.arm == "new")
    row = figure(read_out(units, PLAIN, n_planned=2000, over=False), "purchases")
    assert row.sequence_low > 0  # alone it would be certain
    assert row.verdict == "no difference is shown"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_corrected_p_values_are_those_of_the_definition(p):
    by_hand = [min(1.0, max((len(p) - rank) * q for rank, q in enumerate(sorted(p)) if q <= one)) for one in p]
    ties = [max(found for found, q in zip(holm(np.array(p)), p, strict=True) if q == one) for one in p]
    assert ties == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("units", "unit", "told"),
    [
        (drawn(30), "user", "arms have too few units; first: 'old' with 1"),
        (drawn(100).assign(revenue=-1.0), "user", "100 units have a revenue below 0; first: '0' with -1"),
        (drawn(100).assign(cluster_id=None), "cluster", "100 units have no cluster_id"),
        (drawn(100)[lambda frame: frame.arm == "old"], "user", "1 of 2 arms have too few units; first: 'new' with 0"),
    ],
)
def test_what_cannot_be_read_out_is_told(units, unit, told):
    with pytest.raises(ExperimentError) as error:
        read_out(units, Experiment("e", HALVES, *MAY, unit=unit), n_planned=100)
    assert told in str(error.value)


def test_the_sequence_is_as_published_and_narrowest_where_planned():
    # 1.549 times the interval of one look at the planned number of units; the wider the further away
    n = np.array([100, 1000, 10_000, 100_000])
    ratio = half_width(1.0, n, 10_000) / fixed_half_width(1.0)
    assert ratio[2] == pytest.approx(1.5487, abs=1e-4)
    assert ratio.argmin() == 2


def test_the_sequence_is_that_of_another_library_where_units_are_many():
    # half-widths over the standard error by savvi 0.3.1, LinearRegression, with the prior scale that 5,000 planned units give
    n, told = np.array([1000, 5000, 20_000]), np.array([3.375488, 3.036461, 3.127430])
    assert np.abs(half_width(1.0, n, 5000) / told - 1).tolist() == pytest.approx([0, 0, 0], abs=0.004)


def test_the_sequence_is_hardly_ever_left_in_a_hundred_looks():
    draw, looks = np.random.default_rng(0), np.arange(100, 10_001, 100)
    mean = np.cumsum(draw.normal(size=(400, 10_000)), axis=1)[:, looks - 1] / looks
    outside = np.abs(mean) > half_width(1 / np.sqrt(looks), looks, 10_000)
    peeked = np.abs(mean) > fixed_half_width(1 / np.sqrt(looks))
    assert outside.any(1).mean() < 0.05
    assert peeked.any(1).mean() > 0.25


def test_a_quantile_is_compared_by_order_statistics():
    values = np.arange(1, 101, dtype=float)
    effect, se, base = quantile_effect(values + 5, values, 0.9)
    assert (effect, base) == (pytest.approx(5), pytest.approx(90.1))
    assert se == pytest.approx(np.hypot(3, 3), rel=0.1)  # ranks 84 to 96, over 2 * 1.96, in each arm


def test_the_tail_of_nothing_is_unknown():
    assert np.isnan(tail_share(np.zeros(5)))


def test_before_the_start_it_is_told_what_could_be_seen():
    with shop(year(), []) as db:
        told = power.plan(db, PLAIN)
        assert (told.first_day, told.last_day) == (date(2024, 3, 29), date(2024, 4, 28))
        assert told.n_units == power.expected_units(db, PLAIN) > 200
        assert 0 < told.smallest < told.smallest_unadjusted < 1
        half = power.plan(db, Experiment("e", HALVES, *MAY, traffic=(0, 0.25)))
        assert half.smallest == pytest.approx(2 * told.smallest, rel=0.05)  # a quarter of the units
        with pytest.raises(ExperimentError, match="nobody bought from 2019-12-02 to 2019-12-31"):
            power.plan(db, Experiment("e", HALVES, date(2020, 1, 1), date(2020, 1, 30)))


def test_an_experiment_that_cannot_be_read_yet_says_so_and_the_others_are_read():
    early = Experiment("early", HALVES, date(2024, 7, 1), date(2024, 7, 31))
    with shop(year(), exposed(PLAIN)) as db:
        rows, verdicts = every_readout(db, [PLAIN, early])
        assert read_experiment(db, PLAIN).sample_ratio_p > 0.001
    assert set(rows.experiment) == {"e", "early"}
    assert "2 of 2 arms have too few units; first: 'old' with 0" in verdicts["early"]


def test_the_asset_reads_the_experiments_of_the_home(tmp_path):
    home = Home(path=str(tmp_path))
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    experiment = Experiment("weights", (Arm("unweighted", 0.5), Arm("weighted", 0.5)), *MAY)
    with shop(year(), []) as db, warehouse.connect() as target:
        for table in ("cleaned_interactions", "exposures"):
            target.register("frame", db.execute(f"from {table}").df())
            schema.RELATIONS[table].create(target)
            target.execute(f"insert into {table} by name from frame")
        rows = [("weights", arm, unit, None, datetime.fromisoformat(at)) for unit, arm, at in exposed(experiment)]
        target.executemany("insert into exposures values (?, ?, ?, ?, ?)", rows)
    resources = {"home": home, "warehouse": warehouse}
    assert dg.materialize([experiment_readout], resources=resources).success
    assert warehouse.read("select count(*) as n from experiment_readout").n[0] == 0
    written(tmp_path, FILE)
    result = dg.materialize([experiment_readout], resources=resources)
    (event,) = result.asset_materializations_for_node("experiment_readout")
    assert event.metadata["weights"].value.startswith("weighted: revenue a unit")
    (tmp_path / "experiments.yaml").write_text(FILE + FILE.replace("weights:", "late:").replace("2024-05", "2025-05"))
    assert dg.materialize([experiment_readout], resources=resources).success
    unread = warehouse.read("select * from experiment_readout where metric = 'none'")
    assert "too few units" in unread.verdict[0]
    found = warehouse.read("select * from experiment_readout where metric = 'revenue'")
    assert found[["experiment", "arm", "n_units"]].values.tolist()[0][:2] == ["weights", "weighted"]
    with warehouse.connect() as db:
        assert [str(v) for v in schema.violations(db, schema.EXPERIMENT_READOUT) if v.n_rows] == []
