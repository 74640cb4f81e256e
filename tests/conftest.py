"""One whole run of the pipeline over the small shop, that many tests look at."""

import gc
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from postgres import Server, binaries, serving
from shop import CONFIG, HEAD_ALONE, Finished, Shop, ecom, make_shop

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ECOM_HASH_KEY"] = "tests"  # which groups are drawn depends on the hashed ids: draw the same each time
os.environ["GX_ANALYTICS_ENABLED"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core: more threads would wait for each other
hypothesis.settings.register_profile("house", deadline=None)  # the first example of a test may load a library
hypothesis.settings.load_profile("house")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Gives each file to one worker, and those that look at the finished run to the first, so that each is made once.

    pytest-xdist 3.8 has a mark for it, which it does not hear under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return file_scope(config.rootpath / nodeid.split("::")[0])

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What was loaded until now stays: it is not looked at for garbage again."""
    gc.collect()
    gc.freeze()


@cache
def file_scope(file: Path) -> str:
    return "finished" if re.search(r"def \w+\([^)]*\bfinished\b", file.read_text()) else file.name


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings under which a run is short: heads alone, on features of a small model that has learnt nothing."""
    from models import write_model  # loads torch

    folder = tmp_path_factory.mktemp("quick")
    read_with = f"adapted_encoder: {{config: {{model: {write_model('bert', folder / 'model')}, max_tokens: 24}}}}"
    path = folder / "quick.yaml"
    path.write_text(f"{HEAD_ALONE}  {read_with}\n")
    return path


@pytest.fixture(scope="session")
def finished(shop: Shop, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    home = tmp_path_factory.mktemp("home")
    result = ecom("run", "--source", shop.folder, "--config", config, "--device", "cpu", home=home, check=True)
    return Finished(home, result.stdout)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A Postgres server for journals."""
    if binaries() is None:
        pytest.skip("no Postgres server is installed")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    with serving() as server:
        yield server


@pytest.fixture
def connection(postgres: Server) -> str:
    """To a database of that server in which no journal is begun."""
    postgres.ask("postgres", "drop schema if exists ecom_journal cascade")
    return postgres.connection("postgres")


@pytest.fixture(params=["file", "server"])
def journal_in(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], object]]:
    """Gives the database of a journal by the folder of its sealed files; on a server it is one for all folders."""
    from ecom_pipeline.service.journal.opening import open_database

    connection = request.getfixturevalue("connection") if request.param == "server" else ""
    opened: list = []

    def make(folder: Path) -> object:
        opened.append(open_database(folder, connection, b"tests"))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
