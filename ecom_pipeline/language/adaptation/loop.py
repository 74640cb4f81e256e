"""Teach a language model the shop: steps of several objectives, and checkpoints that survive a kill.

On the floor of `language`; torch is imported with this file, so import it where a training begins.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ecom_pipeline.arrays import Ints
from ecom_pipeline.curves import Watch
from ecom_pipeline.language import checkpoint
from ecom_pipeline.language.adaptation.corpus import Corpus, Pairs
from ecom_pipeline.language.adaptation.negatives import Negatives
from ecom_pipeline.language.adaptation.objectives import IGNORED, WordHead, contrast, hide
from ecom_pipeline.language.adaptation.settings import OBJECTIVES, Adaptation, schedule
from ecom_pipeline.language.encoder import Encoder, batches, padded, pool, tokenize
from ecom_pipeline.language.frozen import layer_stack
from ecom_pipeline.language.memory import Halving, add_gradients, is_out_of_memory, release

CHECKPOINT_STEPS = 50
HEAD_RATE = 10.0  # a head that begins from nothing learns faster than what was trained for weeks
_PART_TOKENS = 2048  # of a forward pass: texts of like length together, so that little is padded
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adapted:
    """How an adaptation went; the encoder holds its last parameters."""

    losses: list[float]  # of each step, in nats
    objectives: list[str]  # of each step
    seconds: float

    def last_loss(self, objective: str) -> float:
        """Mean over the last tenth of an objective's steps."""
        own = [loss for loss, name in zip(self.losses, self.objectives, strict=True) if name == objective]
        return float(np.mean(own[-max(1, len(own) // 10) :]))


def adapt(encoder: Encoder, corpus: Corpus, settings: Adaptation, resumed_from: Path, watch: Watch) -> Adapted:
    """Teach an encoder in place.

    There is no dropout: a text has the same vector in every pass, so that large batches can be cut into parts without
    changing a gradient (Gao et al. 2021), and a training that goes on after a kill ends with the same weights, to the
    bit on a CPU.

    Args:
        encoder: to be taught; its device is used.
        corpus: what is read.
        settings: how.
        resumed_from: the checkpoint, a safetensors file, written anew every 50 steps; removed by whoever keeps the encoder.
        watch: is told the loss of each step by objective, and the rate.

    Cost: forward and backward of each step's texts; backward through the layers that learn alone. Random: the seed
    decides, and equal runs on one CPU are equal.
    """
    started = time.monotonic()
    run = _Run(encoder, corpus, settings, resumed_from)
    run.resume()
    while run.step < len(run.plan):
        loss, rate = run.take()
        watch(run.step, {f"loss_{run.plan[run.step - 1]}": loss, "learning_rate": rate})
        if run.step % CHECKPOINT_STEPS == 0 or run.step == len(run.plan):
            run.save()
            log.info("adapted %d of %d steps, loss %.3f", run.step, len(run.plan), float(np.mean(run.losses[-20:])))
    encoder.model.requires_grad_(False)
    return Adapted(run.losses, run.plan, time.monotonic() - started)


class _Run:
    """The moving parts of an adaptation, and how they are kept."""

    def __init__(self, encoder: Encoder, corpus: Corpus, settings: Adaptation, file: Path) -> None:
        self.encoder, self.corpus, self.settings, self.checkpoint = encoder, corpus, settings, file
        shares = corpus.shares(settings)
        self.plan = schedule(shares, settings.n_steps)
        self.ids = tokenize(encoder, corpus.texts)
        self.negatives = {
            name: Negatives.of(corpus.pairs[name], len(corpus.texts)) for name in shares if name != "language"
        }
        layers = layer_stack(encoder.model)
        for layer in layers[max(0, len(layers) - settings.n_top) :]:
            layer.requires_grad_(True)
        torch.manual_seed(settings.seed)  # of the head, where it is not square
        self.head = WordHead(encoder) if "language" in shares else nn.Module()
        learning = [(f"model.{name}", value) for name, value in encoder.model.named_parameters() if value.requires_grad]
        self.learning = dict(learning) | {f"head.{name}": value for name, value in self.head.named_parameters()}
        self.optimizer = torch.optim.AdamW(_groups(self.learning))
        self.halving = Halving("adaptation", encoder.device, unit="texts")
        self.cached = False  # whether batches are computed in parts, as memory is short
        self.step = 0
        self.losses: list[float] = []

    def take(self) -> tuple[float, float]:
        """One step of the optimizer; its loss and rate."""
        objective = self.plan[self.step]
        nth = self.plan[: self.step].count(objective)
        warmup = max(1, round(self.settings.warmup_share * len(self.plan)))
        left = (len(self.plan) - self.step) / max(1, len(self.plan) - warmup)
        rate = self.settings.learning_rate * min((self.step + 1) / warmup, left)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        generator = np.random.default_rng([self.settings.seed, self.step])
        loss = self._words(nth, generator) if objective == "language" else self._pairs(objective, nth, generator)
        nn.utils.clip_grad_norm_(self.learning.values(), 1.0)
        self.optimizer.step()
        self.losses.append(loss)
        self.step += 1
        return loss, rate

    def _batch(self, objective: str, nth: int, size: int) -> Ints:
        """Rows of an objective's nth step: each row once before any comes again."""
        n = self.corpus.size(objective)
        size = min(size, n)
        epoch, place = divmod(nth, n // size)
        order = np.random.default_rng([self.settings.seed, OBJECTIVES.index(objective), epoch]).permutation(n)
        return order[place * size : (place + 1) * size]

    def _words(self, nth: int, generator: np.random.Generator) -> float:
        rows = self.corpus.language[self._batch("language", nth, self.settings.batch_texts)]
        ids = [self.ids[row] for row in rows]
        if self.encoder.causal:
            hidden, labels = ids, [[IGNORED, *text[1:]] for text in ids]  # nothing comes before a first token
        else:
            hidden, labels = hide(ids, self.encoder.tokenizer, self.settings.mask_share, generator)
        n_asked = max(1, sum(label != IGNORED for text in labels for label in text))

        def work(part: list[int]) -> float:
            inputs = padded(self.encoder, [hidden[i] for i in part])
            asked = torch.full_like(inputs["input_ids"], IGNORED)
            asked[inputs["attention_mask"].bool()] = torch.tensor(
                [label for i in part for label in labels[i]], device=asked.device
            )
            loss = self.head(self._states(inputs), asked) / n_asked
            add_gradients(loss, self.learning.values())
            return loss.item()

        parts = batches([len(text) for text in ids], _PART_TOKENS)
        return sum(sum(self.halving.run(part, work)) for part in parts)

    def _pairs(self, objective: str, nth: int, generator: np.random.Generator) -> float:
        pairs, negatives = self.corpus.pairs[objective], self.negatives[objective]
        if nth == 0 and self.settings.hard_negatives and objective != "attribute":
            self._mine(pairs, negatives)
        rows = self._batch(objective, nth, self.settings.batch_pairs)
        left = pairs.left[rows]
        hard = negatives.draw(left, self.settings.hard_negatives, generator)
        right = np.concatenate([pairs.right[rows], hard])
        texts, place = np.unique(np.concatenate([left, right]), return_inverse=True)
        negative = negatives.mask(left, right)
        often = negatives.often(right, len(left)) if self.settings.correct_popularity else None

        def loss(vectors: Tensor) -> Tensor:
            one, other = vectors[place[: len(left)]], vectors[place[len(left) :]]
            return contrast(one, other, negative, self.settings.temperature, often)

        if not self.cached:
            found = self._at_once(texts, loss)
            if found is not None:
                return found
            self.cached = True
            release(self.encoder.device)
            log.warning("adaptation: out of memory with %d texts; goes on in parts", len(texts))
        return self._in_parts(texts, loss)

    def _at_once(self, texts: Ints, loss: Callable[[Tensor], Tensor]) -> float | None:
        """Gradients with all of the graph in memory; None where it does not fit."""
        try:
            total = loss(self._vectors(texts))
            add_gradients(total, self.learning.values())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return total.item()

    def _in_parts(self, texts: Ints, loss: Callable[[Tensor], Tensor]) -> float:
        """The same gradients in two passes: vectors without a graph, and then a part at a time.

        Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup".
        """

        def read(part: Ints) -> Tensor:
            with torch.no_grad():
                return self._vectors(texts[part])

        every = np.arange(len(texts))
        vectors = torch.cat(self.halving.run(every, read)).requires_grad_(True)
        total = loss(vectors)
        (wanted,) = torch.autograd.grad(total, vectors)

        def back(part: Ints) -> None:
            add_gradients((self._vectors(texts[part]) * wanted[part]).sum(), self.learning.values())

        # the whole did not fit, so halves are tried first; later what has been found to fit
        for part in np.array_split(every, 2):
            self.halving.run(part, back)
        return total.item()

    def _vectors(self, rows: Ints) -> Tensor:
        """(n, d) unit vectors of texts, texts of like length read together."""
        parts, order = [], []
        for part in batches([len(self.ids[row]) for row in rows], _PART_TOKENS):
            inputs = padded(self.encoder, [self.ids[rows[i]] for i in part])
            parts.append(pool(self._states(inputs), inputs["attention_mask"], self.encoder.pooling))
            order += part
        return torch.cat(parts)[np.argsort(order)]

    def _states(self, inputs: dict[str, Tensor]) -> Tensor:
        kind = self.encoder.device.type
        able = kind == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(kind, torch.bfloat16, enabled=able):
            return self.encoder.model(**inputs).last_hidden_state.float()

    def _mine(self, pairs: Pairs, negatives: Negatives) -> None:
        """Hard negatives by the encoder as it is before the objective's first step."""
        with torch.no_grad():
            items = self._vectors(self.corpus.catalogue)
            lefts = np.unique(pairs.left)
            for start in range(0, len(lefts), 256):
                rows = lefts[start : start + 256]
                score = (self._vectors(rows) @ items.T).cpu().numpy()
                negatives.note(rows, score, self.corpus.catalogue, self.settings.skipped)

    def save(self) -> None:
        """Everything that is needed to go on, replaced at once."""
        mined = {name: torch.from_numpy(one.mined) for name, one in self.negatives.items()}
        told = {"settings": self.settings.as_dict(), "step": self.step, "losses": self.losses}
        checkpoint.save(self.checkpoint, self.learning, self.optimizer, mined, told)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one; it lies in the folder of these inputs and no others."""
        told = checkpoint.told(self.checkpoint)
        if not told:
            return
        mined = checkpoint.restore(self.checkpoint, self.learning, self.optimizer)
        for name, one in self.negatives.items():
            one.mined = mined[name].numpy()
        self.step, self.losses = told["step"], told["losses"]
        log.info("adaptation goes on after step %d", self.step)


def _groups(learning: dict[str, nn.Parameter]) -> list[dict]:
    """Decay on matrices, none on biases and norms; the head's rate is higher."""

    def chosen(matrix: bool, head: bool) -> Sequence[nn.Parameter]:
        return [
            value for name, value in learning.items() if (value.ndim > 1) == matrix and name.startswith("head.") == head
        ]

    found = [
        {"params": chosen(matrix, head), "weight_decay": 0.01 if matrix else 0.0, "factor": HEAD_RATE if head else 1.0}
        for matrix in (True, False)
        for head in (True, False)
    ]
    return [group for group in found if group["params"]]
