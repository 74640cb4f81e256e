"""What each mode of an item adds: the linear ranker with the texts alone, then with one mode more at a time.

On the floor of `ranking`. Every step has the same samples and the same search; its penalty is chosen on validation.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Floats
from ecom_pipeline.importance.heads import PENALTIES
from ecom_pipeline.language.attributes import MODES, columns_of
from ecom_pipeline.language.features import MATCH_NAMES, PairFeatures, Projection
from ecom_pipeline.ranking.evaluation import Rows, evaluate
from ecom_pipeline.ranking.linear import fit_linear


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of one split with their features."""

    samples: pd.DataFrame
    features: PairFeatures

    @property
    def rows(self) -> Rows:
        """Groups, labels and grades."""
        group = np.unique(self.samples.group_id, return_inverse=True)[1]
        return Rows(group, self.samples.label.to_numpy(float), self.samples.relevance.to_numpy(float))

    def only(self, names: tuple[str, ...]) -> "Part":
        """The same samples with some columns of `PairFeatures.match`."""
        return Part(self.samples, self.features.only(names))


@dataclass(frozen=True, slots=True)
class Parts:
    """The three splits."""

    train: Part
    validation: Part
    test: Part


def steps(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Which columns of `PairFeatures.match` each step sees, by what the step is called; modes without any are left out.

    >>> list(steps((*MATCH_NAMES, "popularity", "image_known", "image_component_0")))
    ['linear: text', 'linear: + words in common', 'linear: + popularity', 'linear: + image']
    """
    seen: tuple[str, ...] = MATCH_NAMES
    found = {"linear: text": seen[:1], "linear: + words in common": seen}
    for mode in MODES:
        added = columns_of(mode, names)
        if added:
            seen = (*seen, *added)
            found[f"linear: + {mode}"] = seen
    return found


def score_steps(parts: Parts, n_components: int, device: str) -> dict[str, Floats]:
    """(1, n_test) scores of the linear ranker of each step; the last one sees everything.

    Cost: one `fit_linear` a step. Not random.
    """
    return {
        name: _scores(
            Parts(train=parts.train.only(seen), validation=parts.validation.only(seen), test=parts.test.only(seen)),
            n_components,
            device,
        )
        for name, seen in steps(parts.train.features.names).items()
    }


def _scores(parts: Parts, n_components: int, device: str) -> Floats:
    train, validation = parts.train, parts.validation
    projection = Projection.fit(train.features, n_components)
    rankers = fit_linear(
        projection.apply(train.features),
        train.rows.label,
        np.ones((len(train.samples), 1)),
        held_features=projection.apply(validation.features),
        held=validation.rows,
        penalties=PENALTIES,
        device=device,
    )
    return (projection.apply(parts.test.features) @ rankers.tuned[0])[None].astype(np.float64)


def ablate(parts: Parts, scores: dict[str, Floats], seed: int) -> pd.DataFrame:
    """Rows of `evaluation`: each step on the test samples, and its difference to the step before.

    Args:
        parts: the three splits.
        scores: from `score_steps`.
        seed: of the bootstrap.
    """
    names = list(scores)
    pairs = list(zip(names[1:], names[:-1], strict=True))
    everything = {"all": np.ones(len(parts.test.samples), bool)}
    return evaluate(parts.test.rows, scores, everything, [], pairs, "test", seed)
