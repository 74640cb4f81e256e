import json
import os

import pytest
import torch
from safetensors.torch import save_file

from ecom_pipeline.errors import ModelError
from ecom_pipeline.ranking.trained import can_be_opened
from ecom_pipeline.ranking.twins import _with_content, read_weights, tensors_hash


def trained(seed, best_epoch, best_ndcg=0.5):
    return {"seed": seed, "best_epoch": best_epoch, "best_ndcg": best_ndcg}


def saved(folder, values, dtype=torch.float32):
    for seed, value in enumerate(values):
        save_file({"head": torch.tensor([value, 0.0], dtype=dtype)}, folder / f"weighted-{seed}.safetensors")


def test_the_hash_of_tensors_does_not_see_what_the_file_says_beside_them(tmp_path):
    head = {"head": torch.ones(3), "bias": torch.tensor(1.0, dtype=torch.bfloat16)}
    for name, note in (("a", "1"), ("b", "2")):
        save_file(head, tmp_path / name, {"seconds": note})
    save_file({**head, "head": torch.zeros(3)}, tmp_path / "c")
    first, second, other = (tensors_hash(tmp_path / name) for name in "abc")
    assert first == second != other


def test_seeds_that_end_at_the_same_tensors_are_one_ranker(tmp_path):
    saved(tmp_path, [1.0, 2.0, 2.0])
    twin = _with_content({"seeds": [trained(0, 1), trained(1, 1), trained(2, 1)]}, "weighted", tmp_path)
    assert twin["n_rankers"] == 2
    assert twin["seeds"][1]["content"] == twin["seeds"][2]["content"]


def test_adapters_that_no_epoch_improved_are_one_ranker_though_they_began_at_random(tmp_path):
    saved(tmp_path, [1.0, 2.0, 3.0])
    twin = _with_content({"seeds": [trained(0, 0), trained(1, 0), trained(2, 1, 0.6)]}, "weighted", tmp_path)
    assert twin["n_rankers"] == 2


@pytest.fixture
def folder(tmp_path):
    """A folder of one twin with one seed."""
    saved(tmp_path, [1.0])
    save_file({"components": torch.ones(2, 2)}, tmp_path / "projection.safetensors")
    twin = _with_content({"seeds": [trained(0, 1)]}, "weighted", tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"twins": {"weighted": twin}}))
    return tmp_path


@pytest.mark.parametrize("name", ["weighted-0.safetensors", "projection.safetensors", "manifest.json"])
def test_a_folder_of_which_a_part_is_gone_cannot_be_opened(folder, name):
    assert can_be_opened(folder)
    os.truncate(folder / name, (folder / name).stat().st_size // 2)
    assert not can_be_opened(folder)


def test_other_tensors_than_were_trained_are_not_taken(folder):
    assert read_weights(folder, "weighted", 0)["head"].tolist() == [1.0, 0.0]
    saved(folder, [2.0])
    with pytest.raises(ModelError, match=r"1 file cannot be read.* not those that were written.* delete its folder"):
        read_weights(folder, "weighted", 0)
