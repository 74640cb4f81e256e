"""What comes next in a history? A small transformer over items in order, with a weight for each act in its loss.

On the floor above `weighting`. Vectors of items are learnt, and may begin from what a language model read of them, so
that an item that nobody took yet has a place too. What a history asks for is one vector, what an item is another, both of
length one: their product orders the catalogue.

Source: Kang and McAuley 2018, Self-Attentive Sequential Recommendation, for the model; Zhai et al. 2023, Revisiting Neural
Retrieval on Accelerators, for the sampled softmax over vectors of length one; weights in the loss are our own.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecom_pipeline.arrays import Bools, Ints, Singles

PADDED = 1024  # places of a training batch, padding included: small enough for hundreds of steps an epoch
_LEARNT, _SETTINGS = "sequence.safetensors", "sequence.json"
_READ = 8192  # of a batch that is only read


@dataclass(frozen=True, slots=True)
class Histories:
    """What u users took, in order, one after the other.

    Attributes:
        item: (n,) codes.
        start: (u + 1,) where each user's begin and the last one's end.
        weight: (n,) how much each act counts as a thing to foretell; its mean does not matter.
        visit: (n,) number of each act's visit, not falling within a user: acts of one visit have no order, and none foretells
            another; None: each act is a visit.
    """

    item: Ints
    start: Ints
    weight: Singles
    visit: Ints | None = None

    def __len__(self) -> int:
        return len(self.start) - 1

    @classmethod
    def of(cls, user: Ints, item: Ints, weight: Singles | None = None, *, n_users: int) -> "Histories":
        """From rows sorted by user, then time. Without weights each counts one."""
        start = np.searchsorted(user, np.arange(n_users + 1))
        return cls(item, start, np.ones(len(item), np.float32) if weight is None else weight.astype(np.float32))

    def last(self, users: Ints, length: int) -> tuple[Ints, Singles]:
        """(b, t) codes and weights of each user's latest acts, at most `length`, padded with -1 at the end."""
        place, inside = self._places(users, length)
        return np.where(inside, self.item[place], -1), np.where(inside, self.weight[place], 0)

    def asked_from(self, users: Ints, length: int) -> Ints:
        """(b, t - 1) place in `last` of the act after which each but the first is foretold: the last one of an earlier visit.

        -1 where there is none.
        """
        place, _ = self._places(users, length)
        before = np.arange(place.shape[1] - 1)
        if self.visit is None:
            return np.tile(before, (len(users), 1))
        visit = self.visit[place]
        return np.maximum.accumulate(np.where(visit[:, 1:] != visit[:, :-1], before, -1), axis=1)

    def _places(self, users: Ints, length: int) -> tuple[Ints, Bools]:
        """(b, t) rows of each user's latest acts, 0 where there are fewer, and whether there is one."""
        stop = self.start[users + 1]
        begin = np.maximum(self.start[users], stop - length)
        place = begin[:, None] + np.arange(int((stop - begin).max(initial=1)))
        inside = place < stop[:, None]
        return np.where(inside, place, 0), inside


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """How the model learns.

    Attributes:
        width: of the vectors.
        n_blocks: attention blocks.
        n_heads: of each.
        length: of a history, in acts: the latest ones.
        dropout: of inputs and blocks.
        n_negatives: items drawn for each batch; 0: all.
        temperature: of the softmax.
        learning_rate: of Adam.
        n_epochs: at most.
        patience: epochs without a better validation after which it ends.
        every: epochs between two validations.
        seed: of all that is drawn.
    """

    width: int = 64
    n_blocks: int = 1
    n_heads: int = 1
    length: int = 50
    dropout: float = 0.2
    n_negatives: int = 256
    temperature: float = 0.05
    learning_rate: float = 1e-3
    n_epochs: int = 100
    patience: int = 20
    every: int = 5
    seed: int = 0


