"""The weighted ranker and its unweighted twin: same data, seeds, budget and search; each with its own best settings.

On the floor of `ranking`. Everything is chosen on validation; the test split is not seen here.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ecom_pipeline.language.encoder import Encoder
from ecom_pipeline.language.features import PairFeatures, Projection
from ecom_pipeline.language.frozen import FrozenStates, top_layers
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.linear import fit_linear
from ecom_pipeline.ranking.model import Pairs, Ranker
from ecom_pipeline.ranking.training import TrainingSettings, train

log = logging.getLogger(__name__)
WEIGHTED, UNWEIGHTED = "weighted", "unweighted"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Search:
    """What is tried for each twin, and how often the best is repeated.

    Attributes:
        n_top: layers that learn, from the top.
        n_components: components of the head's projection.
        penalties: L2 penalties of the head that training starts from.
        learning_rates: tried one by one with the first seed, each with the weight decay at its place.
        weight_decays: as many as learning rates.
        n_seeds: trainings with the best settings; the first is the one from the search.
    """

    n_top: int
    n_components: int
    penalties: tuple[float, ...]
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    n_seeds: int


@dataclass(frozen=True, slots=True)
class TwinData:
    """What both twins learn from.

    Attributes:
        states: what the frozen layers gave for all texts of both splits.
        train: training pairs.
        train_features: their frozen features.
        validation: validation pairs.
        validation_features: their frozen features.
    """

    states: FrozenStates
    train: Pairs
    train_features: PairFeatures
    validation: Pairs
    validation_features: PairFeatures


def fit_twins(
    encoder: Encoder,
    data: TwinData,
    weight: NDArray[np.float64],
    search: Search,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    inputs: Mapping[str, str],
) -> dict:
    """Train both twins into a folder and say how; what is there already from a killed run is not done again.

    Args:
        encoder: gives the layers to start from.
        data: what both learn from.
        weight: (n,) of the weighted twin, >= 0 with mean 1.
        search: what is tried, the same for both.
        settings: of every training but what the search varies; the unweighted twin always has the weighted loss.
        seed: first seed.
        folder: of this model alone, named by the hash of its inputs.
        inputs: what the model was made from, for the manifest.

    Returns:
        The manifest. Weights lie beside it as `<twin>-<seed>.safetensors`.

    Cost: 2 (learning rates + seeds - 1) trainings, or half of that where all weights are equal.
    """
    if (folder / _MANIFEST).is_file():
        return read_manifest(folder)
    folder.mkdir(parents=True, exist_ok=True)
    projection = Projection.fit(data.train_features, search.n_components)
    save_file(
        {k: torch.as_tensor(np.asarray(v)) for k, v in asdict(projection).items()}, folder / "projection.safetensors"
    )
    twins = {}
    for name, factor, loss in ((UNWEIGHTED, np.ones(len(weight)), "weighted"), (WEIGHTED, weight, settings.loss)):
        if name == WEIGHTED and loss == "weighted" and not np.ptp(weight):
            twins[name] = _same(twins[UNWEIGHTED], folder)
            continue
        trainer = _Trainer(name, encoder, data, factor, projection, search, replace(settings, loss=loss), folder)
        twins[name] = trainer.fit(seed)
    manifest = {
        "encoder_id": encoder.encoder_id,
        "inputs": dict(inputs),
        "search": asdict(search),
        "settings": asdict(settings),
        "seed": seed,
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "device": str(encoder.device),
        "torch": torch.__version__,
        "twins": twins,
    }
    part = folder / "manifest.part"
    part.write_text(json.dumps(manifest, indent=2))
    os.replace(part, folder / _MANIFEST)
    return manifest


def _same(twin: dict, folder: Path) -> dict:
    """Equal weights make the weighted twin the unweighted one: its rankers are taken over, not trained again."""
    for one in twin["seeds"]:
        shutil.copyfile(
            folder / f"{UNWEIGHTED}-{one['seed']}.safetensors", folder / f"{WEIGHTED}-{one['seed']}.safetensors"
        )
    return {**twin, "trials": [{**trial, "seconds": 0.0} for trial in twin["trials"]]}


def read_manifest(folder: Path) -> dict:
    """How the twins in a folder were made."""
    return json.loads((folder / _MANIFEST).read_text())


def load_ranker(encoder: Encoder, folder: Path, name: str, seed: int) -> Ranker:
    """One trained twin, ready to score."""
    manifest = read_manifest(folder)
    tensors = load_file(folder / "projection.safetensors")
    projection = Projection(**{key: value.numpy() for key, value in tensors.items()})
    weights = load_file(folder / f"{name}-{seed}.safetensors")
    ranker = Ranker(top_layers(encoder, manifest["search"]["n_top"]), projection, weights["head"].numpy())
    ranker.load_state_dict(weights, strict=False)
    return ranker.to(encoder.device).eval()


@dataclass(frozen=True, slots=True)
class _Trainer:
    name: str
    encoder: Encoder
    data: TwinData
    weight: NDArray[np.float64]
    projection: Projection
    search: Search
    settings: TrainingSettings
    folder: Path

    def fit(self, seed: int) -> dict:
        head, penalty, ndcg = self._head()
        log.info("%s: best head on frozen features has validation nDCG@10 %.4f, penalty %g", self.name, ndcg, penalty)
        pairs = zip(self.search.learning_rates, self.search.weight_decays, strict=True)
        tried = [replace(self.settings, learning_rate=rate, weight_decay=decay) for rate, decay in pairs]
        trials = [self._train(head, settings, seed, f"{self.name}-trial{i}-{seed}") for i, settings in enumerate(tried)]
        best = int(np.argmax([trial["best_ndcg"] for trial in trials]))
        os.replace(self._path(f"{self.name}-trial{best}-{seed}"), self._path(f"{self.name}-{seed}"))
        repeats = [
            self._train(head, tried[best], other, f"{self.name}-{other}")
            for other in range(seed + 1, seed + self.search.n_seeds)
        ]
        for i in range(len(tried)):
            self._path(f"{self.name}-trial{i}-{seed}").unlink(missing_ok=True)
        return {
            "head_penalty": penalty,
            "head_ndcg": ndcg,
            "trials": trials,
            "best_trial": best,
            "seeds": [{**trials[best], "seed": seed}, *repeats],
        }

    def _head(self) -> tuple[NDArray[np.float32], float, float]:
        """The head on frozen features with the best validation nDCG@10 of the grid."""
        seen, held = (
            self.projection.apply(pairs) for pairs in (self.data.train_features, self.data.validation_features)
        )
        rows = Rows(*(getattr(self.data.validation, name) for name in ("group", "label", "relevance")))
        linear = fit_linear(
            *(seen, self.data.train.label, self.weight[:, None], held, rows),
            *(self.search.penalties, self.encoder.device),
        )
        best = int(linear.best[0])
        return linear.tuned[0], self.search.penalties[best], float(np.nanmean(linear.ndcg[0, best]))

    def _train(self, head: NDArray[np.float32], settings: TrainingSettings, seed: int, name: str) -> dict:
        done = self._told(name, settings)
        if done:
            return done
        ranker = Ranker(top_layers(self.encoder, self.search.n_top), self.projection, head).to(self.encoder.device)
        checkpoint = self.folder / f"{name}.checkpoint.safetensors"
        data = self.data
        trained = train(ranker, data.states, data.train, self.weight, data.validation, settings, seed, checkpoint)
        told = {**asdict(settings), "seed": seed, **asdict(trained)}
        log.info(
            "%s, seed %d, rate %g: nDCG@10 %.4f after epoch %d of %d, %.0f s",
            *(self.name, seed, settings.learning_rate, trained.best_ndcg, trained.best_epoch),
            *(len(trained.history) - 1, trained.seconds),
        )
        part = self._path(name).with_suffix(".part")
        weights = {key: value.detach().cpu().contiguous() for key, value in ranker.named_parameters()}
        save_file(weights, part, {"trained": json.dumps(told)})
        os.replace(part, self._path(name))
        return told

    def _told(self, name: str, settings: TrainingSettings) -> dict | None:
        """How a training that is finished already went; the search's winner lies under its final name."""
        for path in (self._path(name), self._path(f"{self.name}-{name.rsplit('-', 1)[1]}")):
            if path.is_file():
                with safe_open(path, "pt") as file:
                    told = json.loads(file.metadata()["trained"])
                if asdict(settings).items() <= told.items():
                    return told
        return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
