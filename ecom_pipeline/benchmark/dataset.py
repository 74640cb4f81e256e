"""What estimators are judged on: features, labels and groups of the three splits.

On the floor of `benchmark`. Features are fitted on the training split; labels are not looked at.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import identity
from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.importance.frames import known
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.purchases import gone_back
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.samples import fold_of, require_samples


@dataclass(frozen=True, slots=True)
class Part:
    """One split.

    Attributes:
        features: (n, d) float32; the last column is the constant 1.
        rows: groups, labels and grades.
        item: (n,) number of the item, the same in all splits.
        age_days: (n,) days before the last sample of the data, or None where times are not known.
        propensity: (n,) logged probability of showing the item, or None.
        position: (n,) rank at which it was shown, or None.
    """

    features: Singles
    rows: Rows
    item: Ints
    age_days: Floats | None = None
    propensity: Floats | None = None
    position: Ints | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Features and labels of all splits, and the folds of the training split.

    Attributes:
        name: of the data.
        train: what is valued.
        validation: what things are chosen on.
        test: what is reported.
        fold: (n, r) of the training split; whole groups share a fold.
        disputed: (n,) training samples whose label raters disagreed about, or users took back; None if not known.
    """

    name: str
    train: Part
    validation: Part
    test: Part
    fold: Ints
    disputed: Bools | None = None

    @property
    def n_folds(self) -> int:
        """k."""
        return int(self.fold.max()) + 1


def told_samples(db: DuckDBPyConnection) -> pd.DataFrame:
    """All rows of `training_samples`, with `returned`: whether the purchase behind a positive was taken back later.

    Raises:
        SampleError: if there are none.
    """
    require_samples(db)
    return db.sql(
        f"""with taken_back as (
            select distinct bought.item_id,
                {identity.visit_id(identity.actor("bought"), "bought.query", "bought.day")} as visit_id
            from cleaned_interactions as bought semi join ({gone_back()}) using (event_id)
            where bought.query is not null)
        select training_samples.*, sample_id in (
            select {identity.search_sample_id("visit_id", "item_id")} from taken_back) as returned
        from training_samples order by sample_id"""
    ).df()


def from_samples(
    name: str, samples: pd.DataFrame, features: PairFeatures, n_components: int, n_repeats: int
) -> Dataset:
    """A dataset from rows of `training_samples` of all splits.

    Args:
        name: of the data.
        samples: rows with split, group_id, item_id, label, relevance, rater_std, occurred_at, propensity, position; and
            `returned`, whether the purchase was taken back, where that is known.
        features: of the same rows.
        n_components: principal components.
        n_repeats: divisions into folds.
    """
    masks = {split: (samples.split == split).to_numpy() for split in ("train", "validation", "test")}
    projection = Projection.fit(features.rows(masks["train"]), n_components)
    item = np.unique(samples.item_id, return_inverse=True)[1]
    parts = {
        split: _part(samples[mask], projection.apply(features.rows(mask)), item[mask], samples.occurred_at.max())
        for split, mask in masks.items()
    }
    groups = samples.group_id[masks["train"]]
    n_folds = max(2, int(samples.fold.max()) + 1)
    fold = np.column_stack([fold_of(groups, n_folds, repeat) for repeat in range(n_repeats)]).astype(np.int64)
    return Dataset(name, parts["train"], parts["validation"], parts["test"], fold, _disputed(samples[masks["train"]]))


def _part(samples: pd.DataFrame, features: Singles, item: Ints, latest: pd.Timestamp) -> Part:
    group = np.unique(samples.group_id, return_inverse=True)[1]
    rows = Rows(group, samples.label.to_numpy(float), samples.relevance.to_numpy(float))
    age = (latest - samples.occurred_at).dt.total_seconds() / 86400
    told = (known(age, np.float64), known(samples.propensity, np.float64), known(samples.position, np.int64))
    return Part(features, rows, item, *told)


def _disputed(samples: pd.DataFrame) -> Bools | None:
    if samples.rater_std.notna().all():
        return (samples.rater_std > 0).to_numpy()
    if "returned" in samples and samples.returned.any():
        return samples.returned.to_numpy(bool)
    return None


def generated(n: int, seed: int, n_features: int = 64, group_size: int = 20) -> Dataset:
    """Data of any size whose truth is known: a query's items differ in features, and taste is linear with noise.

    Args:
        n: training samples; validation and test have a quarter as many, at least 10 groups.
        seed: of everything.
        n_features: d - 1.
        group_size: items a query.

    Cost: O(n d); random under the seed.
    """
    draw = np.random.default_rng(seed)
    taste = draw.normal(size=n_features) / np.sqrt(n_features)

    def part(n_rows: int) -> Part:
        n_groups = max(n_rows // group_size, 10)
        group = np.arange(n_rows) % n_groups
        x = draw.normal(size=(n_rows, n_features)).astype(np.float32)
        wanted = 2 * (x @ taste) + draw.normal(size=n_groups)[group] * 0.5 - 0.5
        label = (wanted + 0.5 * draw.logistic(size=n_rows) > 0).astype(float)
        features = np.hstack([x, np.ones((n_rows, 1), np.float32)])
        return Part(features, Rows(group, label, label), draw.integers(0, max(n // 10, 2), n_rows))

    train, validation, test = part(n), part(max(n // 4, 200)), part(max(n // 4, 200))
    names = pd.Series(train.rows.group.astype(str))
    fold = np.column_stack([fold_of(names, 5, repeat) for repeat in range(2)]).astype(np.int64)
    return Dataset(f"generated_{n}", train, validation, test, fold)
