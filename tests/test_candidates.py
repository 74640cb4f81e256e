from dataclasses import replace

import numpy as np
import pytest
from crowd import N_DAYS, crowd, interactions
from scipy.stats import kstest

from ecom_pipeline.recommend.candidates import Catalogue, Retrieval, retrieve
from ecom_pipeline.recommend.interactions import Visits
from ecom_pipeline.recommend.pilot import coins, joined
from ecom_pipeline.recommend.retrieval import Index
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting

FEW = Retrieval(n_own=10, n_together=5, n_popular=5, n_text=3)


def candidates(acts, catalogue, visits, day, weighting=UNWEIGHTED, retrieval=FEW):
    index = Index.fit(acts, day, weighting=weighting, text=catalogue.text)
    return joined(rows for _, rows in retrieve(acts, index, catalogue, visits, retrieval))


def test_own_columns_are_what_a_person_would_count():
    acts = interactions([(0, 0, 0), (0, 0, 10), (0, 1, 10), (0, 0, 30), (1, 2, 1), (1, 2, 40)], 2, 3)
    found = candidates(acts, Catalogue({}), Visits(np.array([0]), np.array([20])), 20)
    of_item = {int(item): row for row, item in enumerate(found.item)}
    row = of_item[0]
    read = {name: float(found.known[row, place]) for place, name in enumerate(found.names)}
    assert (read["own_days"], read["own_age"], read["own_first_age"], read["own_gap"]) == (2, 10, 20, 10)
    assert (read["own_visits_since"], read["own_visits_due"]) == (0, 1)  # taken on both visits there were
    assert read["own_fade"] == pytest.approx(1.9)
    assert read["own_visit_share"] == 1
    assert read["user_visits"] == 2
    assert read["user_visit_age"] == 10
    assert (read["user_due"], read["user_last_basket"]) == (1, 2)
    assert np.isnan(found.column("own_age")[of_item[2]])


def test_class_columns_count_days_and_not_items():
    acts = interactions([(0, 0, 0), (0, 1, 0), (0, 1, 8), (0, 2, 12), (1, 3, 1)], 2, 4)
    visits = Visits(np.array([0]), np.array([14]))
    found = candidates(acts, Catalogue({"class": np.array([0, 0, 1, 1])}), visits, 14)
    of_item = {int(item): row for row, item in enumerate(found.item)}
    of_zero, of_three = (
        [float(found.column(f"class_{name}")[of_item[item]]) for name in ("days", "age", "due", "loyal")]
        for item in (0, 3)
    )
    assert of_zero == pytest.approx([2, 6, 6 / 8, 1 / 3])
    assert of_three[:2] == [1, 2]  # what he took of the class was another item
    assert np.isnan(of_three[2])
    assert of_three[3] == 0


def test_nothing_that_happens_on_the_day_or_later_changes_what_is_known():
    acts, catalogue = crowd()
    draw = np.random.default_rng(1)
    catalogue = replace(catalogue, text=draw.normal(size=(acts.n_items, 8)).astype(np.float32))
    visits = acts.next_visits(60, 80)
    later = acts.only((acts.day < 80) | (draw.random(len(acts)) < 0.5))
    of_day = visits.day[np.searchsorted(visits.user, acts.user).clip(max=len(visits) - 1)]
    blind = acts.only((acts.day < of_day) | (acts.day < 60))
    weighting = Weighting("exponential", 30.0)
    full = candidates(acts, catalogue, visits, 60, weighting)
    for changed in (later, blind):
        same = candidates(changed, catalogue, visits, 60, weighting)
        kept = [n for n, name in enumerate(full.names) if changed is later or name not in ("popular_recent",)]
        own = [full.names.index(name) for name in full.names if name.startswith(("own_", "user_", "together", "due"))]
        columns = kept if changed is later else own
        if changed is later:
            np.testing.assert_array_equal(full.item, same.item)
            np.testing.assert_array_equal(full.known[:, columns], same.known[:, columns])
        else:
            both = {(v, i): row for row, (v, i) in enumerate(zip(same.visit, same.item, strict=True))}
            shared = [
                (row, both[v, i])
                for row, (v, i) in enumerate(zip(full.visit, full.item, strict=True))
                if (v, i) in both
            ]
            left, right = np.array(shared).T
            np.testing.assert_allclose(
                full.known[left][:, columns], same.known[right][:, columns], rtol=1e-5, atol=1e-5
            )


def test_each_channel_brings_its_share_and_new_items_are_new():
    acts, catalogue = crowd()
    found = candidates(acts, catalogue, acts.visits(100, N_DAYS), 100)
    had = found.column("own_days") > 0
    assert (found.channels[:, 0] <= had).all()
    assert not found.channels[had, 1:].any()
    per_visit = np.bincount(found.visit, found.channels[:, 0])
    assert per_visit.max() <= FEW.n_own


def test_labels_are_what_was_taken():
    acts, catalogue = crowd()
    visits = acts.visits(100, N_DAYS)
    found = candidates(acts, catalogue, visits, 100, retrieval=Retrieval(400, 400, 400, 0))
    at, _ = acts.taken(visits)
    assert found.taken.sum() == len(at)  # the whole catalogue is retrieved, so nothing is missed


@pytest.mark.parametrize("weighting", [UNWEIGHTED, Weighting("exponential", 20.0)])
def test_the_weighted_history_decides_the_own_channel(weighting):
    acts = interactions([*((0, 0, d) for d in range(0, 20, 2)), (0, 1, 95), (0, 1, 98), (1, 2, 0)], 2, 3)
    visits = Visits(np.array([0]), np.array([100]))
    found = candidates(acts, Catalogue({}), visits, 100, weighting, Retrieval(1, 1, 1, 0))
    own = found.item[found.channels[:, 0]].tolist()
    assert own == ([0] if weighting.plain else [1])


def test_a_rows_coin_is_its_own_whatever_other_rows_there_are():
    draw = np.random.default_rng(0)
    user, day, item = (draw.integers(high, size=20_000) for high in (1 << 32, 20_000, 1 << 32))
    coin = coins(user, day, item, seed=1)
    some = draw.permutation(20_000)[:5_000]
    assert coins(user[some], day[some], item[some], seed=1) == pytest.approx(coin[some], abs=0)
    assert kstest(coin, "uniform").pvalue > 0.01
    for other in (
        coins(user, day, item, seed=2),
        coins(user, day + 1, item, seed=1),
        coins(user, day, item + 1, seed=1),
    ):
        assert abs(np.corrcoef(coin, other)[0, 1]) < 0.03  # four standard errors
