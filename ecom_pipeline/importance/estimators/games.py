"""Values from many small heads, each of which sees some of the samples: out-of-bag votes, and semivalues of a game.

On the floor of `importance`. In the game the players are samples, and a coalition is worth what a head that saw it
alone does on the holdout.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import lgamma
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats, Ints
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimator import CREDIBLE_FLOOR, Evidence, SampleValues, required
from ecom_pipeline.importance.heads import PENALTIES, Weighted, fit_heads, probabilities, row_blocks

if TYPE_CHECKING:
    import torch

Utility = Literal["probability", "accuracy"]
Worth = Callable[[Bools], Floats]  # (n, m) who is in -> (m,) what each coalition is worth
_PILOTS = 4  # heads a penalty is chosen by
_CHUNK = 250  # heads fitted together
_NUMBERS = 1 << 24  # in the curvature matrices of a chunk, and in its table of who sees what
_LEVELS = 20  # sizes of coalition between which their mean worth is interpolated


@dataclass(frozen=True, slots=True)
class DataOOB:
    """How often is the label right in the eyes of heads whose bootstrap did not draw the sample?

    Mean over the heads that did not draw it of its correctness (the share of the label on the predicted class) or, in
    the soft form, of the probability of its label. A sample that every bootstrap drew gets the mean of the others, and
    notes count such samples; with 30 heads that befalls one in a million.

    Attributes:
        n_heads: B, bootstraps of n samples.
        soft: probabilities instead of votes: finer values from fewer heads.
        penalties: tried; that with the lowest out-of-bag cross-entropy over a few heads is kept for all.
        seed: of the bootstraps.

    Cost: O(B n (d² + c d a step)) time, O(n + a chunk of heads) memory; random. Standard error over heads.

    Source: Kwon and Zou 2023, Data-OOB, equation 3. Ours departs from it in the soft form alone.
    """

    n_heads: int = 200
    soft: bool = True
    penalties: tuple[float, ...] = PENALTIES
    seed: int = 0
    name = "data_oob"
    needs = ("features",)

    def fit(self, evidence: Evidence) -> SampleValues:
        """One share of right votes, or mean probability, a sample, in [0, 1]."""
        import torch

        evidence.require(self)
        x, y = _tensors(evidence, required(evidence.features), evidence.label)
        penalty = _penalty(x, y, self.penalties, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        count, total, squares = torch.zeros(3, len(x), dtype=torch.float64, device=x.device)
        for n_heads in _chunks(self.n_heads, x):
            drawn = _bootstraps(len(x), n_heads, generator).to(x.device)
            heads = fit_heads(x, y, Weighted(drawn), [penalty])
            for rows in row_blocks(len(x), heads[0].numel()):
                score = probabilities(_logits(x[rows], heads))  # (b, c, m)
                right = torch.einsum("bc,bcm->bm", y[rows], score) if self.soft else y[rows].gather(1, score.argmax(1))
                unseen = (drawn[rows] == 0).double()
                count[rows] += unseen.sum(1)
                total[rows] += (unseen * right).sum(1)
                squares[rows] += (unseen * right.square()).sum(1)
        mean = total / count.clamp(min=1)
        spread = (squares / count.clamp(min=1) - mean.square()).clamp(min=0)
        known = count > 0
        rest = float(mean[known].mean()) if known.any() else 1 / evidence.n_classes
        value = torch.where(known, mean, rest)
        stderr = torch.where(known, (spread / (count - 1).clamp(min=1)).sqrt(), 1.0)
        notes = {"penalty": penalty, "n_never_out_of_bag": float((~known).sum())}
        return SampleValues(value.cpu().numpy(), stderr.cpu().numpy(), notes)


@dataclass(frozen=True, slots=True)
class DataShapley:
    """What share of the holdout utility does the sample earn, if all orders of arrival are equally likely?

    The values add up to the utility of all samples less that of none, exactly.

    Attributes:
        n_subsets: coalitions drawn; where there are no more than that, all are counted and nothing is random.
        utility: of a coalition: its head's mean probability of the holdout label, or its accuracy.
        penalties: tried; that with the lowest out-of-bag cross-entropy over a few heads is kept for all.
        seed: of the draws.

    Cost: O(M n (d² + c d a step)) time for M coalitions, O(n + a chunk of heads) memory; random, standard error given.

    Source: Ghorbani and Zou 2019 for the value. Not by permutations: every coalition drawn tells of every sample, as
    in Li and Yu 2024, One Sample Fits All, whose draw of sizes this is; see `semivalues`.
    """

    n_subsets: int = 1000
    utility: Utility = "probability"
    penalties: tuple[float, ...] = PENALTIES
    seed: int = 0
    name = "data_shapley"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One share of the utility a sample; negative where the sample harms."""
        evidence.require(self)
        return _play(self, evidence, beta_sizes(len(evidence), 1.0, 1.0))


