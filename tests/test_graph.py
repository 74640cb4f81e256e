import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import Evidence, one_hot
from ecom_pipeline.importance.estimators.graph import GraphAgreement, GroupAgreement

BOTH = [GraphAgreement(shrinkage=3.0), GroupAgreement()]


def shop(n=40, n_classes=2, seed=0) -> Evidence:
    """Unique pairs of 8 users and 10 items, in 3 groups, with random soft labels."""
    generator = np.random.default_rng(seed)
    pair = generator.choice(80, n, replace=False)
    label = generator.dirichlet(np.ones(n_classes), n)
    x = np.hstack([generator.normal(size=(n, 4)), np.ones((n, 1))]).astype(np.float32)
    return Evidence(label=label, user=pair // 10, item=pair % 10, group=generator.integers(0, 3, n), features=x)


def only(evidence: Evidence, rows) -> Evidence:
    names = ("label", "user", "item", "group", "features")
    return Evidence(**{name: getattr(evidence, name)[rows] for name in names})


def with_label(evidence: Evidence, row: int, label) -> Evidence:
    changed = evidence.label.copy()
    changed[row] = label
    names = ("user", "item", "group", "features")
    return Evidence(label=changed, **{name: getattr(evidence, name) for name in names})


def noisy(seed=0) -> tuple[Evidence, np.ndarray]:
    """Harsh and mild users, good and bad items; neighbours in a group alike. A fifth of the labels is flipped."""
    generator = np.random.default_rng(seed)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(40), np.arange(40)))
    lean = 3 * generator.normal(size=40)[user] + 3 * generator.normal(size=40)[item]
    flipped = generator.random(1600) < 0.2
    label = np.where(flipped, lean < 0, lean >= 0).astype(float)
    x = np.column_stack([lean, generator.normal(size=1600), np.ones(1600)]).astype(np.float32)
    return Evidence(label=one_hot(label), user=user, item=item, group=user, features=x), flipped


def test_one_round_is_the_shrunk_mean_worked_by_hand():
    """Item 5 has labels 1, 1, 0. Without the third the mean is 1, so is its item's; nothing else leans."""
    evidence = Evidence(label=one_hot(np.array([1.0, 1, 0])), user=np.array([0, 1, 2]), item=np.array([5, 5, 5]))
    assert GraphAgreement(1.0, 1).fit(evidence).value.tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)


def test_labels_spread_as_scikit_learn_spreads_them():
    """The published tool keeps the own label: with it put back, both solve the same restarts.

    LabelSpreading of scikit-learn normalises edges symmetrically; on a graph where all degrees are the same, as on
    this ring, that is the same as a step at random.
    """
    from sklearn.semi_supervised import LabelSpreading

    angle = np.arange(8) * np.pi / 4
    x = np.column_stack([np.cos(angle), np.sin(angle), np.ones(8)]).astype(np.float32)
    label = np.array([0, 0, 1, 1, 0, 1, 1, 0])
    evidence = Evidence(label=one_hot(label), group=np.zeros(8, int), features=x)
    ours = GroupAgreement(k=2, sharpness=0.0, onward=0.5, shrinkage=0.0).fit(evidence).value
    ring = np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0)
    spread = np.empty((8, 8))  # what each label alone gives each sample
    for row in range(8):
        peer = LabelSpreading(kernel=lambda a, b: ring, alpha=0.5, max_iter=1000, tol=1e-12)
        spread[:, row] = peer.fit(x, np.where(np.arange(8) == row, 1, 0)).label_distributions_[:, 1]
    onward = spread.copy()
    np.fill_diagonal(onward, 0.0)
    onward /= onward.sum(1, keepdims=True)
    expected = (onward @ one_hot(label))[np.arange(8), label]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("estimator", BOTH, ids=lambda one: one.name)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n_classes=st.integers(2, 4))
def test_the_own_label_is_never_asked(estimator, seed, n_classes):
    """The value is linear in the own label: its share of each class times a prediction that does not change."""
    evidence = shop(n_classes=n_classes, seed=seed)
    sure = [estimator.fit(with_label(evidence, 3, row)).value[3] for row in np.eye(n_classes)]
    mixed = estimator.fit(evidence).value[3]
    assert sum(sure) == pytest.approx(1)
    assert mixed == pytest.approx(evidence.label[3] @ np.array(sure))


@pytest.mark.parametrize("estimator", BOTH, ids=lambda one: one.name)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_samples_is_no_matter(estimator, seed):
    evidence = shop(seed=seed)
    order = np.random.default_rng(seed).permutation(len(evidence))
    np.testing.assert_allclose(estimator.fit(only(evidence, order)).value, estimator.fit(evidence).value[order])


@pytest.mark.parametrize("estimator", BOTH, ids=lambda one: one.name)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_names_of_the_classes_are_no_matter(estimator, seed):
    evidence = shop(n_classes=3, seed=seed)
    names = ("user", "item", "group", "features")
    turned = Evidence(label=evidence.label[:, [2, 0, 1]], **{name: getattr(evidence, name) for name in names})
    np.testing.assert_allclose(estimator.fit(turned).value, estimator.fit(evidence).value, atol=1e-9)


