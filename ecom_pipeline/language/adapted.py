"""The language model in use: the one that was named, or what it has become by adaptation; a folder with a manifest.

On the floor of `language`. Everything that reads texts opens its encoder here, so that all read with the same.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ecom_pipeline import ledger
from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import Encoder, load_encoder
from ecom_pipeline.language.models import find_model

MANIFEST = "adaptation.json"


@dataclass(frozen=True, slots=True)
class Named:
    """The language model that was asked for.

    Attributes:
        model: the packaged model's name, a folder, or an id in the local Hugging Face cache.
        max_tokens: a longer text is cut.
        remote_code: name of the model whose own Python code may run.
    """

    model: str
    max_tokens: int
    remote_code: str = ""

    @property
    def encoder_id(self) -> str:
        """What its embeddings depend on.

        Raises:
            ModelError: as `find_model`.
        """
        return find_model(self.model, self.remote_code).encoder_id(self.max_tokens)

    def load(self, device: str) -> Encoder:
        """The model as it was published."""
        return load_encoder(self.model, self.max_tokens, device, self.remote_code)


def as_named(named: Named, encoders: Path) -> Path:
    """A folder that says: this model, as it was published.

    Args:
        named: the model.
        encoders: folder of all encoders in use.

    Cost: reads the files once in a process, for their hash.
    """
    encoder_id = named.encoder_id
    folder = encoders / ledger.fingerprint("named", {"remote_code": named.remote_code}, {"encoder": encoder_id})
    write_manifest(folder, named, encoder_id, {"adapted": False})
    return folder


def open_encoder(folder: Path, device: str) -> Encoder:
    """The encoder in use, ready to read.

    Args:
        folder: as `adapted_encoder` published it.
        device: of torch, such as "cpu" or "cuda".

    Raises:
        ModelError: if the folder or the model is gone.
    """
    told = read_manifest(folder)
    if not told["adapted"]:
        return Named(**told["named"]).load(device)
    own_code = str(folder) if told["named"]["remote_code"] else ""
    return load_encoder(str(folder), told["named"]["max_tokens"], device, own_code)


def encoder_id(folder: Path) -> str:
    """What the embeddings of the encoder in use depend on; no weight is read."""
    return read_manifest(folder)["encoder_id"]


def read_manifest(folder: Path) -> dict:
    """What is known of an encoder in use: the model named, the encoder's id, and how it was adapted.

    Raises:
        ModelError: if it is gone or damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise ModelError(
            f"language model in use: 1 file is missing: {str(file)!r}. `adapted_encoder` writes it, and whatever reads "
            "texts needs it: start `ecom run`, and it is made again."
        )
    try:
        told = json.loads(file.read_text())
        return {**told, "named": told["named"], "encoder_id": told["encoder_id"]}
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"language model in use: 1 file is damaged: {str(file)!r}: {error}. It must be as `adapted_encoder` wrote it: start "
            "`ecom run`, and it is made again."
        ) from error


def is_readable(folder: Path) -> bool:
    """Whether an encoder's manifest is there and can be read; no weight is read."""
    try:
        return bool(read_manifest(folder))
    except ModelError:
        return False


def write_manifest(folder: Path, named: Named, encoder_id: str, adapted: Mapping[str, object]) -> None:
    """Publish an encoder: the manifest comes last, and at once, so that a folder with one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"model": named.model, "max_tokens": named.max_tokens, "remote_code": named.remote_code}
    part = folder / f"{MANIFEST}.part"
    part.write_text(json.dumps({"named": asked, "encoder_id": encoder_id, **adapted}, indent=2))
    os.replace(part, folder / MANIFEST)
