"""GMF and NeuMF on clicks with sampled negatives, the losses of T-CE and R-CE, and full-ranking metrics.

Used by `modcloth.py`. One training run is a pass over all positives an epoch, on one core, in seconds to a minute.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

METRICS = ("recall@5", "recall@20", "nDCG@5", "nDCG@20")
NEGATIVES, WIDTH, BATCH, AVERAGING = 4, 64, 4096, 0.9
EVERY, PATIENCE = 3, 4


@dataclass(frozen=True, slots=True)
class Target:
    """Users to rank for: (m,) ids, (m, n_items) what they liked, (m, n_items) what is masked."""

    user: Tensor
    liked: NDArray[np.bool_]
    masked: Tensor


@dataclass(frozen=True, slots=True)
class Clicks:
    """The data set: training positives in row order and the two targets.

    Attributes:
        user: (n,) of each training rating.
        item: (n,) of each training rating.
        low: (n,) whether its rating is 3 or less. The hidden truth: only AUROC and the oracle may see it.
        seen: (n_users, n_items) whether a pair is a training positive.
        validation, test: rating-5 rows of these splits.
    """

    user: Tensor
    item: Tensor
    low: NDArray[np.bool_]
    seen: Tensor
    validation: Target
    test: Target


def load(folder: str) -> Clicks:
    """The data set of a folder with `ratings.parquet`."""
    rows = pd.read_parquet(f"{folder}/ratings.parquet")
    shape = (int(rows.user_id.max()) + 1, int(rows.item_id.max()) + 1)
    train = rows[rows.split == "train"]
    return Clicks(
        torch.as_tensor(train.user_id.to_numpy()),
        torch.as_tensor(train.item_id.to_numpy()),
        (train.rating <= 3).to_numpy(),
        _table(train, shape),
        _target(rows, shape, "validation", ["train"]),
        _target(rows, shape, "test", ["train", "validation"]),
    )


def _table(rows: pd.DataFrame, shape: tuple[int, int]) -> Tensor:
    table = torch.zeros(shape, dtype=torch.bool)
    table[rows.user_id.to_numpy(), rows.item_id.to_numpy()] = True
    return table


def _target(rows: pd.DataFrame, shape: tuple[int, int], split: str, masked: list[str]) -> Target:
    liked = _table(rows[(rows.split == split) & (rows.rating == 5)], shape)
    users = liked.any(1).nonzero()[:, 0]
    return Target(users, liked[users].numpy(), _table(rows[rows.split.isin(masked)], shape)[users])


def metrics(score: Tensor, target: Target) -> NDArray[np.float64]:
    """(m, 4) recall and nDCG of each user in the order of `METRICS`; every item is a candidate.

    Recall divides by all that the user liked, nDCG by the best order of it; binary gain, discount 1 / log2(rank + 1).
    """
    top = score.masked_fill(target.masked, -torch.inf).topk(20, 1)[1].numpy()
    hit = np.take_along_axis(target.liked, top, 1).astype(float)
    n_liked = target.liked.sum(1)
    discount = 1 / np.log2(np.arange(20) + 2)
    best = np.cumsum(discount)
    recall = [hit[:, :k].sum(1) / n_liked for k in (5, 20)]
    ndcg = [(hit * discount)[:, :k].sum(1) / best[np.minimum(n_liked, k) - 1] for k in (5, 20)]
    return np.stack(recall + ndcg, 1)


def validation_score(found: NDArray[np.float64]) -> float:
    """What every choice maximises: the geometric mean of the four metrics."""
    return float(np.exp(np.log(np.maximum(found.mean(0), 1e-9)).mean()))


class Recommender(nn.Module):
    """GMF with an item bias; NeuMF adds a small network of two more embeddings.

    Source: He et al. 2017, Neural Collaborative Filtering, equations 9-12. We depart in two ways, for every method
    alike: an item bias, and users without a training row have the mean embedding. A third of the test users are new,
    and without both GMF ranks for them at random.
    """

    def __init__(self, kind: str, n_users: int, n_items: int, generator: torch.Generator) -> None:
        super().__init__()

        def table(rows: int, width: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, width, generator=generator) * 0.01)

        self.users = nn.ParameterList([table(n_users, WIDTH)])
        self.items = nn.ParameterList([table(n_items, WIDTH)])
        self.mix = nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.layers = nn.ModuleList()
        if kind == "neumf":
            half = WIDTH // 2
            self.users.append(table(n_users, half))
            self.items.append(table(n_items, half))
            for n_in, n_out in ((2 * half, half), (half, half // 2), (half // 2, 1)):
                layer = nn.Linear(n_in, n_out)
                with torch.no_grad():
                    layer.weight.copy_(torch.randn(n_out, n_in, generator=generator) * (2 / (n_in + n_out)) ** 0.5)
                    layer.bias.zero_()
                self.layers.append(layer)

    def forward(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) logits of pairs and (n,) squared lengths of their embeddings."""
        u = [functional.embedding(user, table) for table in self.users]
        i = [functional.embedding(item, table) for table in self.items]
        logit = (u[0] * i[0]) @ self.mix + self.bias[item]
        if self.layers:
            logit = logit + self._network(torch.cat([u[1], i[1]], 1))
        return logit, sum((x * x).sum(1) for x in u + i)

    def _network(self, pair: Tensor) -> Tensor:
        hidden = pair
        for layer in list(self.layers)[:-1]:
            hidden = torch.relu(layer(hidden))
        return self.layers[-1](hidden)[..., 0]

    @torch.no_grad()
    def scores(self, users: Tensor, is_new: Tensor) -> Tensor:
        """(m, n_items) logits; the users of `is_new` (n_users,) have the mean embedding of the others."""
        new = is_new[users][:, None]
        u = [torch.where(new, table[~is_new].mean(0), table[users]) for table in self.users]
        logit = (u[0] * self.mix) @ self.items[0].T + self.bias
        if self.layers:
            first, n_items = self.layers[0], len(self.bias)
            half = u[1].shape[1]
            right = self.items[1] @ first.weight[:, half:].T + first.bias
            for rows in torch.arange(len(users)).split(256):
                hidden = torch.relu((u[1][rows] @ first.weight[:, :half].T)[:, None] + right)
                hidden = torch.relu(self.layers[1](hidden.view(-1, right.shape[1])))
                logit[rows] += self.layers[2](hidden).view(-1, n_items)
        return logit


