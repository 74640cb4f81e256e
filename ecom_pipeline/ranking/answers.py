"""What raters' answers do to the ranker: the linear ranker taught with them, beside its twin taught what the source says.

On the floor of `ranking`. Both have the same samples otherwise, the same search, and are judged on the present labels.
"""

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Floats
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.language.features import Projection
from ecom_pipeline.ranking.ablation import Parts
from ecom_pipeline.ranking.evaluation import evaluate
from ecom_pipeline.ranking.linear import fit_linear

WITH, WITHOUT = "linear with answers", "linear without answers"
EFFECT = f"{WITH} - {WITHOUT}"


def score_answers(parts: Parts, n_components: int, device: str) -> dict[str, Floats]:
    """(1, n_test) scores of both rankers; empty where no answer changed what is learnt.

    A training sample that raters changed is taught with its present label, or with the source's; one that raters alone
    judged is not there without them. Penalties are chosen on validation as it is labelled now, for both.

    Cost: as one `fit_linear` with two weightings. Not random.
    """
    samples = parts.train.samples
    label, source = samples.label.to_numpy(float), samples.source_label.to_numpy(float)
    changed = label != source  # null is NaN, which is like nothing
    if not changed.any():
        return {}
    former = changed & np.isfinite(source)
    taught = np.concatenate([np.arange(len(samples)), np.flatnonzero(former)])
    n_former = int(former.sum())
    weight = np.column_stack(
        [np.repeat([1.0, 0.0], [len(samples), n_former]), np.concatenate([~changed, np.ones(n_former)])]
    )
    projection = Projection.fit(parts.train.features, n_components)
    rankers = fit_linear(
        projection.apply(parts.train.features)[taught],
        np.concatenate([label, source[former]]),
        weight,
        held_features=projection.apply(parts.validation.features),
        held=parts.validation.rows,
        penalties=PENALTIES,
        device=device,
    ).tuned
    score = (projection.apply(parts.test.features) @ rankers.T).astype(np.float64)
    return {WITH: score[None, :, 0], WITHOUT: score[None, :, 1]}


def compare_answers(parts: Parts, n_components: int, device: str, seed: int) -> pd.DataFrame:
    """Rows of `evaluation`: both rankers on the test samples, and their difference on the same groups.

    Args:
        parts: the three splits; samples with `source_label`.
        n_components: principal components of the features.
        device: of torch.
        seed: of the bootstrap.
    """
    scores = score_answers(parts, n_components, device)
    everything = {"all": np.ones(len(parts.test.samples), bool)}
    return evaluate(parts.test.rows, scores, everything, [], [(WITH, WITHOUT)] if scores else [], "test", seed)
