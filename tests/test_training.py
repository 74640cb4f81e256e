import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
from ecom_pipeline.language.features import Projection, pair_features
from ecom_pipeline.language.frozen import freeze
from ecom_pipeline.ranking import training
from ecom_pipeline.ranking.design import Design, Learning
from ecom_pipeline.ranking.model import Pairs, make_ranker
from ecom_pipeline.ranking.team import together
from ecom_pipeline.ranking.training import TrainingSettings, group_batches, train

SETTINGS = TrainingSettings(1e-4, 0.01, max_epochs=3, patience=3, batch_pairs=16, token_budget=1024)
ONE_EPOCH = replace(SETTINGS, max_epochs=1)  # of later epochs rounding may choose another as the best
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
    first, second, other = (
        parameters(run(small, tmp_path / "c", settings=ONE_EPOCH, seed=seed)[0]) for seed in (0, 0, 1)
    )
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
    weighted, unweighted = (run(small, tmp_path / "c", w, ONE_EPOCH)[0] for w in (weight, None))
    assert not torch.equal(parameters(weighted), parameters(unweighted))


def test_an_offset_of_nothing_changes_nothing(small, tmp_path):
    states, pairs, ranker = small
    told = {"offset": np.zeros(len(pairs))}
    with_offset = copy.deepcopy(ranker)
    train(with_offset, states, pairs, np.ones(len(pairs)), pairs, ONE_EPOCH, 0, tmp_path / "c", **told)
    assert torch.equal(parameters(with_offset), parameters(run(small, tmp_path / "c", settings=ONE_EPOCH)[0]))


def test_the_offset_is_in_what_the_ranker_answers_and_not_in_what_the_loss_sees(small, tmp_path):
    states, pairs, ranker = small
    settings = replace(ONE_EPOCH, weight_decay=0.0)
    plain, raised = copy.deepcopy(ranker), copy.deepcopy(ranker)
    with torch.no_grad():
        raised.head[-1] += 2.0  # of the constant: every logit
    for one, offset in ((plain, 0.0), (raised, 2.0)):
        told = {"offset": np.full(len(pairs), offset)}
        train(one, states, pairs, np.ones(len(pairs)), pairs, settings, 0, tmp_path / "c", **told)
    low, high = (one.score(states, pairs, 1024) for one in (plain, raised))
    np.testing.assert_allclose(np.log(high / (1 - high)) - np.log(low / (1 - low)), 2.0, atol=1e-3)


def test_a_ranker_that_training_does_not_help_stays_as_it_was(small, tmp_path):
    ranker, trained = run(small, tmp_path / "c", settings=replace(SETTINGS, max_epochs=0))
    assert trained.best_epoch == 0
    assert torch.equal(parameters(ranker), parameters(small[2]))


