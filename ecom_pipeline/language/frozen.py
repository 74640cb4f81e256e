"""What the frozen lower layers give for a text: computed once, kept on disk, so that an epoch costs the top layers alone.

On the floor of `language`.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ecom_pipeline.arrays import Ints
from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import Encoder, Text, batches, padded, tokenize
from ecom_pipeline.language.memory import Halving
from ecom_pipeline.language.products import fast_products

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_INDEX = "index.npz"


class Texts(Protocol):
    """Texts that a ranker reads, by their row: as tokens, or as what the frozen layers gave for them."""

    def length(self, rows: Ints) -> Ints:
        """Tokens of some texts."""
        ...

    def batch(self, rows: Ints, device: "torch.device") -> dict[str, "torch.Tensor"]:
        """What a model takes for some texts."""
        ...


@dataclass(frozen=True, slots=True)
class TokenTexts:
    """Texts as tokens: every layer is computed each time they are read."""

    encoder: Encoder
    ids: list[list[int]]

    def length(self, rows: Ints) -> Ints:
        """Tokens of some texts."""
        return np.array([len(self.ids[row]) for row in rows], np.int64)

    def batch(self, rows: Ints, device: "torch.device") -> dict[str, "torch.Tensor"]:
        """Token ids and mask, both (b, longest), and positions where the model counts them."""
        return {name: values.to(device) for name, values in padded(self.encoder, [self.ids[r] for r in rows]).items()}


@dataclass(frozen=True, slots=True)
class FrozenStates:
    """States of every token of every text below the cut, one after the other in a file that is memory-mapped.

    Attributes:
        file: (tokens, d) half precision.
        width: d.
        start: (texts,) where each text's tokens begin.
        tokens: (texts,) how many it has.
        causal: whether batches are padded on the left.
    """

    file: Path
    width: int
    start: Ints
    tokens: Ints
    causal: bool

    @property
    def state(self) -> NDArray[np.float16]:
        """(tokens, d): the file, of which only what is looked at is read.

        Raises:
            ModelError: if another process has begun the store anew.
        """
        if not self.file.is_file():
            raise ModelError(
                f"frozen states: 1 file is gone: {str(self.file)!r}. It must stay while it is read, and another process has "
                "begun its store anew: let one process at a time work in a home, and run again."
            )
        return np.memmap(self.file, np.float16, "r").reshape(-1, self.width)

    def length(self, rows: Ints) -> Ints:
        """Tokens of some texts."""
        return self.tokens[rows]

    def batch(self, rows: Ints, device: "torch.device") -> dict[str, "torch.Tensor"]:
        """States (b, longest, d) and mask (b, longest) of some texts."""
        import torch

        lengths, state = self.tokens[rows], self.state
        longest = int(lengths.max())
        states = np.zeros((len(rows), longest, self.width), np.float16)
        mask = np.zeros((len(rows), longest), np.int64)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            part = slice(longest - length, longest) if self.causal else slice(length)
            states[place, part] = state[self.start[row] : self.start[row] + length]
            mask[place, part] = 1
        return {
            "states": torch.from_numpy(states).to(device).float(),
            "attention_mask": torch.from_numpy(mask).to(device),
        }


def layer_stack(model: Any) -> Any:
    """The model's transformer layers, from the first to the last.

    Raises:
        ModelError: if there is no list of as many layers as the model's configuration says.
    """
    import torch

    n_layers = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers:
            return module
    raise ModelError(
        f"language model: 1 stack of {n_layers} layers is looked for, and a {type(model).__name__} has none. Layers must "
        "lie in one list, so that some can be frozen: choose another model, or let all of it learn."
    )


def freeze(encoder: Encoder, texts: Sequence[Text], n_top: int, token_budget: int, folder: Path) -> FrozenStates:
    """States of texts below the last `n_top` layers; only texts that the store does not have yet are read.

    The store of one encoder and cut grows at its end, one process at a time: another one waits. A kill loses what was not
    written down in the index, never what was. What is taken from the store is compared with its checksum first.

    Args:
        encoder: gives the layers.
        texts: in the order of the rows.
        n_top: layers above the cut; at least one layer must lie below it.
        token_budget: tokens of a batch, padding included.
        folder: of all stores.

    Raises:
        ModelError: if the states do not fit half precision.

    Cost: the lower layers' share of a forward pass a new text; 2 d bytes a token of disk, read once for known texts.
    """
    names = [md5("\0".join([text] if isinstance(text, str) else text).encode()).digest() for text in texts]
    with _alone(folder):
        store = _Store.open(_place(encoder, n_top, folder), 2 * encoder.n_dimensions).sound(set(names))
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in store.known}
        if new:
            log.info("%d of %d texts have no frozen states yet", len(new), len(texts))
            store = _append(encoder, new, encoder.n_layers - n_top, token_budget, store)
    where = np.array([store.known[name] for name in names], np.int64).reshape(-1, 3)
    return FrozenStates(store.file, encoder.n_dimensions, where[:, 0], where[:, 1], encoder.causal)


def read_texts(
    encoder: Encoder, texts: Sequence[Text], n_top: int, token_budget: int, folder: Path, max_gib: float
) -> Texts:
    """Texts for a ranker: frozen states where some layer is frozen and they fit, else tokens.

    Args:
        encoder: gives the layers.
        texts: in the order of the rows.
        n_top: layers that learn.
        token_budget: tokens of a batch, padding included.
        folder: of all stores; those of other encoders are deleted.
        max_gib: of the states of these texts; a store that has grown over it by older texts is begun anew.

    Cost: as `freeze`; where tokens are given, tokenizing alone.
    """
    ids = tokenize(encoder, texts)
    gib = 2 * encoder.n_dimensions * sum(map(len, ids)) / 2**30
    if n_top >= encoder.n_layers or gib > max_gib:
        reason = "every layer learns" if n_top >= encoder.n_layers else f"they would take {gib:.2f} GiB of {max_gib:g}"
        log.info("no frozen states are kept: %s; each epoch computes all layers", reason)
        return TokenTexts(encoder, ids)
    place = _place(encoder, n_top, folder)
    with _alone(folder):
        for other in folder.glob("*-*/"):
            if not other.name.startswith(_stem(encoder)):
                shutil.rmtree(other)  # of an encoder that is not in use any more
        if sum(file.stat().st_size for file in place.glob("*.f16")) / 2**30 + gib > 2 * max_gib:
            log.info("frozen states of older texts fill %s: it is begun anew", place)
            shutil.rmtree(place)
        return freeze(encoder, texts, n_top, token_budget, folder)


def _place(encoder: Encoder, n_top: int, folder: Path) -> Path:
    return folder / f"{_stem(encoder)}-{encoder.n_layers - n_top}"


def _stem(encoder: Encoder) -> str:
    return encoder.encoder_id.replace("/", "--")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time changes the stores; whoever holds them may enter again."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that writes frozen states in %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class _Store:
    """States of one encoder and cut: a file, and of each text by its hash where it begins, its tokens, its checksum."""

    file: Path
    width: int  # bytes of a token
    known: dict[bytes, tuple[int, int, int]]

    @classmethod
    def open(cls, place: Path, width: int) -> "_Store":
        """The store in a folder; without an index that can be read it is begun anew, in a file of another name.

        So whoever still reads the old file misses it, and does not take other texts' states for those it knows.
        """
        try:
            with np.load(place / _INDEX, allow_pickle=False) as index:
                where = zip(*(index[name].tolist() for name in ("start", "tokens", "check")), strict=True)
                known = {name.tobytes(): one for name, one in zip(index["name"], where, strict=True)}
                return cls(place / str(index["states"]), width, known)
        except FileNotFoundError:
            pass
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            log.warning("frozen states in %s have no index that can be read and are begun anew: %s", place, error)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return cls(place / f"{token_hex(8)}.f16", width, {})

    def sound(self, names: set[bytes]) -> "_Store":
        """The store without those of some texts whose states are not what was written."""
        there = self.file.is_file() and self.file.stat().st_size > 0
        content = np.memmap(self.file, np.uint8, "r") if there else np.zeros(0, np.uint8)
        damaged = set()
        for name in names & self.known.keys():
            start, tokens, check = self.known[name]
            if crc32(content[start * self.width : (start + tokens) * self.width].data) != check:
                damaged.add(name)
        if damaged:
            log.warning("frozen states of %d texts in %s are damaged: they are computed anew", len(damaged), self.file)
        return replace(self, known={name: one for name, one in self.known.items() if name not in damaged})

    def write_index(self) -> None:
        """Write down what is known, all or nothing, after the states themselves are on the disk."""
        part = self.file.parent / f"{_INDEX}.part"
        where = np.array(list(self.known.values()), np.int64)
        names = np.frombuffer(b"".join(self.known), np.uint8).reshape(-1, 16)
        start, tokens, check = where.T
        with part.open("wb") as file:
            np.savez(file, name=names, states=np.array(self.file.name), start=start, tokens=tokens, check=check)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.file.parent / _INDEX)


def _append(encoder: Encoder, new: dict[bytes, Text], cut: int, token_budget: int, store: _Store) -> _Store:
    import torch

    names, ids = list(new), tokenize(encoder, list(new.values()))
    end = max((start + length for start, length, _ in store.known.values()), default=0)
    known = dict(store.known)
    store.file.touch()
    os.truncate(store.file, end * store.width)  # a killed run may have left states that no index knows
    halving = Halving("frozen states", encoder.device, unit="texts")

    def read(rows: list[int]) -> NDArray[np.float16]:
        inputs = padded(encoder, [ids[row] for row in rows])
        hidden = states_below(encoder, cut, inputs).half().cpu()
        return hidden[inputs["attention_mask"].cpu().bool()].numpy()  # (tokens of these texts, d), text by text

    with store.file.open("ab") as file, torch.inference_mode(), fast_products(len(ids)):
        for rows in batches([len(text) for text in ids], token_budget):
            kept = np.concatenate(halving.run(rows, read))
            finite = np.isfinite(kept).all(1)
            if not finite.all():
                raise ModelError(
                    f"frozen states: {int((~finite).sum())} of {len(kept)} tokens of a batch leave the range of half "
                    f"precision under {encoder.encoder_id}. Set `frozen_gib` of `fine_tuned_model` to 0, so that nothing "
                    "is kept."
                )
            file.write(kept.tobytes())
            first = 0
            for row in rows:
                length = len(ids[row])
                known[names[row]] = (end, length, crc32(kept[first : first + length].tobytes()))
                first, end = first + length, end + length
        file.flush()
        os.fsync(file.fileno())
    grown = replace(store, known=known)
    grown.write_index()
    return grown


def states_below(encoder: Encoder, cut: int, inputs: dict[str, "torch.Tensor"]) -> "torch.Tensor":
    """(b, l, d): what goes into layer `cut`; the layers from there on are not computed."""
    with _stopped_at(layer_stack(encoder.model)[cut]) as seen:
        try:
            encoder.model(**inputs)
        except _Reached:
            return seen[0]
    raise AssertionError("a layer of the stack is always reached")


class _Reached(BaseException):
    """The layer where a forward pass ends early; not an error."""


@contextmanager
def _stopped_at(layer: Any) -> Iterator[list["torch.Tensor"]]:
    seen: list[torch.Tensor] = []

    def stop(module: Any, args: tuple, kwargs: dict) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    hook = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()
