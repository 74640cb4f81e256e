"""Train a ranker with sample weights: AdamW, warm-up and decay, early stopping, and checkpoints that survive a kill.

On the floor of `ranking`.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecom_pipeline.arrays import Floats, Ints
from ecom_pipeline.curves import Watch
from ecom_pipeline.language import checkpoint
from ecom_pipeline.language.frozen import Texts
from ecom_pipeline.language.memory import Halving, add_gradients, in_two
from ecom_pipeline.ranking.design import LossName, Precision
from ecom_pipeline.ranking.losses import LOSSES
from ecom_pipeline.ranking.metrics import ndcg_at_k
from ecom_pipeline.ranking.model import Pairs, Ranker
from ecom_pipeline.ranking.team import ALONE, Team

_HEADS = ("head", "of_text")  # vectors, yet what weight decay is for
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How one ranker is trained.

    Attributes:
        learning_rate: peak of the schedule.
        weight_decay: of AdamW, on matrices and the head.
        max_epochs: passes over the training pairs, at most.
        patience: epochs without a better validation nDCG@10 after which to stop.
        batch_pairs: pairs of a step, about; groups stay whole.
        part_pairs: pairs whose gradients are computed at once and added up to the step's; 0 takes the step's at once.
        warmup_share: share of the steps in which the rate rises; then it falls to 0 in a straight line.
        token_budget: tokens of a batch when texts are read without gradients.
        loss: one of `losses.LOSSES`.
        precision: of matrix products. "auto": bf16 on GPUs that have it, fp32 elsewhere.
        compiled: whether torch.compile makes one program of the language model. It pays on GPUs and in long trainings.
    """

    learning_rate: float
    weight_decay: float
    max_epochs: int = 2
    patience: int = 1
    batch_pairs: int = 96
    part_pairs: int = 0
    warmup_share: float = 0.1
    token_budget: int = 4096
    loss: LossName = "pointwise"
    precision: Precision = "auto"
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training went; the ranker holds the best epoch's parameters."""

    best_epoch: int
    best_ndcg: float
    history: list[float]  # validation nDCG@10 before training and after each epoch
    seconds: float


def train(
    ranker: Ranker,
    texts: Texts,
    pairs: Pairs,
    weight: Floats,
    validation: Pairs,
    settings: TrainingSettings,
    seed: int,
    resumed_from: Path,
    watch: Watch = lambda step, figures: None,
    team: Team = ALONE,
    *,
    offset: Floats | None = None,
) -> Trained:
    """Train a ranker in place and leave the best epoch's parameters in it.

    Epoch 0 is the ranker as given; if no epoch beats it on validation, it stays. After each epoch everything that is
    needed to go on is written to `resumed_from` at once, so a killed training goes on after its last whole epoch; under
    AdaLoRA it begins anew, as what that method has seen of its ranks is not kept.

    Args:
        ranker: to be trained; its device is used.
        texts: what is read.
        pairs: training pairs.
        weight: (n,) with mean 1; >= 0 but for the literal loss.
        validation: pairs that decide when to stop; never the test split.
        settings: how.
        seed: order of the groups, and dropout.
        resumed_from: the checkpoint, removed when training is done.
        watch: is told the loss and the rate of each step, and validation nDCG@10 of each epoch.
        team: the processes that train together; each does its share of every step.
        offset: (n,) logits that the choice of rows adds, see `kept_rows.Kept`: the loss sees the ranker's logit less it.

    Returns:
        How it went.

    Cost: forward and backward of what learns for each distinct text of a batch. Random: `seed` decides, and equal runs
    on one CPU, or on one GPU under `torch.use_deterministic_algorithms`, are equal. Another number of processes or
    another size of parts (a halving for want of memory too) draws other dropout, and so gives another, equally good
    ranker.
    """
    started = time.monotonic()
    run = _Run(ranker, settings, np.zeros(len(pairs)) if offset is None else offset, resumed_from, team)
    run.resume()
    if settings.compiled:
        ranker.tower.compile(dynamic=True)
    if not run.history:
        run.note(0, _ndcg(ranker, texts, validation, settings), watch)
    while run.epoch < settings.max_epochs and run.epoch - run.best_epoch < settings.patience:
        ranker.train()
        epoch = run.epoch + 1
        device = ranker.head.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed((seed * 1009 + epoch) * team.size + team.rank)
            for rows in group_batches(pairs.group, settings.batch_pairs, np.random.default_rng([seed, epoch])):
                figures = run.step(texts, pairs, weight, rows)
                watch(run.steps, figures)  # steps done: one that comes after a resumption is beyond all told before
        run.note(epoch, _ndcg(ranker, texts, validation, settings), watch)
        log.info("epoch %d: validation nDCG@10 %.4f, best %.4f", epoch, run.history[-1], max(run.history))
        run.save()
    run.restore_best()
    resumed_from.unlink(missing_ok=True)
    return Trained(run.best_epoch, max(run.history), run.history, time.monotonic() - started)


def group_batches(group: Ints, batch_pairs: int, generator: np.random.Generator) -> Iterator[Ints]:
    """Rows of whole groups in random order, about `batch_pairs` a batch; larger groups are cut."""
    order = generator.permutation(group.max() + 1)[group].argsort(kind="stable")
    start = 0
    while start < len(order):
        stop = min(start + batch_pairs, len(order))
        while stop < len(order) and stop - start < 2 * batch_pairs and group[order[stop]] == group[order[stop - 1]]:
            stop += 1
        yield order[start:stop]
        start = stop


