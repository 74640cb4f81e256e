import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import CONFIGS, DECODERS, TEXTS, write_model

from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder, save_encoder, tokenize
from ecom_pipeline.language.models import content_digest, find_model

IN_IDENTITY = ("model.safetensors", "model-00001-of-2.safetensors", "vocab.txt", "1_Pooling/config.json", "theirs.py")


@pytest.fixture(scope="module", params=CONFIGS)
def encoder(request, tmp_path_factory):
    return load_encoder(write_model(request.param, tmp_path_factory.mktemp(request.param)), 64, "cpu")


@pytest.fixture
def bert(tmp_path):
    return write_model("bert", tmp_path / "model")


def test_a_text_has_the_same_vector_in_any_batch(encoder):
    together, alone = encode(encoder, TEXTS, 4096).embedding, encode(encoder, TEXTS, 1).embedding
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_decoders_are_read_by_their_last_token_and_encoders_by_the_mean(tmp_path):
    found = {name: find_model(write_model(name, tmp_path / name)) for name in CONFIGS}
    assert {name for name, model in found.items() if model.pooling == "last"} == set(DECODERS)
    assert {name for name, model in found.items() if model.causal} == set(DECODERS)


def test_the_last_token_of_a_decoder_has_seen_the_whole_text(tmp_path):
    decoder = load_encoder(write_model("gpt2", tmp_path), 64, "cpu")
    first, other = encode(decoder, ["red mug", "bed mug"], 1).embedding
    assert np.abs(first - other).max() > 1e-3


def test_a_saved_model_is_read_the_same_by_us_and_by_sentence_transformers(encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    save_encoder(encoder, tmp_path)
    ours = encode(encoder, TEXTS, 2048).embedding
    np.testing.assert_array_equal(encode(load_encoder(str(tmp_path), 64, "cpu"), TEXTS, 2048).embedding, ours)
    if not encoder.causal:  # it pads decoders on the right
        peer = SentenceTransformer(str(tmp_path), device="cpu")
        np.testing.assert_allclose(peer.encode(TEXTS, show_progress_bar=False), ours, atol=1e-5)


def test_two_texts_are_read_as_one_with_a_sign_between_them(encoder):
    (ids,) = tokenize(encoder, [("red mug", "lamp")])
    (mug,), (lamp,) = (tokenize(encoder, [text]) for text in ("red mug", "lamp"))
    assert ids == (tokenize(encoder, ["red mug\nlamp"])[0] if encoder.causal else [*mug, *lamp[1:]])


def test_a_text_without_letters_still_has_a_token(encoder):
    assert np.isfinite(encode(encoder, ["", "mug"], 64).embedding).all()


def test_a_model_by_id_is_found_in_the_cache(bert, tmp_path):
    snapshot = tmp_path / "hub" / "models--shop--reader" / "snapshots" / "abc"
    shutil.copytree(bert, snapshot)
    (tmp_path / "hub" / "models--shop--reader" / "refs").mkdir()
    (tmp_path / "hub" / "models--shop--reader" / "refs" / "main").write_text("abc")
    code = "from ecom_pipeline.language.encoder import load_encoder; print(load_encoder('shop/reader', 8, 'cpu').encoder_id)"
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "PATH": "", "HF_HUB_OFFLINE": "1"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == f"shop/reader-{find_model(bert).digest}-mean-8"


def test_an_absent_model_is_named_with_the_cache_and_the_command():
    with pytest.raises(ModelError, match=r"1 model is absent: 'shop/none'.*the cache '.*hub'.*hf download shop/none"):
        load_encoder("shop/none", 64, "cpu")


def test_a_name_that_no_hub_has_is_absent_too(tmp_path):
    with pytest.raises(ModelError, match="1 model is absent"):
        load_encoder(str(tmp_path / "no" / "such" / "folder"), 64, "cpu")


def test_weights_that_can_run_code_are_refused(bert, tmp_path):
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"1 file is missing: .*model.safetensors.*safetensors alone"):
        load_encoder(bert, 64, "cpu")


def change(folder, **told):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **told}))


def test_a_models_own_code_runs_only_if_asked_for_by_name(bert, tmp_path):
    change(tmp_path / "model", auto_map={"AutoModel": "theirs.Model"})
    with pytest.raises(ModelError, match=r"1 classes of its own code; first: 'theirs.Model'.*remote_code"):
        find_model(bert, remote_code="another/model")
    assert find_model(bert, remote_code=bert).folder == tmp_path / "model"


def test_a_model_that_translates_is_refused(bert, tmp_path):
    change(tmp_path / "model", is_encoder_decoder=True)
    with pytest.raises(ModelError, match="1 model is of another kind: 'bert'"):
        find_model(bert)


def test_a_pooling_that_we_do_not_know_is_named(bert, tmp_path):
    (tmp_path / "model" / "1_Pooling").mkdir()
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ModelError, match="1 pooling is unknown: 'pooling_mode_max_tokens'"):
        find_model(bert)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_model_is_another_when_one_of_its_files_is_whatever_its_times_say(bert, file):
    path = Path(bert) / file
    before, times, content = find_model(bert).encoder_id(8), path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + b" ")  # of the same length
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find_model(bert).encoder_id(8) != before
    path.write_bytes(content)
    assert find_model(bert).encoder_id(8) == before


@given(st.dictionaries(st.sampled_from(IN_IDENTITY), st.binary(max_size=3)), st.sampled_from(IN_IDENTITY))
def test_no_two_folders_of_other_files_have_one_digest(tmp_path_factory, files, other):
    def digest(files):
        folder = tmp_path_factory.mktemp("model")
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / "README.md").write_bytes(os.urandom(2))  # says nothing of what the model answers
        return content_digest(folder)

    assert digest(files) == digest(files)
    assert digest(files) != digest({**files, other: files.get(other, b"") + b"x"})
    assert digest({**files, other: b""}) != digest({name: told for name, told in files.items() if name != other})


def test_the_files_of_a_model_are_read_once_as_long_as_they_are_the_same(bert):
    first = find_model(bert).digest
    weights = Path(bert) / "model.safetensors"
    hidden = weights.stat()
    seen = []
    sys.addaudithook(lambda event, args: seen.append(args[0]) if event == "open" else None)
    assert find_model(bert).digest == first
    assert str(weights) not in seen
    os.utime(weights, ns=(hidden.st_atime_ns, hidden.st_mtime_ns + 1))
    assert find_model(bert).digest == first
    assert seen.count(str(weights)) == 1


def test_the_packaged_model_is_the_default_and_pools_by_the_mean():
    assert find_model(PACKAGED).encoder_id(96) == "all-MiniLM-L6-v2-42b4aeca-mean-96"
