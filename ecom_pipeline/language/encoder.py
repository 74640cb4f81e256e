"""Load a language model and read texts with it, each distinct text once.

On the floor above `samples`. torch and transformers are imported when a model is loaded, not before.
"""

import inspect
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecom_pipeline.arrays import Singles
from ecom_pipeline.language.memory import Halving
from ecom_pipeline.language.models import PACKAGED, Pooling, find_model
from ecom_pipeline.language.products import fast_products

if TYPE_CHECKING:
    import torch

__all__ = ["PACKAGED", "Encoded", "Encoder", "batches", "encode", "load_encoder", "padded", "pool", "save_encoder"]
Text = str | tuple[str, str]  # a text, or two that are read as one
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A transformer that gives one unit-length vector a text.

    Attributes:
        encoder_id: name, hash of the files, pooling and number of tokens read: what an embedding depends on.
        model: one stack of layers, in evaluation mode and frozen.
        tokenizer: text to token ids.
        max_tokens: a longer text is cut.
        device: where the model lies.
        pooling: how the vectors of tokens become one; of decoders the last, as only that token has seen the whole text.
        causal: whether a token sees only those before it. Batches are then padded on the left.
    """

    encoder_id: str
    model: Any
    tokenizer: Any
    max_tokens: int
    device: "torch.device"
    pooling: Pooling
    causal: bool

    @property
    def n_layers(self) -> int:
        """Transformer layers."""
        return self.model.config.num_hidden_layers

    @property
    def n_dimensions(self) -> int:
        """Length of an embedding."""
        return self.model.config.hidden_size


@dataclass(frozen=True, slots=True)
class Encoded:
    """Embeddings in the order of the texts, and what they cost."""

    embedding: Singles  # (n, d) unit length
    n_tokens: int
    seconds: float

    def throughput(self) -> dict[str, float]:
        """Texts and tokens a second, for the metadata."""
        seconds = max(self.seconds, 1e-9)
        return {"texts_per_second": len(self.embedding) / seconds, "tokens_per_second": self.n_tokens / seconds}


def load_encoder(name: str, max_tokens: int, device: str, remote_code: str = "") -> Encoder:
    """The encoder, ready to read.

    Args:
        name: the packaged model's name, a folder, or an id in the local Hugging Face cache.
        max_tokens: a longer text is cut to so many tokens.
        device: of torch, such as "cpu" or "cuda".
        remote_code: name of the model whose own Python code may run.

    Raises:
        ModelError: as `find_model`.
    """
    import torch
    import transformers

    found = find_model(name, remote_code)
    transformers.utils.logging.disable_progress_bar()
    trusted = {"local_files_only": True, "trust_remote_code": remote_code == name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, **trusted)
    model = transformers.AutoModel.from_pretrained(found.folder, use_safetensors=True, dtype=torch.float32, **trusted)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # trained for another task; we pool ourselves
    model.config.use_cache = False  # nothing is written token by token
    model.requires_grad_(False)
    place = torch.device(device)
    return Encoder(
        *(found.encoder_id(max_tokens), model.to(place).eval(), tokenizer, max_tokens, place),
        *(found.pooling, found.causal),
    )


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write a model so that `load_encoder` and sentence-transformers read it as it is now."""
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    pooling = {"mean": "mean_tokens", "last": "lasttoken", "cls": "cls_token"}
    modes = {f"pooling_mode_{mode}": encoder.pooling == name for name, mode in pooling.items()}
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(parts)
    ]
    for file, content in (
        ("1_Pooling/config.json", {"word_embedding_dimension": encoder.n_dimensions, **modes}),
        ("sentence_bert_config.json", {"max_seq_length": encoder.max_tokens, "do_lower_case": False}),
        ("modules.json", modules),
    ):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content, indent=2))


