"""What the frozen lower layers give for a text: computed once, so that training pays for the top layers alone.

On the floor of `language`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import Encoder, batches, padded, tokenize

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class FrozenStates:
    """States of every token of every distinct text below the cut, one after the other.

    Attributes:
        state: (tokens, d) half precision.
        start: (texts + 1,) where each text's tokens begin.
    """

    state: NDArray[np.float16]
    start: NDArray[np.int64]

    def length(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some texts."""
        return self.start[rows + 1] - self.start[rows]

    def batch(self, rows: NDArray[np.int64], device: "torch.device") -> tuple["torch.Tensor", "torch.Tensor"]:
        """States (b, longest, d) and mask (b, longest) of some texts."""
        import torch

        lengths = self.length(rows)
        states = np.zeros((len(rows), int(lengths.max()), self.state.shape[1]), np.float32)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            states[place, :length] = self.state[self.start[row] : self.start[row] + length]
        mask = np.arange(states.shape[1])[None, :] < lengths[:, None]
        return torch.from_numpy(states).to(device), torch.from_numpy(mask).to(device)


def top_layers(encoder: Encoder, n_top: int) -> Any:
    """A trainable copy of the encoder's last layers.

    Raises:
        ModelError: if the encoder has not so many layers.
    """
    if not 1 <= n_top <= encoder.n_layers:
        raise ModelError(
            f"top layers: {n_top} were asked for, and {encoder.encoder_id} has {encoder.n_layers}. "
            f"The number must be in [1, {encoder.n_layers}]: lower it."
        )
    return copy.deepcopy(encoder.model.encoder.layer[encoder.n_layers - n_top :]).requires_grad_(True)


def freeze(encoder: Encoder, texts: Sequence[str], n_top: int, token_budget: int) -> FrozenStates:
    """States of texts below the last `n_top` layers.

    Cost: the lower layers' share of a forward pass a text; 2 d bytes a token of memory.
    """
    import torch

    lower = copy.copy(encoder.model)
    lower._modules = dict(encoder.model._modules)
    lower.encoder = copy.copy(encoder.model.encoder)
    lower.encoder._modules = {"layer": encoder.model.encoder.layer[: encoder.n_layers - n_top]}
    ids = tokenize(encoder, texts)
    start = np.concatenate([[0], np.cumsum([len(text) for text in ids])]).astype(np.int64)
    state = np.zeros((int(start[-1]), encoder.n_dimensions), np.float16)
    with torch.inference_mode():
        for rows in batches([len(text) for text in ids], token_budget):
            tokens, mask = padded(encoder, [ids[row] for row in rows])
            hidden = lower(input_ids=tokens, attention_mask=mask).last_hidden_state.half().cpu().numpy()
            for place, row in enumerate(rows):
                state[start[row] : start[row + 1]] = hidden[place, : len(ids[row])]
    return FrozenStates(state, start)
