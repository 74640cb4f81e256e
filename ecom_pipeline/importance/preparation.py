"""What estimators need and data does not bring: made once for all of them.

On the floor of `importance`.
"""

import time
from collections.abc import Iterable
from dataclasses import replace

from ecom_pipeline.importance.estimator import Estimator, Evidence, required
from ecom_pipeline.importance.folds import out_of_fold_scores
from ecom_pipeline.importance.networks import DynamicsRecorder, NetworkSettings, out_of_fold_network_scores

MADE = ("oof_score", "dynamics")  # what `prepared` makes of features, labels and folds
_WATCHED = NetworkSettings(width=32, n_epochs=20)
_WEIGHT_DECAY = (
    1.0  # of the networks whose training is watched: light, so that wrong labels are learned late, not never
)


def prepared(evidence: Evidence, estimators: Iterable[Estimator], n_folds: int) -> tuple[Evidence, dict[str, float]]:
    """Evidence with out-of-fold scores and training dynamics, where an estimator needs them and they are not there.

    Args:
        evidence: with features and folds.
        estimators: who will be asked.
        n_folds: k.

    Returns:
        The evidence, and the seconds that each thing took to make.

    Cost: one set of out-of-fold heads, and of the first repeat's networks for dynamics; random in the latter.
    """
    wanted = {need for estimator in estimators for need in estimator.needs}
    seconds = {}
    if "oof_score" in evidence.lacks(tuple(wanted)):
        start = time.perf_counter()
        scores = out_of_fold_scores(
            required(evidence.features), evidence.label, required(evidence.fold), n_folds, evidence.device
        )
        evidence = replace(evidence, oof_score=scores.score)
        seconds["oof_score"] = time.perf_counter() - start
    if "dynamics" in evidence.lacks(tuple(wanted)):
        start = time.perf_counter()
        recorder = DynamicsRecorder(evidence.label, _WATCHED.n_epochs)
        out_of_fold_network_scores(
            required(evidence.features),
            evidence.label,
            required(evidence.fold)[:, :1],
            n_folds=n_folds,
            device=evidence.device,
            settings=_WATCHED,
            weight_decays=(_WEIGHT_DECAY,),
            recorder=recorder,
        )
        evidence = replace(evidence, dynamics=recorder.dynamics())
        seconds["dynamics"] = time.perf_counter() - start
    return evidence, seconds
