"""The ranker: the encoder's top layers read context and item apart, a head judges how they meet.

On the floor of `ranking`. The head starts as the best head on frozen features, so that training starts from what
those features already tell instead of throwing it away.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ecom_pipeline.language.encoder import batches, pool
from ecom_pipeline.language.features import Projection
from ecom_pipeline.language.frozen import FrozenStates

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs to rank, as rows of the frozen states.

    Attributes:
        context: (n,) row of the context's text.
        item: (n,) row of the item's text.
        overlap: (n, 4) what the texts share, see `features.text_overlap`.
        group: (n,) 0..n_groups-1.
        label: (n,) in [0, 1].
        relevance: (n,) judged grade.
    """

    context: NDArray[np.int64]
    item: NDArray[np.int64]
    overlap: NDArray[np.float32]
    group: NDArray[np.int64]
    label: NDArray[np.float64]
    relevance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.context)


class Ranker(nn.Module):
    """Two towers that share their layers: logit = head(projection(how the towers' vectors meet))."""

    def __init__(self, layers: Any, projection: Projection, head: NDArray[np.float32]) -> None:
        super().__init__()
        self.layers = layers
        self.head = nn.Parameter(torch.as_tensor(head, dtype=torch.float32).clone())
        for name in ("centre", "components", "match_mean", "match_std"):
            self.register_buffer(name, torch.as_tensor(getattr(projection, name), dtype=torch.float32))

    def encode(self, states: FrozenStates, rows: NDArray[np.int64]) -> "Tensor":
        """(b, d) unit vectors of some texts."""
        hidden, mask = states.batch(rows, self.head.device)
        for layer in self.layers:
            hidden = layer(hidden, mask[:, None, None, :])
        return pool(hidden, mask)

    def encode_all(self, states: FrozenStates, rows: NDArray[np.int64], token_budget: int) -> "Tensor":
        """(b, d) unit vectors of many texts, without gradients."""
        result = torch.empty(len(rows), states.state.shape[1], device=self.head.device)
        with torch.inference_mode():
            for part in batches(states.length(rows).tolist(), token_budget):
                result[part] = self.encode(states, rows[part])
        return result

    def judge(self, context: "Tensor", item: "Tensor", overlap: "Tensor") -> "Tensor":
        """(n,) logits of pairs from their towers' vectors."""
        product = context * item
        meeting = torch.cat([product, (context - item).abs()], dim=1)
        components = (meeting - self.centre) @ self.components
        match = torch.cat([product.sum(1, keepdim=True), overlap], dim=1)
        match = (match - self.match_mean) / self.match_std
        return torch.cat([components, match, torch.ones_like(match[:, :1])], dim=1) @ self.head

    def score(self, states: FrozenStates, pairs: Pairs, token_budget: int) -> NDArray[np.float64]:
        """(n,) probability of label 1 of pairs; each distinct text is read once."""
        self.eval()
        rows, place = np.unique(np.concatenate([pairs.context, pairs.item]), return_inverse=True)
        vectors = self.encode_all(states, rows, token_budget)
        device = self.head.device
        places = torch.as_tensor(place, device=device)
        overlap = torch.as_tensor(pairs.overlap, device=device)
        with torch.inference_mode():
            logits = [
                self.judge(vectors[places[part]], vectors[places[part + len(pairs)]], overlap[part])
                for part in torch.arange(len(pairs), device=device).split(1 << 14)
            ]
            return torch.sigmoid(torch.cat(logits)).double().cpu().numpy()
