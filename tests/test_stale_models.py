"""Another model in the same folder makes stale what was read with the one before, and only then."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from models import write_model

from assets.language import adapted_encoder
from assets.modes import image_embeddings
from assets.refresh import FLOW, _is_kept, next_plan
from resources.compute import Compute
from resources.home import Home
from resources.tracking import Tracking
from resources.warehouse import Warehouse

MADE = [key.to_user_string() for asset in FLOW for key in asset.keys]


@pytest.mark.parametrize("asset", [adapted_encoder, image_embeddings], ids=lambda asset: asset.op.name)
def test_another_file_in_a_models_folder_makes_its_asset_stale(finished, tmp_path, asset):
    model = Path(write_model("bert", tmp_path / "model"))
    (tmp_path / "home").mkdir()
    for name in ("warehouse.duckdb", "source.json", "reports"):
        copy = shutil.copytree if (finished.home / name).is_dir() else shutil.copy
        copy(finished.home / name, tmp_path / "home" / name)
    home, warehouse = (
        Home(path=str(tmp_path / "home")),
        Warehouse(path=str(tmp_path / "home" / "warehouse.duckdb")),
    )
    with warehouse.connect() as db:
        db.execute("update items set image_uri = null")  # the vision model is named, and has nothing to look at
    config = {"ops": {asset.op.name: {"config": {"model": str(model)}}}}
    tracking = Tracking(path=str(tmp_path / "curves"), backend="none")
    resources = {"home": home, "warehouse": warehouse, "compute": Compute(device="cpu"), "tracking": tracking}
    assert dg.materialize([asset], resources=resources, run_config=config).success

    def is_stale():
        return asset.op.name in next_plan(warehouse, home, config, MADE).assets

    for file in (model / "model.safetensors", model / "tokenizer.json", model / "1_Pooling" / "config.json"):
        assert not is_stale()
        file.parent.mkdir(exist_ok=True)
        before = file.read_bytes() if file.is_file() else None
        file.write_bytes((before or b'{"pooling_mode": "mean"}') + b" ")
        assert is_stale(), file
        file.unlink() if before is None else file.write_bytes(before)


@pytest.mark.parametrize("asset", ["ranker", "fine_tuned_model", "adapted_encoder"])
def test_a_folder_that_is_gone_from_the_home_makes_its_asset_stale(tmp_path, asset):
    assert not _is_kept(asset, "a-folder", Home(path=str(tmp_path)))


@pytest.mark.parametrize("asset", ["ranker", "fine_tuned_model"])
def test_an_asset_that_had_nothing_to_learn_from_keeps_no_folder(tmp_path, asset):
    assert _is_kept(asset, "", Home(path=str(tmp_path)))
