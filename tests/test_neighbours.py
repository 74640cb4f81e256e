import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance import nearest
from ecom_pipeline.importance.estimator import Evidence, Holdout, one_hot
from ecom_pipeline.importance.estimators import neighbours
from ecom_pipeline.importance.estimators.neighbours import (
    KNNShapley,
    NeighbourAgreement,
    SoftLabelKNNShapley,
    ThresholdKNNShapley,
    knn_shapley_of_graph,
    neighbour_graph,
)
from ecom_pipeline.importance.nearest import Distances, nearest_first

SHAPLEY = (KNNShapley, SoftLabelKNNShapley, ThresholdKNNShapley)
METRICS, JUDGES = ("euclidean", "cosine"), ("training", "holdout")
RADIUS = {"euclidean": 2.0, "cosine": 0.5}


def with_constant(x):
    return np.column_stack([x, np.ones(len(x))]).astype(np.float32)


def game(n, m, c, d, seed, soft=False, whole=False):
    """Samples and judges; whole numbers put some at equal distances, copies among them."""
    generator = np.random.default_rng(seed)
    place = generator.integers(-3, 4, (n + m, d)) if whole else generator.normal(size=(n + m, d))
    share = generator.dirichlet(np.ones(c), n + m) if soft else np.eye(c)[generator.integers(0, c, n + m)]
    x = with_constant(place)
    return Evidence(label=share[:n], features=x[:n], holdout=Holdout(x[n:], share[n:]))


shapes = st.tuples(
    st.integers(1, 5), st.integers(1, 3), st.integers(2, 3), st.integers(1, 2), st.integers(0, 10**6), st.booleans()
)
larger_games = st.builds(
    game, st.integers(2, 30), st.integers(1, 5), st.integers(2, 3), st.just(3), st.integers(0, 10**6), st.booleans()
)


def make(kind, k, metric="euclidean", judged_on="holdout", **fields):
    if kind is ThresholdKNNShapley:
        fields = {"radius": RADIUS[metric]} | fields
    return kind(k, metric, judged_on, **fields)


def distance(sample, judge, metric):
    a, b = (row[:-1].astype(float) for row in (sample, judge))
    if metric == "cosine":
        a, b = (row / (np.linalg.norm(row) or 1) for row in (a, b))
        return 1 - a @ b
    return np.linalg.norm(a - b)


def judgements(evidence, judged_on):
    """Features, label and own row of each judge."""
    if judged_on == "holdout":
        return [(x, y, None) for x, y in zip(evidence.holdout.features, evidence.holdout.label, strict=True)]
    return [(x, y, row) for row, (x, y) in enumerate(zip(evidence.features, evidence.label, strict=True))]


def utility(estimator, evidence, judge, members):
    """What a set of samples is worth to one judge, by definition."""
    place, label, own = judge
    far = {i: distance(evidence.features[i], place, estimator.metric) for i in members if i != own}
    voters = sorted(far, key=lambda i: (round(far[i], 9), i))[: estimator.k]
    if isinstance(estimator, ThresholdKNNShapley):
        voters = [i for i in far if far[i] <= estimator.radius + 1e-12]
    agreed = sum(float(evidence.label[i] @ label) for i in voters)
    if isinstance(estimator, KNNShapley):
        return agreed / estimator.k
    return agreed / len(voters) if voters else 1 / evidence.n_classes


def mean_utility(estimator, evidence, members):
    judges = judgements(evidence, estimator.judged_on)
    return np.mean([utility(estimator, evidence, judge, members) for judge in judges])


def shapley_by_enumeration(estimator, evidence):
    n = len(evidence)
    worth = {s: mean_utility(estimator, evidence, s) for r in range(n + 1) for s in itertools.combinations(range(n), r)}
    value = np.zeros(n)
    for s, i in itertools.product(worth, range(n)):
        if i not in s:
            more = worth[tuple(sorted((*s, i)))] - worth[s]
            value[i] += more * math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n)
    return value


