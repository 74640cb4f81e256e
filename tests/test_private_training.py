import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from crowd import N_DAYS, crowd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, optimize, stats

from ecom_pipeline.errors import InputError
from ecom_pipeline.recommend.backtest import DIFFERENCE, PILOT, Settings, backtest
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.learning import Learner
from ecom_pipeline.recommend.periods import Origin, Period
from ecom_pipeline.recommend.pilot import RowChoice
from ecom_pipeline.recommend.private.accounting import Releases
from ecom_pipeline.recommend.private.head import PrivateRanker, within_visits
from ecom_pipeline.recommend.private.learning import learn_privately
from ecom_pipeline.recommend.private.noise import SYSTEM, seeded
from ecom_pipeline.recommend.private.promise import WEIGHTED, PrivateTraining, Promise
from ecom_pipeline.recommend.private.rows import UserRows, user_rows, visits_of_each
from ecom_pipeline.recommend.private.training import learn, noisy_sum, user_gradients, whole_parts
from ecom_pipeline.recommend.saved import SavedRanker
from ecom_pipeline.recommend.weighting import UNWEIGHTED, Weighting

TRAIN = (Period(30, 50), Period(50, 70))
ORIGIN = Origin(TRAIN, Period(70, 90), Period(90, N_DAYS))
ASKED = PrivateTraining(epsilon=8.0, delta=1e-3, steps=20)
RETRIEVAL = Retrieval(n_own=20, n_together=10, n_popular=5, n_text=0)


def learner(weighting=UNWEIGHTED, **crowd_options) -> Learner:
    acts, catalogue = crowd(n_users=120, **crowd_options)
    return Learner(acts, catalogue, weighting, RETRIEVAL, RowChoice(), n_visits=10_000)


@pytest.fixture(scope="module")
def rows() -> UserRows:
    return user_rows(learner(), TRAIN, ASKED)


@pytest.fixture(scope="module")
def ranker() -> PrivateRanker:
    return learn_privately(learner(), TRAIN, ASKED, SYSTEM)


def small_rows(seed: int = 0, n_users: int = 6, d: int = 4) -> UserRows:
    draw = np.random.default_rng(seed)
    n = draw.integers(1, 9, n_users)
    x = draw.normal(size=(n.sum(), d))
    return UserRows(x, draw.random(len(x)) < 0.3, np.r_[0, np.cumsum(n)], ("column",))


def gaussian_delta(epsilon: float, sd: float) -> float:
    """Balle and Wang 2018, theorem 8, for a sum that moves by 1."""
    return stats.norm.cdf(0.5 / sd - epsilon * sd) - np.exp(epsilon) * stats.norm.cdf(-0.5 / sd - epsilon * sd)


def sampled_delta(epsilon: float, sd: float, rate: float) -> float:
    """By the definition: how far one density may be above e^epsilon of the other, with the user and without, both ways."""
    x = np.linspace(-12 * sd, 12 * sd + 1, 400_001)
    without, mixed = stats.norm.pdf(x, 0, sd), stats.norm.pdf(x, 1, sd) * rate + stats.norm.pdf(x, 0, sd) * (1 - rate)
    both = ((mixed, without), (without, mixed))
    return max(integrate.trapezoid(np.maximum(p - np.exp(epsilon) * q, 0), x) for p, q in both)


finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(deadline=None, max_examples=200)
@given(
    gradient=st.integers(1, 40).flatmap(lambda d: arrays(np.float64, (5, d), elements=finite)),
    norm=st.floats(1e-3, 1e3),
    multiplier=st.floats(0.3, 100),
    who=st.integers(0, 4),
)
def test_one_user_moves_the_sum_by_no_more_than_the_norm(gradient, norm, multiplier, who):
    unit = multiplier * norm / 2**16
    whole = whole_parts(gradient, norm, unit)
    without = whole_parts(np.delete(gradient, who, axis=0), norm, unit)
    assert np.linalg.norm((whole.sum(0) - without.sum(0)) * unit) <= norm


