"""What the language model is taught: words that were hidden or come next, and which texts belong together.

On the floor of `language`; torch is imported with this file, so import it where a training begins.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecom_pipeline.arrays import Bools, Floats
from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import Encoder

IGNORED = -100  # labels of tokens that are not guessed, as torch's cross-entropy has it


def contrast(
    left: Tensor,
    right: Tensor,
    negative: Bools,
    temperature: float,
    often: Floats | None = None,
    both_ways: bool = True,
) -> Tensor:
    """How badly each pair is told from those that do not belong together.

    Args:
        left: (b, d) unit vectors.
        right: (b + h, d) unit vectors: what belongs to each left in the same order, then hard negatives.
        negative: (b, b + h) whether a right is a negative for a left; its own is never one.
        temperature: cosines are divided by it.
        often: (b + h,) logarithm of how often each right comes into a batch, up to a constant; None: all alike. Without
            it what is popular is pushed away from everything, only because it is met more often.
        both_ways: whether each right must find its left among the lefts too.

    Returns:
        Mean cross-entropy, in nats.

    Source: InfoNCE, van den Oord et al. 2018, equation 4; both ways as Radford et al. 2021. Lefts and rights that are
    known to belong together are no negatives of each other. The correction is that of Yi et al. 2019, equation 3.

    >>> pair = torch.eye(2)
    >>> round(contrast(pair, pair, ~np.eye(2, dtype=bool), 1.0).item(), 4)  # -log(e / (e + 1))
    0.3133
    """
    own = torch.arange(len(left), device=left.device)
    logits = left @ right.T / temperature
    taken = torch.as_tensor(negative, device=left.device).clone()
    taken[own, own] = True
    logits = logits.masked_fill(~taken, -torch.inf)
    told = logits if often is None else logits - torch.as_tensor(often, dtype=logits.dtype, device=left.device)
    loss = nn.functional.cross_entropy(told, own)
    if not both_ways:
        return loss
    return (loss + nn.functional.cross_entropy(logits[:, : len(left)].T, own)) / 2


def hide(
    ids: list[list[int]], tokenizer: Any, share: float, generator: np.random.Generator
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids with some hidden, and the labels of those; of 10 hidden, 8 are masks, 1 is another token, 1 is itself.

    Special tokens are never hidden; at least one other is in each text that has one.

    Source: Devlin et al. 2019, section 3.1.
    """
    special = np.array(tokenizer.all_special_ids)
    hidden, labels = [], []
    for text in ids:
        tokens = np.array(text)
        may = np.flatnonzero(~np.isin(tokens, special))
        order = generator.permutation(may)[: max(1, round(share * len(may)))]
        kind = generator.random(len(order))
        other = generator.integers(len(tokenizer), size=len(order))
        label = np.full(len(tokens), IGNORED)
        label[order] = tokens[order]
        tokens[order] = np.where(kind < 0.8, tokenizer.mask_token_id, np.where(kind < 0.9, other, tokens[order]))
        hidden.append(tokens.tolist())
        labels.append(label.tolist())
    return hidden, labels


class WordHead(nn.Module):
    """Guesses words from hidden states: scores are products with the model's own input embeddings.

    An encoder that was published without its head gets a new one, which begins as the identity; a decoder's states are
    already meant for the product.
    """

    def __init__(self, encoder: Encoder) -> None:
        """A new head.

        Raises:
            ModelError: if a decoder's output embeddings are not its input embeddings, or an encoder knows no mask.
        """
        super().__init__()
        config, self.causal = encoder.model.config, encoder.causal
        if self.causal and not getattr(config, "tie_word_embeddings", True):
            raise ModelError(
                f"language modelling: 1 model has output embeddings of its own, {encoder.encoder_id!r}, which are not "
                "loaded. Words are guessed with the input embeddings, so they must be the same: set the share of "
                "`language` to 0, or choose another model."
            )
        if not self.causal and encoder.tokenizer.mask_token_id is None:
            raise ModelError(
                f"language modelling: 1 tokenizer has no mask, that of {encoder.encoder_id!r}. Words are guessed where "
                "one stands: set the share of `language` to 0, or choose another model."
            )
        self._words = [encoder.model.get_input_embeddings().weight]  # in a list: frozen, and no parameter of the head
        n_words, width = self._words[0].shape
        if not self.causal:
            self.dense = nn.Linear(encoder.n_dimensions, width)
            nn.init.eye_(self.dense.weight)
            nn.init.zeros_(self.dense.bias)
            self.norm = nn.LayerNorm(width)
            self.bias = nn.Parameter(torch.zeros(n_words))
        self.to(encoder.device)

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross-entropies, in nats, of the labels that are not ignored: (b, l, d) and (b, l) to ()."""
        if self.causal:
            hidden, labels = hidden[:, :-1], labels[:, 1:]
        asked = labels != IGNORED
        state, label = hidden[asked], labels[asked]
        if self.causal:
            scores = state @ self._words[0].T
        else:
            scores = self.norm(self.dense(state)) @ self._words[0].T + self.bias
        return nn.functional.cross_entropy(scores.float(), label, reduction="sum")
