import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
from ecom_pipeline.language.features import Projection, pair_features
from ecom_pipeline.language.frozen import freeze
from ecom_pipeline.ranking import training
from ecom_pipeline.ranking.design import Design, Learning
from ecom_pipeline.ranking.model import Pairs, make_ranker
from ecom_pipeline.ranking.training import TrainingSettings, group_batches, train

SETTINGS = TrainingSettings(1e-4, 0.01, max_epochs=3, patience=3, batch_pairs=16, token_budget=1024)
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
def small(tmp_path_factory):
    """Nine texts, 24 groups of one query and six items, and a ranker to start from."""
    encoder = load_encoder(PACKAGED, 16, "cpu")
    states = freeze(encoder, TEXTS, 1, 1024, tmp_path_factory.mktemp("store"))
    context = np.repeat(np.arange(24) % 3, 6)
    item = np.tile(np.arange(3, 9), 24)
    label = (context == (item - 3) % 3).astype(float)
    texts = [[TEXTS[i] for i in rows] for rows in (context, item)]
    vectors = encode(encoder, TEXTS, 1024).embedding
    features = pair_features(vectors[context], vectors[item], texts[0], texts[1], texts[1])
    rows = np.column_stack([context, item])
    pairs = Pairs(rows, features.match[:, 1:], np.repeat(np.arange(24), 6), label, label)
    head = np.zeros(4 + 5 + 1, np.float32)
    design = Design("two_tower", Learning("layers", 1), 4, 1.0)
    return states, pairs, make_ranker(design, encoder, Projection.fit(features, 4), head, frozen=True)


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


def test_weights_move_the_ranker(small, tmp_path):
    weight = np.where(np.arange(len(small[1])) % 2, 2.0, 0.0)
    assert not torch.equal(parameters(run(small, tmp_path / "a", weight)[0]), parameters(run(small, tmp_path / "b")[0]))


def test_a_ranker_that_training_does_not_help_stays_as_it_was(small, tmp_path):
    ranker, trained = run(small, tmp_path / "c", settings=replace(SETTINGS, max_epochs=0))
    assert trained.best_epoch == 0
    assert torch.equal(parameters(ranker), parameters(small[2]))


def test_batches_hold_every_row_once_and_whole_groups():
    group = np.repeat(np.arange(10), 5)
    batches = list(group_batches(group, 12, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    assert all(len(np.unique(group[rows])) * 5 == len(rows) for rows in batches)
