import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.ranking.losses import LOSSES, listwise, literal, pairwise, pointwise

FAIR = ("pointwise", "pairwise", "listwise")


def samples(draw_labels=(0.0, 0.5, 1.0)):
    row = st.tuples(st.floats(-4, 4), st.sampled_from(draw_labels), st.integers(0, 3), st.integers(0, 2))
    return st.lists(row, min_size=1, max_size=8)


def tensors(rows):
    logit, label, weight, group = zip(*rows, strict=True)
    numbers = np.unique(group, return_inverse=True)[1]
    values = [torch.tensor(part, dtype=torch.float64) for part in (logit, label, weight)]
    return (*values, torch.as_tensor(numbers))


@pytest.mark.parametrize("name", FAIR)
@given(rows=samples())
def test_a_weight_is_as_many_copies_and_0_is_not_being_there(name, rows):
    copies = [(logit, label, 1, group) for logit, label, weight, group in rows for _ in range(weight)]
    weighted = LOSSES[name].total(*tensors(rows)).item()
    assert weighted == pytest.approx(LOSSES[name].total(*tensors(copies)).item() if copies else 0, abs=1e-9)


@pytest.mark.parametrize("name", FAIR)
@given(rows=samples(), seed=st.integers(0, 99))
def test_the_order_of_samples_does_not_matter(name, rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = [rows[place] for place in order]
    assert LOSSES[name].total(*tensors(rows)).item() == pytest.approx(LOSSES[name].total(*tensors(shuffled)).item())


@pytest.mark.parametrize("name", ["pairwise", "listwise"])
@given(rows=samples(), shift=st.floats(-3, 3))
def test_a_constant_added_to_a_group_changes_no_group_loss(name, rows, shift):
    moved = [(logit + shift, *rest) for logit, *rest in rows]
    assert LOSSES[name].total(*tensors(rows)).item() == pytest.approx(
        LOSSES[name].total(*tensors(moved)).item(), abs=1e-6
    )


@given(rows=samples())
def test_terms_are_what_weights_of_1_have(rows):
    logit, label, _, group = tensors(rows)
    one, even = torch.ones_like(logit), torch.zeros_like(logit)
    told = {name: LOSSES[name].terms(label.numpy(), group.numpy()) for name in FAIR}
    assert told["pointwise"] == len(rows)
    assert pointwise(even, label, one, group).item() == pytest.approx(len(rows) * np.log(2))
    pairs = pairwise(even, label, one, group).item() / np.log(2)
    assert told["pairwise"] == pytest.approx(pairs if pairs else 1)
    assert told["listwise"] == pytest.approx(label.sum().item() or 1)


def test_weights_of_1_give_plain_cross_entropy():
    logit, label, one = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, 0.0, 0.5]), torch.ones(3)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="sum").item()
    assert [loss(logit, label, one, one.long()).item() for loss in (pointwise, literal)] == pytest.approx([plain] * 2)


def test_the_literal_loss_counts_a_weight_twice():
    logit, label, weight, group = torch.tensor([0.3]), torch.tensor([1.0]), torch.tensor([3.0]), torch.zeros(1).long()
    assert literal(logit, label, weight, group).item() == pytest.approx(
        9 * pointwise(logit, label, weight / 3, group).item()
    )


def test_the_pairwise_loss_is_ranknets_for_two_samples():
    logit, label = torch.tensor([2.0, 0.5]), torch.tensor([0.0, 1.0])
    told = pairwise(logit, label, torch.ones(2), torch.zeros(2).long()).item()
    assert told == pytest.approx(np.log1p(np.exp(1.5)))


def test_the_listwise_loss_is_the_softmaxs_for_one_relevant_sample():
    logit, label = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([0.0, 1.0, 0.0])
    told = listwise(logit, label, torch.ones(3), torch.zeros(3).long()).item()
    assert told == pytest.approx(torch.nn.functional.cross_entropy(logit[None], torch.tensor([1])).item())
