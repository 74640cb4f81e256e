from dataclasses import replace

import numpy as np
import pytest
from crowd import N_DAYS, crowd, interactions

from assets.recommend import TrialsConfig
from ecom_pipeline.errors import InputError, ModelError
from ecom_pipeline.importance.sample_choice import Acceptance
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.catalogue import Shop
from ecom_pipeline.recommend.circumstances import Circumstances
from ecom_pipeline.recommend.interactions import Visits
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.list_maker import ListMaker, ListRules, soonest_return
from ecom_pipeline.recommend.lists import reason_text, similar_items
from ecom_pipeline.recommend.periods import Origin, Period
from ecom_pipeline.recommend.pilot import Chooser, RowChoice
from ecom_pipeline.recommend.ranker import Ranker, TreeSearch, fit_ranker, rows_within
from ecom_pipeline.recommend.saved import SavedRanker
from ecom_pipeline.recommend.trials import choose_weighting, lay_out_more
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting

ORIGIN = Origin((Period(30, 50), Period(50, 70)), Period(70, 90), Period(90, N_DAYS))
SEARCH = TreeSearch(leaves=(7,), rounds=(20, 40), min_rows=10, n_threads=1)


def learner(method="gap", n_rows=1500, **crowd_options) -> Learner:
    acts, catalogue = crowd(**crowd_options)
    retrieval = Retrieval(n_own=20, n_together=10, n_popular=5, n_text=0)
    choice = RowChoice(method, n_rows=n_rows, pilot_rows=1000)
    return Learner(acts, catalogue, Weighting("exponential", 30.0), retrieval, choice, n_visits=10_000)


@pytest.fixture(scope="module")
def fitted() -> tuple[Learner, Ranker]:
    one = learner()
    return one, one.fit(ORIGIN, one.chooser([ORIGIN]), SEARCH)


def test_about_as_many_rows_are_kept_as_were_asked_for(fitted):
    one, ranker = fitted
    n_retrieved = sum(one.kept(period, ranker.chooser).n_retrieved for period in ORIGIN.train)
    assert n_retrieved > 5000
    assert 1000 < ranker.n_rows < 2000


def test_a_budget_in_seconds_says_how_many_rows_are_learnt_from(fitted):
    one, _ = fitted
    rows = one.trial_rows(ORIGIN.train[0])
    few, many = (rows_within(seconds, rows, SEARCH) for seconds in (5, 500))
    assert len(rows) < few < many / 20
    with pytest.raises(
        ModelError, match=r"1 budget is too small, fit_seconds.*from 0 rows.*enough for 100 rows: ask for more"
    ):
        rows_within(1e-9, rows, SEARCH)


def test_rows_chosen_by_gap_hold_far_more_of_what_was_taken(fitted):
    one, ranker = fitted
    kept = one.kept(ORIGIN.train[0], ranker.chooser)
    assert kept.rows.taken.mean() > 2 * kept.n_taken / kept.n_retrieved


def test_scores_are_logits_of_all_rows_not_of_those_kept(fitted):
    """With a pilot that knows nothing but the rate, as many are kept that were taken as were not."""
    one, ranker = fitted
    rate = one.kept(ORIGIN.train[0], ranker.chooser).n_taken / one.kept(ORIGIN.train[0], ranker.chooser).n_retrieved
    flat = np.zeros_like(ranker.chooser.pilot.coefficients)
    flat[:, -1] = np.log(rate / (1 - rate))
    chooser = Chooser(replace(ranker.chooser.pilot, coefficients=flat), Acceptance("gap", (0.5, 0.5)))
    other, search = learner(), replace(SEARCH, rounds=(60,), learning_rate=0.2)
    asked = other.asked(ORIGIN.test)
    logit, likely = other.fit(ORIGIN, chooser, search).score(asked.rows), asked.rows.column("own_days") > 0
    for part in (likely, ~likely):
        assert (1 / (1 + np.exp(-logit[part]))).mean() == pytest.approx(asked.rows.taken[part].mean(), abs=0.05)
    rows, probability = other.learnt(ORIGIN, chooser)
    uncorrected = replace(chooser, acceptance=Acceptance("all", (1.0, 1.0)))
    wrong = fit_ranker(rows, probability, uncorrected, other.asked(ORIGIN.validation), search=search).score(asked.rows)
    assert (1 / (1 + np.exp(-wrong))).mean() > asked.rows.taken.mean() + 0.1  # those are the odds among kept rows


def test_what_trees_learn_does_not_depend_on_which_pilot_kept_a_row(fitted):
    """However far the pilots of the folds are apart, the offset of each row is known where trees begin."""
    _, ranker = fitted
    pilot = ranker.chooser.pilot
    apart = pilot.coefficients.copy()
    apart[:, -1] += [2.0, -2.0]
    far = replace(ranker.chooser, pilot=replace(pilot, coefficients=apart))
    learner_of = learner()
    asked = learner_of.asked(ORIGIN.test)
    logit = learner_of.fit(ORIGIN, far, SEARCH).score(asked.rows)
    assert (1 / (1 + np.exp(-logit))).mean() == pytest.approx(asked.rows.taken.mean(), abs=0.05)