def tokenize(encoder: Encoder, texts: Sequence[Text]) -> list[list[int]]:
    """Token ids of each text, or pair of texts read as one, cut to the encoder's length; at least one token each.

    A pair's texts are parted as the tokenizer does it, or by a new line where it knows no such sign (GPT's family).
    """
    if not texts:
        return []
    if isinstance(texts[0], str):
        parts = [list(texts)]
    elif encoder.tokenizer.sep_token_id is None:
        parts = [["\n".join(pair) for pair in texts]]
    else:
        parts = [list(part) for part in zip(*texts, strict=True)]
    ids = encoder.tokenizer(*parts, truncation=True, max_length=encoder.max_tokens)["input_ids"]
    return [one or [encoder.tokenizer.eos_token_id or 0] for one in ids]


def encode(encoder: Encoder, texts: Sequence[str], token_budget: int) -> Encoded:
    """Embeddings of texts, in their order.

    Cost: one forward pass a text; batches are of like length and at most `token_budget` tokens, padding included. A batch
    for which there is too little memory is halved, and so are all after it.
    """
    import torch

    started = time.monotonic()
    ids = tokenize(encoder, texts)
    result = np.zeros((len(texts), encoder.n_dimensions), np.float32)
    halving = Halving("encoding", encoder.device, unit="texts")

    def read(rows: list[int]) -> Singles:
        inputs = padded(encoder, [ids[row] for row in rows])
        hidden = encoder.model(**inputs).last_hidden_state
        return pool(hidden, inputs["attention_mask"], encoder.pooling).float().cpu().numpy()

    with torch.inference_mode(), fast_products(len(texts)):
        for rows in batches([len(i) for i in ids], token_budget, _progress("encoded")):
            result[rows] = np.concatenate(halving.run(rows, read))
    return Encoded(result, sum(map(len, ids)), time.monotonic() - started)


def pool(hidden: "torch.Tensor", mask: "torch.Tensor", pooling: Pooling) -> "torch.Tensor":
    """One vector of unit length a text: (b, l, d) and (b, l) to (b, d).

    >>> import torch
    >>> hidden, mask = torch.tensor([[[9.0, 9.0], [0.0, 4.0], [3.0, 0.0]]]), torch.tensor([[0, 1, 1]])
    >>> [pool(hidden, mask, one).tolist()[0] for one in ("cls", "last")]
    [[0.0, 1.0], [1.0, 0.0]]
    """
    import torch

    if pooling == "mean":
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        vector = (hidden * kept).sum(1) / kept.sum(1)
    else:
        # padding lies on either side: the first token is where the mask is first 1, the last is so many further
        first = mask.long().argmax(1)
        place = first if pooling == "cls" else first + mask.long().sum(1) - 1
        vector = hidden[torch.arange(len(hidden), device=hidden.device), place]
    return torch.nn.functional.normalize(vector, dim=1)


def padded(encoder: Encoder, ids: Sequence[Sequence[int]]) -> dict[str, "torch.Tensor"]:
    """What the model takes for a batch: token ids and mask, both (b, longest), on the encoder's device.

    A decoder's batch is padded on the left and has positions, so that padding moves no token.
    """
    import torch

    longest = max(map(len, ids))
    tokens = torch.full((len(ids), longest), encoder.tokenizer.pad_token_id or 0, dtype=torch.long)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for row, text in enumerate(ids):
        part = slice(longest - len(text), longest) if encoder.causal else slice(len(text))
        tokens[row, part] = torch.tensor(text)
        mask[row, part] = 1
    inputs = {"input_ids": tokens.to(encoder.device), "attention_mask": mask.to(encoder.device)}
    if counts_positions(encoder):
        inputs["position_ids"] = positions(inputs["attention_mask"])
    return inputs


def counts_positions(encoder: Encoder) -> bool:
    """Whether the model is a decoder that is told the places of tokens."""
    return encoder.causal and "position_ids" in inspect.signature(encoder.model.forward).parameters


def positions(mask: "torch.Tensor") -> "torch.Tensor":
    """(b, l) places of tokens in their own texts, wherever the padding lies."""
    return (mask.cumsum(1) - 1).clamp(min=0)


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