@dataclass(frozen=True, slots=True)
class BetaShapley:
    """What does the sample add to the holdout utility of others, small company counting for more?

    Attributes:
        alpha: the higher, the more weight on small coalitions; there, a wrong label does its visible harm.
        beta: the higher, the more weight on large ones. alpha = beta = 1 is Shapley's value.
        n_subsets: coalitions drawn; where there are no more than that, all are counted and nothing is random.
        utility: of a coalition: its head's mean probability of the holdout label, or its accuracy.
        penalties: tried; that with the lowest out-of-bag cross-entropy over a few heads is kept for all.
        seed: of the draws.

    Cost: as `DataShapley`; random, standard error given.

    Source: Kwon and Zou 2022, Beta Shapley, equations 3 and 5; sampled as `semivalues` says.
    """

    alpha: float = 4.0
    beta: float = 1.0
    n_subsets: int = 1000
    utility: Utility = "probability"
    penalties: tuple[float, ...] = PENALTIES
    seed: int = 0
    name = "beta_shapley"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One mean gain of utility a sample; negative where the sample harms."""
        evidence.require(self)
        return _play(self, evidence, beta_sizes(len(evidence), self.alpha, self.beta))


@dataclass(frozen=True, slots=True)
class DataBanzhaf:
    """What does the sample add to the holdout utility, if every set of others is equally likely?

    The value whose order noise in the utility disturbs least.

    Attributes:
        n_subsets: coalitions drawn; where there are no more than that, all are counted and nothing is random.
        utility: of a coalition: its head's mean probability of the holdout label, or its accuracy.
        penalties: tried; that with the lowest out-of-bag cross-entropy over a few heads is kept for all.
        seed: of the draws.

    Cost: as `DataShapley`; random, standard error given.

    Source: Wang and Jia 2023, Data Banzhaf, with their maximum sample reuse: mean utility of coalitions with the
    sample less that of coalitions without. Departs from it in that the mean utility of coalitions of the same size is
    taken off first, which changes no expectation and leaves less noise.
    """

    n_subsets: int = 1000
    utility: Utility = "probability"
    penalties: tuple[float, ...] = PENALTIES
    seed: int = 0
    name = "data_banzhaf"
    needs = ("features", "holdout")

    def fit(self, evidence: Evidence) -> SampleValues:
        """One mean gain of utility a sample; negative where the sample harms."""
        evidence.require(self)
        return _play(self, evidence, banzhaf_sizes(len(evidence)))


Game = DataShapley | BetaShapley | DataBanzhaf


def beta_sizes(n: int, alpha: float, beta: float) -> Floats:
    """(n,) probability that a sample joins a coalition of 0, 1, ..., n - 1 others, under Beta(alpha, beta) Shapley.

    >>> beta_sizes(4, 1.0, 1.0).round(3).tolist()
    [0.25, 0.25, 0.25, 0.25]
    >>> beta_sizes(3, 4.0, 1.0).round(3).tolist()
    [0.667, 0.267, 0.067]
    """
    logarithm = [
        _log_choose(n - 1, k) + _log_beta(k + beta, n - 1 - k + alpha) - _log_beta(alpha, beta) for k in range(n)
    ]
    return np.exp(logarithm)


def banzhaf_sizes(n: int) -> Floats:
    """(n,) probability that a sample joins a coalition of 0, 1, ..., n - 1 others, all sets being equally likely.

    >>> banzhaf_sizes(3).round(3).tolist()
    [0.25, 0.5, 0.25]
    """
    return np.exp([_log_choose(n - 1, k) - (n - 1) * np.log(2) for k in range(n)])


def semivalues(worth: Worth, joins: Floats, n_subsets: int, seed: int, chunk: int = _CHUNK) -> SampleValues:
    """Mean gain of a coalition when a player joins it, for all players from the same coalitions.

    A player's value is a weighted sum of what coalitions with the player are worth, less one without, so a coalition
    drawn tells of everybody. Sizes are drawn with the probabilities under which the weights vary least, sets of a size
    evenly. What coalitions of a size are worth on average is taken off first, and its own semivalue, which is the same
    for all, put back; that average is learnt from the other half of the draws, so the estimate stays unbiased.

    Args:
        worth: of coalitions: (n, m) bool to (m,).
        joins: (n,) probability of joining 0, 1, ..., n - 1 others; adds up to 1.
        n_subsets: coalitions drawn beside that of nobody and that of all. If there are no more than this many in all,
            each is counted once: then values are exact, and standard errors 0.
        seed: of the draws.
        chunk: coalitions asked for at a time.

    Returns:
        (n,) values in the unit of the worth, with standard errors.

    Cost: n_subsets + 2 calls' worth of coalitions and O(n log n) a coalition beside; O(n chunk) memory.

    Source: Dubey, Neyman, Weber 1981 for semivalues; Li and Yu 2024 for the draw of sizes.

    >>> glove = lambda member: np.minimum(member[:2].sum(0), member[2]).astype(float)  # two left gloves, one right
    >>> semivalues(glove, beta_sizes(3, 1.0, 1.0), 8, 0).value.round(4).tolist()
    [0.1667, 0.1667, 0.6667]
    """
    n = len(joins)
    if 2**n <= n_subsets:
        return SampleValues(_by_enumeration(worth, joins, chunk), np.zeros(n), {"n_subsets": float(2**n)})
    ends = worth(np.repeat([[False, True]], n, 0))
    size = np.arange(1, n)
    chance = np.sqrt(joins[:-1] ** 2 / size + joins[1:] ** 2 / (n - size))
    chance /= chance.sum()
    divisor = np.where(chance > 0, chance, 1.0)  # sizes too rare for a float are never drawn
    gain = joins[:-1] * n / size / divisor  # weight of a coalition of 1, ..., n - 1 for those in it
    loss = joins[1:] * n / (n - size) / divisor  # and, taken off, for those not in it
    draws = _Draws(chance, n_subsets, seed, chunk)
    sizes, found = zip(*((member.sum(0), worth(member)) for member in draws), strict=True)
    drawn, worths = np.concatenate(sizes), np.concatenate(found)
    half = np.arange(n_subsets) % 2
    excess, common = np.empty(n_subsets), 0.0
    for own in (0, 1):
        learnt = half != own if (half != own).any() else half == own
        usual = _mean_worth(drawn[learnt], worths[learnt], ends, n)
        excess[half == own] = worths[half == own] - usual[drawn[half == own]]
        common += (half == own).mean() * (joins @ np.diff(usual))
    mean, stderr = _weighted_means(draws, gain[drawn - 1] * excess, -loss[drawn - 1] * excess)
    return SampleValues(common + mean, stderr, {"n_subsets": float(n_subsets)})


@dataclass(frozen=True, slots=True)
class _Draws:
    """Coalitions drawn at random; the same ones whenever one goes through them.

    Attributes:
        chance: (n - 1,) of the sizes 1, ..., n - 1.
        n_subsets: how many.
        seed: of the draws.
        chunk: how many at a time.
    """

    chance: Floats
    n_subsets: int
    seed: int
    chunk: int

    def __iter__(self) -> Iterator[Bools]:
        """(n, m) who is in, chunk by chunk."""
        generator = np.random.default_rng(self.seed)
        n = len(self.chance) + 1
        for start in range(0, self.n_subsets, self.chunk):
            m = min(self.chunk, self.n_subsets - start)
            size = generator.choice(np.arange(1, n), m, p=self.chance)
            yield generator.random((n, m)).argsort(0).argsort(0) < size


def _weighted_means(draws: _Draws, inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
    """(n,) means over coalitions of what each says of those in it and of those not, with standard errors."""
    total, squares = np.zeros((2, len(draws.chance) + 1))
    for i, member in enumerate(draws):
        own = slice(i * draws.chunk, i * draws.chunk + member.shape[1])
        total += member @ (inside[own] - outside[own]) + outside[own].sum()
        squares += member @ (inside[own] ** 2 - outside[own] ** 2) + (outside[own] ** 2).sum()
    mean = total / draws.n_subsets
    variance = np.maximum(squares / draws.n_subsets - mean**2, 0) / max(draws.n_subsets - 1, 1)
    return mean, np.sqrt(variance)


def _by_enumeration(worth: Worth, joins: Floats, chunk: int) -> Floats:
    n = len(joins)
    one = joins / np.exp([_log_choose(n - 1, k) for k in range(n)])  # weight of a single coalition of k others
    value = np.zeros(n)
    for start in range(0, 2**n, chunk):
        codes = np.arange(start, min(start + chunk, 2**n))
        member = (codes >> np.arange(n)[:, None] & 1).astype(bool)
        size, worths = member.sum(0), worth(member)
        inside = one[np.maximum(size - 1, 0)] * worths
        outside = -one[np.minimum(size, n - 1)] * worths
        value += np.where(member, inside, outside).sum(1)
    return value


def _mean_worth(size: Ints, worth: Floats, ends: Floats, n: int) -> Floats:
    """(n + 1,) mean worth by size: means over levels of the sizes drawn, straight lines between, the ends known."""
    edges = np.unique(np.quantile(size, np.linspace(0, 1, _LEVELS + 1)[1:-1], method="lower"))
    level = np.searchsorted(edges, size, side="right")
    count = np.bincount(level)
    at, mean = (np.bincount(level, values)[count > 0] / count[count > 0] for values in (size, worth))
    return np.interp(np.arange(n + 1), [0, *at, n], [ends[0], *mean, ends[1]])


def _play(game: Game, evidence: Evidence, joins: Floats) -> SampleValues:
    """Semivalues of the game in which a coalition's head is judged on the holdout."""
    import torch

    if len(required(evidence.holdout).label) == 0:
        raise SampleError(
            f"{game.name}: the holdout has 0 samples for {len(evidence)} training samples; first: None. Coalitions are "
            "judged on at least 1: hold some samples out, or take an estimator that needs none."
        )
    x, y = _tensors(evidence, required(evidence.features), evidence.label)
    held_x, held_y = _tensors(evidence, required(evidence.holdout).features, required(evidence.holdout).label)
    penalty = _penalty(x, y, game.penalties, game.seed)

    def worth(member: Bools) -> Floats:
        heads = fit_heads(x, y, Weighted(torch.as_tensor(member, dtype=torch.float32, device=x.device)), [penalty])
        total = torch.zeros(member.shape[1], dtype=torch.float64, device=x.device)
        for rows in row_blocks(len(held_x), heads[0].numel()):
            score = probabilities(_logits(held_x[rows], heads))  # (b, c, m)
            if game.utility == "accuracy":  # classes that tie share the prediction
                top = (score == score.amax(1, keepdim=True)).double()
                score = top / top.sum(1, keepdim=True)
            total += torch.einsum("bc,bcm->m", held_y[rows].double(), score.double())
        return (total / len(held_x)).cpu().numpy()

    values = semivalues(worth, joins, game.n_subsets, game.seed, min(_chunks(_CHUNK, x)[0], _CHUNK))
    return SampleValues(values.value, values.stderr, {**values.notes, "penalty": penalty})


