"""Pictures of items: a small vision model reads each distinct one once; an item without a readable picture goes on.

On the floor of `language`. Only files below the source's folder are opened. torch, transformers and Pillow are imported when a
model is loaded.
"""

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection

from ecom_pipeline import schema
from ecom_pipeline.arrays import Singles
from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.models import find_model

if TYPE_CHECKING:
    import torch

BATCH_IMAGES = 16


@dataclass(frozen=True, slots=True)
class VisionEncoder:
    """A vision model that gives one unit-length vector a picture.

    Attributes:
        encoder_id: name and hash of the files.
        model: in evaluation mode and frozen.
        processor: picture to the numbers that the model takes.
        device: where the model lies.
    """

    encoder_id: str
    model: Any
    processor: Any
    device: "torch.device"


@dataclass(frozen=True, slots=True)
class Picture:
    """An item's picture: its content's hash, or why there is none."""

    item_id: str
    uri: str
    file: Path | None
    digest: str | None
    reason: str | None


def vision_id(name: str) -> str:
    """What the embedding of a picture depends on; no model is loaded.

    Raises:
        ModelError: if the model is absent, has no safetensors or brings its own code.
    """
    found = find_model(name)
    return f"{found.label}-{found.digest}"


def load_vision(name: str, device: str) -> VisionEncoder:
    """The vision model, ready to look.

    Args:
        name: a folder, or an id in the local Hugging Face cache: ViT, DINOv2, ConvNeXt, ResNet, or CLIP's kind, of which
            the half that sees is taken.
        device: of torch, such as "cpu" or "cuda".

    Raises:
        ModelError: if Pillow is not installed, or as `vision_id`.
    """
    if find_spec("PIL") is None:
        raise ModelError(
            "pictures: 1 package is missing: 'Pillow'. A vision model was asked for, and pictures are opened with it: "
            "pip install --constraint constraints.txt --editable '.[image]', or leave `model` of `image_embeddings` empty."
        )
    import torch
    import transformers

    identity, folder = vision_id(name), find_model(name).folder
    transformers.utils.logging.disable_progress_bar()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    model = transformers.AutoModel.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, local_files_only=True
    )
    model = getattr(model, "vision_model", model)
    model.requires_grad_(False)
    place = torch.device(device)
    return VisionEncoder(identity, model.to(place).eval(), processor, place)


def wanted_pictures(db: DuckDBPyConnection) -> dict[str, str]:
    """Where the pictures of the samples' items are said to lie, by item."""
    rows = db.execute(
        """select item_id, image_uri from items where trim(image_uri) <> ''
        and item_id in (select item_id from training_samples) order by item_id"""
    )
    return dict(rows.fetchall())


def known_pictures(db: DuckDBPyConnection, encoder_id: str) -> dict[str, Singles]:
    """Embeddings that are already there, by the picture's hash."""
    schema.IMAGE_EMBEDDINGS.create(db)
    rows = db.execute(
        "select image_hash, any_value(embedding) from image_embeddings where encoder_id = ? and embedding is not null "
        "group by image_hash",
        [encoder_id],
    ).fetchall()
    return {digest: np.array(embedding, np.float32) for digest, embedding in rows}


def find_pictures(wanted: Mapping[str, str], folder: Path) -> Iterator[Picture]:
    """Look each picture up.

    Args:
        wanted: where pictures are said to lie, by item: a path, taken from the source's folder unless it is absolute, or
            a file:// address. A catalogue names files of its own alone: what lies outside the folder, by whatever way,
            and what is no regular file is not opened. Nothing is fetched from elsewhere.
        folder: of the source.

    Cost: reads each file once.
    """
    for item_id, uri in wanted.items():
        try:
            file = _place(uri.strip(), folder)
            with _regular(file) as content:
                digest = hashlib.file_digest(content, "md5").hexdigest()
            yield Picture(item_id, uri, file, digest, None)
        except OSError as error:
            yield Picture(item_id, uri, None, None, f"the file cannot be opened: {error.strerror}")
        except ValueError as error:
            yield Picture(item_id, uri, None, None, str(error))


