"""The rankers over relations: samples in, models and figures out.

On the floor of `ranking`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.arrays import Bools, Floats, Ints, Singles
from ecom_pipeline.curves import Track
from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimators.prediction_gap import LiteralPredictionGap
from ecom_pipeline.importance.group_stacks import rows_of_some
from ecom_pipeline.language.embeddings import sample_features
from ecom_pipeline.language.encoder import Encoder, Text
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.language.frozen import Texts, read_texts
from ecom_pipeline.ranking.baselines import SIMPLE, bm25_scores, habit_scores
from ecom_pipeline.ranking.evaluation import Rows, evaluate
from ecom_pipeline.ranking.kept_rows import keep_rows
from ecom_pipeline.ranking.model import Pairs
from ecom_pipeline.ranking.settings import FitSettings
from ecom_pipeline.ranking.training import TrainingSettings
from ecom_pipeline.ranking.twins import (
    UNWEIGHTED,
    WEIGHTED,
    Design,
    HeadData,
    Search,
    TwinData,
    fit_twins,
    load_ranker,
    read_design,
    read_manifest,
    read_projection,
)

PROBABLE = ("pointwise", "literal")  # losses after which scores are meant as probabilities


@dataclass(frozen=True, slots=True)
class Splits:
    """Training and validation samples with their features, and the weights of the first."""

    train: pd.DataFrame
    train_features: PairFeatures
    validation: pd.DataFrame
    validation_features: PairFeatures
    weight: Floats  # (n_train,)
    pilot: Floats  # (n_train,) out-of-fold probability of label 1
    estimator: str


def read_splits(db: DuckDBPyConnection, train: str, validation: str, estimator: str) -> Splits:
    """What both twins learn from.

    Args:
        db: a connection to the warehouse.
        train: query for the training samples.
        validation: query for the validation samples.
        estimator: whose weights the weighted twin takes.

    Raises:
        SampleError: if that estimator has no weights.
    """
    known = [name for (name,) in db.execute("select distinct estimator from importance_weights order by 1").fetchall()]
    if estimator not in known:
        raise SampleError(
            f"importance_weights: 1 estimator was asked for and is not there: {estimator!r}. It must be one of "
            f"{', '.join(known)}: change the configuration of `fine_tuned_model`."
        )
    seen, held = db.sql(train).df(), db.sql(validation).df()
    weights = db.execute(
        "select sample_id, sample_weight from importance_weights where estimator = ?", [estimator]
    ).df()
    weight = weights.set_index("sample_id").sample_weight.loc[seen.sample_id].to_numpy()
    pilots = db.sql("select sample_id, avg(oof_score) as pilot from fold_predictions group by sample_id").df()
    pilot = pilots.set_index("sample_id").pilot.loc[seen.sample_id].to_numpy()
    return Splits(
        train=seen,
        train_features=sample_features(db, seen),
        validation=held,
        validation_features=sample_features(db, held),
        weight=weight,
        pilot=pilot,
        estimator=estimator,
    )


def fit(
    data: Splits,
    encoder: Encoder,
    settings: FitSettings,
    folder: Path,
    store: Path,
    inputs: Mapping[str, str],
    track: Track,
) -> dict:
    """Train both twins into a folder; see `twins.fit_twins`. Frozen states are kept in `store`.

    The heads learn from all samples. The layers learn from the rows that `choice` and `n_rows` keep, and stop by whole
    validation groups of about `n_validation_rows` samples.
    """
    design, seed = settings.design, settings.seed
    label = data.train.label.to_numpy(float)
    kept = keep_rows(settings.choice, data.pilot, label, n_rows=settings.n_rows, seed=seed)
    stop = rows_of_some(_numbered(data.validation.group_id), settings.n_validation_rows or len(data.validation), seed)
    read = [data.train.iloc[kept.rows], data.validation.iloc[stop]]
    texts, rows = _texts(encoder, design, read, settings.token_budget, store)
    projection = Projection.fit(data.train_features, design.n_components)
    features, held_features = (projection.apply(part) for part in (data.train_features, data.validation_features))
    train = _pairs(read[0], data.train_features.rows(kept.rows), features[kept.rows], design, rows)
    validation = _pairs(read[1], data.validation_features.rows(stop), held_features[stop], design, rows)
    head = HeadData(features, label, held_features, _judged(data.validation))
    search = Search(
        penalties=tuple(settings.penalties),
        learning_rates=tuple(settings.learning_rates) or design.learning.usual_rates,
        weight_decays=tuple(settings.weight_decays),
        n_seeds=settings.n_seeds,
    )
    training = TrainingSettings(
        learning_rate=search.learning_rates[0],
        weight_decay=search.weight_decays[0],
        max_epochs=settings.max_epochs,
        patience=settings.patience,
        batch_pairs=settings.batch_pairs,
        part_pairs=settings.part_pairs,
        warmup_share=settings.warmup_share,
        token_budget=settings.token_budget,
        loss="literal" if data.estimator == LiteralPredictionGap.name else settings.loss,
        precision=settings.precision,
        compiled=settings.compiled,
    )
    twin_data = TwinData(texts, projection, head=head, kept=kept, train=train, validation=validation)
    made_of = {**inputs, "estimator": data.estimator}
    return fit_twins(
        encoder,
        twin_data,
        data.weight,
        design=design,
        search=search,
        settings=training,
        seed=seed,
        folder=folder,
        inputs=made_of,
        track=track,
        n_processes=settings.n_processes,
    )


def figures(manifest: Mapping) -> Iterator[tuple[str, str, float]]:
    """(twin, figure, value) of a manifest, for the metadata."""
    for name, twin in manifest["twins"].items():
        yield name, "ndcg_of_head_alone", twin["head_ndcg"]
        yield name, "n_rankers_that_differ", twin["n_rankers"]
        yield name, "ndcg", float(np.mean([seed["best_ndcg"] for seed in twin["seeds"]]))
        yield name, "seconds", sum(trial["seconds"] for trial in [*twin["trials"], *twin["seeds"][1:]])


def judge(
    samples: pd.DataFrame,
    features: PairFeatures,
    popularity: Ints,
    train_items: set[str],
    encoder: Encoder,
    folder: Path,
    store: Path,
    seed: int,
    others: Mapping[str, Floats],
    more_slices: Mapping[str, Bools],
) -> pd.DataFrame:
    """Rows of `evaluation`: both twins, baselines and others on the test samples, in slices, with intervals.

    Args:
        samples: the test samples.
        features: their frozen features.
        popularity: (n,) how often each sample's item was taken before the test period.
        train_items: items that occur in training; others are cold.
        encoder: the one that the twins began with.
        folder: the twins.
        store: of frozen states.
        seed: of the bootstrap.
        others: (s, n) scores of further models.
        more_slices: (n,) rows of further slices.
    """
    scores = score_twins(samples, features, encoder, folder, store)
    probabilistic = [*scores] if read_manifest(folder)["settings"]["loss"] in PROBABLE else []
    scores |= {
        "popularity": popularity[None].astype(float),
        "text_similarity": features.match[None, :, 0].astype(float),
        "bm25": bm25_scores(samples.context_text, samples.item_text)[None],
        **others,
    }
    habit = habit_scores(features.names, features.match)
    if habit is not None:
        scores["taken_before"] = habit[None]
    compared = [(WEIGHTED, UNWEIGHTED), *((WEIGHTED, simple) for simple in SIMPLE)]
    compared += [(other, model) for other in others for model in (*SIMPLE, UNWEIGHTED)]
    judged = _judged(samples)
    slices = _slices(samples, train_items) | dict(more_slices)
    return evaluate(judged, scores, slices, probabilistic, compared, "test", seed)


def score_twins(
    samples: pd.DataFrame, features: PairFeatures, encoder: Encoder, folder: Path, store: Path
) -> dict[str, Floats]:
    """(s, n) scores of samples by each twin's rankers, a row a seed; arguments as for `judge`."""
    manifest, design = read_manifest(folder), read_design(folder)
    token_budget = manifest["settings"]["token_budget"]
    texts, rows = _texts(encoder, design, [samples], token_budget, store)
    pairs = _pairs(samples, features, read_projection(folder).apply(features), design, rows)
    return {
        name: np.stack(
            [
                load_ranker(encoder, folder, name, told["seed"], texts).score(texts, pairs, token_budget)
                for told in manifest["twins"][name]["seeds"]
            ]
        )
        for name in (WEIGHTED, UNWEIGHTED)
    }


