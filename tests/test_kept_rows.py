import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.errors import SampleError
from ecom_pipeline.ranking.kept_rows import keep_rows
from ecom_pipeline.ranking.losses import LOSSES

TRUE = np.array([-3.0, -1.5, 0.5])  # logits of three kinds of pair


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from(["gap", "random", "balanced", "all"]))
def test_with_a_budget_for_all_rows_every_row_is_kept_and_nothing_is_made_up_for(pilot, choice):
    label = np.arange(len(pilot)) % 2.0
    kept = keep_rows(choice, np.array(pilot), label, n_rows=len(pilot), seed=0)
    weight = np.linspace(0.5, 1.5, len(pilot))
    assert kept.rows.tolist() == list(range(len(pilot)))
    assert not kept.offset.any()
    assert kept.weights(weight) is weight


def test_weights_of_kept_rows_have_mean_1_and_keep_their_proportions():
    kept = keep_rows("random", np.full(50, 0.5), np.arange(50) % 2.0, n_rows=20, seed=0)
    weight = np.linspace(0.5, 1.5, 50)
    own = kept.weights(weight)
    assert own.mean() == pytest.approx(1)
    np.testing.assert_allclose(own / own[0], weight[kept.rows] / weight[kept.rows[0]])


@pytest.mark.parametrize("choice", ["gap", "random", "balanced"])
@pytest.mark.parametrize("loss", ["pointwise", "pairwise", "listwise"])
def test_a_ranker_of_kept_rows_answers_as_one_of_all_rows(choice, loss):
    kind, group, label, pilot = pairs_of_three_kinds(loss)
    kept = keep_rows(choice, pilot, label, n_rows=len(label) // 2, seed=1)
    logit = fitted(loss, kind[kept.rows], label[kept.rows], group[kept.rows], kept.offset)
    if loss != "pointwise":  # these know of differences alone
        np.testing.assert_allclose(logit - logit[0], TRUE - TRUE[0], atol=0.25)
    else:
        np.testing.assert_allclose(logit, TRUE, atol=0.15)


def test_without_the_offset_a_ranker_of_rows_kept_by_gap_would_be_wrong():
    kind, group, label, pilot = pairs_of_three_kinds("pointwise")
    kept = keep_rows("gap", pilot, label, n_rows=len(label) // 4, seed=1)
    logit = fitted("pointwise", kind[kept.rows], label[kept.rows], group[kept.rows], 0 * kept.offset)
    assert np.abs(logit - TRUE).max() > 1


def test_a_budget_of_which_nothing_is_drawn_is_refused():
    with pytest.raises(SampleError, match="raise `n_rows`"):
        keep_rows("random", np.full(100_000, 0.5), np.arange(100_000) % 2.0, n_rows=1, seed=6)


def pairs_of_three_kinds(loss):
    """Kinds, groups of three rows, labels by their true odds (one relevant row a list), and a pilot that is off."""
    draw = np.random.default_rng(0)
    n_groups = 40_000
    kind, group = draw.integers(0, 3, 3 * n_groups), np.repeat(np.arange(n_groups), 3)
    label = (draw.logistic(size=len(kind)) < TRUE[kind]).astype(float)
    if loss == "listwise":
        only = np.bincount(group, label)[group] == 1
        kind, group, label = kind[only], np.unique(group[only], return_inverse=True)[1], label[only]
    pilot = 1 / (1 + np.exp(-(0.7 * TRUE[kind] + 0.3 * draw.normal(size=len(kind)))))
    return kind, group, label, pilot


def fitted(loss, kind, label, group, offset):
    """(3,) logits with the least loss."""
    logit = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=50, line_search_fn="strong_wolfe")
    told = [
        torch.as_tensor(values) for values in (label, np.ones(len(label)), np.unique(group, return_inverse=True)[1])
    ]
    total = LOSSES[loss].total if loss != "pairwise" else pairwise_of_threes

    def closure():
        optimizer.zero_grad()
        value = total(logit[torch.as_tensor(kind)] - torch.as_tensor(offset), *told) / len(label)
        value.backward()
        return value

    optimizer.step(closure)
    return logit.detach().numpy()


def pairwise_of_threes(logit, label, weight, group):
    """The pairwise loss of many groups, some hundred at a time: all at once are too many pairs."""
    total = logit.new_zeros(())
    for part in torch.split(torch.arange(len(logit)), 600):
        total = total + LOSSES["pairwise"].total(logit[part], label[part], weight[part], group[part])
    return total
