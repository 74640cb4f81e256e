"""Another model in the same folder makes stale what was read with the one before, and only then."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from models import write_model

from assets.language import adapted_encoder
from assets.modes import image_embeddings
from assets.refresh import FLOW, next_plan
from resources.compute import Compute
from resources.home import Home
from resources.tracking import Tracking
from resources.warehouse import Warehouse

MADE = [key.to_user_string() for asset in FLOW for key in asset.keys]


@pytest.mark.parametrize("asset", [adapted_encoder, image_embeddings], ids=lambda asset: asset.op.name)
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_another_file_in_a_models_folder_makes_its_asset_stale(finished, tmp_path, asset, file):
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
    assert asset.op.name not in next_plan(warehouse, home, config, MADE).assets
    (model / "1_Pooling").mkdir(exist_ok=True)
    changed = (model / file).read_bytes() if (model / file).is_file() else b'{"pooling_mode": "mean"}'
    (model / file).write_bytes(changed + b" ")
    assert asset.op.name in next_plan(warehouse, home, config, MADE).assets
