import copy

import numpy as np
import pytest
import torch

from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
from ecom_pipeline.language.features import Projection, pair_features
from ecom_pipeline.language.frozen import freeze, top_layers
from ecom_pipeline.ranking import training
from ecom_pipeline.ranking.model import Pairs, Ranker
from ecom_pipeline.ranking.training import TrainingSettings, group_batches, train, weighted_loss

SETTINGS = TrainingSettings(1e-4, 0.01, 3, 3, 16, 0.1, 1024, "weighted")
TEXTS = [
    "mug",
    "lamp",
    "shoes",
    "red coffee mug",
    "led desk lamp",
    "running shoes",
    "travel mug",
    "floor lamp",
    "sneakers",
]


@pytest.fixture(scope="module")
def small():
    """Nine texts, 24 groups of one query and six items, and a ranker to start from."""
    encoder = load_encoder(PACKAGED, 16, "cpu")
    states = freeze(encoder, TEXTS, 1, 1024)
    context = np.repeat(np.arange(24) % 3, 6)
    item = np.tile(np.arange(3, 9), 24)
    label = (context == (item - 3) % 3).astype(float)
    texts = [[TEXTS[i] for i in rows] for rows in (context, item)]
    vectors = encode(encoder, TEXTS, 1024).embedding
    features = pair_features(vectors[context], vectors[item], texts[0], texts[1], texts[1])
    pairs = Pairs(context, item, features.match[:, 1:], np.repeat(np.arange(24), 6), label, label)
    head = np.zeros(4 + 5 + 1, np.float32)
    return states, pairs, Ranker(top_layers(encoder, 1), Projection.fit(features, 4), head)


def run(small, checkpoint, weight=None, settings=SETTINGS, seed=0):
    states, pairs, ranker = small
    ranker = copy.deepcopy(ranker)
    trained = train(
        ranker, states, pairs, np.ones(len(pairs)) if weight is None else weight, pairs, settings, seed, checkpoint
    )
    return ranker, trained


def parameters(ranker):
    return torch.cat([value.detach().flatten() for value in ranker.parameters()])


def test_training_improves_the_ranking_and_leaves_no_checkpoint(small, tmp_path):
    _, trained = run(small, tmp_path / "c.safetensors")
    assert trained.best_ndcg > trained.history[0] + 0.05
    assert list(tmp_path.iterdir()) == []


def test_equal_seeds_give_equal_rankers_and_other_seeds_others(small, tmp_path):
    first, second, other = (parameters(run(small, tmp_path / "c", seed=seed)[0]) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_killed_training_goes_on_to_the_same_ranker(small, tmp_path, monkeypatch):
    whole, told = run(small, tmp_path / "whole.safetensors")
    checkpoint = tmp_path / "c.safetensors"
    save = training._Run.save

    def save_and_die(self):
        save(self)
        if self.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Run, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(small, checkpoint)
    monkeypatch.setattr(training._Run, "save", save)
    resumed, told_again = run(small, checkpoint)
    assert told_again.history == told.history
    assert torch.equal(parameters(resumed), parameters(whole))


def test_a_weight_of_0_is_the_same_as_not_being_there(small):
    logit, label = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, 0.0, 0.0])
    with_zero = weighted_loss(logit, label, torch.tensor([1.5, 1.5, 0.0]), "weighted") * 3
    without = weighted_loss(logit[:2], label[:2], torch.tensor([1.5, 1.5]), "weighted") * 2
    assert with_zero.item() == pytest.approx(without.item())


def test_weights_of_1_give_plain_cross_entropy():
    logit, label = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, 0.0, 0.5])
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logit, label)
    for loss in training.LOSSES:
        assert weighted_loss(logit, label, torch.ones(3), loss).item() == pytest.approx(plain.item())


def test_the_literal_loss_counts_a_weight_twice():
    logit, label, weight = torch.tensor([0.3]), torch.tensor([1.0]), torch.tensor([3.0])
    literal, plain = (
        weighted_loss(logit, label, w, loss).item() for w, loss in ((weight, "literal"), (weight / 3, "weighted"))
    )
    assert literal == pytest.approx(9 * plain)


def test_weights_move_the_ranker(small, tmp_path):
    weight = np.where(np.arange(len(small[1])) % 2, 2.0, 0.0)
    assert not torch.equal(parameters(run(small, tmp_path / "a", weight)[0]), parameters(run(small, tmp_path / "b")[0]))


def test_a_ranker_that_training_does_not_help_stays_as_it_was(small, tmp_path):
    ranker, trained = run(
        small, tmp_path / "c", settings=SETTINGS.__class__(1e-4, 0.01, 0, 1, 16, 0.1, 1024, "weighted")
    )
    assert trained.best_epoch == 0
    assert torch.equal(parameters(ranker), parameters(small[2]))


def test_batches_hold_every_row_once_and_whole_groups():
    group = np.repeat(np.arange(10), 5)
    batches = list(group_batches(group, 12, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    assert all(len(np.unique(group[rows])) * 5 == len(rows) for rows in batches)
