"""Every row of `evaluation`: the rankers, what each mode adds, what few labels give, items never seen
before, and what raters changed.

On the floor of `ranking`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ecom_pipeline.language.embeddings import Items
from ecom_pipeline.language.encoder import Encoder
from ecom_pipeline.ranking import frames
from ecom_pipeline.ranking.ablation import Parts, ablate, score_steps
from ecom_pipeline.ranking.answers import compare_answers
from ecom_pipeline.ranking.cold import BORROWED, look_at_cold
from ecom_pipeline.ranking.learning_curve import learning_curve
from ecom_pipeline.ranking.twins import read_design

LINEAR = "linear"


def figures(
    parts: Parts,
    *,
    test_items: Items,
    known: Items,
    popularity: Mapping[str, int],
    encoder: Encoder,
    folder: Path,
    store: Path,
    device: str,
    seed: int,
) -> pd.DataFrame:
    """All figures on the test samples.

    Args:
        parts: the three splits.
        test_items: of the test samples.
        known: items of the training samples.
        popularity: how often each item was taken before the test period.
        encoder: the one that the twins began with.
        folder: the twins.
        store: of frozen states.
        device: of torch, for the linear rankers.
        seed: of draws and bootstraps.
    """
    n_components = read_design(folder).n_components
    steps = score_steps(parts, n_components, device)
    cold = look_at_cold(parts.test.samples.item_id, test_items, known, popularity)
    others = {LINEAR: list(steps.values())[-1]} | ({BORROWED: cold.borrowed[None]} if cold else {})
    samples = parts.test.samples
    taken = samples.item_id.map(popularity).fillna(0).to_numpy()
    judged = frames.judge(
        *(samples, parts.test.features, taken, set(known.item_id), encoder, folder, store, seed),
        *(others, cold.slices if cold else {}),
    )
    curve = learning_curve(parts, n_components, device, np.random.default_rng(seed))
    found = [judged, ablate(parts, steps, seed), curve, compare_answers(parts, n_components, device, seed)]
    return pd.concat([part for part in found if len(part)], ignore_index=True)