def test_a_gradient_within_the_norm_is_left_as_it_is():
    gradient = np.array([[0.3, -0.4], [3.0, 4.0]])
    np.testing.assert_allclose(whole_parts(gradient, 1.0, 1e-9) * 1e-9, [[0.3, -0.4], [0.6, 0.8]], atol=1e-7)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_full_batches_cost_what_the_closed_form_says(epsilon):
    releases, delta = Releases(n=120), 1e-6
    multiplier = releases.noise_multiplier(epsilon, delta)
    assert gaussian_delta(epsilon, multiplier / 120**0.5) <= delta
    exact = optimize.brentq(lambda e: gaussian_delta(e, multiplier / 120**0.5) - delta, 0.01, 50)
    assert releases.epsilon(multiplier, delta) == pytest.approx(exact, rel=0.005)
    assert exact == pytest.approx(epsilon, rel=0.01)


def test_a_sampled_step_costs_what_the_definition_says():
    told = Releases(n=1, sample_rate=0.1).epsilon(1.0, 1e-5)
    exact = optimize.brentq(lambda e: sampled_delta(e, 1.0, 0.1) - 1e-5, 0.01, 10)
    assert exact <= told + 1e-4
    assert told == pytest.approx(exact, rel=0.01)


def test_less_noise_promises_less():
    assert (
        Releases(100, 0.1).epsilon(1.0, 1e-6)
        > Releases(100, 0.1).epsilon(2.0, 1e-6)
        > Releases(50, 0.1).epsilon(2.0, 1e-6)
    )


def test_user_gradients_are_those_of_each_users_mean_loss():
    rows = small_rows()
    at = np.array([0.3, -0.2, 0.1, 0.5, -1.0])

    def loss(coefficients, user):
        own = slice(rows.start[user], rows.start[user + 1])
        logit = rows.x[own] @ coefficients[:-1] + coefficients[-1]
        return np.logaddexp(0, np.where(rows.taken[own], -logit, logit)).mean()

    for user, gradient in enumerate(user_gradients(rows, at)):
        np.testing.assert_allclose(gradient, optimize.approx_fprime(at, loss, 1e-7, user), atol=1e-6)


def test_without_noise_and_norm_it_is_the_plain_gradient_method():
    rows = small_rows()
    asked = replace(ASKED, clip_norm=np.inf, momentum=0.0, steps=2, learning_rate=0.5, kept_share=1.0)
    start = np.array([0.0, 0.0, 0.0, 0.0, -2.0])
    first = start - 0.5 * user_gradients(rows, start).mean(0)
    second = first - 0.5 * user_gradients(rows, first).mean(0)
    np.testing.assert_allclose(learn(rows, asked, 0.0, SYSTEM), second, atol=1e-12)


def test_with_hardly_any_noise_it_is_the_method_without():
    rows = small_rows()
    bare, noisy = (learn(rows, ASKED, multiplier, seeded(0)) for multiplier in (0.0, 1e-6))
    np.testing.assert_allclose(noisy, bare, atol=1e-4)


def test_noise_is_normal_whole_and_of_the_size_that_is_told():
    for source in (SYSTEM, seeded(1)):
        noise = source.whole_normal(50_000, 2.0**16)
        assert noise.dtype == np.int64
        assert stats.kstest(noise / 2.0**16, "norm").pvalue > 1e-4
    sums = [noisy_sum(np.zeros((3, 4)), 0.5, 2.0, SYSTEM) for _ in range(5000)]
    assert np.std(sums) == pytest.approx(1.0, rel=0.03)


def test_each_user_is_in_a_step_by_a_coin_of_his_own():
    n_in = [SYSTEM.chosen(400, 0.25).sum() for _ in range(300)]
    assert np.mean(n_in) == pytest.approx(100, abs=3)
    assert np.var(n_in) == pytest.approx(75, rel=0.4)  # 0 where a number is drawn and not each user


def test_small_uniforms_are_as_exact_as_large_ones():
    tiny = type(SYSTEM)(lambda n: b"\x00" * (n - 8) + b"\xff" * 8, "bytes", secure=False).uniform(1)
    assert 0 < tiny[0] < 2.0**-52


