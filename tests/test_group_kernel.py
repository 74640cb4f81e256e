import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.ensemble import RankEnsemble
from ecom_pipeline.importance.estimators.graph import GroupAgreement
from ecom_pipeline.importance.estimators.group_kernel import GroupKernelLeaveOneOut, Kernels, leave_one_out
from ecom_pipeline.importance.estimators.out_of_fold import NormalisedMargin, OutOfFoldConfidence
from ecom_pipeline.importance.frames import fit_each


def drawn(n, seed, n_groups=3):
    draw = np.random.default_rng(seed)
    x = np.hstack([draw.normal(size=(n, 3)), np.ones((n, 1))]).astype(np.float32)
    return Evidence(label=one_hot((draw.random(n) < 0.5) * 1.0), features=x, group=draw.integers(0, n_groups, n))


@given(st.integers(2, 6), st.integers(0, 200), st.floats(0.1, 5.0))
def test_each_prediction_is_that_of_a_fit_without_the_sample(n, seed, ridge):
    draw = np.random.default_rng(seed)
    z, y = torch.tensor(draw.normal(size=(n, 2))), torch.tensor(draw.normal(size=(n, 2)))
    rows = torch.arange(n // 2 + 1)
    root = torch.tensor(draw.normal(size=(len(rows), 2)))
    kernel = z @ z.T
    kernel[rows[:, None], rows] += root @ root.T
    alone = torch.zeros(n, n, dtype=torch.float64)
    alone[rows[:, None], rows] = root @ root.T
    kernels = Kernels(lambda some: z[some], lambda groups: alone[groups[:, :, None], groups[:, None, :]])
    stacks = [rows[None], *([torch.arange(len(rows), n)[:, None]] if len(rows) < n else [])]
    found = leave_one_out(kernels, stacks, y, ridge=ridge, share=1.0)
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        inner = kernel[rest][:, rest] + ridge * torch.eye(n - 1, dtype=z.dtype)
        refitted = kernel[i, rest] @ torch.linalg.solve(inner, y[rest])
        np.testing.assert_allclose(found[i], refitted, atol=1e-8)


@given(st.integers(2, 25), st.integers(0, 200), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(n, seed, random):
    evidence = drawn(n, seed)
    order = list(range(n))
    random.shuffle(order)
    moved = Evidence(label=evidence.label[order], features=evidence.features[order], group=evidence.group[order])
    before, after = (GroupKernelLeaveOneOut().fit(one).value for one in (evidence, moved))
    np.testing.assert_allclose(after, before[order], atol=1e-5)


def test_settings_chosen_by_some_groups_still_fit_all_samples():
    evidence = drawn(60, 0, n_groups=12)
    whole = GroupKernelLeaveOneOut(ridges=(1.0,), shared=(0.5,))
    some = GroupKernelLeaveOneOut(ridges=(1.0,), shared=(0.5,), n_tried=20)
    np.testing.assert_allclose(some.fit(evidence).value, whole.fit(evidence).value, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_samples_and_one_class_have_finite_values(n):
    evidence = Evidence(label=one_hot(np.ones(n)), features=np.ones((n, 2), np.float32), group=np.zeros(n, np.int64))
    assert np.isfinite(GroupKernelLeaveOneOut().fit(evidence).value).all()


def test_a_wrong_label_among_the_like_of_its_query_comes_out_lowest():
    draw = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 10)
    liked = (np.arange(20) % 2)[group]  # queries whose items are all good, or all bad; features tell nothing
    wrong = np.arange(200) % 29 == 0
    x = np.hstack([draw.normal(size=(200, 4)), np.ones((200, 1))]).astype(np.float32)
    evidence = Evidence(label=one_hot(np.where(wrong, 1 - liked, liked) * 1.0), features=x, group=group)
    found = GroupKernelLeaveOneOut().fit(evidence)
    assert found.value[wrong].max() < found.value[~wrong].min()
    assert found.notes["shared"] > 0


def test_an_ensemble_of_one_orders_as_its_member_does():
    draw = np.random.default_rng(1)
    evidence = Evidence(label=one_hot(np.ones(8)), oof_score=one_hot(draw.random((8, 2))))
    alone, ensemble = (
        one.fit(evidence).value for one in (OutOfFoldConfidence(), RankEnsemble((OutOfFoldConfidence(),)))
    )
    assert (alone.argsort() == ensemble.argsort()).all()
    np.testing.assert_allclose(np.sort(ensemble), np.arange(1, 9) / 8)


def test_an_ensemble_needs_what_any_of_its_members_needs():
    assert RankEnsemble((OutOfFoldConfidence(), GroupKernelLeaveOneOut(), NormalisedMargin())).needs == (
        *("oof_score", "features", "group"),
    )


def test_an_ensemble_beside_its_members_takes_their_values_and_fits_none_again(monkeypatch):
    evidence = drawn(12, 3)
    members = (GroupKernelLeaveOneOut(n_landmarks=4), GroupAgreement())
    alone = RankEnsemble(members).fit(evidence).value
    asked = []
    fit = GroupAgreement.fit
    monkeypatch.setattr(GroupAgreement, "fit", lambda self, given: asked.append(self) or fit(self, given))
    *_, (_, beside) = fit_each([*members, RankEnsemble(members)], evidence)
    assert len(asked) == 1
    np.testing.assert_allclose(beside.value, alone)
