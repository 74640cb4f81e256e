import builtins
import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest

from ecom_pipeline.errors import DeviceError, ModelError
from ecom_pipeline.language.encoder import PACKAGED, Encoder, encode, load_encoder
from ecom_pipeline.language.products import FEW, fast_products
from ecom_pipeline.language.quantised import MAX_DIFFERENCE, quantised

TEXTS = ["red mug", "a dimmable led desk lamp with a usb port", "女士跑鞋", "x " * 200, "mug"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(PACKAGED, 64, "cpu")


@pytest.fixture(scope="module")
def fewer_bits(encoder) -> Encoder:
    if find_spec("openvino") is None:
        pytest.skip("needs the extra 'fast'")
    try:
        return quantised(encoder)
    except DeviceError as error:  # the processor has no products in bfloat16
        pytest.skip(str(error))


def test_fast_products_give_the_same_vectors(encoder, monkeypatch):
    import torch

    with fast_products(FEW):
        fast = encode(encoder, TEXTS, 2048).embedding
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    plain = encode(encoder, TEXTS, 2048).embedding
    assert 0 < np.abs(fast - plain).max() < 1e-6


def test_fast_products_leave_alone_what_learns(encoder):
    import torch

    layer, values = torch.nn.Linear(4, 3), torch.ones(2, 4)
    with fast_products(FEW):
        layer(values).sum().backward()
        assert layer.bias.grad.tolist() == [2, 2, 2]
        assert layer.double()(values.double()).dtype == torch.float64


def test_a_layer_that_learned_meanwhile_is_read_anew():
    import torch

    layer = torch.nn.Linear(1, 1, bias=False)
    for weight in (2.0, 3.0):
        torch.nn.init.constant_(layer.weight, weight)
        with torch.inference_mode(), fast_products(FEW):
            assert layer(torch.ones(1, 1)).item() == weight


def test_vectors_of_fewer_bits_are_close_and_not_the_same(encoder, fewer_bits):
    exact, rounded = (encode(one, TEXTS, 2048).embedding for one in (encoder, fewer_bits))
    assert 1e-5 < np.abs(exact - rounded).max() < 0.005
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-5)


def test_in_fewer_bits_a_text_has_almost_the_same_vector_in_any_batch(fewer_bits):
    together, alone = encode(fewer_bits, TEXTS, 4096).embedding, encode(fewer_bits, TEXTS[::-1], 1).embedding
    np.testing.assert_allclose(together, alone[::-1], atol=0.002)


def test_vectors_of_two_precisions_have_two_encoder_ids(encoder, fewer_bits):
    assert fewer_bits.encoder_id == f"{encoder.encoder_id}-bf16"


def test_the_encoder_itself_stays_as_it_was(encoder, fewer_bits):
    assert encoder.model is not fewer_bits.model
    assert {str(one.dtype) for one in encoder.model.parameters()} == {"torch.float32"}


def tiny(kind: str, encoder: Encoder) -> Encoder:
    """A small model of another architecture, with random weights."""
    import torch
    import transformers

    size = {"vocab_size": 30522, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    size |= {"intermediate_size": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **size)
    return dataclasses.replace(encoder, model=transformers.AutoModel.from_config(config).eval().requires_grad_(False))


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "distilbert"])
def test_other_architectures_are_converted_too(kind, encoder, fewer_bits):
    small = tiny(kind, encoder)
    difference = encode(small, TEXTS, 512).embedding - encode(quantised(small), TEXTS, 512).embedding
    assert np.abs(difference).max() < MAX_DIFFERENCE


def test_a_model_whose_conversion_gives_other_vectors_is_refused(encoder, fewer_bits):
    import torch

    class Fixed(torch.nn.Module):  # reads only as many tokens as the batch that it was traced with
        config = encoder.model.config

        def forward(self, input_ids, attention_mask):
            n_tokens = int(attention_mask[0].sum())
            found = encoder.model(input_ids=input_ids, attention_mask=attention_mask)
            found.last_hidden_state[:, n_tokens:] *= -1
            return found

    with pytest.raises(ModelError, match=r"probes have other vectors in bf16; first: .* read this model in fp32"):
        quantised(dataclasses.replace(encoder, model=Fixed()))


def test_openvino_tells_its_maker_nothing(fewer_bits):
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_without_openvino_the_error_names_the_extra(encoder, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "openvino":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelError, match=r"1 package is missing: 'openvino'.*--editable '.\[fast\]'"):
        quantised(encoder)


def test_a_decoder_is_refused(encoder):
    with pytest.raises(ModelError, match=r"1 model is of another kind: .* is a decoder"):
        quantised(dataclasses.replace(encoder, causal=True))


def test_an_encoder_on_another_device_is_refused(encoder):
    import torch

    elsewhere = dataclasses.replace(encoder, device=torch.device("meta"))
    with pytest.raises(DeviceError, match=r"1 encoder lies elsewhere: 'meta'.*load it on the CPU"):
        quantised(elsewhere)
