"""Which encoder is used from now on: the named one, what adaptation has just made of it, or what it made before.

On the floor of `language`. An adapted encoder has its own embedding of every text, so it is made anew only when enough
is new, and taken only where validation says so.
"""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file, save_file

from ecom_pipeline import ledger
from ecom_pipeline.arrays import Floats
from ecom_pipeline.curves import Track, Watch
from ecom_pipeline.language.adaptation.corpus import Corpus
from ecom_pipeline.language.adaptation.retrieval import Retrieval, difference, recall_at_k
from ecom_pipeline.language.adaptation.settings import Adaptation
from ecom_pipeline.language.adapted import Named, as_named, is_readable, read_manifest, write_manifest
from ecom_pipeline.language.encoder import Encoder, save_encoder
from ecom_pipeline.language.models import find_model

VERSION = "1"  # of what a step does: another one adapts anew
AT = 100  # items that retrieval looks at
TOKEN_BUDGET = 2048  # of a batch when texts are read for the figures
_LAST, _KEYS, _CHECKPOINT = "last.json", "corpus.safetensors", "checkpoint.safetensors"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """When the model is adapted anew, and when the result is taken.

    Attributes:
        min_new_share: share of the corpus that must be new since last time, in [0, 1].
        only_if_better: whether the gain of recall on validation must be above 0 for certain: its whole 95 % interval.
    """

    min_new_share: float
    only_if_better: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """The encoder in use.

    Attributes:
        folder: as `open_encoder` takes it.
        outcome: "named" where no step is asked for or nothing is there to learn from; "adapted" just now; "kept" from
            last time; "refused" where adaptation did not help for certain, and the named model is used.
        figures: of the last adaptation, for the metadata.
    """

    folder: Path
    outcome: str
    figures: dict[str, object]


def choose(
    named: Named,
    settings: Adaptation,
    rules: Rules,
    corpus: Corpus,
    asked: Retrieval,
    encoders: Path,
    device: str,
    track: Track,
) -> Chosen:
    """Adapt the named model where that is due, and say which encoder to use.

    Adaptation always begins with the named model. It is due when a setting has changed, or when enough of what
    it would read is new since last time; a killed one goes on where it was.

    Args:
        named: the model.
        settings: how it is adapted.
        rules: when, and when the result is taken.
        corpus: what it would read.
        asked: validation contexts with what must be found; never the test split.
        encoders: folder of all encoders in use.
        device: of torch.
        track: curves: loss by objective, and validation recall.

    Cost: the steps, and every text of `asked` read twice. Nothing where it is not due.
    """
    if not settings.n_steps or not corpus.shares(settings) or not asked.contexts:
        return Chosen(as_named(named, encoders), "named", {})
    asked_for = {**settings.as_dict(), "remote_code": named.remote_code}
    recipe = ledger.fingerprint(VERSION, asked_for, {"encoder": named.encoder_id})
    last = last_adapted(encoders)
    identity = _due(recipe, corpus, encoders, last, rules.min_new_share)
    folder = encoders / identity
    if not is_readable(folder):
        _adapt(named, settings, corpus, asked, folder, recipe, device, track)
    _remember(encoders, identity)
    figures = read_manifest(folder)["figures"]
    if rules.only_if_better and figures[f"validation_recall_at_{AT}_gain_ci_low"] <= 0:
        return Chosen(as_named(named, encoders), "refused", figures)
    return Chosen(folder, "kept" if identity == last else "adapted", figures)


def _due(recipe: str, corpus: Corpus, encoders: Path, last: str, min_new_share: float) -> str:
    """The folder to be in use: the last one's, where the recipe is the same and little is new."""
    if last and read_manifest(encoders / last)["recipe"] == recipe:
        new = corpus.new_share(load_file(encoders / last / _KEYS)["keys"])
        log.info("%.1f %% of what the encoder learns from is new", 100 * new)
        if new < min_new_share or not new:
            return last
    return ledger.fingerprint(VERSION, {}, {"recipe": recipe, "corpus": corpus.digest})


def _adapt(
    named: Named,
    settings: Adaptation,
    corpus: Corpus,
    asked: Retrieval,
    folder: Path,
    recipe: str,
    device: str,
    track: Track,
) -> None:
    """Adapt into a folder; the manifest comes last."""
    from ecom_pipeline.language.adaptation import loop

    encoder = named.load(device)
    with track("adaptation", settings.as_dict()) as watch:
        before = _measured(folder, encoder, asked, watch)
        adapted = loop.adapt(encoder, corpus, settings, folder / _CHECKPOINT, watch)
        after = recall_at_k(encoder, asked, AT, TOKEN_BUDGET)
        watch(settings.n_steps, {f"validation_recall_at_{AT}": float(after.mean())})
    figures = {
        **difference(before, after, settings.seed).figures(f"validation_recall_at_{AT}"),
        **{f"last_loss_{name}": adapted.last_loss(name) for name in dict.fromkeys(adapted.objectives)},
        **{f"n_steps_{name}": adapted.objectives.count(name) for name in dict.fromkeys(adapted.objectives)},
        "n_validation_contexts": len(asked.contexts),
        "n_items_searched": len(asked.items),
        "adaptation_seconds": adapted.seconds,
    }
    save_encoder(encoder, folder)
    save_file({"keys": corpus.keys}, folder / _KEYS)
    encoder_id = find_model(str(folder), str(folder) if named.remote_code else "").encoder_id(named.max_tokens)
    told = {"adapted": True, "recipe": recipe, "settings": settings.as_dict(), "figures": figures}
    write_manifest(folder, named, encoder_id, {**told, "losses": adapted.losses})
    for leftover in (_CHECKPOINT, "before.safetensors"):
        (folder / leftover).unlink(missing_ok=True)


def _measured(folder: Path, encoder: Encoder, asked: Retrieval, watch: Watch) -> Floats:
    """Recall of the named model; kept in the folder, so that a killed adaptation does not measure it again."""
    file = folder / "before.safetensors"
    if file.is_file():
        return load_file(file)["recall"]
    recall = recall_at_k(encoder, asked, AT, TOKEN_BUDGET)
    watch(0, {f"validation_recall_at_{AT}": float(recall.mean())})
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({"recall": recall}, part)
    os.replace(part, file)
    return recall


def last_adapted(encoders: Path) -> str:
    """The name of the folder of the last adaptation that was finished, taken or refused; empty: there is none."""
    file = encoders / _LAST
    name = json.loads(file.read_text())["folder"] if file.is_file() else ""
    return name if name and is_readable(encoders / name) else ""


def _remember(encoders: Path, name: str) -> None:
    part = encoders / f"{_LAST}.part"
    part.write_text(json.dumps({"folder": name}))
    os.replace(part, encoders / _LAST)