def _place(uri: str, folder: Path) -> Path:
    """The file below the folder that a text names, links followed; ValueError says why there is none."""
    parts = urlsplit(uri)
    if len(parts.scheme) > 1 and parts.scheme != "file":  # one letter is a drive
        raise ValueError(
            f"a picture must be a file of this machine; {parts.scheme}:// is not fetched: keep a copy beside the catalogue"
        )
    path = unquote(parts.path) if parts.scheme == "file" else uri
    file, within = (Path(os.path.realpath(one)) for one in (folder / path, folder))
    if not file.is_relative_to(within):
        raise ValueError(
            "a picture must lie below the source's folder, links followed: keep a copy beside the catalogue"
        )
    return file


def _regular(file: Path) -> BufferedReader:
    """An open file; a pipe or a device, which may never end or answer, is a ValueError and is not read."""
    number = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # a pipe would wait for its writer
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError("a picture must be a regular file: this is a folder, a pipe or a device")
    return os.fdopen(number, "rb")


def embed_pictures(
    wanted: Mapping[str, str], folder: Path, known: Mapping[str, Singles], name: str, device: str
) -> pd.DataFrame:
    """Rows of `image_embeddings`; the model is not even loaded where every picture is known.

    Args:
        wanted: where pictures are said to lie, by item.
        folder: of the source.
        known: embeddings under this model, by the picture's hash.
        name: of the vision model.
        device: of torch.

    Cost: one forward pass a new picture, 16 at a time. Not random.
    """
    if not wanted:
        return pd.DataFrame(columns=schema.IMAGE_EMBEDDINGS.column_names)
    pictures = list(find_pictures(wanted, folder))
    embedding = dict(known)
    reason: dict[str, str] = {}
    new = {one.digest: one.file for one in pictures if one.digest and one.file and one.digest not in known}
    if new:
        encoder = load_vision(name, device)
        digests = sorted(new)
        for start in range(0, len(digests), BATCH_IMAGES):
            part = {digest: _opened(new[digest]) for digest in digests[start : start + BATCH_IMAGES]}
            reason |= {digest: found for digest, found in part.items() if isinstance(found, str)}
            seen = {digest: found for digest, found in part.items() if not isinstance(found, str)}
            embedding |= dict(zip(seen, look(encoder, list(seen.values())), strict=True)) if seen else {}
    identity = vision_id(name)
    return pd.DataFrame(
        [
            (
                one.item_id,
                one.uri,
                one.digest,
                identity,
                embedding.get(one.digest or ""),
                one.reason or reason.get(one.digest or ""),
            )
            for one in pictures
        ],
        columns=schema.IMAGE_EMBEDDINGS.column_names,
    )


def replace_pictures(db: DuckDBPyConnection, rows: pd.DataFrame) -> dict[str, object]:
    """Write `image_embeddings`; how many pictures there are, and of those that cannot be read the first, and why."""
    schema.IMAGE_EMBEDDINGS.clear(db)
    if rows.empty:  # a frame without rows has no types
        return {"n_images": 0, "n_unreadable_images": 0}
    db.register("pictures", rows)
    db.execute(f"insert into image_embeddings select {schema.IMAGE_EMBEDDINGS.cast} from pictures")
    db.unregister("pictures")
    unreadable = rows[rows.reason.notna()]
    counts: dict[str, object] = {"n_images": len(rows), "n_unreadable_images": len(unreadable)}
    if len(unreadable):
        first = unreadable.iloc[0]
        counts["first_unreadable_image"] = f"{first.item_id}: {first.image_uri}: {first.reason}"
    return counts


def look(encoder: VisionEncoder, images: Sequence[Any]) -> Singles:
    """(n, d) unit vectors of pictures: the mean over all places or tokens, as not every model has learnt to pool."""
    import torch

    pixels = encoder.processor(images=list(images), return_tensors="pt")["pixel_values"].to(encoder.device)
    with torch.inference_mode():
        hidden = encoder.model(pixel_values=pixels).last_hidden_state
    vector = hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)
    return torch.nn.functional.normalize(vector.float(), dim=1).cpu().numpy()


def _opened(file: Path) -> Any:
    """A picture in red, green and blue, or why it cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _regular(file) as content, Image.open(content) as image:
                return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return f"the file is no picture that can be read: {str(error)[:120]}"
