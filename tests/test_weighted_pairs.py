import lightgbm
import numpy as np
import pytest
import torch
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.errors import SampleError
from ecom_pipeline.ranking import losses, weighted_pairs
from ecom_pipeline.ranking.weighted_pairs import WeightedPairs, pairwise_objective

ROW = st.tuples(st.floats(-4, 4), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.integers(0, 3), st.integers(0, 2))
ROWS = st.lists(ROW, min_size=1, max_size=12)


def columns(rows):
    score, label, weight, group = (np.array(part) for part in zip(*rows, strict=True))
    return score, (label, weight.astype(float), group)


@pytest.fixture(autouse=True, params=[1, 3, 1 << 16])
def block(request, monkeypatch):
    monkeypatch.setattr(weighted_pairs, "_BLOCK", request.param)  # where blocks are cut changes nothing
    return request.param


@given(rows=ROWS)
def test_a_weight_is_as_many_copies_and_0_is_not_being_there(rows):
    weight = np.array([row[2] for row in rows])
    copies = [(score, label, 1, group) for score, label, w, group in rows for _ in range(w)] or [(0.0, 0.0, 1, 0)]
    owner = np.repeat(np.arange(len(rows)), weight)
    (score, told), (copied_score, copied) = columns(rows), columns(copies)
    pairs, plain = WeightedPairs.of(*told), WeightedPairs.of(*copied)
    assert pairs.loss(score) == pytest.approx(plain.loss(copied_score), abs=1e-9)
    for one, other in zip(pairs.gradient(score), plain.gradient(copied_score), strict=True):
        of_all_copies = np.bincount(owner, other[: len(owner)], minlength=len(rows))
        np.testing.assert_allclose(one, of_all_copies, atol=1e-9)


@given(rows=ROWS)
def test_it_is_the_pairwise_loss_that_networks_are_taught_by(rows):
    score, (label, weight, group) = columns(rows)
    logit = torch.tensor(score, requires_grad=True)
    number = torch.as_tensor(np.unique(group, return_inverse=True)[1])
    loss = losses.pairwise(logit, torch.tensor(label), torch.tensor(weight), number)
    (slope,) = torch.autograd.grad(loss, logit)
    pairs = WeightedPairs.of(label, weight, group)
    assert pairs.loss(score) == pytest.approx(loss.item(), abs=1e-9)
    np.testing.assert_allclose(pairs.gradient(score)[0], slope.numpy(), atol=1e-9)


@given(rows=ROWS, data=st.data())
def test_the_derivatives_are_those_of_the_loss(rows, data):
    score, told = columns(rows)
    pairs, moved = WeightedPairs.of(*told), data.draw(st.integers(0, len(rows) - 1))
    step = np.zeros(len(rows))
    step[moved] = 1e-4
    (before, _), (after, _) = pairs.gradient(score - step), pairs.gradient(score + step)
    gradient, hessian = pairs.gradient(score)
    assert gradient[moved] == pytest.approx((pairs.loss(score + step) - pairs.loss(score - step)) / 2e-4, abs=1e-4)
    assert hessian[moved] == pytest.approx((after[moved] - before[moved]) / 2e-4, abs=1e-4)


@given(rows=ROWS, seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    score, told = columns(rows)
    shuffled = WeightedPairs.of(*(one[order] for one in told)).gradient(score[order])
    for one, other in zip(WeightedPairs.of(*told).gradient(score), shuffled, strict=True):
        np.testing.assert_allclose(one[order], other, atol=1e-12)


def test_weights_of_1_give_ranknets_gradient():
    """By hand: scores 0, ln 2, ln 4; the first is relevant, so its pairs are wrong with 2/3 and 4/5."""
    pairs = WeightedPairs.of([1, 0, 0], [1, 1, 1], ["q", "q", "q"])
    gradient, hessian = pairs.gradient(np.log([1.0, 2.0, 4.0]))
    assert gradient.tolist() == pytest.approx([-2 / 3 - 4 / 5, 2 / 3, 4 / 5])
    assert hessian.tolist() == pytest.approx([2 / 9 + 4 / 25, 2 / 9, 4 / 25])
    assert pairs.loss(np.log([1.0, 2.0, 4.0])) == pytest.approx(np.log(3) + np.log(5))


def test_scores_far_apart_overflow_nothing():
    pairs = WeightedPairs.of([1, 0], [1, 1], [0, 0])
    gradient, hessian = pairs.gradient(np.array([-1e5, 1e5]))
    assert (gradient.tolist(), hessian.tolist(), pairs.loss(np.array([-1e5, 1e5]))) == ([-1.0, 1.0], [0.0, 0.0], 2e5)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        (([1, 0], [1], [0, 0]), r"3 shapes are \(2,\), \(1,\) and \(2,\)"),
        (([1, 0], [1, np.nan], [0, 0]), r"weight: 1 of 2 are wrong; first: that of row 1. Each must be a finite"),
        (([1, 0], [-1, -1], [0, 0]), r"weight: 2 of 2 are wrong; first: that of row 0"),
        (([np.inf, 0], [1, 1], [0, 0]), r"label: 1 of 2 are wrong"),
        (([1, 0], [1, 1], ["q", None]), r"group: 1 of 2 are wrong; first: that of row 1. Each must be known"),
    ],
)
def test_rows_that_cannot_be_paired_are_refused(told, match):
    with pytest.raises(SampleError, match=match):
        WeightedPairs.of(*told)