@dataclass(frozen=True, slots=True)
class Loss:
    """How positives and negatives count.

    Attributes:
        positive: (n,) weight of each training positive, or None.
        missed: (n_users, n_items) in [0, 1), chance that an unobserved pair is a missed positive, or None. A drawn
            negative then counts as a positive with this weight and as a negative with the rest (Elkan and Noto 2008,
            section 3).
        drop_max, drop_steps: T-CE drops the positives of largest loss in a batch, a share that grows linearly over
            `drop_steps` to `drop_max` (Wang et al. 2021, equations 4 and 5).
        power: R-CE weights a positive by p^power (equation 7).
        also_negatives: R-CE weights a negative by (1 - p)^power, as in equation 7 and the authors' program.
    """

    positive: Tensor | None = None
    missed: Tensor | None = None
    drop_max: float = 0.0
    drop_steps: int = 1
    power: float = 0.0
    also_negatives: bool = False

    def __call__(
        self, positive: Tensor, negative: Tensor, rows: Tensor, pairs: tuple[Tensor, Tensor], step: int
    ) -> tuple[Tensor, Tensor]:
        """Losses of positives (kept ones) and of negatives, from their logits."""
        plus, minus = functional.softplus(-positive), functional.softplus(negative)
        if self.power:
            plus = plus * torch.sigmoid(positive.detach()) ** self.power
            if self.also_negatives:
                minus = minus * torch.sigmoid(-negative.detach()) ** self.power
        if self.drop_max:
            share = min(step / self.drop_steps, 1.0) * self.drop_max
            plus = plus[plus.detach().argsort()[: len(plus) - int(share * len(plus))]]
        if self.positive is not None:
            plus = plus * self.positive[rows]
        if self.missed is not None:
            minus = minus - self.missed[pairs] * negative  # softplus(-y) = softplus(y) - y
        return plus, minus


@dataclass(frozen=True, slots=True)
class Fitted:
    """The averaged model of the best epoch on validation."""

    model: Recommender
    score: float
    epoch: int


def fit(
    clicks: Clicks,
    kind: str,
    loss: Loss,
    rate: float,
    penalty: float,
    n_epochs: int,
    seed: int,
    rows: Tensor | None = None,
) -> Fitted:
    """Train one recommender; stop when validation has not improved for `PATIENCE` looks.

    Adam with a rate that falls linearly to 0, and an average of the weights over about 50 steps.

    Args:
        rows: training rows to use; all by default.

    Cost: O(n_epochs * (n * NEGATIVES * WIDTH + steps * (n_users + n_items) * WIDTH)); random, by `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(clicks.user)) if rows is None else rows
    n_users, n_items = clicks.seen.shape
    is_new = ~torch.zeros(n_users, dtype=torch.bool).index_fill(0, clicks.user[rows], True)
    model = Recommender(kind, n_users, n_items, generator)
    average = copy.deepcopy(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    n_steps, step, best, since = n_epochs * math.ceil(len(rows) / BATCH), 0, Fitted(average, -1.0, 0), 0
    for epoch in range(1, n_epochs + 1):
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
            step += 1
            optimiser.param_groups[0]["lr"] = rate * (1 - (step - 1) / n_steps)
            optimiser.zero_grad()
            _batch_loss(clicks, model, loss, penalty, batch, step, generator).backward()
            optimiser.step()
            if step % 5 == 0:
                with torch.no_grad():
                    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - AVERAGING)
        if epoch % EVERY == 0:
            score = validation_score(metrics(average.scores(clicks.validation.user, is_new), clicks.validation))
            since += 1
            if score > best.score:
                best, since = Fitted(copy.deepcopy(average), score, epoch), 0
            if since >= PATIENCE:
                break
    return best


def _batch_loss(
    clicks: Clicks, model: Recommender, loss: Loss, penalty: float, batch: Tensor, step: int, generator: torch.Generator
) -> Tensor:
    user, n = clicks.user[batch], len(batch)
    drawn = torch.randint(clicks.seen.shape[1], (n * NEGATIVES,), generator=generator)
    pairs = (user.repeat_interleave(NEGATIVES), drawn)
    logit, length = model(torch.cat([user, pairs[0]]), torch.cat([clicks.item[batch], drawn]))
    plus, minus = loss(logit[:n], logit[n:], batch, pairs, step)
    return (plus.sum() + (minus * ~clicks.seen[pairs]).sum() + penalty * length.sum()) / n
