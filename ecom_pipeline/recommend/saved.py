"""A ranker on disk, with all that must be the same when it serves as when it learnt: JSON and LightGBM's text, no pickle.

On the floor above `learning`.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ecom_pipeline.errors import ModelError
from ecom_pipeline.recommend.candidates import Retrieval
from ecom_pipeline.recommend.private.head import PrivateRanker
from ecom_pipeline.recommend.ranker import Ranker
from ecom_pipeline.recommend.weighting import Weighting

_MANIFEST, _TREES = "manifest.json", "trees.txt"


@dataclass(frozen=True, slots=True)
class SavedRanker:
    """A ranker that can serve.

    Attributes:
        ranker: scores candidates.
        weighting: of past acts in every history.
        retrieval: how many candidates.
        divisions: names of the classes of items that it knows.
        n_items: of the ranked catalogue, at most.
    """

    ranker: Ranker | PrivateRanker
    weighting: Weighting
    retrieval: Retrieval
    divisions: tuple[str, ...]
    n_items: int

    def write(self, folder: Path, inputs: Mapping[str, str]) -> None:
        """Write a folder, all or nothing.

        Args:
            folder: replaced if it is there.
            inputs: content of what it was made from, for people.
        """
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        (part / _TREES).write_text(self.ranker.trees)
        told = {
            "ranker": self.ranker.to_json(),
            "weighting": self.weighting.settings(),
            "retrieval": asdict(self.retrieval),
            "divisions": list(self.divisions),
            "n_items": self.n_items,
            "inputs": dict(inputs),
            "trees_sha256": _digest(self.ranker.trees),
        }
        (part / _MANIFEST).write_text(json.dumps(told, indent=1))
        for name in (_TREES, _MANIFEST):
            folder.mkdir(exist_ok=True)
            os.replace(part / name, folder / name)
        part.rmdir()

    @classmethod
    def read(cls, folder: Path) -> "SavedRanker":
        """From a folder.

        Raises:
            ModelError: if a file is missing, or is not as it was written.
        """
        try:
            told, trees = json.loads((folder / _MANIFEST).read_text()), (folder / _TREES).read_text()
            if told.get("trees_sha256") not in (
                None,
                _digest(trees),
            ):  # older ones do not tell; half of a file would be fewer trees
                raise ValueError(f"{_TREES} was changed")
            plain = told["ranker"]
            return cls(
                PrivateRanker.from_json(plain) if "private" in plain else Ranker.from_json(plain, trees),
                Weighting(**told["weighting"]),
                Retrieval(**told["retrieval"]),
                tuple(told["divisions"]),
                told["n_items"],
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError(
                f"ranker: 1 folder cannot be read, {str(folder)!r}: {error}. It must be as it was written: start `ecom run`, and "
                "it is learnt again."
            ) from error


def is_whole(folder: Path) -> bool:
    """Whether a ranker can be read as it was written. Cost: reads its trees, a few MB."""
    try:
        return bool(SavedRanker.read(folder))
    except ModelError:
        return False


def _digest(trees: str) -> str:
    return hashlib.sha256(trees.encode()).hexdigest()