@settings(deadline=None, max_examples=25)
@given(shapes, st.integers(1, 7))
@pytest.mark.parametrize("judged_on", JUDGES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", SHAPLEY)
def test_values_agree_with_the_definition_of_shapley(kind, metric, judged_on, shape, k):
    evidence = game(*shape, whole=metric == "euclidean")  # equal angles are equal only up to rounding
    estimator = make(kind, k, metric, judged_on)
    expected = shapley_by_enumeration(estimator, evidence)
    np.testing.assert_allclose(estimator.fit(evidence).value, expected, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(larger_games, st.integers(1, 12))
@pytest.mark.parametrize("judged_on", JUDGES)
@pytest.mark.parametrize("kind", SHAPLEY)
def test_values_add_up_to_the_utility(kind, judged_on, evidence, k):
    estimator = make(kind, k, judged_on=judged_on)
    gained = mean_utility(estimator, evidence, range(len(evidence))) - mean_utility(estimator, evidence, ())
    assert estimator.fit(evidence).value.sum() == pytest.approx(gained, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(larger_games, st.integers(1, 12))
@pytest.mark.parametrize("kind", SHAPLEY)
def test_two_copies_of_a_sample_are_worth_the_same(kind, evidence, k):
    twice = Evidence(
        label=np.vstack([evidence.label, evidence.label[:1]]),
        features=np.vstack([evidence.features, evidence.features[:1]]),
        holdout=evidence.holdout,
    )
    value = make(kind, k).fit(twice).value
    assert value[0] == pytest.approx(value[-1], abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(larger_games, st.integers(1, 12), st.randoms(), st.floats(0.01, 100))
@pytest.mark.parametrize("judged_on", JUDGES)
@pytest.mark.parametrize("kind", [KNNShapley, SoftLabelKNNShapley, NeighbourAgreement])
def test_neither_the_order_of_the_rows_nor_the_scale_of_the_features_matters(
    kind, judged_on, evidence, k, random, scale
):
    order = np.array(random.sample(range(len(evidence)), len(evidence)))
    larger = with_constant(evidence.features[:, :-1] * scale)
    judges = Holdout(with_constant(evidence.holdout.features[:, :-1] * scale), evidence.holdout.label)
    moved = Evidence(label=evidence.label[order], features=larger[order], holdout=judges)
    estimator = NeighbourAgreement(k) if kind is NeighbourAgreement else make(kind, k, judged_on=judged_on)
    np.testing.assert_allclose(estimator.fit(moved).value, estimator.fit(evidence).value[order], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(larger_games, st.integers(1, 12), st.integers(1, 40))
@pytest.mark.parametrize("judged_on", JUDGES)
def test_truncated_values_are_off_by_no_more_than_the_theorem_says(judged_on, evidence, k, depth):
    exact = make(KNNShapley, k, judged_on=judged_on).fit(evidence).value
    truncated = make(KNNShapley, k, judged_on=judged_on, depth=depth).fit(evidence).value
    assert np.abs(exact - truncated).max() <= 1 / max(k, min(depth, len(evidence) - 1)) + 1e-12


@settings(deadline=None, max_examples=30)
@given(larger_games, st.integers(1, 12))
def test_values_do_not_depend_on_how_the_work_is_cut(evidence, k):
    estimators = [make(kind, k, judged_on=judged_on) for kind in SHAPLEY for judged_on in JUDGES]
    estimators += [NeighbourAgreement(k), KNNShapley(k, depth=4), ThresholdKNNShapley(k)]
    whole = [estimator.fit(evidence).value for estimator in estimators]
    with pytest.MonkeyPatch.context() as patch:
        for module, name, size in (
            (neighbours, "PAIRS", 40), (nearest, "_ASKING", 2), (nearest, "_SEARCHED", 3)
        ):  # fmt: skip
            patch.setattr(module, name, size)
        cut = [estimator.fit(evidence).value for estimator in estimators]
    np.testing.assert_allclose(cut, whole, atol=1e-12)


# Seven samples of three classes and three judges, no two samples at the same distance from a judge.
PLACE = with_constant([[0, 0], [1, 2], [3, 1], [4, 4], [6, 2], [7, 5], [9, 1]])
JUDGE = with_constant([[1.25, 1.125], [5.25, 3.125], [8.25, 4.125]])
PUBLISHED = Evidence(
    label=one_hot([0, 0, 1, 0, 1, 2, 1], 3), features=PLACE, holdout=Holdout(JUDGE, one_hot([0, 1, 2], 3))
)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [5 / 36, 5 / 36, 7 / 180, 7 / 180, 13 / 45, 13 / 45, 1 / 15]),
        (3, [1 / 12, 1 / 12, 7 / 180, 7 / 180, 1 / 15, 1 / 15, 1 / 15]),
    ],
)
def test_exact_values_are_those_of_pydvl(k, expected):  # pyDVL 0.10.0, KNNShapleyValuation, read as fractions
    assert make(KNNShapley, k).fit(PUBLISHED).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (
            1,
            [0.09126984126984128] * 2
            + [-0.008730158730158728] * 2
            + [0.24126984126984122] * 2
            + [0.019047619047619046],
        ),
        (3, [0.03571428571428572] * 2 + [-0.008730158730158713] * 2 + [0.01904761904761905] * 3),
    ],
)
def test_soft_label_values_are_those_of_its_authors(k, expected):
    # github.com/Jiachen-T-Wang/softlabel-knnsv, helper.py, knn_shapley_JW, over three judges
    assert make(SoftLabelKNNShapley, k).fit(PUBLISHED).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (3.0, [0.12037037037037039, 0.12037037037037039, -0.12962962962962962, -0.08333333333333333,
               0.16666666666666666, 0.13888888888888892, 0.0]),
        (4.5, [0.08564814814814815, 0.01879629629629631, -0.032685185185185206, -0.03907407407407406,
               0.027499999999999986, 0.0789814814814815, 0.027499999999999986]),
    ],
)  # fmt: skip
def test_threshold_values_are_those_of_its_authors(radius, expected):
    # github.com/Jiachen-T-Wang/weighted-knn-shapley, tnn_shapley with the l2 metric, over three judges
    estimator = ThresholdKNNShapley(judged_on="holdout", radius=radius)
    assert estimator.fit(PUBLISHED).value == pytest.approx(expected, abs=1e-12)


