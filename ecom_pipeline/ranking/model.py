"""The rankers: a language model reads context and item apart, or both in one text; a head judges.

On the floor of `ranking`. The head starts as the best head on frozen features, so that training starts from what
those features already tell instead of throwing it away.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ecom_pipeline.arrays import Floats, Ints, Singles
from ecom_pipeline.language.encoder import Encoder, batches
from ecom_pipeline.language.features import Projection
from ecom_pipeline.language.frozen import Texts
from ecom_pipeline.language.memory import Halving
from ecom_pipeline.language.products import fast_products
from ecom_pipeline.ranking.design import Design
from ecom_pipeline.ranking.tower import Tower


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs to rank.

    Attributes:
        texts: (n, t) rows of the texts that are read for a pair: context and item, or one text that holds both.
        given: (n, g) numbers that the head takes as they are.
        group: (n,) 0..n_groups-1.
        label: (n,) in [0, 1].
        relevance: (n,) judged grade.
    """

    texts: Ints
    given: Singles
    group: Ints
    label: Floats
    relevance: Floats

    def __len__(self) -> int:
        return len(self.texts)


class Ranker(nn.Module, ABC):
    """What both kinds of ranker have in common: a tower that reads texts, and a head that judges pairs of them."""

    tower: Tower
    head: nn.Parameter

    @abstractmethod
    def judge(self, vectors: Sequence[Tensor], given: Tensor) -> Tensor:
        """(n,) logits of pairs from the (n, d) vectors of their texts and the (n, g) numbers."""

    def logits(self, texts: Texts, pairs: Pairs, rows: Ints) -> Tensor:
        """(b,) of some pairs; a text that stands in several of them is read once."""
        vectors = []
        for column in pairs.texts[rows].T:  # contexts and items differ much in length: apart, neither pads the other
            distinct, place = np.unique(column, return_inverse=True)
            read = self.tower(texts.batch(distinct, self.head.device))
            vectors.append(read[torch.as_tensor(place, device=read.device)])
        return self.judge(vectors, torch.as_tensor(pairs.given[rows], device=self.head.device))

    def encode(self, texts: Texts, rows: Ints, token_budget: int) -> Tensor:
        """(b, d) unit vectors of many texts, without gradients."""
        self.eval()
        halving = Halving("scoring", self.head.device, unit="texts")
        found = []
        with torch.inference_mode(), nullcontext() if self.tower.compiled else fast_products(len(rows)):
            parts = list(batches(texts.length(rows).tolist(), token_budget))
            for part in parts:
                found += halving.run(rows[part], lambda few: self.tower(texts.batch(few, self.head.device)))
            result = torch.empty(len(rows), found[0].shape[1], device=self.head.device)
            result[np.concatenate(parts)] = torch.cat(found).float()
        return result

    def score(self, texts: Texts, pairs: Pairs, token_budget: int) -> Floats:
        """(n,) scores of pairs in (0, 1); each distinct text is read once. Probabilities after pointwise training."""
        self.eval()
        rows, place = np.unique(pairs.texts, return_inverse=True)
        vectors = self.encode(texts, rows, token_budget)
        device = self.head.device
        places = torch.as_tensor(place.reshape(pairs.texts.shape), device=device)
        given = torch.as_tensor(pairs.given, device=device)
        with torch.inference_mode():
            logits = [
                self.judge([vectors[column] for column in places[part].T], given[part])
                for part in torch.arange(len(pairs), device=device).split(1 << 14)
            ]
            return torch.sigmoid(torch.cat(logits)).double().cpu().numpy()


class TwoTower(Ranker):
    """Context and item are read apart: logit = head(projection(how their vectors meet)). Items can be read ahead."""

    centre: Tensor
    components: Tensor
    match_mean: Tensor
    match_std: Tensor

    def __init__(self, tower: Tower, projection: Projection, head: Singles) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Parameter(torch.as_tensor(head, dtype=torch.float32).clone())
        for name in ("centre", "components", "match_mean", "match_std"):
            self.register_buffer(name, torch.as_tensor(getattr(projection, name), dtype=torch.float32))

    def judge(self, vectors: Sequence[Tensor], given: Tensor) -> Tensor:
        """(n,) logits; `given` is what a pair's features tell beside the cosine."""
        context, item = vectors
        product = context * item
        meeting = torch.cat([product, (context - item).abs()], dim=1)
        components = (meeting - self.centre) @ self.components
        match = torch.cat([product.sum(1, keepdim=True), given], dim=1)
        match = (match - self.match_mean) / self.match_std
        return torch.cat([components, match, torch.ones_like(match[:, :1])], dim=1) @ self.head


class CrossEncoder(Ranker):
    """Context and item are read as one text: logit = head(frozen features) + what the text adds, nothing at first."""

    def __init__(self, tower: Tower, n_dimensions: int, head: Singles) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Parameter(torch.as_tensor(head, dtype=torch.float32).clone())
        self.of_text = nn.Parameter(torch.zeros(n_dimensions))

    def judge(self, vectors: Sequence[Tensor], given: Tensor) -> Tensor:
        """(n,) logits; `given` is the pair's projected features."""
        (text,) = vectors
        # entries of a unit vector are small: brought to a spread of about 1, as the features have
        return given @ self.head + text @ self.of_text * text.shape[1] ** 0.5


def make_ranker(design: Design, encoder: Encoder, projection: Projection, head: Singles, frozen: bool) -> Ranker:
    """A ranker to start from, on the encoder's device.

    Args:
        design: what kind.
        encoder: what it reads with; stays as it is.
        projection: of frozen features.
        head: (p,) over projected features.
        frozen: whether texts come as states below the cut.
    """
    tower = Tower(encoder, design.learning, frozen)
    if design.architecture == "two_tower":
        return TwoTower(tower, projection, head).to(encoder.device)
    return CrossEncoder(tower, encoder.n_dimensions, head).to(encoder.device)
