"""The store of embeddings: a row a distinct text and encoder; only texts without a row are read.

On the floor of `language`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from ecom_pipeline import schema
from ecom_pipeline.arrays import Singles
from ecom_pipeline.errors import WarehouseError
from ecom_pipeline.language import adapted
from ecom_pipeline.language.attributes import read_attributes
from ecom_pipeline.language.encoder import Encoded, Encoder, encode
from ecom_pipeline.language.features import MATCH_NAMES, PairFeatures, pair_features, row_blocks
from ecom_pipeline.language.quantised import quantised

Precision = Literal["fp32", "bf16"]
_PARTS_A_WORKER = 4  # so that little is read again where one dies
_TEXTS_OF_A_PART = 500  # at least: seconds of reading, against the one that sending the model costs
# rows that the present samples and the present catalogue read
IN_USE = """text_hash in (
    select md5(context_text) from training_samples union select md5(item_text) from training_samples
    union select md5(item_text) from items)"""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Texts with their new embeddings, and what they cost."""

    encoder_id: str
    texts: list[str]
    embedding: Singles  # (n, d)
    throughput: dict[str, float]


def missing_texts(db: DuckDBPyConnection, encoder_id: str, n_items: int) -> list[str]:
    """Distinct texts of the samples, and of the items that were taken most, without a row under this encoder.

    Args:
        db: a connection to the warehouse.
        encoder_id: whose rows count.
        n_items: of the catalogue, at most.
    """
    schema.EMBEDDINGS.create(db)
    rows = db.execute(
        """with taken as (select item_id, count(*) as n from cleaned_interactions group by item_id),
            texts as (
                select context_text as text from training_samples union select item_text from training_samples
                union select item_text from (
                    select item_text from items left join taken using (item_id)
                    order by coalesce(n, 0) desc, item_id limit ?))
        select text from texts where md5(text) not in (select text_hash from embeddings where encoder_id = ?)
        order by text""",
        [n_items, encoder_id],
    )
    return [text for (text,) in rows.fetchall()]


def reader_id(folder: Path, precision: Precision) -> str:
    """What the embeddings of a precision depend on; no weight is read."""
    return adapted.encoder_id(folder) + ("" if precision == "fp32" else f"-{precision}")


def embed(texts: Sequence[str], folder: Path, token_budget: int, device: str, precision: Precision) -> Embedded:
    """Read texts with the encoder in use; it is not even loaded where there are none.

    Args:
        texts: what is read.
        folder: of the encoder in use.
        token_budget: tokens of a batch, padding included.
        device: of torch.
        precision: "bf16": with OpenVINO on a CPU that has such products, see `quantised`.

    Raises:
        ModelError, DeviceError: as `open_encoder` and `quantised`.
    """
    if not texts:
        return Embedded(reader_id(folder, precision), [], np.zeros((0, 1), np.float32), {})
    encoder = adapted.open_encoder(folder, device)
    if precision == "bf16":
        encoder = quantised(encoder)
        encoded = encode(encoder, texts, token_budget)
    else:
        encoded = _encode_side_by_side(encoder, texts, token_budget)
    return Embedded(encoder.encoder_id, list(texts), encoded.embedding, encoded.throughput())


