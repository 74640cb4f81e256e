from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance import heads
from ecom_pipeline.importance.estimator import Evidence, Holdout, one_hot
from ecom_pipeline.importance.estimators.datainf import DataInf, data_influence
from ecom_pipeline.importance.estimators.gradients import LastLayerInfluence, SelfInfluence, SelfTracIn, TracIn, Trak
from ecom_pipeline.importance.head_gradients import Head, SampleGradients, Samples

ALL = [
    LastLayerInfluence(),
    SelfInfluence(),
    TracIn(n_steps=10),
    SelfTracIn(n_steps=10),
    Trak(n_heads=2, n_projections=4),
    DataInf(),
]
NOT_DRAWN = [estimator for estimator in ALL if not isinstance(estimator, Trak)]
PENALTY = 0.1
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(2, 4), st.integers(0, 2**32 - 1))


def drawn(n: int, d: int, c: int, seed: int, sure: float = 1.0, m: int = 5) -> Evidence:
    """Random features with a constant, and labels: a class by that share, and the rest at random.

    Where labels are sure and a class is absent, or there is one sample, the head's constant has no finite optimum.
    """
    rng = np.random.default_rng(seed)
    x = np.c_[rng.normal(size=(n + m, d - 1)), np.ones(n + m)].astype(np.float32)
    label = sure * np.eye(c)[rng.integers(0, c, n + m)] + (1 - sure) * rng.dirichlet(np.full(c, 2.0), n + m)
    return Evidence(features=x[:n], label=label[:n], holdout=Holdout(x[n:], label[n:]))


def learnable(n: int, c: int, seed: int, flipped: float = 0.0, m: int = 200) -> tuple[Evidence, np.ndarray]:
    """Classes that a linear head can tell apart, mostly; and which labels are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, c, n + m)
    x = np.c_[rng.normal(size=(n + m, 5)) + 2 * rng.normal(size=(c, 5))[truth], np.ones(n + m)].astype(np.float32)
    wrong = rng.random(n) < flipped
    given_label = np.where(wrong, (truth[:n] + rng.integers(1, c, n)) % c, truth[:n])
    holdout = Holdout(x[n:], np.eye(c)[truth[n:]])
    return Evidence(features=x[:n], label=np.eye(c)[given_label], holdout=holdout), wrong


def area(value: np.ndarray, wrong: np.ndarray) -> float:
    """How often a wrong label has a lower value than a right one."""
    pairs = value[wrong][:, None] - value[~wrong]
    return ((pairs < 0) + (pairs == 0) / 2).mean()


def logits(theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(b, c) from (d, c) coefficients, or (d, 1) for two classes."""
    z = x @ theta
    return torch.cat([torch.zeros_like(z), z], 1) if theta.shape[1] == 1 else z