def lean(evidence: Evidence, edge: int, end: str, rounds: int, shrinkage: float, mean) -> np.ndarray:
    """By recursion, edge by edge: how a node leans in the eyes of one of its edges."""
    other = "item" if end == "user" else "user"
    node = getattr(evidence, end)
    told = np.zeros(2)
    if rounds == 0:
        return told
    around = [e for e in range(len(evidence)) if node[e] == node[edge] and e != edge]
    for e in around:
        told += evidence.label[e] - mean - lean(evidence, e, other, rounds - 1, shrinkage, mean)
    return told / max(len(around) + shrinkage, 1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_agreement_is_the_recursion_edge_by_edge(seed, rounds):
    generator = np.random.default_rng(seed)
    pair = generator.choice(9, 6, replace=False)
    evidence = Evidence(label=generator.dirichlet([1, 1], 6), user=pair // 3, item=pair % 3)
    found = GraphAgreement(2.0, rounds).fit(evidence).value
    for edge in range(6):
        mean = np.delete(evidence.label, edge, 0).mean(0)
        both = sum(lean(evidence, edge, end, rounds, 2.0, mean) for end in ("user", "item"))
        prediction = np.maximum(mean + both, 1e-7)
        assert found[edge] == pytest.approx(evidence.label[edge] @ prediction / prediction.sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_neighbours_agree_with_walks_counted_one_by_one(seed, onward):
    """A label heard is one at the end of a walk that goes on with a fixed chance; walks home do not count."""
    evidence = only(shop(seed=seed), np.arange(6))
    evidence = Evidence(label=evidence.label, features=evidence.features, group=np.zeros(6, int))
    found = GroupAgreement(k=5, onward=onward, shrinkage=0.0).fit(evidence).value
    x = evidence.features.astype(float) - evidence.features.astype(float).mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    edge = np.exp(2.0 * (x @ x.T - 1)) * (1 - np.eye(6))
    step = edge / edge.sum(1, keepdims=True)
    heard, walk, chance = np.zeros((6, 6)), np.eye(6), 1 - onward
    for _ in range(400):
        walk = walk @ step
        heard += chance * walk
        chance *= onward
    np.fill_diagonal(heard, 0.0)
    expected = (evidence.label * (heard / heard.sum(1, keepdims=True) @ evidence.label)).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("estimator", BOTH, ids=lambda one: one.name)
def test_flipped_labels_come_out_low(estimator):
    evidence, flipped = noisy()
    assert roc_auc_score(flipped, -estimator.fit(evidence).value) > 0.85


def test_the_shrinkage_that_labels_ask_for_is_the_ratio_that_made_them():
    """Users lean with variance 0.01, items not at all, and labels spread by 0.04 around: 4 edges, and very many."""
    generator = np.random.default_rng(0)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(300), np.arange(60)))
    share = 0.5 + generator.normal(0, 0.1, 300)[user] + generator.normal(0, 0.2, len(user))
    notes = GraphAgreement().fit(Evidence(label=one_hot(share), user=user, item=item)).notes
    assert notes["user_shrinkage"] == pytest.approx(4, rel=0.2)
    assert notes["item_shrinkage"] > 100


def test_asking_the_labels_for_the_shrinkage_is_no_worse_than_any_of_a_grid():
    evidence, flipped = noisy()
    asked = roc_auc_score(flipped, -GraphAgreement().fit(evidence).value)
    assert asked > max(roc_auc_score(flipped, -GraphAgreement(k).fit(evidence).value) for k in (1, 10, 100)) - 0.01


def test_telling_on_finds_more_flips_than_asking_once():
    once, often = (
        np.mean([roc_auc_score(f, -GraphAgreement(3.0, r).fit(e).value) for e, f in map(noisy, range(5))])
        for r in (1, 3)
    )
    assert often >= once - 0.002


def test_a_large_group_is_dealt_with_in_parts():
    evidence, flipped = noisy()
    one_group = Evidence(label=evidence.label, features=evidence.features, group=np.zeros(1600, int))
    value = GroupAgreement(largest_group=300).fit(one_group).value
    assert roc_auc_score(flipped, -value) > 0.85


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("estimator", [*BOTH, GraphAgreement()], ids=lambda one: one.name)
def test_few_samples_of_one_class_without_variation_are_no_obstacle(estimator, n):
    nothing = np.zeros(n, int)
    evidence = Evidence(
        label=one_hot(np.ones(n)), user=nothing, item=nothing, group=nothing, features=np.ones((n, 2), np.float32)
    )
    value = estimator.fit(evidence).value
    assert value.shape == (n,)
    assert np.isfinite(value).all()


def test_a_graph_without_items_is_asked_for_them():
    with pytest.raises(SampleError, match=r"graph_agreement: 1 .* first: 'item'"):
        GraphAgreement().fit(Evidence(label=one_hot(np.ones(2)), user=np.zeros(2, int)))