def test_whose_rows_are_learnt_from_does_not_hang_on_who_else_is_there():
    one = learner()
    others = replace(one, acts=one.acts.only(one.acts.user != 7))
    for asked in (ASKED, replace(ASKED, n_visits=2), *(replace(ASKED, user_share=one / 20) for one in range(1, 20))):
        for all_, rest in zip(visits_of_each(one, TRAIN, asked), visits_of_each(others, TRAIN, asked), strict=True):
            kept = all_.only(all_.user != 7)
            np.testing.assert_array_equal(kept.user, rest.user)
            np.testing.assert_array_equal(kept.day, rest.day)


def test_nobody_teaches_more_visits_than_he_may_and_all_that_was_taken_is_kept(rows):
    one, asked = learner(), replace(ASKED, n_visits=2)
    visits = visits_of_each(one, TRAIN, asked)
    assert np.bincount(np.concatenate([part.user for part in visits])).max() == 2
    every = user_rows(one, TRAIN, replace(ASKED, kept_share=1.0))
    assert rows.taken.sum() == every.taken.sum()
    assert len(rows.x) < len(every.x) / 3
    assert rows.n_users == every.n_users == 120


def test_a_share_of_users_is_learnt_from_by_their_hash():
    assert 20 < user_rows(learner(), TRAIN, replace(ASKED, user_share=1 / 3)).n_users < 60


def test_more_visits_than_memory_should_hold_are_refused(monkeypatch):
    monkeypatch.setattr("ecom_pipeline.recommend.private.rows.MOST_VISITS", 200)
    with pytest.raises(
        InputError,
        match=r"private: [34]\d\d visits .* At most 200 may be.*: set `user_share`, which is 1, to 0\.\d+ or less",
    ):
        user_rows(learner(), TRAIN, ASKED)


def test_where_nobody_is_left_nothing_is_promised():
    with pytest.raises(InputError, match="private: 0 users are too few"):
        learn_privately(learner(), TRAIN, replace(ASKED, user_share=0), SYSTEM)


def test_columns_stand_on_the_scale_of_their_own_visit(ranker):
    asked = learner().asked(ORIGIN.test)
    x = within_visits(asked.rows.known, asked.rows.names, asked.rows.visit)
    own = x[asked.rows.visit == 3]
    assert np.abs(own.mean(0)).max() < 0.3
    alone = asked.rows.visit == 3
    one = replace(
        asked.rows,
        **{name: getattr(asked.rows, name)[alone] for name in ("visit", "item", "known", "taken", "channels")},
    )
    np.testing.assert_allclose(ranker.score(one), ranker.score(asked.rows)[alone], atol=1e-4)


def test_a_private_ranker_learns_what_popularity_cannot_know(ranker):
    asked = learner().asked(ORIGIN.test)
    known = asked.rows.column("popular_recent")
    assert np.nanmean(asked.ndcg(ranker.score(asked.rows))) > np.nanmean(asked.ndcg(known)) + 0.05


def test_two_trainings_from_the_same_rows_differ_by_their_noise(rows):
    first, second = (learn(rows, ASKED, 1.0, SYSTEM) for _ in range(2))
    assert np.abs(first - second).min() > 0


def test_the_promise_is_kept_with_the_ranker_and_says_what_it_does_not_cover(tmp_path, ranker):
    SavedRanker(ranker, UNWEIGHTED, RETRIEVAL, ("class",), 40).write(tmp_path / "ranker", {})
    told = json.loads((tmp_path / "ranker" / "manifest.json").read_text())["ranker"]["private"]
    assert 7.9 < told["epsilon"] <= 8
    assert told["delta"] == 1e-3
    assert (told["n_users"], told["steps"], told["n_trainings"], told["clip_norm"]) == (120, 20, 2, 0.1)
    assert told["unit"] == "user"
    assert told["noise"] == "the operating system"
    assert told["noise_multiplier"] > 1
    assert "popularity" in told["given"][0]
    assert WEIGHTED not in told["given"]
    again = SavedRanker.read(tmp_path / "ranker").ranker
    assert again.promise == ranker.promise
    np.testing.assert_array_equal(again.coefficients, ranker.coefficients)


def test_nothing_beside_coefficients_and_promise_is_kept(ranker):
    assert ranker.to_json().keys() == {"private", "names", "coefficients"}
    assert ranker.trees == ""


def test_a_weighting_chosen_without_noise_is_named():
    weighted = learn_privately(learner(Weighting("exponential", 30.0)), TRAIN, ASKED, seeded(0))
    assert WEIGHTED in weighted.promise.given
    assert weighted.promise.noise == "seed 0"