def parts_of_groups(group: Ints, rows: Ints, n_pairs: int) -> list[Ints]:
    """Rows cut between groups into parts of about `n_pairs`; a group of a batch stays whole, however large.

    >>> [part.tolist() for part in parts_of_groups(np.array([5, 5, 5, 7, 8]), np.arange(5), 2)]
    [[0, 1, 2], [3, 4]]
    """
    ends = np.flatnonzero(np.diff(group[rows])) + 1
    cuts: list[int] = []
    for end in ends.tolist():
        if end - (cuts[-1] if cuts else 0) >= n_pairs:
            cuts.append(end)
    return np.split(rows, cuts)


def _ndcg(ranker: Ranker, texts: Texts, pairs: Pairs, settings: TrainingSettings) -> float:
    with _autocast(ranker, settings):
        score = ranker.score(texts, pairs, settings.token_budget)
    return float(np.nanmean(ndcg_at_k(pairs.group, pairs.relevance, score, 10)))


def _autocast(ranker: Ranker, settings: TrainingSettings) -> AbstractContextManager:
    device = ranker.head.device
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and able)
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


class _Run:
    """The moving parts of a training, and how they are kept."""

    def __init__(self, ranker: Ranker, settings: TrainingSettings, offset: NDArray, file: Path, team: Team) -> None:
        self.ranker, self.settings, self.checkpoint, self.team = ranker, settings, file, team
        self.offset = offset
        self.learning = {name: value for name, value in ranker.named_parameters() if value.requires_grad}
        self.halving = Halving("training", ranker.head.device, unit="pairs")
        self.optimizer = torch.optim.AdamW(_parameter_groups(ranker, settings), lr=settings.learning_rate)
        n_steps = max(1, settings.max_epochs * -(-len(offset) // settings.batch_pairs))
        warmup = max(1, round(settings.warmup_share * n_steps))
        ranker.tower.begin(n_steps)
        self.rate = lambda step: min((step + 1) / warmup, max(0.0, (n_steps - step) / max(1, n_steps - warmup)))
        self.steps = self.epoch = self.best_epoch = 0
        self.history: list[float] = []
        self.best: dict[str, Tensor] = {}

    def step(self, texts: Texts, pairs: Pairs, weight: NDArray, rows: Ints) -> dict[str, float]:
        """One step of the optimizer on these rows; its loss and rate."""
        loss = LOSSES[self.settings.loss]
        rate = self.settings.learning_rate * self.rate(self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        n_terms = loss.terms(pairs.label[rows], pairs.group[rows])

        def work(part: Ints) -> float:
            total = self._total(texts, pairs, weight, part) / n_terms
            add_gradients(total, self.learning.values())
            return total.item()

        def split(part: Ints) -> list[Ints]:
            return parts_of_groups(pairs.group, part, len(part) // 2) if loss.needs_groups else in_two(part)

        share = -(-len(rows) // self.team.size)
        mine = parts_of_groups(pairs.group, rows, share)[self.team.rank : self.team.rank + 1]
        size = self.settings.part_pairs or len(rows)
        parts = [part for own in mine for part in parts_of_groups(pairs.group, own, size)]
        found = sum(sum(self.halving.run(part, work, split)) for part in parts)
        found = self.team.add(self.learning.values(), found)
        penalty = self.ranker.tower.penalty()
        if penalty is not None:
            add_gradients(penalty, self.learning.values())
        torch.nn.utils.clip_grad_norm_(self.learning.values(), 1.0)
        self.optimizer.step()
        self.steps += 1
        self.ranker.tower.after_step(self.steps)
        return {"loss": found, "learning_rate": rate}

    def _total(self, texts: Texts, pairs: Pairs, weight: NDArray, rows: Ints) -> Tensor:
        device = self.ranker.head.device
        label, factor, offset = (
            torch.as_tensor(values[rows], dtype=torch.float32, device=device)
            for values in (pairs.label, weight, self.offset)
        )
        group = torch.as_tensor(np.unique(pairs.group[rows], return_inverse=True)[1], device=device)
        with _autocast(self.ranker, self.settings):
            logit = self.ranker.logits(texts, pairs, rows)
        return LOSSES[self.settings.loss].total(logit.float() - offset, label, factor, group)

    def note(self, epoch: int, ndcg: float, watch: Watch) -> None:
        if not self.history or ndcg > max(self.history):
            self.best_epoch = epoch
            self.best = {name: value.detach().clone() for name, value in self.learning.items()}
        self.history.append(ndcg)
        self.epoch = epoch
        watch(self.steps, {"validation_ndcg_at_10": ndcg})

    def restore_best(self) -> None:
        with torch.no_grad():
            for name, value in self.learning.items():
                value.copy_(self.best[name])

    def save(self) -> None:
        if self.team.rank or not self.ranker.tower.resumable:
            return
        told = {
            "settings": asdict(self.settings),
            "steps": self.steps,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        checkpoint.save(self.checkpoint, self.learning, self.optimizer, self.best, told)

    def resume(self) -> None:
        """Go on from the checkpoint, if it is of the same settings."""
        told = checkpoint.told(self.checkpoint)
        if told.get("settings") != asdict(self.settings):
            return
        best = checkpoint.restore(self.checkpoint, self.learning, self.optimizer)
        self.best = {name: best[name].to(value.device) for name, value in self.learning.items()}
        self.steps, self.epoch, self.best_epoch = told["steps"], told["epoch"], told["best_epoch"]
        self.history = told["history"]
        log.info("training goes on after epoch %d of %s", self.epoch, self.checkpoint.name)


def _parameter_groups(ranker: Ranker, settings: TrainingSettings) -> list[dict]:
    """Decay on matrices and the head, none on biases and norms."""
    named = [(name, value) for name, value in ranker.named_parameters() if value.requires_grad]
    decayed = [value for name, value in named if value.ndim > 1 or name in _HEADS]
    others = [value for name, value in named if value.ndim <= 1 and name not in _HEADS]
    return [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