def _slices(samples: pd.DataFrame, train_items: set[str], n_categories: int = 4) -> dict[str, Bools]:
    """Rows of each slice: contexts seen often or seldom, items not in training, kinds of sample, top categories."""
    slices = {"all": np.ones(len(samples), bool)}
    middle = samples.drop_duplicates("group_id").n_context_rows.median()
    head = samples.n_context_rows.to_numpy() > middle
    if head.any() and not head.all():
        slices |= {"head contexts": head, "tail contexts": ~head}
    cold = ~samples.item_id.isin(train_items).to_numpy()
    if cold.any() and not cold.all():
        slices["cold items"] = cold
    origins = samples.origin.unique()
    if len(origins) > 1:
        slices |= {f"origin: {origin}": (samples.origin == origin).to_numpy() for origin in origins}
    for category in samples.category.value_counts().index[:n_categories]:
        slices[f"category: {category}"] = (samples.category == category).to_numpy()
    return slices


def _texts(
    encoder: Encoder, design: Design, parts: list[pd.DataFrame], token_budget: int, store: Path
) -> tuple[Texts, dict[Text, int]]:
    """What the ranker reads of these samples, and the row of each text in it."""
    texts = sorted({text for part in parts for texts in _read(part, design) for text in texts})
    n_learning = design.learning.n_learning(encoder)
    found = read_texts(encoder, texts, n_learning, token_budget, store, design.frozen_gib)
    return found, {text: row for row, text in enumerate(texts)}


def _read(samples: pd.DataFrame, design: Design) -> list[list[Text]]:
    """The texts of each sample, a list for each that is read apart."""
    both = [samples.context_text.tolist(), samples.item_text.tolist()]
    return both if design.architecture == "two_tower" else [list(zip(*both, strict=True))]


def _pairs(
    samples: pd.DataFrame,
    features: PairFeatures,
    projected: Singles,
    design: Design,
    rows: Mapping[Text, int],
) -> Pairs:
    """Pairs of a ranker, from their frozen features as they are and projected."""
    judged = _judged(samples)
    return Pairs(
        texts=np.column_stack([[rows[text] for text in texts] for texts in _read(samples, design)]).astype(np.int64),
        # a cross-encoder's head takes the frozen features; two towers make theirs anew from what they have learnt
        given=features.match[:, 1:] if design.architecture == "two_tower" else projected,
        group=judged.group,
        label=judged.label,
        relevance=judged.relevance,
    )


def _judged(samples: pd.DataFrame) -> Rows:
    return Rows(_numbered(samples.group_id), samples.label.to_numpy(), samples.relevance.to_numpy())


def _numbered(groups: pd.Series) -> Ints:
    return np.unique(groups, return_inverse=True)[1]
