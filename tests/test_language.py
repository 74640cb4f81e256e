import hashlib

import numpy as np
import pytest

from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
from ecom_pipeline.language.models import find_model

TEXTS = ["red mug", "a dimmable led desk lamp with a usb port", "女士跑鞋", "x " * 200, "mug"]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(PACKAGED, 64, "cpu")


def test_the_packaged_weights_are_the_published_ones():
    weights = (find_model(PACKAGED).folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest().startswith("53aa5117")


def test_embeddings_are_those_of_sentence_transformers(encoder):
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(find_model(PACKAGED).folder), device="cpu")
    peer.max_seq_length = 64
    ours = encode(encoder, TEXTS, 2048).embedding
    np.testing.assert_allclose(ours, peer.encode(TEXTS, show_progress_bar=False), atol=1e-6)


def test_a_text_has_the_same_embedding_in_any_batch(encoder):
    together, alone = encode(encoder, TEXTS, 4096).embedding, encode(encoder, TEXTS, 1).embedding
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_text_is_no_work(encoder):
    assert encode(encoder, [], 2048).embedding.shape == (0, 384)
