"""Train a ranker with sample weights: AdamW, warm-up and decay, early stopping, and checkpoints that survive a kill.

On the floor of `ranking`.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ecom_pipeline.language.frozen import FrozenStates
from ecom_pipeline.ranking.metrics import ndcg_at_k
from ecom_pipeline.ranking.model import Pairs, Ranker

LOSSES = ("weighted", "literal")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How one ranker is trained.

    Attributes:
        learning_rate: peak of the schedule.
        weight_decay: of AdamW, on the layers' matrices and the head.
        max_epochs: passes over the training pairs, at most.
        patience: epochs without a better validation nDCG@10 after which to stop.
        batch_pairs: pairs of a step, about; groups stay whole.
        warmup_share: share of the steps in which the rate rises; then it falls to 0 in a straight line.
        token_budget: tokens of a batch when texts are read without gradients.
        loss: "weighted": mean of w CE(p, y). "literal": mean of w CE(p, w y), labels scaled too, as first written.
    """

    learning_rate: float
    weight_decay: float
    max_epochs: int
    patience: int
    batch_pairs: int
    warmup_share: float
    token_budget: int
    loss: str


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training went; the ranker holds the best epoch's parameters."""

    best_epoch: int
    best_ndcg: float
    history: list[float]  # validation nDCG@10 before training and after each epoch
    seconds: float


def weighted_loss(logit: Tensor, label: Tensor, weight: Tensor, loss: str) -> Tensor:
    """Mean over a batch of the weighted cross-entropy, in nats.

    The literal form has softmax cross-entropy over (0, logit) with the label's row multiplied by the weight, which
    makes the factor the weight's square; binary cross-entropy in its place is unbounded below for weights over 1.
    """
    target = torch.stack([1 - label, label], dim=1)
    if loss == "literal":
        target = target * weight[:, None]
    log_probability = functional.log_softmax(torch.stack([torch.zeros_like(logit), logit], dim=1), dim=1)
    return -(weight * (target * log_probability).sum(1)).mean()


def train(
    ranker: Ranker,
    states: FrozenStates,
    pairs: Pairs,
    weight: NDArray[np.float64],
    validation: Pairs,
    settings: TrainingSettings,
    seed: int,
    checkpoint: Path,
) -> Trained:
    """Train a ranker in place and leave the best epoch's parameters in it.

    Epoch 0 is the ranker as given; if no epoch beats it on validation, it stays. After each epoch everything that is
    needed to go on is written to `checkpoint` at once, so a killed training goes on after its last whole epoch.

    Args:
        ranker: to be trained; its device is used.
        states: what the frozen layers gave for all texts.
        pairs: training pairs.
        weight: (n,) >= 0 with mean 1.
        validation: pairs that decide when to stop; never the test split.
        settings: how.
        seed: order of the groups, and dropout.
        checkpoint: a safetensors file, removed when training is done.

    Returns:
        How it went.

    Cost: forward and backward of the top layers a distinct text of each batch. Random: `seed` decides, and equal
    runs on one CPU are equal.
    """
    started = time.monotonic()
    run = _Run(ranker, settings, len(pairs), checkpoint)
    run.resume()
    if not run.history:
        run.note(0, _ndcg(ranker, states, validation, settings))
    while run.epoch < settings.max_epochs and run.epoch - run.best_epoch < settings.patience:
        ranker.train()
        epoch = run.epoch + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1009 + epoch)
            for rows in group_batches(pairs.group, settings.batch_pairs, np.random.default_rng([seed, epoch])):
                loss = _loss(ranker, states, pairs, weight, rows, settings.loss)
                run.step(loss)
        run.note(epoch, _ndcg(ranker, states, validation, settings))
        log.info("epoch %d: validation nDCG@10 %.4f, best %.4f", epoch, run.history[-1], max(run.history))
        run.save()
    run.restore_best()
    checkpoint.unlink(missing_ok=True)
    return Trained(run.best_epoch, max(run.history), run.history, time.monotonic() - started)