def _encode_side_by_side(encoder: Encoder, texts: Sequence[str], token_budget: int) -> Encoded:
    """As `encode`, by all workers where joblib was given more than this process; only with models that any of them can load.

    A worker has no GPU for certain, and does not know the Python code that a model brings along.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    started = time.monotonic()
    movable = encoder.device.type == "cpu" and type(encoder.model).__module__.startswith("transformers.")
    n_parts = min(_PARTS_A_WORKER * effective_n_jobs(None), len(texts) // _TEXTS_OF_A_PART) if movable else 1
    if effective_n_jobs(None) == 1 or n_parts < 2:
        return encode(encoder, texts, token_budget)
    parts = [slice(first, None, n_parts) for first in range(n_parts)]  # alike in length and in cost
    found = Parallel()(delayed(encode)(encoder, list(texts[part]), token_budget) for part in parts)
    result = np.empty((len(texts), encoder.n_dimensions), np.float32)
    for part, one in zip(parts, found, strict=True):
        result[part] = one.embedding
    return Encoded(result, sum(one.n_tokens for one in found), time.monotonic() - started)


def add(db: DuckDBPyConnection, found: Embedded) -> None:
    """Add rows to `embeddings`; those of other encoders go, as a sample has one row a text."""
    db.execute("delete from embeddings where encoder_id <> ?", [found.encoder_id])
    if not found.texts:
        return
    width = found.embedding.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(found.embedding.ravel()), width)
    incoming = pa.table({"text": found.texts, "embedding": vectors})
    db.register("incoming", incoming)
    db.execute(
        "insert into embeddings select md5(text), ?, embedding::float[], now()::timestamp from incoming",
        [found.encoder_id],
    )
    db.unregister("incoming")


def sample_features(db: DuckDBPyConnection, samples: pd.DataFrame) -> PairFeatures:
    """Frozen features of samples, in their order: of their texts, and of what `sample_attributes` tells.

    Raises:
        WarehouseError: if a text has no embedding, or a sample no attributes while others have.

    Cost: reads the embeddings of these samples' texts and no others.
    """
    vectors, (context, item) = _vectors(db, samples.context_text, samples.item_text)
    texts = [samples[column].to_numpy() for column in ("context_text", "title", "item_text")]
    meeting, match = np.empty((len(samples), 2 * vectors.shape[1]), np.float32), []
    for block in row_blocks(len(samples)):
        pairs = pair_features(vectors[context[block]], vectors[item[block]], *(text[block] for text in texts))
        meeting[block] = pairs.meeting
        match.append(pairs.match)
    known = read_attributes(db, samples.sample_id)
    every = PairFeatures(meeting, np.concatenate(match or [np.zeros((0, len(MATCH_NAMES)), np.float32)]))
    return every.beside(known.names, known.value)


def sample_vectors(db: DuckDBPyConnection, samples: pd.DataFrame) -> tuple[Singles, Singles]:
    """(n, d) unit vectors of the samples' contexts, and of their items' texts.

    Raises:
        WarehouseError: if a text has no embedding.
    """
    vectors, (context, item) = _vectors(db, samples.context_text, samples.item_text)
    return vectors[context], vectors[item]


@dataclass(frozen=True, slots=True)
class Items:
    """Items of some samples with the embeddings of their texts."""

    item_id: NDArray[np.str_]
    embedding: Singles  # (n, d) unit length


def item_embeddings(db: DuckDBPyConnection, split: str) -> Items:
    """The items of one split's samples, in the order of their ids."""
    rows = db.execute(
        """select item_id, any_value(embedding) as embedding from training_samples
        join embeddings on text_hash = md5(item_text) where split = ? group by item_id order by item_id""",
        [split],
    ).fetchnumpy()
    return Items(rows["item_id"].astype(str), np.stack(list(rows["embedding"])))


def _vectors(db: DuckDBPyConnection, *texts: pd.Series) -> tuple[Singles, list[list[int]]]:
    """(t, d) embeddings of the distinct texts of some columns, and for each column the row of each of its texts."""
    hashes = {text: md5(text.encode()).hexdigest() for text in pd.unique(pd.concat(texts))}
    db.register("asked", pa.table({"text_hash": pa.array(hashes.values(), pa.string())}))
    rows = db.execute("select text_hash, embedding from asked join embeddings using (text_hash)").fetchnumpy()
    db.unregister("asked")
    place = {name: row for row, name in enumerate(rows["text_hash"])}
    absent = [text for text, name in hashes.items() if name not in place]
    if absent:
        raise WarehouseError(
            f"embeddings: {len(absent)} of {len(hashes)} texts have no row; first: {absent[0][:60]!r}. Every text of a "
            "sample must be embedded: materialise `embeddings` after `training_samples`."
        )
    vectors = np.stack(list(rows["embedding"])) if place else np.zeros((0, 1), np.float32)
    return vectors, [[place[hashes[text]] for text in column] for column in texts]