def test_a_ranker_is_not_below_its_pilot_on_validation_and_beats_what_users_took_most(fitted):
    one, ranker = fitted
    assert max(trial["ndcg"] for trial in ranker.trials) >= ranker.trials[0]["ndcg"]
    asked = one.asked(ORIGIN.test)
    found = asked.ndcg(ranker.score(asked.rows))
    assert np.nanmean(found) > np.nanmean(asked.ndcg(asked.rows.column("popular_recent")))


def test_the_same_data_give_the_same_ranker(fitted):
    _, ranker = fitted
    again = learner()
    other = again.fit(ORIGIN, again.chooser([ORIGIN]), SEARCH)
    assert other.trees == ranker.trees
    assert other.chooser.acceptance == ranker.chooser.acceptance


def test_a_ranker_comes_back_from_its_plain_form(fitted):
    one, ranker = fitted
    back = Ranker.from_json(ranker.to_json(), ranker.trees)
    asked = one.asked(ORIGIN.test)
    np.testing.assert_allclose(back.score(asked.rows), ranker.score(asked.rows), atol=1e-5)


def test_with_a_large_budget_every_row_is_kept_and_nothing_comes_back():
    one = learner(n_rows=10**9)
    chooser = one.chooser([ORIGIN])
    kept = one.kept(ORIGIN.train[0], chooser)
    assert len(kept.rows) == kept.n_retrieved
    assert not chooser.acceptance.offset(kept.pilot_probability).any()


def test_weights_by_age_are_chosen_where_tastes_change():
    acts, _ = crowd(n_users=120, drift=0.5)
    found = choose_weighting(acts, [(70, 85), (85, 100)], n_trials=12, confidence=0.95, text=None, seed=0)
    assert found.weighting.age_form != "none"
    assert found.gain_low > 0
    assert found.trials.chosen.sum() == 1


def test_age_is_not_chosen_where_tastes_stay_but_what_was_taken_by_whim_weighs_less():
    acts, _ = crowd(n_users=120)
    found = choose_weighting(acts, [(70, 85), (85, 100)], n_trials=12, confidence=0.95, text=None, seed=0)
    assert found.weighting.age_form == "none"
    assert found.weighting.evidence == "behaviour"  # every fourth taking of the crowd is at random


@pytest.fixture(scope="module")
def lists(fitted):
    one, ranker = fitted
    users = np.arange(one.acts.n_users)
    visits = Visits(users, np.full(len(users), N_DAYS))
    withdrawn = np.zeros(one.acts.n_items, bool)
    withdrawn[[0, 1]] = True
    saved = SavedRanker(ranker, one.weighting, one.retrieval, (), one.acts.n_items)
    maker = ListMaker.fit(Shop(one.acts, one.catalogue), saved, N_DAYS, withdrawn=withdrawn)
    return maker.lists(one.acts, visits, rules=ListRules(top=16))


def test_lists_are_ranked_and_without_withdrawn_or_repeated_items(lists, fitted):
    assert lists.user.nunique() == fitted[0].acts.n_users
    assert not lists.duplicated(["user", "item"]).any()
    assert not lists.item.isin([0, 1]).any()
    assert (lists.groupby("user")["rank"].apply(list).map(lambda ranks: ranks == list(range(1, len(ranks) + 1)))).all()
    assert lists.score.between(0, 1).all()


def test_what_was_taken_moments_ago_is_not_shown(lists, fitted):
    acts, catalogue = fitted[0].acts, fitted[0].catalogue
    soonest = soonest_return(acts, catalogue.classes)
    last = {}
    for user, item, day in zip(acts.user.tolist(), acts.item.tolist(), acts.day.tolist(), strict=True):
        last[user, item] = day
    ages = [N_DAYS - last[u, i] >= soonest[i] for u, i in zip(lists.user, lists.item, strict=True) if (u, i) in last]
    assert len(ages) > 50
    assert all(ages)


def test_reasons_are_items_of_the_users_own_past(lists, fitted):
    acts = fitted[0].acts
    had = set(zip(acts.user.tolist(), acts.item.tolist(), strict=True))
    told = lists[lists.reason_item_1 >= 0]
    assert set(told.channel) == {"together"}
    assert len(told) == (lists.channel == "together").sum() > 5
    assert all((u, i) in had for u, i in zip(told.user, told.reason_item_1, strict=True))
    own = lists[lists.channel == "own"]
    assert (own.times > 0).all()
    assert (lists[lists.channel != "own"].times == 0).all()


def test_similar_items_are_of_one_class_in_a_crowd_with_habits(fitted):
    one, _ = fitted
    found = similar_items(one.acts, N_DAYS, by_text=None, top=3)
    assert not (found.item == found.similar_item).any()
    assert (found.item % 4 == found.similar_item % 4).mean() > 0.8


