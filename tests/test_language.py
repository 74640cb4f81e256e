import hashlib

import numpy as np
import pytest

from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
from ecom_pipeline.language.features import PairFeatures, Projection, pair_features, text_overlap
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


def test_texts_without_a_common_word_share_nothing_and_equal_ones_share_all():
    assert text_overlap(["abc"], ["xyz"], ["xyz"]).tolist() == [[0, 0, 0, 0]]
    assert text_overlap(["red mug"], ["red mug"], ["red mug"]).tolist() == [[1, 1, 1, 1]]
    assert text_overlap(["跑鞋"], ["女士跑鞋"], ["女士跑鞋"])[0, 0] == 1


def test_the_projection_of_pairs_has_unit_variance_and_ends_in_a_constant():
    generator = np.random.default_rng(0)
    unit = lambda a: (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    context, item = unit(generator.normal(size=(300, 8))), unit(generator.normal(size=(300, 8)))
    words = [f"word{i % 7}" for i in range(300)]
    pairs = pair_features(context, item, words, words[::-1], words[::-1])
    projected = Projection.fit(pairs, 4).apply(pairs)
    assert projected.shape == (300, 4 + 5 + 1)
    assert projected[:, :4].var() == pytest.approx(1, rel=0.02)
    assert (projected[:, -1] == 1).all()


def test_features_that_do_not_vary_are_no_obstacle():
    pairs = PairFeatures(np.zeros((5, 6), np.float32), np.zeros((5, 5), np.float32))
    assert np.isfinite(Projection.fit(pairs, 3).apply(pairs)).all()
