import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from models import TEXTS, write_model
from shop import ROOT

from ecom_pipeline.errors import ModelError
from ecom_pipeline.language import frozen
from ecom_pipeline.language.encoder import batches, load_encoder, tokenize
from ecom_pipeline.language.frozen import FrozenStates, TokenTexts, freeze, layer_stack, read_texts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(write_model("bert", tmp_path_factory.mktemp("bert")), 64, "cpu")


def states(store, rows):
    return store.batch(np.array(rows), CPU)["states"]


def texts_read(encoder, monkeypatch):
    """How many texts each call of the lower layers had."""
    seen, below = [], frozen.states_below

    def count(encoder, cut, inputs):
        seen.append(len(inputs["input_ids"]))
        return below(encoder, cut, inputs)

    monkeypatch.setattr(frozen, "states_below", count)
    return seen


def test_a_second_reading_computes_nothing_and_a_new_text_alone_is_added(encoder, tmp_path, monkeypatch):
    seen = texts_read(encoder, monkeypatch)
    first = freeze(encoder, TEXTS[:3], 1, 64, tmp_path)
    assert sum(seen) == 3
    again = freeze(encoder, [*TEXTS[:3], TEXTS[4]], 1, 64, tmp_path)
    assert sum(seen) == 4
    assert torch.equal(states(first, [0, 1, 2]), states(again, [0, 1, 2]))


def test_states_do_not_depend_on_what_a_batch_held(encoder, tmp_path):
    together, alone = (freeze(encoder, TEXTS, 2, budget, tmp_path / str(budget)) for budget in (4096, 1))
    np.testing.assert_allclose(states(together, range(5)), states(alone, range(5)), atol=2e-3)


