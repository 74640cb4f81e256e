"""The rankers over relations: samples in, models and figures out.

On the floor of `ranking`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline.errors import SampleError
from ecom_pipeline.importance.estimators.prediction_gap import LiteralPredictionGap
from ecom_pipeline.language.embeddings import sample_features
from ecom_pipeline.language.encoder import Encoder, load_encoder
from ecom_pipeline.language.features import PairFeatures
from ecom_pipeline.language.frozen import FrozenStates, freeze
from ecom_pipeline.ranking.evaluation import Rows, evaluate
from ecom_pipeline.ranking.model import Pairs
from ecom_pipeline.ranking.training import TrainingSettings
from ecom_pipeline.ranking.twins import UNWEIGHTED, WEIGHTED, Search, TwinData, fit_twins, load_ranker, read_manifest


@dataclass(frozen=True, slots=True)
class Splits:
    """Training and validation samples with their features, and the weights of the first."""

    train: pd.DataFrame
    train_features: PairFeatures
    validation: pd.DataFrame
    validation_features: PairFeatures
    weight: np.ndarray  # (n_train,)
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
    return Splits(seen, sample_features(db, seen), held, sample_features(db, held), weight, estimator)


def fit(data: Splits, settings: Mapping, device: str, folder: Path, inputs: Mapping[str, str]) -> dict:
    """Train both twins into a folder; see `twins.fit_twins`."""
    encoder = load_encoder(settings["model"], settings["max_tokens"], device)
    states, rows = _frozen(encoder, [data.train, data.validation], settings["n_top"], settings["token_budget"])
    train, validation = (
        _pairs(samples, features, rows)
        for samples, features in ((data.train, data.train_features), (data.validation, data.validation_features))
    )
    search = Search(
        **{name: settings[name] for name in ("n_top", "n_components", "n_seeds")},
        **{name: tuple(settings[name]) for name in ("penalties", "learning_rates", "weight_decays")},
    )
    training = TrainingSettings(
        learning_rate=search.learning_rates[0],
        weight_decay=search.weight_decays[0],
        loss="literal" if data.estimator == LiteralPredictionGap.name else "weighted",
        **{name: settings[name] for name in ("max_epochs", "patience", "batch_pairs", "warmup_share", "token_budget")},
    )
    twin_data = TwinData(states, train, data.train_features, validation, data.validation_features)
    made_of = {**inputs, "estimator": data.estimator}
    return fit_twins(encoder, twin_data, data.weight, search, training, settings["seed"], folder, made_of)


def figures(manifest: Mapping) -> Iterator[tuple[str, str, float]]:
    """(twin, figure, value) of a manifest, for the metadata."""
    for name, twin in manifest["twins"].items():
        yield name, "ndcg_of_head_alone", twin["head_ndcg"]
        yield name, "ndcg", float(np.mean([seed["best_ndcg"] for seed in twin["seeds"]]))
        yield name, "seconds", sum(trial["seconds"] for trial in [*twin["trials"], *twin["seeds"][1:]])


def judge(
    samples: pd.DataFrame,
    features: PairFeatures,
    popularity: np.ndarray,
    train_items: set[str],
    settings: Mapping,
    device: str,
    folder: Path,
    seed: int,
) -> pd.DataFrame:
    """Rows of `evaluation`: both twins and two baselines on the test samples, in slices, with intervals.

    Args:
        samples: the test samples.
        features: their frozen features.
        popularity: (n,) how often each sample's item was taken before the test period.
        train_items: items that occur in training; others are cold.
        settings: of the encoder and of scoring.
        device: of torch.
        folder: the twins.
        seed: of the bootstrap.
    """
    manifest = read_manifest(folder)
    encoder = load_encoder(settings["model"], settings["max_tokens"], device)
    states, rows = _frozen(encoder, [samples], manifest["search"]["n_top"], settings["token_budget"])
    pairs = _pairs(samples, features, rows)
    scores = {
        name: np.stack(
            [
                load_ranker(encoder, folder, name, told["seed"]).score(states, pairs, settings["token_budget"])
                for told in manifest["twins"][name]["seeds"]
            ]
        )
        for name in (WEIGHTED, UNWEIGHTED)
    }
    scores |= {
        "popularity": popularity[None].astype(float),
        "text_similarity": features.match[None, :, 0].astype(float),
    }
    compared = [(WEIGHTED, UNWEIGHTED), (WEIGHTED, "popularity"), (WEIGHTED, "text_similarity")]
    judged = Rows(pairs.group, pairs.label, pairs.relevance)
    return evaluate(judged, scores, _slices(samples, train_items), [WEIGHTED, UNWEIGHTED], compared, "test", seed)


def _slices(samples: pd.DataFrame, train_items: set[str], n_categories: int = 4) -> dict[str, np.ndarray]:
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


def _frozen(
    encoder: Encoder, parts: list[pd.DataFrame], n_top: int, token_budget: int
) -> tuple[FrozenStates, dict[str, int]]:
    texts = sorted({text for part in parts for column in ("context_text", "item_text") for text in part[column]})
    return freeze(encoder, texts, n_top, token_budget), {text: row for row, text in enumerate(texts)}


def _pairs(samples: pd.DataFrame, features: PairFeatures, rows: Mapping[str, int]) -> Pairs:
    return Pairs(
        samples.context_text.map(rows).to_numpy(np.int64),
        samples.item_text.map(rows).to_numpy(np.int64),
        features.match[:, 1:],
        np.unique(samples.group_id, return_inverse=True)[1],
        samples.label.to_numpy(),
        samples.relevance.to_numpy(),
    )