def test_values_are_those_of_the_example_in_cleanlabs_documentation():
    # cleanlab 2.9.0, data_shapley_knn with k = 4, which maps v to (v + 1) / 2. Its documentation shows the exact values;
    # what it computes since, 0.5 0.45 0.5 0.45 0.5, is the truncated form.
    line = Evidence(label=one_hot([0, 1, 0, 1, 0]), features=with_constant(np.arange(5)))
    exact, truncated = (KNNShapley(k=4, depth=depth).fit(line).value for depth in (None, 4))
    assert (exact + 1) / 2 == pytest.approx([0.55, 0.525, 0.55, 0.525, 0.55])
    assert (truncated + 1) / 2 == pytest.approx([0.5, 0.45, 0.5, 0.45, 0.5])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_truncated_values_are_those_that_cleanlab_computes(k):
    valuation = pytest.importorskip("cleanlab.data_valuation", reason="cleanlab is not installed")
    from scipy.sparse import csr_matrix

    evidence = game(200, 1, 3, 4, 0)
    graph = neighbour_graph(evidence, k)
    sparse = csr_matrix((np.ones(graph.size), graph.ravel(), np.arange(0, graph.size + 1, k)), shape=(200, 200))
    peer = valuation.data_shapley_knn(evidence.label.argmax(1), knn_graph=sparse, k=k)
    ours = knn_shapley_of_graph(graph, evidence.label, evidence.label, k).value
    np.testing.assert_allclose((ours + 1) / 2, peer, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("judged_on", JUDGES)
def test_the_nearest_few_are_the_first_of_all_and_at_their_distance(metric, judged_on):
    evidence = game(300, 40, 2, 3, 1, whole=True)
    judges = evidence.holdout.features if judged_on == "holdout" else None
    distances = Distances.between(evidence.features, judges, metric, "cpu")
    rows, index, squared = next(distances.nearest(7))
    everything = distances.squared(rows)
    assert squared.numpy() == pytest.approx(everything.gather(1, index).numpy(), rel=1e-10)
    assert torch.equal(index, nearest_first(everything)[:, :7])
    assert distances.distance(float(squared[3, 2])) == pytest.approx(
        distance(evidence.features[index[3, 2]], (evidence.features if judges is None else judges)[3], metric), abs=1e-6
    )


def test_copies_are_at_exactly_the_same_distance_and_keep_row_order():
    copies = np.random.default_rng(0).normal(size=(37, 50)).astype(np.float32)
    graph = neighbour_graph(Evidence(label=np.ones((111, 1)), features=with_constant(np.tile(copies, (3, 1)))), 8)
    assert graph[0, :2].tolist() == [37, 74]
    assert graph[37, :2].tolist() == [0, 74]
    assert (np.diff(graph[:, 2:5]) == 37).all()


def test_a_mislabelled_nearest_neighbour_has_negative_value():
    x = with_constant([0, 1])
    evidence = Evidence(label=one_hot([0, 1]), features=x, holdout=Holdout(x[:1], one_hot([1])))
    found = KNNShapley(k=1, judged_on="holdout").fit(evidence)
    assert found.value.tolist() == [-0.5, 0.5]
    assert found.stderr is None


@pytest.mark.parametrize("judged_on", JUDGES)
@pytest.mark.parametrize("kind", [*SHAPLEY, NeighbourAgreement])
def test_flipped_labels_come_out_at_the_bottom(kind, judged_on):
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 400)
    x = with_constant(generator.normal(size=(400, 5)) + 1.5 * truth[:, None])
    flipped = generator.random(300) < 0.2
    label = one_hot(np.where(flipped, 1 - truth[:300], truth[:300]))
    evidence = Evidence(label=label, features=x[:300], holdout=Holdout(x[300:], one_hot(truth[300:])))
    estimator = NeighbourAgreement() if kind is NeighbourAgreement else kind(judged_on=judged_on)
    assert roc_auc_score(flipped, -estimator.fit(evidence).value) > 0.9


