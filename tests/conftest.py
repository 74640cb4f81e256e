"""One whole run of the pipeline over the small shop, that many tests look at."""

import os
from pathlib import Path

import hypothesis
import pytest
from shop import CONFIG, Finished, Shop, ecom, make_shop

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ECOM_HASH_KEY"] = "tests"  # which groups are drawn depends on the hashed ids: draw the same each time
os.environ["GX_ANALYTICS_ENABLED"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core: more threads would wait for each other
hypothesis.settings.register_profile("house", deadline=None)  # the first example of a test may load a library
hypothesis.settings.load_profile("house")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Asks pytest-xdist to make the finished run, and what a file makes once, in one worker.

    pytest-xdist 3.8 does not hear it under pytest 9.2, so each worker makes them for itself: slower, not wrong.
    """
    for item in items:
        file = item.path.stem
        item.add_marker(pytest.mark.xdist_group("finished" if "finished" in item.fixturenames else file))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def finished(shop: Shop, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    home = tmp_path_factory.mktemp("home")
    result = ecom("run", "--source", shop.folder, "--config", config, "--device", "cpu", home=home, check=True)
    return Finished(home, result.stdout)