class _Block(nn.Module):
    """Causal attention with a bias for each distance, then a two-layer network; each normed before and added after."""

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads, self.dropout = settings.n_heads, settings.dropout
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.read, self.write = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.distance = nn.Parameter(torch.zeros(settings.n_heads, settings.length))
        self.network = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, state: Tensor, apart: Tensor, earlier: Tensor) -> Tensor:
        """(b, t, d) from (b, t, d); `apart` (t, t) distances, `earlier` (t, t) where one may look."""
        b, t, d = state.shape
        shape = (b, t, self.heads, d // self.heads)
        query, key, value = (x.view(shape).transpose(1, 2) for x in self.read(self.before(state)).split(d, -1))
        bias = self.distance[:, apart].masked_fill(~earlier, float("-inf"))
        dropout = self.dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None], dropout_p=dropout)
        state = state + self.drop(self.write(found.transpose(1, 2).reshape(b, t, d)))
        return state + self.drop(self.network(self.between(state)))


class _Net(nn.Module):
    def __init__(self, taken: Bools, text: Singles | None, settings: SequenceSettings) -> None:
        super().__init__()
        self.settings = settings
        self.taken: Tensor
        self.register_buffer("taken", torch.from_numpy(taken.astype(np.float32))[:, None])
        self.item = nn.Embedding(len(taken), settings.width)
        nn.init.normal_(self.item.weight, std=settings.width**-0.5)
        self.blocks = nn.ModuleList(_Block(settings) for _ in range(settings.n_blocks))
        self.out = nn.LayerNorm(settings.width)
        self.drop = nn.Dropout(settings.dropout)
        self.text = nn.Linear(text.shape[1], settings.width, bias=False) if text is not None else None
        self.words: Tensor | None
        self.register_buffer("words", None if text is None else torch.from_numpy(text.astype(np.float32)))

    def items(self, codes: Tensor | None = None) -> Tensor:
        """(k, d) vectors of items, not yet of length one; what nobody took is its text alone."""
        found = self.item.weight * self.taken if codes is None else self.item(codes) * self.taken[codes]
        if self.text is None or self.words is None:
            return found
        return found + self.text(self.words if codes is None else self.words[codes])

    def forward(self, codes: Tensor) -> Tensor:
        """(b, t, d) unit vectors: what each place of a history asks for next."""
        t = codes.shape[1]
        places = torch.arange(t)
        apart = (places[:, None] - places).clamp(min=0)
        state = self.drop(self.items(codes.clamp(min=0)) * self.settings.width**0.5)
        for block in self.blocks:
            state = block(state, apart, places[:, None] >= places)
        return functional.normalize(self.out(state), dim=-1)


