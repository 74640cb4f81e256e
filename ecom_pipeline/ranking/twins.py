"""The weighted ranker and its unweighted twin: same data, seeds, budget and search; each with its own best settings.

On the floor of `ranking`. Everything is chosen on validation; the test split is not seen here.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ecom_pipeline.arrays import Floats, Singles
from ecom_pipeline.curves import Track, untracked
from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import Encoder
from ecom_pipeline.language.features import Projection
from ecom_pipeline.language.frozen import FrozenStates, Texts
from ecom_pipeline.language.memory import release
from ecom_pipeline.ranking.design import Design, Learning
from ecom_pipeline.ranking.evaluation import Rows
from ecom_pipeline.ranking.kept_rows import Kept
from ecom_pipeline.ranking.linear import fit_linear
from ecom_pipeline.ranking.model import Pairs, Ranker, make_ranker
from ecom_pipeline.ranking.team import ALONE, Team, together
from ecom_pipeline.ranking.training import TrainingSettings, train

log = logging.getLogger(__name__)
WEIGHTED, UNWEIGHTED = "weighted", "unweighted"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Search:
    """What is tried for each twin, and how often the best is repeated.

    Attributes:
        penalties: L2 penalties of the head that training starts from.
        learning_rates: tried one by one with the first seed, each with the weight decay at its place.
        weight_decays: as many as learning rates.
        n_seeds: trainings with the best settings; the first is the one from the search.
    """

    penalties: tuple[float, ...]
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    n_seeds: int


@dataclass(frozen=True, slots=True)
class TwinData:
    """What both twins learn from.

    Attributes:
        texts: all texts of the pairs below.
        projection: of frozen features, fitted on all training samples.
        head: what the head that training starts from is fitted to and tuned on.
        kept: which training samples the layers learn from.
        train: (k,) pairs of those.
        validation: pairs that decide when to stop; may be some of the validation samples.
    """

    texts: Texts
    projection: Projection
    head: "HeadData"
    kept: Kept
    train: Pairs
    validation: Pairs


@dataclass(frozen=True, slots=True)
class HeadData:
    """All samples of both splits, without their texts.

    Attributes:
        features: (n, p) frozen features of the training samples, projected.
        label: (n,) theirs.
        held_features: (m, p) of the validation samples.
        held: their groups, labels and grades.
    """

    features: Singles
    label: Floats
    held_features: Singles
    held: Rows


def fit_twins(
    encoder: Encoder,
    data: TwinData,
    weight: Floats,
    design: Design,
    search: Search,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    inputs: Mapping[str, str],
    track: Track = untracked,
    n_processes: int = 1,
) -> dict:
    """Train both twins into a folder and say how; what is there already from a killed run is not done again.

    Args:
        encoder: gives the layers to start from.
        data: what both learn from.
        weight: (n,) of the weighted twin, >= 0 with mean 1.
        design: what kind of ranker, the same for both.
        search: what is tried, the same for both.
        settings: of every training but what the search varies; the unweighted twin never has the literal loss.
        seed: first seed.
        folder: of this model alone, named by the hash of its inputs.
        inputs: what the model was made from, for the manifest.
        track: takes the curves of each training.
        n_processes: that train together, one a GPU.

    Returns:
        The manifest. Weights lie beside it as `<twin>-<seed>.safetensors`. Of each twin it says under `n_rankers` how many
        of its seeds ended at rankers that differ; where no epoch was better than the head alone, all are that head.

    Cost: 2 (learning rates + seeds - 1) trainings, or half of that where all weights are equal.
    """
    if (folder / _MANIFEST).is_file():
        if _is_whole(folder):
            return read_manifest(folder)
        shutil.rmtree(folder)  # it was damaged since: nobody knows what of it is sound
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.as_tensor(np.asarray(values)) for name, values in asdict(data.projection).items()}
    save_file(tensors, folder / "projection.safetensors")
    twins: dict[str, dict] = {}
    plain = "pointwise" if settings.loss == "literal" else settings.loss
    for name, factor, loss in ((UNWEIGHTED, np.ones(len(weight)), plain), (WEIGHTED, weight, settings.loss)):
        if name == WEIGHTED and loss == plain and not np.ptp(weight):
            twins[name] = _same(twins[UNWEIGHTED], folder)
            continue
        work = _Work(name, encoder, data, factor, design, replace(settings, loss=loss), folder, n_processes)
        twins[name] = _with_content(_Trainer(work, search, track).fit(seed), name, folder)
        release(encoder.device)
    manifest = {
        "encoder_id": encoder.encoder_id,
        "inputs": dict(inputs),
        "design": asdict(design),
        "search": asdict(search),
        "settings": asdict(settings),
        "seed": seed,
        "n_train": len(data.head.label),
        "n_kept": len(data.train),
        "n_validation": len(data.validation),
        "device": str(encoder.device),
        "torch": torch.__version__,
        "twins": twins,
    }
    part = folder / "manifest.part"
    part.write_text(json.dumps(manifest, indent=2))
    os.replace(part, folder / _MANIFEST)
    return manifest


def _with_content(twin: dict, name: str, folder: Path) -> dict:
    """The twin with a hash of what each seed learned, and how many rankers differ.

    Adapters begin at random without changing what the ranker says: those that no epoch improved are one ranker too.
    """
    seeds = [{**one, "content": tensors_hash(folder / f"{name}-{one['seed']}.safetensors")} for one in twin["seeds"]]
    rankers = {one["content"] if one["best_epoch"] else ("as it began", one["best_ndcg"]) for one in seeds}
    return {**twin, "seeds": seeds, "n_rankers": len(rankers)}


def tensors_hash(path: Path) -> str:
    """A hash of the tensors in a file and their names; what the file says beside them does not count."""
    return _hash(load_file(path))


def _hash(tensors: Mapping[str, torch.Tensor]) -> str:
    content = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        content.update(name.encode())
        content.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]


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


def read_design(folder: Path) -> Design:
    """What kind of ranker the twins in a folder are."""
    told = read_manifest(folder)["design"]
    return Design(**{**told, "learning": Learning(**told["learning"])})


def read_projection(folder: Path) -> Projection:
    """The projection of frozen features that the twins in a folder were made with."""
    tensors = load_file(folder / "projection.safetensors")
    return Projection(**{key: value.numpy() for key, value in tensors.items()})


def _is_whole(folder: Path) -> bool:
    """Whether all that training wrote is as it was written. Cost: reads every file."""
    try:
        for name, twin in read_manifest(folder)["twins"].items():
            for one in twin["seeds"]:
                read_weights(folder, name, one["seed"])
        return bool(read_projection(folder))
    except (ModelError, OSError, SafetensorError, ValueError, LookupError, TypeError):
        return False


def read_weights(folder: Path, name: str, seed: int) -> dict[str, torch.Tensor]:
    """What one trained twin has learnt, by parameter.

    Raises:
        ModelError: if its file is gone, or holds other tensors than training wrote.
    """
    file = folder / f"{name}-{seed}.safetensors"
    try:
        weights = load_file(file)
        told = next(one for one in read_manifest(folder)["twins"][name]["seeds"] if one["seed"] == seed)
        if told.get("content") not in (None, _hash(weights)):
            raise ValueError("its tensors are not those that were written")
    except (OSError, SafetensorError, ValueError, LookupError, StopIteration) as error:
        raise ModelError(
            f"trained model: 1 file cannot be read, {str(file)!r}: {error}. It must be as it was written: delete its folder, and "
            "`ecom run` trains it again."
        ) from error
    return weights


def load_ranker(encoder: Encoder, folder: Path, name: str, seed: int, texts: Texts) -> Ranker:
    """One trained twin, ready to score these texts.

    Raises:
        ModelError: as `read_weights`.
    """
    weights = read_weights(folder, name, seed)
    frozen = isinstance(texts, FrozenStates)
    ranker = make_ranker(read_design(folder), encoder, read_projection(folder), weights["head"].numpy(), frozen)
    ranker.load_state_dict(weights, strict=False)
    return ranker.eval()


@dataclass(frozen=True, slots=True)
class _Work:
    """A training but for its rate and seed; goes to other processes as it is."""

    name: str
    encoder: Encoder
    data: TwinData
    weight: Floats
    design: Design
    settings: TrainingSettings
    folder: Path
    n_processes: int

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def train(self, head: Singles, settings: TrainingSettings, seed: int, name: str, track: Track) -> dict:
        """Train into a file, and say how it went."""
        if self.n_processes > 1:
            together(self.n_processes, _train, self, head, settings, seed, name, track)
        else:
            _train(ALONE, self, head, settings, seed, name, track)
        with safe_open(self.path(name), "pt") as file:
            return json.loads(file.metadata()["trained"])


def _train(
    team: Team,
    work: _Work,
    head: Singles,
    settings: TrainingSettings,
    seed: int,
    name: str,
    track: Track,
) -> None:
    data, encoder = work.data, work.encoder
    if team.size > 1 and encoder.device.type == "cuda":
        encoder = replace(encoder, model=encoder.model.to(f"cuda:{team.rank}"), device=torch.device("cuda", team.rank))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # adapters begin at random
        ranker = make_ranker(work.design, encoder, data.projection, head, isinstance(data.texts, FrozenStates))
    checkpoint = work.folder / f"{name}.checkpoint.safetensors"
    with (untracked if team.rank else track)(name, asdict(settings)) as watch:
        trained = train(
            ranker,
            data.texts,
            data.train,
            weight=data.kept.weights(work.weight),
            validation=data.validation,
            settings=settings,
            seed=seed,
            resumed_from=checkpoint,
            watch=watch,
            team=team,
            offset=data.kept.offset,
        )
    if team.rank:
        return
    told = {**asdict(settings), "seed": seed, **asdict(trained)}
    part = work.path(name).with_suffix(".part")
    weights = {
        key: value.detach().cpu().contiguous() for key, value in ranker.named_parameters() if value.requires_grad
    }
    save_file(weights, part, {"trained": json.dumps(told)})
    os.replace(part, work.path(name))


@dataclass(frozen=True, slots=True)
class _Trainer:
    """The search for one twin's settings, and its repeats."""

    work: _Work
    search: Search
    track: Track

    def fit(self, seed: int) -> dict:
        name = self.work.name
        head, penalty, ndcg = self._head()
        log.info("%s: best head on frozen features has validation nDCG@10 %.4f, penalty %g", name, ndcg, penalty)
        pairs = zip(self.search.learning_rates, self.search.weight_decays, strict=True)
        tried = [replace(self.work.settings, learning_rate=rate, weight_decay=decay) for rate, decay in pairs]
        trials = [self._train(head, settings, seed, f"{name}-trial{i}-{seed}") for i, settings in enumerate(tried)]
        best = int(np.argmax([trial["best_ndcg"] for trial in trials]))
        os.replace(self.work.path(f"{name}-trial{best}-{seed}"), self.work.path(f"{name}-{seed}"))
        repeats = [
            self._train(head, tried[best], other, f"{name}-{other}")
            for other in range(seed + 1, seed + self.search.n_seeds)
        ]
        for i in range(len(tried)):
            self.work.path(f"{name}-trial{i}-{seed}").unlink(missing_ok=True)
        return {
            "head_penalty": penalty,
            "head_ndcg": ndcg,
            "trials": trials,
            "best_trial": best,
            "seeds": [{**trials[best], "seed": seed}, *repeats],
        }

    def _head(self) -> tuple[Singles, float, float]:
        """The head on frozen features of all samples with the best validation nDCG@10 of the grid."""
        data = self.work.data.head
        linear = fit_linear(
            data.features,
            data.label,
            self.work.weight[:, None],
            held_features=data.held_features,
            held=data.held,
            penalties=self.search.penalties,
            device=self.work.encoder.device,
        )
        best = int(linear.best[0])
        return linear.tuned[0], self.search.penalties[best], float(np.nanmean(linear.ndcg[0, best]))

    def _train(self, head: Singles, settings: TrainingSettings, seed: int, name: str) -> dict:
        done = self._told(name, settings)
        if done:
            return done
        told = self.work.train(head, settings, seed, name, self.track)
        log.info(
            "%s, seed %d, rate %g: nDCG@10 %.4f after epoch %d of %d, %.0f s",
            *(self.work.name, seed, settings.learning_rate, told["best_ndcg"], told["best_epoch"]),
            *(len(told["history"]) - 1, told["seconds"]),
        )
        return told

    def _told(self, name: str, settings: TrainingSettings) -> dict | None:
        """How a training that is finished already went; the search's winner lies under its final name."""
        for path in (self.work.path(name), self.work.path(f"{self.work.name}-{name.rsplit('-', 1)[1]}")):
            if path.is_file():
                with safe_open(path, "pt") as file:
                    told = json.loads(file.metadata()["trained"])
                if asdict(settings).items() <= told.items():
                    return told
        return None