def _penalty(x: "torch.Tensor", y: "torch.Tensor", penalties: tuple[float, ...], seed: int) -> float:
    """The penalty with the lowest cross-entropy of labels that a few bootstraps did not draw."""
    import torch

    if len(penalties) == 1:
        return penalties[0]
    drawn = _bootstraps(len(x), _PILOTS, torch.Generator().manual_seed(seed)).to(x.device)
    heads = fit_heads(x, y, Weighted(drawn), penalties)  # (d, q, p, m)
    loss = torch.zeros(len(penalties), dtype=torch.float64, device=x.device)
    for rows in row_blocks(len(x), heads[0].numel()):
        score = probabilities((x[rows] @ heads.flatten(1)).unflatten(1, heads.shape[1:])).clamp(min=CREDIBLE_FLOOR)
        unseen = (drawn[rows] == 0).float()
        loss -= torch.einsum("bc,bcpm,bm->p", y[rows], score.log(), unseen).double()
    return penalties[int(loss.argmin())]


def _bootstraps(n: int, n_heads: int, generator: "torch.Generator") -> "torch.Tensor":
    """(n, m) how often each of m bootstraps drew each sample."""
    import torch

    drawn = torch.randint(n, (n, n_heads), generator=generator)
    return torch.zeros(n, n_heads).scatter_add_(0, drawn, torch.ones(n, n_heads))


def _logits(x: "torch.Tensor", heads: "torch.Tensor") -> "torch.Tensor":
    """(b, q, m) of heads (d, q, 1, m)."""
    return (x @ heads.flatten(1)).unflatten(1, (heads.shape[1], heads.shape[3]))


def _tensors(evidence: Evidence, *parts: NDArray) -> list["torch.Tensor"]:
    import torch

    return [torch.as_tensor(part, dtype=torch.float32, device=evidence.device) for part in parts]


def _chunks(n_heads: int, x: "torch.Tensor") -> list[int]:
    """How many heads to fit together, chunk by chunk."""
    size = max(1, min(_CHUNK, _NUMBERS // x.shape[1] ** 2, _NUMBERS // len(x)))
    return [min(size, n_heads - start) for start in range(0, n_heads, size)]


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