def test_both_systems_learn_privately_and_are_tested_as_always():
    acts, catalogue = crowd(n_users=60)
    serving = Origin((Period(50, 70), Period(70, 90)), Period(90, 105), None)
    asked = Settings(RETRIEVAL, RowChoice(), n_asked=60, private=ASKED)
    found = backtest(acts, catalogue, UNWEIGHTED, [replace(ORIGIN, test=Period(90, 105)), serving], asked)
    assert found.ranker.promise == found.twin.promise  # of both together
    assert found.kept == []
    models = set(found.evaluation.model)
    assert DIFFERENCE in models
    assert PILOT not in models
    assert not any(model.endswith(" rows") for model in models)


@pytest.mark.parametrize(
    ("asked", "n_users", "error"),
    [
        (ASKED, 1000, r"private: delta is 0.001, and 1000 users are learnt from. It must be below .*: lower delta, or"),
        (
            replace(ASKED, epsilon=0.1, delta=1e-3),
            50,
            r"private: 50 users are too few for epsilon 0.1: .* at most 0.05: raise epsilon",
        ),
        (ASKED, 0, r"private: 0 users are too few"),
    ],
)
def test_a_promise_that_cannot_hold_is_refused(asked, n_users, error):
    with pytest.raises(InputError, match=error):
        Promise.of(asked, n_users, noise="")


@pytest.mark.parametrize("beside", [{"choice": "balanced"}, {"leaves": [31]}, {"pilot_rows": 1000, "rounds": [50]}])
def test_private_training_beside_what_learns_without_noise_is_refused(beside):
    from assets.private import PrivateConfig
    from assets.recommend import RankerConfig

    error = rf"private: {len(beside)} settings of the ranker .*; first: .* no pilot, no chosen rows and no trees: leave"
    with pytest.raises(InputError, match=error):
        RankerConfig(private=PrivateConfig(epsilon=3.0), **beside)


def test_private_training_without_its_accountant_is_refused(monkeypatch):
    from assets.recommend import RankerConfig

    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(InputError, match=r"private: 1 package is missing: .* pip install 'ecom-pipeline\[private\]'"):
        RankerConfig(private={"epsilon": 3.0})


def test_a_home_does_not_cease_to_be_private_unseen(tmp_path, ranker):
    from assets.private import PrivateConfig, folder_of, require_private

    config = PrivateConfig(epsilon=1.0)
    in_use, plain = tmp_path / folder_of("ranker", config), tmp_path / folder_of("ranker", None)
    for folder in (in_use, plain):
        SavedRanker(ranker, UNWEIGHTED, RETRIEVAL, ("class",), 40).write(folder, {})
    require_private(in_use, config)
    with pytest.raises(InputError, match="that learnt privately"):  # as an earlier version named it
        require_private(plain, None)
    require_private(tmp_path / "gone", None)
    require_private(None, None)
    for damaged in ((), ("trees.txt",), ("manifest.json",)):
        for file in damaged:
            (in_use / file).unlink()
        with pytest.raises(
            InputError, match=r"private: 1 ranker is in use .* must not cease .*: give the same --config, or delete"
        ):
            require_private(in_use, None)
    shutil.rmtree(in_use)
    require_private(in_use, None)


def test_the_configuration_reaches_the_domain():
    from assets.recommend import RankerConfig

    assert RankerConfig().settings().private is None
    asked = RankerConfig(private={"epsilon": 3.0, "delta": 1e-5, "sample_rate": 0.5}).settings().private
    assert (asked.epsilon, asked.delta, asked.sample_rate, asked.n_trainings) == (3.0, 1e-5, 0.5, 2)


def test_a_published_model_tells_what_was_promised_of_each_system(ranker):
    from ecom_pipeline.service.published import promises_of

    saved = SavedRanker(ranker, UNWEIGHTED, RETRIEVAL, ("class",), 40)
    told = json.loads(json.dumps(promises_of({"weighted": saved, "unweighted": saved})))["private"]
    assert told.keys() == {"weighted", "unweighted"}
    assert Promise.from_json(told["weighted"]) == ranker.promise
    assert promises_of({}) == {}