def test_the_standard_error_is_that_of_a_mean_over_judges():
    evidence = game(12, 6, 2, 2, 3)
    for kind in SHAPLEY:
        single = [
            make(kind, 3).fit(
                Evidence(label=evidence.label, features=evidence.features, holdout=Holdout(x[None], y[None]))
            ).value
            for x, y, _ in judgements(evidence, "holdout")
        ]  # fmt: skip
        expected = np.std(single, axis=0, ddof=1) / np.sqrt(6)
        np.testing.assert_allclose(make(kind, 3).fit(evidence).stderr, expected, atol=1e-9)


def test_without_a_radius_half_of_the_judges_see_their_k_nearest():
    evidence = game(101, 1, 2, 3, 0)
    found = ThresholdKNNShapley(k=5).fit(evidence)
    radius = found.notes["radius"] * (1 + 1e-6)
    within = [sum(distance(a, b, "euclidean") <= radius for b in evidence.features) - 1 for a in evidence.features]
    assert (np.array(within) >= 5).sum() == 51
    assert found.notes["mean_within"] == pytest.approx(np.mean(within))


def test_agreement_can_leave_out_the_samples_own_group():
    evidence = Evidence(label=one_hot([0, 0, 1, 1]), features=with_constant([0, 1, 2, 4]), group=np.array([0, 0, 1, 1]))
    assert NeighbourAgreement(k=1).fit(evidence).value.tolist() == [1, 1, 0, 1]
    assert NeighbourAgreement(k=1, other_groups=True).fit(evidence).value.tolist() == [0, 0, 0, 0]


def test_a_sample_that_has_nobody_to_ask_is_a_guess_and_counted():
    evidence = Evidence(label=np.eye(3), features=with_constant([0, 1, 2]), group=np.array([0, 0, 0]))
    found = NeighbourAgreement(other_groups=True).fit(evidence)
    assert found.value == pytest.approx([1 / 3] * 3)
    assert found.notes["n_alone"] == 3


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("judged_on", JUDGES)
@pytest.mark.parametrize("metric", METRICS)
def test_values_are_finite_when_there_is_next_to_nothing(n, c, judged_on, metric):
    label, x = np.eye(c)[np.zeros(n, int)], with_constant(np.zeros((n, 2)))
    evidence = Evidence(label=label, features=x, holdout=Holdout(x[:1], label[:1]))
    estimators = [kind(3, metric, judged_on) for kind in SHAPLEY]
    for estimator in [*estimators, KNNShapley(3, metric, judged_on, depth=2), NeighbourAgreement(3, metric)]:
        assert np.isfinite(estimator.fit(evidence).value).all()
    bare = Evidence(label=label, features=x[:, -1:])
    assert np.isfinite(KNNShapley(metric=metric).fit(bare).value).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 0}, r"k: 0 is too little\. It must be 1 at least: take more\."),
        ({"depth": 0}, r"depth: 0 is too little\. It must be 1 at least: take more\."),
        ({"metric": "hamming"}, r"metric: 'hamming' is not known\. It must be one of \('euclidean', 'cosine'\)"),
        ({"judged_on": "test"}, r"judged_on: 'test' is not known\. It must be one of \('training', 'holdout'\)"),
    ],
)
def test_a_field_out_of_range_is_an_error_that_says_what_to_take(fields, message):
    with pytest.raises(SampleError, match=message):
        KNNShapley(**fields)


def test_a_radius_below_0_is_an_error():
    with pytest.raises(SampleError, match=r"radius: -1\.0 is too little\. It must be 0 at least"):
        ThresholdKNNShapley(radius=-1.0)


def test_judges_that_are_not_there_are_an_error_not_a_fallback():
    evidence = Evidence(label=one_hot([0, 1]), features=with_constant([0, 1]))
    with pytest.raises(SampleError, match=r"knn_shapley: 1 of the things .* first: 'holdout'"):
        KNNShapley(judged_on="holdout").fit(evidence)


def test_features_that_are_not_finite_are_an_error_that_names_the_first_row():
    evidence = Evidence(label=one_hot([0, 1, 1]), features=with_constant([0, np.nan, np.inf]))
    with pytest.raises(SampleError, match=r"features: 2 of 3 samples .* the first is row 1\."):
        KNNShapley().fit(evidence)


def test_a_graph_that_names_no_sample_is_an_error():
    with pytest.raises(SampleError, match=r"graph: 1 of 4 neighbours are not among the 2 samples; first: 2\."):
        knn_shapley_of_graph(np.array([[0, 1], [1, 2]]), np.eye(2), np.eye(2), 1)