def test_a_reason_is_a_sentence():
    assert reason_text("own", [], 0, 0, 3) == "taken on 3 days before"
    assert reason_text("popular", [], 7, 28, 0) == "taken 7 times in the 28 days before 1970-01-29"


def test_no_weighting_is_chosen_for_hiding_a_history_of_which_nothing_is_taken_twice():
    """Each user walks through the items of one class once, in an order of his own: what is old is worth as much as what is new."""
    chosen = 0
    for seed in (0, 1, 2):  # a gain that is certain to 95 % is luck now and then
        draw = np.random.default_rng(seed)
        rows = []
        for user in range(150):
            own = draw.permutation(np.arange(user % 3, 90, 3))
            rows += [(user, int(item), 4 * place + user % 4) for place, item in enumerate(own)]
        acts = interactions(rows, 150, 90)
        found = choose_weighting(acts, [(60, 80), (80, 100)], n_trials=12, confidence=0.95, text=None, seed=0)
        assert found.trials.utility[0] > 0.05
        assert found.gain_low < 0.005
        chosen += not found.weighting.plain
    assert chosen <= 1


def test_acts_that_went_back_may_weigh_nothing():
    """Weight 0 is a weight: what was returned stays a cell of the history."""
    acts, _ = crowd()
    back = np.random.default_rng(0).random(len(acts)) < 0.3
    acts = replace(acts, returned=np.where(back, acts.day, acts.returned))
    found = choose_weighting(acts, [(85, 100)], n_trials=12, confidence=0.95, text=None, seed=0)
    assert (found.trials.returned == 0).any()
    assert found.trials.utility.between(0.01, 1).all()


def test_none_is_chosen_from_interactions_that_weights_cannot_tell_apart():
    acts, _ = crowd(n_users=10)
    found = choose_weighting(acts, [(118, 119)], n_trials=4, confidence=0.95, text=None, seed=0)
    assert found.weighting == UNWEIGHTED


def with_offers(acts, share=0.5, seed=0):
    """Every second taking or so was promoted: it was of any item, and tells nothing of its user."""
    draw = np.random.default_rng(seed)
    promoted = (draw.random(len(acts)) < share) & (acts.day < 100)
    item = np.where(promoted, draw.integers(acts.n_items, size=len(acts)), acts.item)
    known = replace(acts, item=item, circumstances=circumstances(len(acts), promotion=promoted.astype(np.float32)))
    _, first = np.unique(known.place_in_time(known.user, known.item, known.day), return_index=True)
    return known.only(first)


def circumstances(n, **known):
    nothing = np.full(n, np.nan, np.float32)
    return Circumstances(**{name: known.get(name, nothing) for name in ("position", "propensity", "promotion")})


def test_what_was_taken_because_it_was_promoted_weighs_less_where_that_helps():
    acts = with_offers(crowd(n_users=120)[0])
    told = {"n_trials": 0, "confidence": 0.95, "text": None, "seed": 0}
    found = choose_weighting(acts, [(70, 85), (85, 100)], **told, more_kinds=["promotion"], n_more=8)
    assert found.weighting.promoted_act < 1
    assert found.gain_low > 0
    assert choose_weighting(acts, [(70, 85), (85, 100)], **told).weighting == UNWEIGHTED


def test_more_kinds_are_tried_beside_the_others_and_change_none_of_them():
    acts, told = with_offers(crowd()[0]), {"n_trials": 5, "confidence": 0.95, "text": None, "seed": 3}
    alone = choose_weighting(acts, [(70, 100)], **told).trials
    beside = choose_weighting(acts, [(70, 100)], **told, more_kinds=["promotion", "position"], n_more=4).trials
    assert len(beside) == len(alone) + 4
    same = [name for name in alone.columns if name != "chosen"]
    assert beside.head(len(alone))[same].equals(alone[same])
    assert set(beside.tail(4).by_position) == {0}  # nobody knows positions
    assert (beside.tail(4).age_form != "none").tolist() == [False, True, False, True]


def test_kinds_by_which_rows_cannot_be_told_apart_are_not_tried():
    acts, draw = crowd()[0], np.random.default_rng(0)
    kinds = ("position", "propensity", "promotion")
    one = circumstances(len(acts), position=np.full(len(acts), 3.0, np.float32))
    for how in (None, circumstances(len(acts)), one):
        assert lay_out_more(replace(acts, circumstances=how), kinds, n=6, draw=draw) == []
    chances = draw.random(len(acts)).astype(np.float32)
    known = replace(acts, circumstances=circumstances(len(acts), propensity=chances))
    found = lay_out_more(known, kinds, n=6, draw=draw)
    assert {one.reasons for one in found} == {("propensity",), ("age", "propensity")}
    assert {one.usual_propensity for one in found} == {float(np.median(chances))}


def test_a_kind_that_there_is_not_is_refused():
    assert TrialsConfig(more_kinds=["promotion", "position"]).n_more == 12
    with pytest.raises(InputError, match="more_kinds: 1 of 2 are unknown; first: 'price'"):
        TrialsConfig(more_kinds=["promotion", "price"])