def group_batches(
    group: NDArray[np.int64], batch_pairs: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Rows of whole groups in random order, about `batch_pairs` a batch; larger groups are cut."""
    order = generator.permutation(group.max() + 1)[group].argsort(kind="stable")
    start = 0
    while start < len(order):
        stop = min(start + batch_pairs, len(order))
        while stop < len(order) and stop - start < 2 * batch_pairs and group[order[stop]] == group[order[stop - 1]]:
            stop += 1
        yield order[start:stop]
        start = stop


def _loss(
    ranker: Ranker, states: FrozenStates, pairs: Pairs, weight: NDArray, rows: NDArray[np.int64], loss: str
) -> Tensor:
    device = ranker.head.device
    contexts, context = np.unique(pairs.context[rows], return_inverse=True)
    items, item = np.unique(pairs.item[rows], return_inverse=True)
    # contexts and items differ much in length: apart, neither is padded to the other
    logit = ranker.judge(
        ranker.encode(states, contexts)[torch.as_tensor(context, device=device)],
        ranker.encode(states, items)[torch.as_tensor(item, device=device)],
        torch.as_tensor(pairs.overlap[rows], device=device),
    )
    label, factor = (
        torch.as_tensor(values[rows], dtype=torch.float32, device=device) for values in (pairs.label, weight)
    )
    return weighted_loss(logit, label, factor, loss)


def _ndcg(ranker: Ranker, states: FrozenStates, pairs: Pairs, settings: TrainingSettings) -> float:
    score = ranker.score(states, pairs, settings.token_budget)
    return float(np.nanmean(ndcg_at_k(pairs.group, pairs.relevance, score, 10)))


class _Run:
    """The moving parts of a training, and how they are kept."""

    def __init__(self, ranker: Ranker, settings: TrainingSettings, n_pairs: int, checkpoint: Path) -> None:
        self.ranker, self.settings, self.checkpoint = ranker, settings, checkpoint
        self.optimizer = torch.optim.AdamW(_parameter_groups(ranker, settings), lr=settings.learning_rate)
        n_steps = max(1, settings.max_epochs * -(-n_pairs // settings.batch_pairs))
        warmup = max(1, round(settings.warmup_share * n_steps))
        self.rate = lambda step: min((step + 1) / warmup, max(0.0, (n_steps - step) / max(1, n_steps - warmup)))
        self.steps = self.epoch = self.best_epoch = 0
        self.history: list[float] = []
        self.best: dict[str, Tensor] = {}

    def step(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.rate(self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.ranker.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1

    def note(self, epoch: int, ndcg: float) -> None:
        if not self.history or ndcg > max(self.history):
            self.best_epoch = epoch
            self.best = {name: value.detach().clone() for name, value in self.ranker.named_parameters()}
        self.history.append(ndcg)
        self.epoch = epoch

    def restore_best(self) -> None:
        with torch.no_grad():
            for name, value in self.ranker.named_parameters():
                value.copy_(self.best[name])

    def save(self) -> None:
        tensors = {f"best.{name}": value for name, value in self.best.items()}
        for name, value in self.ranker.named_parameters():
            tensors[f"now.{name}"] = value.detach()
            moments = self.optimizer.state[value]
            tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        told = {
            "settings": asdict(self.settings),
            "steps": self.steps,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = self.checkpoint.with_suffix(".part")
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, part, {"run": json.dumps(told)})
        os.replace(part, self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint, if it is of the same settings."""
        if not self.checkpoint.is_file():
            return
        with safe_open(self.checkpoint, "pt") as file:
            told = json.loads(file.metadata()["run"])
            if told.pop("settings") != asdict(self.settings):
                return
            for name, value in self.ranker.named_parameters():
                self.best[name] = file.get_tensor(f"best.{name}").to(value.device)
                value.data.copy_(file.get_tensor(f"now.{name}"))
                self.optimizer.state[value] = {
                    key: file.get_tensor(f"{key}.{name}").to("cpu" if key == "step" else value.device)
                    for key in ("exp_avg", "exp_avg_sq", "step")
                }
        self.steps, self.epoch, self.best_epoch = told["steps"], told["epoch"], told["best_epoch"]
        self.history = told["history"]
        log.info("training goes on after epoch %d of %s", self.epoch, self.checkpoint.name)


def _parameter_groups(ranker: Ranker, settings: TrainingSettings) -> list[dict]:
    """Decay on matrices and the head, none on biases and norms."""
    named = list(ranker.named_parameters())
    decayed = [value for name, value in named if value.ndim > 1 or name == "head"]
    others = [value for name, value in named if value.ndim <= 1 and name != "head"]
    return [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