def test_batches_hold_every_row_once_and_whole_groups():
    group = np.repeat(np.arange(10), 5)
    batches = list(group_batches(group, 12, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    assert all(len(np.unique(group[rows])) * 5 == len(rows) for rows in batches)


@pytest.mark.parametrize("loss", ["pointwise", "literal", "pairwise", "listwise"])
def test_a_step_in_parts_is_the_step_in_one(small, tmp_path, loss):
    (whole, trained), (parts, _) = (
        run(without_dropout(small), tmp_path / "c", settings=replace(ONE_EPOCH, loss=loss, part_pairs=size))
        for size in (0, 6)
    )
    assert trained.best_epoch == 1
    torch.testing.assert_close(parameters(whole), parameters(parts), atol=5e-5, rtol=0)


def without_dropout(small):
    states, pairs, ranker = small
    ranker = copy.deepcopy(ranker)
    for module in ranker.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in ranker.tower.model.encoder.layer:
        if hasattr(layer, "attention"):
            layer.attention.self.dropout_prob = 0.0
    return states, pairs, ranker


def test_short_memory_halves_a_step_and_the_ranker_is_the_same(small, tmp_path, monkeypatch, caplog):
    whole, trained = run(without_dropout(small), tmp_path / "a", settings=ONE_EPOCH)
    assert trained.best_epoch == 1
    total = training._Run._total

    def refuse_large(self, texts, pairs, weight, rows):
        if len(rows) > 10:
            raise torch.OutOfMemoryError("as a GPU says it")
        return total(self, texts, pairs, weight, rows)

    monkeypatch.setattr(training._Run, "_total", refuse_large)
    halved, _ = run(without_dropout(small), tmp_path / "b", settings=ONE_EPOCH)
    torch.testing.assert_close(parameters(halved), parameters(whole), atol=5e-5, rtol=0)
    assert "training: out of memory on cpu with 18 pairs; goes on with at most 9" in caplog.text


def test_half_the_work_in_each_of_two_processes_is_the_same_ranker(small, tmp_path):
    alone, _ = run(without_dropout(small), tmp_path / "a", settings=ONE_EPOCH)
    states, pairs, ranker = without_dropout(small)
    together(2, train_in_file, states, pairs, ranker, tmp_path / "b", tmp_path / "found.safetensors")
    found = load_file(tmp_path / "found.safetensors")
    for name, value in alone.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(found[name], value.detach(), atol=5e-5, rtol=0)


def train_in_file(team, states, pairs, ranker, checkpoint, result):
    ranker = copy.deepcopy(ranker)  # what comes from another process is shared with it
    train(ranker, states, pairs, np.ones(len(pairs)), pairs, ONE_EPOCH, 0, checkpoint, team=team)
    if team.rank == 0:
        save_file({name: value.detach() for name, value in ranker.named_parameters() if value.requires_grad}, result)


def test_curves_tell_the_loss_of_every_step_and_the_figure_of_every_epoch(small, tmp_path):
    seen = []
    states, pairs, ranker = small
    one = np.ones(len(pairs))
    train(
        *(copy.deepcopy(ranker), states, pairs, one, pairs, SETTINGS, 0, tmp_path / "c"),
        watch=lambda step, figures: seen.append((step, *figures)),
    )
    n_steps = sum("loss" in names for _, *names in seen)
    assert [step for step, *names in seen if "loss" in names] == list(range(1, n_steps + 1))
    assert sum("validation_ndcg_at_10" in names for _, *names in seen) == SETTINGS.max_epochs + 1


@pytest.fixture(scope="module")
def cross(small, tmp_path_factory):
    """The same pairs, each as one text."""
    _, pairs, _ = small
    encoder = load_encoder(PACKAGED, 16, "cpu")
    both = [(TEXTS[context], TEXTS[item]) for context, item in pairs.texts]
    distinct = sorted(set(both))
    texts = freeze(encoder, distinct, 1, 1024, tmp_path_factory.mktemp("pairs"))
    rows = np.array([[distinct.index(text)] for text in both])
    given = np.ones((len(pairs), 1), np.float32)
    design = Design("cross_encoder", Learning("layers", 1), 4, 1.0)
    ranker = make_ranker(design, encoder, None, np.zeros(1, np.float32), frozen=True)
    return texts, replace(pairs, texts=rows, given=given), ranker


def test_a_cross_encoder_starts_from_its_head_and_learns(cross, tmp_path):
    texts, pairs, ranker = cross
    assert np.ptp(ranker.score(texts, pairs, 1024)) == 0
    learnt, trained = run(cross, tmp_path / "c", settings=replace(SETTINGS, learning_rate=1e-3))
    assert trained.best_ndcg > trained.history[0] + 0.05
    assert np.ptp(learnt.score(texts, pairs, 1024)) > 0.01


@pytest.mark.parametrize("loss", ["pairwise", "listwise"])
def test_losses_over_groups_improve_the_ranking(small, tmp_path, loss):
    _, trained = run(small, tmp_path / "c", settings=replace(SETTINGS, loss=loss))
    assert trained.best_ndcg > trained.history[0] + 0.05
