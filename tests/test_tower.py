import numpy as np
import pytest
import torch
from models import CONFIGS, TEXTS, write_model

from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.encoder import encode, load_encoder, tokenize
from ecom_pipeline.language.frozen import TokenTexts, freeze
from ecom_pipeline.ranking.design import METHODS, Learning
from ecom_pipeline.ranking.tower import Tower

ROWS = np.arange(len(TEXTS))


@pytest.fixture(scope="module", params=CONFIGS)
def encoder(request, tmp_path_factory):
    return load_encoder(write_model(request.param, tmp_path_factory.mktemp(request.param)), 64, "cpu")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return load_encoder(write_model("bert", tmp_path_factory.mktemp("bert")), 64, "cpu")


def vectors(tower, texts):
    with torch.no_grad():
        return tower.eval()(texts.batch(ROWS, torch.device("cpu"))).numpy()


def plain(encoder):
    return TokenTexts(encoder, tokenize(encoder, TEXTS))


@pytest.mark.parametrize("n_top", [1, 2])
def test_frozen_states_and_the_layers_above_make_the_whole_model(encoder, n_top, tmp_path):
    states = freeze(encoder, TEXTS, n_top, 64, tmp_path)
    whole = encode(encoder, TEXTS, 2048).embedding
    tower = Tower(encoder, Learning("layers", n_top), frozen=True)
    np.testing.assert_allclose(vectors(tower, states), whole, atol=2e-3)  # states are kept in half precision


def test_what_learns_begins_as_the_model_and_then_moves_without_changing_it(encoder):
    whole = encode(encoder, TEXTS, 2048).embedding
    for method in METHODS:
        if method == "prefix":  # begins elsewhere, and not every family can do it
            continue
        torch.manual_seed(0)
        tower, texts = Tower(encoder, Learning(method, 2, 4), frozen=False), plain(encoder)
        np.testing.assert_allclose(vectors(tower, texts), whole, atol=1e-6, err_msg=method)
        step(tower.train(), texts, 3)
        assert np.abs(vectors(tower, texts) - whole).max() > 1e-6, method
    np.testing.assert_array_equal(encode(encoder, TEXTS, 2048).embedding, whole)


def step(tower, texts, n_steps):
    tower.begin(n_steps)
    optimizer = torch.optim.AdamW([value for value in tower.parameters() if value.requires_grad], lr=1e-2)
    for number in range(n_steps):
        loss = tower(texts.batch(ROWS, torch.device("cpu")))[:, :8].sum()
        penalty = tower.penalty()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        tower.after_step(number + 1)
        optimizer.zero_grad()


def learning(encoder, method, n_top=1, rank=4):
    tower = Tower(encoder, Learning(method, n_top, rank), frozen=False)
    return sum(value.numel() for value in tower.parameters() if value.requires_grad)


def test_methods_learn_as_many_parameters_as_their_definitions_say(bert):
    layer = sum(value.numel() for value in bert.model.encoder.layer[0].parameters())
    assert learning(bert, "layers") == layer
    assert learning(bert, "full") == sum(value.numel() for value in bert.model.parameters())
    sides = [(32, 32)] * 4 + [(32, 64), (64, 32)]  # the six matrices of a layer
    assert learning(bert, "lora") == sum(4 * (a + b) for a, b in sides)
    assert learning(bert, "adalora") == sum(8 * (a + b + 1) for a, b in sides)
    assert learning(bert, "bottleneck") == 32 * 4 + 4 + 4 * 32 + 32
    assert learning(bert, "prefix") == 4 * 3 * 2 * 32


def test_a_prefix_learns_for_models_that_attend_to_past_keys(bert):
    tower, texts = Tower(bert, Learning("prefix", rank=4), frozen=False), plain(bert)
    before = vectors(tower, texts)
    step(tower.train(), texts, 2)
    assert np.abs(vectors(tower, texts) - before).max() > 1e-4


def test_a_prefix_is_refused_where_layers_attend_to_the_text_alone(tmp_path):
    modern = load_encoder(write_model("modernbert", tmp_path), 64, "cpu")
    with pytest.raises(ModelError, match="prefix: 1 method was asked for that a ModernBertModel cannot do"):
        Tower(modern, Learning("prefix"), frozen=False)


def test_adalora_ends_with_half_its_rank(bert):
    torch.manual_seed(0)
    tower = Tower(bert, Learning("adalora", 1, 4), frozen=False)
    step(tower.train(), plain(bert), 12)
    ranks = [value for name, value in tower.named_parameters() if "lora_E" in name]
    assert sum(int((value != 0).sum()) for value in ranks) == 4 * len(ranks)


def test_frozen_parts_have_no_dropout_while_the_others_learn(bert):
    tower = Tower(bert, Learning("layers", 1), frozen=False).train()
    inside = tower.model.encoder.layer
    assert not any(module.training for layer in inside[:2] for module in layer.modules())  # attention asks its module
    assert not any(module.training for module in tower.model.embeddings.modules())
    assert all(module.training for module in inside[2].modules())
    assert not any(module.training for module in tower.eval().modules())


def test_more_layers_than_there_are_is_an_error(bert):
    with pytest.raises(ModelError, match=r"4 were asked for.*\[1, 3\]"):
        Tower(bert, Learning("layers", 4), frozen=False)


def test_states_are_of_no_use_where_every_layer_learns(bert):
    with pytest.raises(ModelError, match="0 of 3 layers lie below the cut"):
        Tower(bert, Learning("full"), frozen=True)
