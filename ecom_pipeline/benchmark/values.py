"""What every estimator says of the same samples, in how much time and memory.

On the floor of `benchmark`.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray

from ecom_pipeline.arrays import Bools, Floats, Ints
from ecom_pipeline.benchmark.dataset import Dataset
from ecom_pipeline.importance.estimator import Estimator, Evidence, Holdout, one_hot
from ecom_pipeline.importance.preparation import prepared

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Valued:
    """What one estimator said.

    Attributes:
        value: (n,).
        seconds: to value, with what it needs that is made for it (out-of-fold scores, recorded training).
        peak_mib: memory beyond what was there before, or NaN where the system does not tell.
    """

    value: Floats
    seconds: float
    peak_mib: float


def evidence_of(dataset: Dataset, label: NDArray, held_label: NDArray, n_classes: int, device: str) -> Evidence:
    """What is known of a dataset's training samples under some labels, without what must be made first.

    Args:
        dataset: features, groups, folds.
        label: (n,) of the training samples, as they are to be learned from.
        held_label: (m,) of the validation samples, as wrong as the training labels are.
        n_classes: c.
        device: of torch.
    """
    train, held = dataset.train, dataset.validation
    asked = shown_half(held.rows.group)
    return Evidence(
        label=one_hot(label, n_classes),
        fold=dataset.fold,
        features=train.features,
        holdout=Holdout(held.features[asked], one_hot(held_label[asked], n_classes)),
        group=train.rows.group,
        user=train.rows.group,
        item=train.item,
        position=train.position,
        propensity=train.propensity,
        age_days=train.age_days,
        target=held.features,  # without its labels
        device=device,
    )


def shown_half(group: Ints) -> Bools:
    """(m,) the validation samples that estimators may ask; the other groups are kept to choose maps and penalties by.

    A weighting made from validation labels looks far better on them than it is.
    """
    return group % 2 == 0


def valued(evidence: Evidence, estimators: Iterable[Estimator], n_folds: int) -> dict[str, Valued]:
    """Values by estimator; those whose needs are not met are left out and logged.

    Cost: that of the estimators, one set of out-of-fold heads, and one of networks if an estimator needs dynamics.
    """
    estimators = list(estimators)
    evidence, made = prepared(evidence, estimators, n_folds)
    result = {}
    for estimator in estimators:
        missing = evidence.lacks(estimator.needs)
        if missing:
            log.info("%s is left out: %s is not known of these samples", estimator.name, missing[0])
            continue
        result[estimator.name] = _timed(estimator, evidence, made)
    return result


def _timed(estimator: Estimator, evidence: Evidence, made: Mapping[str, float]) -> Valued:
    before = _resident_mib(reset=True)
    start = time.perf_counter()
    value = estimator.fit(evidence).value
    seconds = time.perf_counter() - start + sum(made.get(need, 0.0) for need in estimator.needs)
    return Valued(value, seconds, max(_resident_mib() - before, 0.0))


def _resident_mib(*, reset: bool = False) -> float:
    """Largest resident memory since the last reset, as Linux tells it; NaN elsewhere."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