@dataclass(frozen=True, slots=True)
class SequenceModel:
    """What was learnt.

    Attributes:
        items: (items, d) unit vectors.
        settings: how it learnt.
        curve: (epoch, figure) of every look at validation.
        net: gives a history's vector.
    """

    items: Singles
    settings: SequenceSettings
    curve: tuple[tuple[int, float], ...]
    net: _Net = field(repr=False)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        n_items: int,
        *,
        text: Singles | None = None,
        settings: SequenceSettings | None = None,
        quality: Callable[["SequenceModel"], float] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> "SequenceModel":
        """Learn to foretell each act of each history from those before it.

        Args:
            histories: what is learnt from; an act counts in the loss as much as it weighs.
            n_items: of the catalogue.
            text: (items, w) what a language model read of the items; None: ids alone.
            settings: how.
            quality: of a model on acts that are not in the histories, higher is better: the best epoch is kept, and the
                learning ends where it does not get better; None: all epochs are learnt.
            say: is told a line a look.

        Cost: of width d, length t and n acts O(n (d^2 + t d + d negatives)) an epoch; about 10 s for 150,000 acts on one
        core at the defaults.
        """
        settings = settings or SequenceSettings()
        torch.manual_seed(settings.seed)
        draw = np.random.default_rng(settings.seed)
        net = _Net(np.bincount(histories.item, minlength=n_items) > 0, text, settings)
        optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
        best, state, at = -np.inf, net.state_dict(), 0
        curve: list[tuple[int, float]] = []
        for epoch in range(1, settings.n_epochs + 1):
            net.train()
            for users in batches(histories, settings.length, draw):
                optimizer.zero_grad()
                _loss(net, histories, users, n_items, draw).backward()
                optimizer.step()
            if quality and epoch % settings.every == 0:
                found = quality(cls._of(net, curve))
                curve.append((epoch, found))
                say(f"epoch {epoch}: validation {found:.5f}")
                if found > best:
                    best, at = found, epoch
                    state = {name: value.clone() for name, value in net.state_dict().items()}
                elif epoch - at >= settings.patience:
                    break
        if curve:
            net.load_state_dict(state)
        return cls._of(net, curve)

    def write(self, folder: Path) -> None:
        """Write a folder: what is learnt as safetensors, the settings as JSON; words are within the items' vectors then."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        left_out = ("taken", "words", "text.weight")
        state = {name: value for name, value in self.net.state_dict().items() if name not in left_out}
        with torch.no_grad():
            state["item.weight"] = self.net.items().contiguous()
        save_file(state, folder / _LEARNT)
        (folder / _SETTINGS).write_text(json.dumps({"settings": asdict(self.settings), "curve": self.curve}))

    @classmethod
    def read(cls, folder: Path) -> "SequenceModel":
        """As written: it asks and orders as it did; it is not learnt on."""
        from safetensors.torch import load_file

        told, state = json.loads((folder / _SETTINGS).read_text()), load_file(folder / _LEARNT)
        taken = np.ones(len(state["item.weight"]), bool)
        net = _Net(taken, None, SequenceSettings(**told["settings"]))
        net.load_state_dict(state | {"taken": net.taken})
        return cls._of(net, [(epoch, figure) for epoch, figure in told["curve"]])

    @classmethod
    def _of(cls, net: _Net, curve: list[tuple[int, float]]) -> "SequenceModel":
        net.eval()
        with torch.inference_mode():
            items = functional.normalize(net.items(), dim=-1).numpy()
        return cls(items, net.settings, tuple(curve), net)

    def asks(self, histories: Histories, users: Ints) -> Singles:
        """(b, d) unit vectors of what some users' histories ask for next; 0 where there is no history.

        `asks @ items.T` orders the catalogue; what a user had is not left out.
        """
        self.net.eval()
        found = np.zeros((len(users), self.items.shape[1]), np.float32)
        length = np.minimum(np.diff(histories.start)[users], self.settings.length)
        for rows in _alike(length, _READ):
            codes, _ = histories.last(users[rows], self.settings.length)
            with torch.inference_mode():
                state = self.net(torch.from_numpy(codes)).numpy()
            found[rows] = state[np.arange(len(rows)), length[rows] - 1]
        return found


def _alike(length: Ints, padded: int) -> Iterator[Ints]:
    """Rows of like length together, the longest first, so that little is padded; who has nothing is left out."""
    order = np.argsort(-length, kind="stable")[: int((length > 0).sum())]
    start = 0
    while start < len(order):
        stop = start + max(1, padded // int(length[order[start]]))
        yield order[start:stop]
        start = stop


def batches(histories: Histories, length: int, draw: np.random.Generator) -> list[Ints]:
    """Users in batches of like length, in random order; who has one act alone teaches nothing.

    Args:
        histories: of all users.
        length: acts of a history, at most.
        draw: of the order.
    """
    n = np.minimum(np.diff(histories.start), length + 1)
    users = draw.permutation(np.flatnonzero(n > 1))
    found = [users[rows] for rows in _alike(n[users], PADDED)]
    return [found[place] for place in draw.permutation(len(found))]


def _loss(net: _Net, histories: Histories, users: Ints, n_items: int, draw: np.random.Generator) -> Tensor:
    """Cross-entropy of each act against items drawn alike for the whole batch, weighted by the acts."""
    settings = net.settings
    codes, weight = (torch.from_numpy(table) for table in histories.last(users, settings.length + 1))
    before = torch.from_numpy(histories.asked_from(users, settings.length + 1))
    row, place = torch.nonzero((codes[:, 1:] >= 0) & (weight[:, 1:] > 0) & (before >= 0), as_tuple=True)
    asked, target, counts = net(codes[:, :-1])[row, before[row, place]], codes[row, place + 1], weight[row, place + 1]
    everything = not settings.n_negatives or settings.n_negatives >= n_items
    drawn = torch.arange(n_items) if everything else torch.from_numpy(draw.permutation(n_items)[: settings.n_negatives])
    others, own = (functional.normalize(net.items(some), dim=-1) for some in (drawn, target))
    right = (asked * own).sum(-1, keepdim=True) / settings.temperature
    wrong = (asked @ others.T / settings.temperature).masked_fill(target[:, None] == drawn, float("-inf"))
    loss = torch.logsumexp(torch.cat([right, wrong], 1), 1) - right[:, 0]
    return (loss * counts).sum() / counts.sum().clamp(min=1e-9)
