"""Many small heads over the same features, fitted together: one a penalty and a subset or weighting of the samples.

On the floor of `importance`. Heads are logistic; their exact optimum is found without a learning rate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # a sample's share of the L2 penalty on features of variance 1
BLOCK = 1 << 22  # logits at a time: bounds the memory of a pass to some dozen MiB
_GRAM_ROWS = 1 << 16
_MAX_STEPS = 300
_TOLERANCE = 1e-6  # largest change of a coefficient at which we stop
Watcher = Callable[[int, slice, "torch.Tensor", "torch.Tensor"], None]


class Members(Protocol):
    """Which samples each of m members sees, and how heavily."""

    @property
    def n(self) -> int:
        """How many members."""
        ...

    def weight(self, rows: "slice | torch.Tensor") -> "torch.Tensor":
        """(b, m) >= 0: weights of some samples for every member; 0: not seen."""
        ...

    def gram(self, x: "torch.Tensor") -> "torch.Tensor":
        """(m, d, d) weighted sums of outer products of the features."""
        ...

    def total(self) -> "torch.Tensor":
        """(m,) sums of the weights."""
        ...


@dataclass(frozen=True, slots=True)
class Weighted:
    """Members by their weights.

    Attributes:
        weights: (n, m) >= 0.
    """

    weights: "torch.Tensor"

    @property
    def n(self) -> int:
        """How many members."""
        return self.weights.shape[1]

    def weight(self, rows: "slice | torch.Tensor") -> "torch.Tensor":
        """(b, m)."""
        return self.weights[rows]

    def gram(self, x: "torch.Tensor") -> "torch.Tensor":
        """(m, d, d); one matrix product a member."""
        import torch

        return torch.stack([_gram(x, self.weights[:, member]) for member in range(self.n)])

    def total(self) -> "torch.Tensor":
        """(m,)."""
        return self.weights.sum(0)


@dataclass(frozen=True, slots=True)
class Folds:
    """One member for each repeat and fold: it sees what is not in that fold. Members run r0k0, r0k1, ..., r1k0, ...

    Attributes:
        fold: (n, r) in [0, n_folds).
        n_folds: k.
        weights: (n,) >= 0.
    """

    fold: "torch.Tensor"
    n_folds: int
    weights: "torch.Tensor"

    @property
    def n(self) -> int:
        """How many members."""
        return self.fold.shape[1] * self.n_folds

    def weight(self, rows: "slice | torch.Tensor") -> "torch.Tensor":
        """(b, r k)."""
        import torch

        folds = torch.arange(self.n_folds, device=self.fold.device)
        seen = self.fold[rows, :, None] != folds
        return seen.flatten(1) * self.weights[rows, None]

    def gram(self, x: "torch.Tensor") -> "torch.Tensor":
        """(r k, d, d): all samples once, less each fold."""
        import torch

        everything = _gram(x, self.weights)
        return torch.stack([everything - _gram(x[rows], self.weights[rows]) for rows in self._left_out()])

    def total(self) -> "torch.Tensor":
        """(r k,)."""
        import torch

        return torch.stack([self.weights.sum() - self.weights[rows].sum() for rows in self._left_out()])

    def _left_out(self) -> list["torch.Tensor"]:
        return [
            (self.fold[:, repeat] == fold).nonzero().squeeze(1)
            for repeat in range(self.fold.shape[1])
            for fold in range(self.n_folds)
        ]


def fit_heads(
    x: "torch.Tensor",
    y: "torch.Tensor",
    members: Members,
    penalties: Sequence[float],
    watch: Watcher | None = None,
) -> "torch.Tensor":
    """L2-penalised logistic heads, one for each member and penalty, fitted together.

    The curvature of the logistic loss is at most a fixed share of the Gram matrix, whatever the coefficients: a
    quarter for two classes (one logit), a half for more (a logit each, adding up to 0). So each head's bound is
    factored once, and every step with it lowers the loss.

    Args:
        x: (n, d); the last column is the constant 1 and is not penalised.
        y: (n, c) share of each class.
        members: what each member sees.
        penalties: (p,) L2 penalty a sample.
        watch: is shown (step, rows, logits (b, q, p, m), seen (b, m)) of every block in every step, for dynamics.

    Returns:
        (d, q, p, m) coefficients; q = 1 for two classes, else c.

    Cost: O(n d² m) once (O(n d² r) for folds) and O(n d q p m) a step, some tens of steps; O(p m d²) memory beside
    the features. Not random.

    Source: Böhning and Lindsay 1988 and Böhning 1992 for the bounds; Nesterov 1983 with the restarts of O'Donoghue
    and Candès 2015.
    """
    import torch

    d, c = x.shape[1], y.shape[1]
    q, p, m = 1 if c == 2 else c, len(penalties), members.n
    penalised = torch.ones(d, device=x.device)
    penalised[-1] = 1e-6
    total = members.total().clamp(min=1.0)  # a head that sees nothing still needs a positive definite bound
    ridge = torch.as_tensor(penalties, device=x.device, dtype=torch.float32)[:, None] * total  # (p, m)
    share = 0.25 if q == 1 else 0.5
    flat = torch.eye(d, device=x.device) * 1e-3  # and so do features that do not vary
    curvature = share * (members.gram(x) + flat)[None] + ridge[..., None, None] * torch.diag(penalised)
    factor = torch.linalg.cholesky(curvature.double()).flatten(0, 1).float()  # (p m, d, d)
    target = y[:, 1:] if q == 1 else y
    now = torch.zeros(d, q, p, m, device=x.device)
    ahead, momentum = now, 1.0
    for step in range(_MAX_STEPS):
        gradient = _gradient(x, target, members, ahead, watch and partial(watch, step))
        gradient += ridge * penalised[:, None, None, None] * ahead
        right = gradient.permute(2, 3, 0, 1).flatten(0, 1)  # (p m, d, q)
        change = torch.cholesky_solve(right, factor).unflatten(0, (p, m)).permute(2, 3, 0, 1)
        following = ahead - change
        if change.abs().max() < _TOLERANCE:
            return following
        if ((ahead - following) * (following - now)).sum() > 0:  # momentum leads uphill
            momentum = 1.0
        grown = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        ahead = following + (momentum - 1) / grown * (following - now)
        now, momentum = following, grown
    return now


def probabilities(logit: "torch.Tensor") -> "torch.Tensor":
    """(b, c, ...) probabilities of all classes from (b, q, ...) logits."""
    import torch

    if logit.shape[1] > 1:
        return torch.softmax(logit, 1)
    positive = torch.sigmoid(logit)
    return torch.cat([1 - positive, positive], 1)


def row_blocks(n: int, n_logits: int) -> list[slice]:
    """Blocks of rows whose logits fit into `BLOCK`."""
    size = max(BLOCK // max(n_logits, 1), 256)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _gradient(
    x: "torch.Tensor", target: "torch.Tensor", members: Members, coefficients: "torch.Tensor", watch: Callable | None
) -> "torch.Tensor":
    import torch

    flat = coefficients.flatten(1)
    result = torch.zeros_like(flat)
    for rows in row_blocks(len(x), flat.shape[1]):
        logit = (x[rows] @ flat).unflatten(1, coefficients.shape[1:])  # (b, q, p, m)
        weight = members.weight(rows)
        if watch:
            watch(rows, logit, weight > 0)
        residual = logit.sigmoid_() if logit.shape[1] == 1 else torch.softmax(logit, 1)
        residual = residual.sub_(target[rows][:, :, None, None]).mul_(weight[:, None, None, :])
        result += x[rows].T @ residual.flatten(1)
    return result.unflatten(1, coefficients.shape[1:])


def _gram(x: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
    import torch

    result = torch.zeros(x.shape[1], x.shape[1], device=x.device)
    for start in range(0, len(x), _GRAM_ROWS):
        rows = slice(start, start + _GRAM_ROWS)
        result += x[rows].T @ (x[rows] * weight[rows, None])
    return result