def test_a_killed_reading_leaves_nothing_that_the_next_one_trips_over(encoder, tmp_path, monkeypatch):
    whole = freeze(encoder, TEXTS, 1, 1, tmp_path / "whole")
    below, done = frozen.states_below, []

    def die(*args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(args)
        return below(*args)

    monkeypatch.setattr(frozen, "states_below", die)
    with pytest.raises(KeyboardInterrupt):
        freeze(encoder, TEXTS, 1, 1, tmp_path / "killed")
    monkeypatch.setattr(frozen, "states_below", below)
    again = freeze(encoder, TEXTS, 1, 1, tmp_path / "killed")
    assert again.file.stat().st_size == whole.file.stat().st_size
    assert torch.equal(states(again, range(5)), states(whole, range(5)))


FREEZE = """
import sys, time
from pathlib import Path
from ecom_pipeline.language.encoder import load_encoder
from ecom_pipeline.language.frozen import freeze
model, folder, go, nth = sys.argv[1:]
encoder = load_encoder(model, 64, "cpu")
print("ready", flush=True)
while not Path(go).exists():
    time.sleep(0.001)
for start in range(10):
    freeze(encoder, [f"text {nth} {n}" * (1 + n % 5) for n in range(6 * start)], 1, 256, Path(folder))
"""


def test_two_processes_that_freeze_at_once_leave_every_text_its_own_states(encoder, tmp_path):
    store, go = tmp_path / "store", tmp_path / "go"
    command = [sys.executable, "-c", FREEZE, encoder.model.name_or_path, store, go]
    both = [
        subprocess.Popen([*command, str(nth)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for nth in range(2)
    ]
    assert [one.stdout.readline() for one in both] == ["ready\n", "ready\n"]
    go.touch()
    assert [one.communicate()[1] for one in both] == ["", ""]
    texts = [f"text {nth} {n}" * (1 + n % 5) for nth in range(2) for n in range(54)]
    together, alone = freeze(encoder, texts, 1, 256, store), freeze(encoder, texts, 1, 256, tmp_path / "alone")
    assert together.file.stat().st_size == alone.file.stat().st_size  # each text once
    np.testing.assert_allclose(states(together, range(108)), states(alone, range(108)), atol=2e-3)


def test_what_was_damaged_on_the_disk_is_computed_anew_and_said(encoder, tmp_path, monkeypatch, caplog):
    first = freeze(encoder, TEXTS, 1, 64, tmp_path)
    expected = states(first, range(5))
    with first.file.open("r+b") as file:
        file.seek(2 * 32 * int(first.start[2]) + 1)
        file.write(b"!")
    seen = texts_read(encoder, monkeypatch)
    again = freeze(encoder, TEXTS, 1, 64, tmp_path)
    assert sum(seen) == 1
    assert "frozen states of 1 texts" in caplog.text
    np.testing.assert_allclose(states(again, range(5)), expected, atol=2e-3)


@pytest.mark.parametrize("damage", [lambda index: index.write_bytes(b""), lambda index: np.savez(index, name=[])])
def test_a_store_without_an_index_that_can_be_read_is_begun_anew(encoder, tmp_path, caplog, damage):
    first = freeze(encoder, TEXTS, 1, 64, tmp_path)
    expected = states(first, range(5))
    damage(first.file.parent / "index.npz")
    again = freeze(encoder, TEXTS, 1, 64, tmp_path)
    assert "are begun anew" in caplog.text
    assert torch.equal(states(again, range(5)), expected)
    with pytest.raises(ModelError, match=r"frozen states: 1 file is gone.*another process has begun its store anew"):
        states(first, [0])


def test_pairs_of_texts_are_kept_apart_from_their_parts(encoder, tmp_path):
    store = freeze(encoder, [("red", "mug"), ("re", "dmug")], 1, 64, tmp_path)
    assert store.tokens.tolist() == [len(ids) for ids in tokenize(encoder, [("red", "mug"), ("re", "dmug")])]
    assert store.start[0] != store.start[1]


def test_what_would_not_fit_is_read_as_tokens_and_the_log_says_why(encoder, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        found = read_texts(encoder, TEXTS, 1, 64, tmp_path, max_gib=1e-6)
    assert isinstance(found, TokenTexts)
    assert "they would take 0.00 GiB of 1e-06" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_where_every_layer_learns_nothing_is_kept(encoder, tmp_path):
    assert isinstance(read_texts(encoder, TEXTS, 3, 64, tmp_path, max_gib=1), TokenTexts)
    assert isinstance(read_texts(encoder, TEXTS, 2, 64, tmp_path, max_gib=1), FrozenStates)


def test_a_store_that_old_texts_have_filled_is_begun_anew(encoder, tmp_path):
    one = 2 * 32 * max(map(len, tokenize(encoder, ["lamp", "pmal", "plam", "malp"]))) / 2**30
    for text in ("lamp", "pmal", "plam", "malp"):
        found = read_texts(encoder, [text], 1, 64, tmp_path, max_gib=1.5 * one)
    assert found.file.stat().st_size <= 3 * one * 2**30


def test_states_outside_half_precision_are_refused(encoder, tmp_path):
    layer = layer_stack(encoder.model)[1].output.LayerNorm
    kept = layer.weight.data.clone()
    layer.weight.data.fill_(1e6)
    try:
        with pytest.raises(frozen.ModelError, match=r"frozen states: \d+ of \d+ tokens.*half precision.*frozen_gib"):
            freeze(encoder, TEXTS, 1, 64, tmp_path)
    finally:
        layer.weight.data.copy_(kept)


def test_a_store_is_read_from_disk_and_not_into_memory(encoder, tmp_path):
    assert isinstance(freeze(encoder, TEXTS, 1, 64, tmp_path).state, np.memmap)


def test_batches_are_the_same_for_states_and_tokens(encoder, tmp_path):
    kept, plain = (read_texts(encoder, TEXTS, 1, 64, tmp_path, max_gib=gib) for gib in (1, 0))
    rows = np.arange(len(TEXTS))
    assert list(batches(kept.length(rows), 20)) == list(batches(plain.length(rows), 20))
    assert torch.equal(kept.batch(rows, CPU)["attention_mask"], plain.batch(rows, CPU)["attention_mask"])