def test_scores_of_other_rows_are_refused():
    with pytest.raises(
        SampleError, match=r"shape is \(3,\); first: \[0.0\]. There must be one score for each of the 2"
    ):
        pairwise_objective([1, 0], [1, 1], [0, 0])(np.zeros(3), None)


def queries(seed=0, n=240):
    """Rows with few distinct features, so that copies change no bin; label, weight and group of each."""
    draw = np.random.default_rng(seed)
    x = draw.integers(0, 12, (n, 3)).astype(float)
    label = (x[:, 0] + draw.normal(0, 4, n) > 6) * 1.0
    return x, label, draw.integers(0, 4, n), np.arange(n) // 12


def lightgbm_scores(x, label, weight, group):
    settings = {
        "objective": pairwise_objective(label, weight, group),
        **{"num_leaves": 6, "min_data_in_leaf": 1, "min_data_in_bin": 1, "lambda_l2": 1.0, "verbose": -1},
        "num_threads": 1,
    }
    booster = lightgbm.train(settings, lightgbm.Dataset(x, label), 15)
    return booster.predict(queries()[0], raw_score=True)


def xgboost_scores(x, label, weight, group):
    settings = {"max_depth": 3, "min_child_weight": 0, "base_score": 0.0, "nthread": 1}
    data = xgboost.DMatrix(x, label)
    booster = xgboost.train(settings, data, 15, obj=pairwise_objective(label, weight, group))
    return booster.predict(xgboost.DMatrix(queries()[0]), output_margin=True)


@pytest.mark.parametrize("scores", [lightgbm_scores, xgboost_scores])
def test_trees_learn_of_weights_what_they_learn_of_copies(scores):
    x, label, weight, group = queries()
    copies = np.repeat(np.arange(len(x)), weight)
    weighted = scores(x, label, weight, group)
    assert np.ptp(weighted) > 1
    np.testing.assert_allclose(
        weighted, scores(x[copies], label[copies], np.ones(len(copies)), group[copies]), atol=1e-4
    )
    assert not np.allclose(weighted, scores(x, label, np.ones(len(x)), group), atol=0.1)


def test_lightgbms_own_objective_lets_a_row_of_weight_0_push_the_others():
    """Why there is one of ours: its lambdarank scales a row's gradient, but not what the row does to its partners."""
    x, label, weight, group = queries()
    settings = {"objective": "lambdarank", "min_data_in_leaf": 1, "min_data_in_bin": 1, "verbose": -1, "num_threads": 1}
    there = np.flatnonzero(weight)

    def scores(rows):
        sizes = np.unique(group[rows], return_counts=True)[1]
        data = lightgbm.Dataset(x[rows], label[rows], weight=weight[rows], group=sizes)
        return lightgbm.train(settings, data, 15).predict(x)

    assert not np.allclose(scores(np.arange(len(x))), scores(there), atol=0.1)


def test_xgboosts_own_objective_takes_one_weight_a_group():
    x, label, weight, group = queries()
    refused = xgboost.DMatrix(x, label, weight=weight, qid=group)
    with pytest.raises(xgboost.core.XGBoostError, match="Size of weight must equal to the number of query groups"):
        xgboost.train({"objective": "rank:pairwise"}, refused, 1)
    taken = xgboost.DMatrix(x, label, weight=np.ones(group.max() + 1), qid=group)
    assert xgboost.train({"objective": "rank:pairwise"}, taken, 1).num_boosted_rounds() == 1