def losses(theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -(y * torch.log_softmax(logits(theta, x), 1)).sum(1)


def penalised(theta: torch.Tensor) -> torch.Tensor:
    return PENALTY / 2 * (theta[:-1].square().sum() + 1e-6 * theta[-1].square().sum())


def as_tensors(evidence: Evidence) -> tuple[torch.Tensor, ...]:
    arrays = (evidence.features, evidence.label, evidence.holdout.features, evidence.holdout.label)
    return tuple(torch.as_tensor(values, dtype=torch.float64) for values in arrays)


def each_gradient(theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(b, p): by reverse differentiation of every sample's loss."""
    return torch.autograd.functional.jacobian(lambda now: losses(now, x, y), theta).flatten(1)


def optimum(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """(d, q, m) float64, from `fit_heads`."""
    weights = torch.ones(len(x), 1) if weights is None else weights
    return heads.fit_heads(x.float(), y.float(), heads.Weighted(weights), (PENALTY,))[:, :, 0].double()


# Golden. dattri 0.3.0 on these samples, by benchmarks/peers_gradients.py in float64: means over the holdout of
# IFAttributorExplicit (loss with a sample's share of the penalty) and IFAttributorDataInf (regularization 0.01993041,
# which is 0.1 times the mean square of the gradients' entries), both / n; TracInAttributor on 5 steps without
# projection, weights step / n; TRAKAttributor with the identity as projection, 1 head, regularization 0.8 / 9, which is n times the penalty over its number of parameters.
PLANE = np.array(
    [[0.1, -0.1], [0.6, 0.1], [-0.5, 0.4], [1.3, 0.9], [-0.7, -1.3], [-0.6, 0.0], [-2.3, -0.2], [-1.2, -0.7]]
)
PLANE_HELD = np.array([[-0.5, -0.3], [0.4, 1.0], [-0.1, 1.4]])
OF_DATTRI = [
    (
        LastLayerInfluence(),
        [-0.00355227, 0.14059, 0.124958, -0.192161, -0.0450681, 0.0224615, -0.0162951, -0.0309329],
    ),
    (TracIn(n_steps=5), [-0.027614, 0.120137, 0.0869053, -0.358138, -0.15871, 0.0189638, 0.252708, -0.168799]),
    (
        Trak(n_heads=1, share=1.0),
        [0.0824574, 0.062011, 0.0795791, -0.133518, -0.0335704, -0.0805797, -0.0457062, -0.00988493],
    ),
    (DataInf(), [-0.48322, 1.37785, 0.878208, -2.74284, -0.833195, 0.0540264, 1.07376, -1.05693]),
]


@pytest.mark.parametrize(("estimator", "expected"), OF_DATTRI)
def test_values_are_those_of_dattri(estimator, expected):
    x, held = (np.c_[plane, np.ones(len(plane))].astype(np.float32) for plane in (PLANE, PLANE_HELD))
    label = one_hot(np.array([0, 1, 2, 0, 1, 2, 0, 1]), 3)
    evidence = Evidence(features=x, label=label, holdout=Holdout(held, one_hot(np.array([0, 1, 2]), 3)))
    assert_allclose(estimator.fit(evidence).value, expected, rtol=2e-5)


# Definitions.


@pytest.mark.parametrize("c", [2, 3])
def test_influence_is_what_leaving_out_does_to_the_holdout_to_first_order(c):
    evidence, _ = learnable(80, c, seed=c, flipped=0.1)
    x, y, held_x, held_y = as_tensors(evidence)
    without = optimum(x, y, 1 - torch.eye(len(x)))  # (d, q, n): each sample left out in turn
    before = losses(optimum(x, y)[..., 0], held_x, held_y).mean()
    after = torch.stack([losses(without[..., i], held_x, held_y).mean() for i in range(len(x))])
    rise, value = (after - before).numpy(), LastLayerInfluence(PENALTY).fit(evidence).value
    assert np.corrcoef(value, rise)[0, 1] > 0.99
    assert np.polyfit(value, rise, 1)[0] == pytest.approx(1, abs=0.15)
    clear = np.abs(rise) > np.abs(rise).mean() / 2
    assert (np.sign(value) == np.sign(rise))[clear].all()


@pytest.mark.parametrize("c", [2, 3])
def test_self_influence_is_what_leaving_out_does_to_a_sample_to_first_order(c):
    evidence, _ = learnable(150, c, seed=c, flipped=0.1)
    x, y, _, _ = as_tensors(evidence)
    without = optimum(x, y, 1 - torch.eye(len(x)))
    before = losses(optimum(x, y)[..., 0], x, y)
    after = torch.stack([losses(without[..., i], x[i : i + 1], y[i : i + 1])[0] for i in range(len(x))])
    assert np.corrcoef(-SelfInfluence(PENALTY).fit(evidence).value, (after - before).numpy())[0, 1] > 0.97


@settings(max_examples=25, deadline=None)
@given(SIZES, st.floats(0, 0.8))
@example((1, 1, 2, 2), 0.6875)  # one sample, all of whose influence is what rounding leaves
def test_influence_agrees_with_hessian_and_gradients_by_differentiation(sizes, sure):
    evidence = drawn(*sizes, sure)
    x, y, held_x, held_y = as_tensors(evidence)
    theta = optimum(x, y)[..., 0]
    objective = lambda now: losses(now, x, y).mean() + penalised(now)  # noqa: E731
    hessian = torch.autograd.functional.hessian(objective, theta).reshape(theta.numel(), -1)
    inverse = torch.linalg.inv(hessian)
    pull = torch.func.grad(penalised)(theta).flatten()
    own = each_gradient(theta, x, y)
    expected = (own + pull) @ inverse @ each_gradient(theta, held_x, held_y).T / len(x)  # (n, m)
    found = LastLayerInfluence(PENALTY).fit(evidence)
    scale = (own @ inverse @ each_gradient(theta, held_x, held_y).T).abs().max().item() / len(x)
    rounding = 5e-5  # nats: coefficients in float32 are not quite the optimum
    assert_allclose(found.value, expected.mean(1), atol=1e-4 * scale + rounding)
    assert_allclose(found.stderr, expected.std(1) / len(held_x) ** 0.5, atol=1e-3 * scale + rounding)
    expected = -((own @ inverse) * own).sum(1) / len(x)
    assert_allclose(SelfInfluence(PENALTY).fit(evidence).value, expected, rtol=1e-3, atol=rounding)


@settings(max_examples=25, deadline=None)
@given(SIZES, st.floats(0, 0.8))
def test_tracin_agrees_with_a_descent_by_differentiation(sizes, sure):
    evidence = drawn(*sizes, sure)
    x, y, held_x, held_y = as_tensors(evidence)
    n, q = len(x), 1 if y.shape[1] == 2 else y.shape[1]
    theta = torch.zeros(x.shape[1], q, dtype=torch.float64)
    bound = (0.25 if q == 1 else 0.5) * torch.linalg.eigvalsh(x.T @ x)[-1] / n
    step, expected, of_itself = 0.5 / (bound + PENALTY), 0, 0
    for _ in range(4):
        own, held = each_gradient(theta, x, y), each_gradient(theta, held_x, held_y).mean(0)
        expected += step / n * own @ held
        of_itself -= step / n * own.square().sum(1)
        theta = theta - step * torch.func.grad(lambda now: losses(now, x, y).mean() + penalised(now))(theta)
    assert_allclose(TracIn(4, 0.5, PENALTY).fit(evidence).value, expected, rtol=1e-3, atol=1e-5)
    assert_allclose(SelfTracIn(4, 0.5, PENALTY).fit(evidence).value, of_itself, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("c", "n_projections"), [(2, 512), (2, 3), (3, 512), (3, 5)])
def test_trak_agrees_with_its_matrices_written_out(c, n_projections):
    evidence = drawn(20, 4, c, seed=c)
    x, y, held_x, held_y = as_tensors(evidence)
    train, rng = Samples.on("cpu", evidence.features, evidence.label), np.random.default_rng(7)
    taught = np.zeros((20, 2), np.float32)
    for member in range(2):
        taught[rng.permutation(20)[:10], member] = 1

    def margins(theta, basis, x, y):
        score = (x @ theta @ basis.T).softmax(1)
        return (y * (score.log() - (1 - score).log())).sum(1)

    effect, doubt = [], []
    for head in Head.fitted(train, PENALTY, torch.as_tensor(taught)):
        theta, basis = head.theta.double(), head.basis.double()
        both = []
        for samples in ((x, y), (held_x, held_y)):
            found = torch.autograd.functional.jacobian(lambda now: margins(now, basis, *samples), theta)  # noqa: B023
            both.append(found.transpose(1, 2).flatten(1).numpy())  # output by output
        if n_projections < theta.numel():
            matrix = rng.standard_normal((theta.numel(), n_projections), dtype=np.float32) / np.sqrt(n_projections)
            both = [gradient @ matrix for gradient in both]
        phi, held_phi = both
        gram = phi.T @ phi
        gram += 0.5 * 20 * PENALTY * np.eye(len(gram))
        effect.append(held_phi.mean(0) @ np.linalg.inv(gram) @ phi.T)
        doubt.append(1 - (y * (x @ theta @ basis.T).softmax(1)).sum(1).numpy())
    expected = np.mean(effect, 0) * np.mean(doubt, 0)
    found = Trak(2, 0.5, n_projections, 0.5, PENALTY, seed=7).fit(evidence)
    assert_allclose(found.value, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert found.stderr.shape == (20,)


def datainf_by_inverses(train: dict, held: dict, damping: float) -> np.ndarray:
    """The mean over samples of inverses stands for the inverse of the mean; layer by layer, with numpy's inverse."""
    value = 0
    for name, own in train.items():
        eye = np.eye(own.shape[1])
        inverses = [np.linalg.inv(np.outer(g, g) + damping * (own**2).mean() * eye) for g in own]
        value += own @ np.mean(inverses, 0) @ held[name].mean(0) / len(own)
    return value


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1), st.floats(0.01, 2))
def test_datainf_agrees_with_inverses_written_out_however_blocks_are_cut(n, p, n_layers, seed, damping):
    rng = np.random.default_rng(seed)
    train = {f"layer {i}": rng.normal(size=(n, p + i)) for i in range(n_layers)}
    held = {name: rng.normal(size=(3, own.shape[1])) for name, own in train.items()}
    cut = int(rng.integers(0, n + 1))
    blocks = [(name, torch.as_tensor(own[rows])) for rows in (slice(cut), slice(cut, n)) for name, own in train.items()]
    found = data_influence(blocks, [(name, torch.as_tensor(own)) for name, own in held.items()], damping)
    assert_allclose(found, datainf_by_inverses(train, held, damping), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("c", [2, 3])
def test_datainf_of_a_head_agrees_with_inverses_written_out(c):
    evidence = drawn(6, 3, c, seed=c)
    samples = [
        Samples.on("cpu", evidence.features, evidence.label),
        Samples.on("cpu", evidence.holdout.features, evidence.holdout.label),
    ]
    head = Head.fitted(samples[0], PENALTY)[0]
    own, held = ({"head": next(head.gradients(part))[1].whole().double().numpy()} for part in samples)
    assert_allclose(DataInf(0.1, PENALTY).fit(evidence).value, datainf_by_inverses(own, held, 0.1), rtol=1e-3)


# A low-rank fine-tune.


@dataclass(frozen=True)
class LowRank:
    """Two frozen linear layers, each with an adapter B A; its gradients, computed anew each time they are gone over."""

    frozen: tuple[torch.Tensor, torch.Tensor]
    adapters: dict[str, torch.Tensor]
    x: torch.Tensor
    y: torch.Tensor

    def loss(self, adapters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first, second = self.frozen
        hidden = torch.tanh(x @ (first + adapters["1.B"] @ adapters["1.A"]).T)
        logit = hidden @ (second + adapters["2.B"] @ adapters["2.A"]).T
        return -(y * torch.log_softmax(logit, -1)).sum(-1).mean()

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        each = torch.func.vmap(torch.func.grad(self.loss), in_dims=(None, 0, 0))
        for start in range(0, len(self.x), 64):
            rows = slice(start, start + 64)
            for name, gradients in each(self.adapters, self.x[rows], self.y[rows]).items():
                yield name, gradients.flatten(1)

    def tuned(self, n_steps: int) -> "LowRank":
        adapters = {name: value.clone().requires_grad_() for name, value in self.adapters.items()}
        optimiser = torch.optim.Adam(adapters.values(), lr=0.02)
        for _ in range(n_steps):
            optimiser.zero_grad()
            self.loss(adapters, self.x, self.y).backward()
            optimiser.step()
        return replace(self, adapters={name: value.detach() for name, value in adapters.items()})


def low_rank(seed: int) -> tuple[LowRank, LowRank, np.ndarray]:
    """Adapters of rank 2 before they are tuned, on samples of which a fifth are wrong; on the holdout; which."""
    evidence, wrong = learnable(300, 3, seed, flipped=0.2, m=150)
    x, y, held_x, held_y = as_tensors(evidence)
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5

    adapters = {"1.A": random(2, 6), "1.B": torch.zeros(8, 2).double(), "2.A": random(2, 8)}
    adapters["2.B"] = torch.zeros(3, 2).double()
    model = LowRank((random(8, 6), random(3, 8)), adapters, x, y)
    return model, replace(model, x=held_x, y=held_y), wrong


def test_datainf_of_a_low_rank_fine_tune_agrees_with_inverses_and_finds_wrong_labels():
    model, holdout, wrong = low_rank(0)
    model = model.tuned(150)
    holdout = replace(holdout, adapters=model.adapters)
    assert model.loss(model.adapters, model.x, model.y) < 0.8  # from log 3 or more: it has learnt
    value = data_influence(model, holdout)
    whole = [
        {name: np.concatenate([block.numpy() for layer, block in part if layer == name]) for name in model.adapters}
        for part in (model, holdout)
    ]
    assert_allclose(value, datainf_by_inverses(*whole, 0.1), rtol=1e-6, atol=1e-12)
    assert area(value, wrong) > 0.75  # 0.77 to 0.94 on seeds 0 to 4


def test_datainf_of_a_low_rank_fine_tune_tells_what_leaving_a_tenth_out_does():
    model, holdout, _ = low_rank(0)
    tuned = model.tuned(150)
    value = data_influence(tuned, replace(holdout, adapters=tuned.adapters))
    tenth, rise = value.argsort().argsort() // 30, []
    for part in range(10):
        kept = torch.as_tensor(tenth != part)
        again = replace(model, x=model.x[kept], y=model.y[kept]).tuned(150)
        rise.append(holdout.loss(again.adapters, holdout.x, holdout.y).item())
    predicted = np.bincount(tenth, value)
    assert np.corrcoef(predicted, rise)[0, 1] > 0.7  # 0.74 to 0.96 on seeds 0 to 4


def test_gradients_may_come_as_outer_products():
    rng = np.random.default_rng(0)
    seen, asked = torch.as_tensor(rng.normal(size=(7, 3))), torch.as_tensor(rng.normal(size=(7, 2)))
    whole = [("a", SampleGradients(seen, asked).whole())]
    factored = [("a", SampleGradients(seen, asked))]
    assert_allclose(data_influence(factored, factored), data_influence(whole, whole), rtol=1e-10)


# Laws.


@settings(max_examples=25, deadline=None)
@given(SIZES, st.floats(0, 1))
def test_influences_add_up_to_nothing(sizes, sure):
    found = LastLayerInfluence(PENALTY).fit(drawn(*sizes, sure)).value
    assert found.sum() == pytest.approx(0, abs=1e-3 * np.abs(found).sum() + 1e-6)


def test_tracin_adds_up_to_the_fall_of_the_loss_on_the_holdout():
    evidence, _ = learnable(100, 3, seed=0)
    _, _, held_x, held_y = as_tensors(evidence)
    settings = TracIn(n_steps=200, step=0.02, penalty=0.0)
    train = Samples.on("cpu", evidence.features, evidence.label)
    head = Head.start(train)
    bound = 0.5 * torch.linalg.eigvalsh((train.x.T @ train.x).double())[-1].item() / len(train)
    for _ in range(settings.n_steps):
        head = replace(head, theta=head.theta - settings.step / bound * head.mean_gradient(train))
    fall = np.log(3) - losses((head.theta @ head.basis.T).double(), held_x, held_y).mean().item()
    assert settings.fit(evidence).value.sum() == pytest.approx(fall, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(SIZES, st.floats(0, 0.8))
def test_the_order_of_rows_does_not_matter(sizes, sure):
    evidence = drawn(*sizes, sure)
    order = np.random.default_rng(0).permutation(len(evidence))
    turned = replace(evidence, features=evidence.features[order], label=evidence.label[order])
    for estimator in NOT_DRAWN:
        value = estimator.fit(evidence).value
        close = 1e-3 * np.abs(value).max() + 1e-6
        assert_allclose(estimator.fit(turned).value, value[order], atol=close)


@given(st.integers(2, 7))
def test_features_twice_as_large_change_nothing_but_the_penalty(c):
    evidence = drawn(40, 3, c, seed=c)
    twice = np.array([2, 2, 1], np.float32)
    larger = replace(
        evidence,
        features=evidence.features * twice,
        holdout=Holdout(evidence.holdout.features * twice, evidence.holdout.label),
    )
    value = LastLayerInfluence(PENALTY).fit(evidence).value
    assert_allclose(LastLayerInfluence(4 * PENALTY).fit(larger).value, value, atol=1e-3 * np.abs(value).max())


@pytest.mark.parametrize("c", [2, 4])
def test_the_size_of_blocks_does_not_matter(c, monkeypatch):
    evidence, _ = learnable(600, c, seed=0, m=300)
    at_once = [estimator.fit(evidence) for estimator in ALL]
    monkeypatch.setattr(heads, "BLOCK", 1)  # 256 rows at a time
    for estimator, expected in zip(ALL, at_once, strict=True):
        found = estimator.fit(evidence)
        assert_allclose(found.value, expected.value, atol=1e-4 * np.abs(expected.value).max())


def test_the_standard_error_of_influence_is_that_of_the_mean_over_the_holdout():
    evidence, _ = learnable(50, 3, seed=0, m=6)
    alone = [
        LastLayerInfluence().fit(replace(evidence, holdout=Holdout(x[None], y[None])))
        for x, y in zip(evidence.holdout.features, evidence.holdout.label, strict=True)
    ]
    found = LastLayerInfluence().fit(evidence)
    each = np.stack([values.value for values in alone])
    assert all(values.stderr is None for values in alone)
    assert_allclose(found.value, each.mean(0), atol=1e-6)
    assert_allclose(found.stderr, each.std(0, ddof=1) / np.sqrt(6), rtol=1e-3, atol=1e-7)


# Behaviour.


@pytest.mark.parametrize("c", [2, 3])
@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: estimator.name)
def test_wrong_labels_come_out_low(estimator, c):
    evidence, wrong = learnable(400, c, seed=c, flipped=0.2)
    assert area(estimator.fit(evidence).value, wrong) > 0.75


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: estimator.name)
def test_values_are_finite_where_there_is_next_to_nothing_to_learn(estimator):
    few = [drawn(n, d, c, seed=n, m=m) for n in (1, 2, 3) for d in (1, 3) for c in (1, 2, 3) for m in (1, 4)]
    same = drawn(9, 3, 3, seed=0)
    one_class = replace(same, label=np.eye(3)[np.zeros(9, int)])
    constant = replace(same, features=np.ones_like(same.features))
    undecided = replace(same, label=np.full((9, 3), 1 / 3))
    for evidence in (*few, one_class, constant, undecided):
        found = estimator.fit(evidence)
        assert found.value.shape == (len(evidence),)
        assert np.isfinite(found.value).all()
        assert found.stderr is None or np.isfinite(found.stderr).all()


def test_trak_is_the_same_for_the_same_seed_only():
    evidence, _ = learnable(60, 2, seed=0)
    first, again, other = (Trak(n_projections=3, seed=seed).fit(evidence).value for seed in (0, 0, 1))
    assert_allclose(first, again, rtol=0)
    assert np.abs(first - other).max() > 0


# What a caller can get wrong.


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: estimator.name)
def test_what_is_missing_is_named(estimator):
    with pytest.raises(SampleError, match="features"):
        estimator.fit(Evidence(label=one_hot(np.array([0.0, 1.0]))))


def test_an_empty_holdout_is_refused():
    with pytest.raises(SampleError, match="holdout has 0 samples"):
        LastLayerInfluence().fit(drawn(5, 3, 2, seed=0, m=0))


def test_a_penalty_of_nothing_is_refused():
    with pytest.raises(SampleError, match="not positive; first: 0"):
        SelfInfluence(penalty=0.0).fit(drawn(5, 3, 2, seed=0))


def test_a_hessian_that_would_fill_the_memory_is_refused():
    with pytest.raises(SampleError, match="6000"):
        Head(torch.zeros(3001, 2), torch.zeros(3, 2)).hessian(Samples(torch.zeros(1, 3001), torch.zeros(1, 3)), 0.1)


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"n_heads": 0}, {"ridge": -1.0}])
def test_settings_of_trak_out_of_range_are_refused(wrong):
    with pytest.raises(SampleError, match=next(iter(wrong))):
        Trak(**wrong).fit(drawn(5, 3, 2, seed=0))


@pytest.mark.parametrize("wrong", [{"step": 1.5}, {"n_steps": 0}, {"penalty": -1.0}])
def test_a_descent_that_might_climb_is_refused(wrong):
    for estimator in (TracIn(**wrong), SelfTracIn(**wrong)):
        with pytest.raises(SampleError, match="cannot be taken"):
            estimator.fit(drawn(5, 3, 2, seed=0))


def test_gradients_that_can_be_gone_over_only_once_are_refused():
    blocks = [("a", torch.ones(2, 3))]
    with pytest.raises(SampleError, match="only once"):
        data_influence(iter(blocks), blocks)


def test_layers_that_do_not_fit_together_are_refused():
    a, b = ("a", torch.ones(2, 3)), ("b", torch.ones(1, 3))
    with pytest.raises(SampleError, match="first: 'b'"):
        data_influence([a, b], [a])
    with pytest.raises(SampleError, match="'b' has 1 of 2"):
        data_influence([a, b], [a, b])
