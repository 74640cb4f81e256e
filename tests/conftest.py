"""One whole run of the pipeline over the small shop, that many tests look at."""

import gc
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from postgres import Server, binaries, serving
from shop import CONFIG, HEAD_ALONE, Finished, Shop, ecom, make_shop

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ECOM_HASH_KEY"] = "tests"  # which groups are drawn depends on the hashed ids: draw the same each time
os.environ["GX_ANALYTICS_ENABLED"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core: more threads would wait for each other
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 8 << 30 and os.access(_MEMORY, os.W_OK):
    # a run commits some thousand times, and a disk lets it wait for each: where memory is a folder, that one is taken
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
# the first example of a test may load a library; where a test names no number, fifty examples a run are enough
hypothesis.settings.register_profile("house", deadline=None, max_examples=50)
hypothesis.settings.load_profile("house")


# the files that take longest, longest first, but that the second needs the finished home at its end only
LONGEST = (
    *("test_command_line.py", "test_lake.py", "test_whole_graph.py", "test_serve.py", "test_label_noise.py"),
    *("test_designs.py", "test_cluster.py", "test_landing_sequences.py", "test_audiences.py", "test_rotate.py"),
    *("test_forget.py", "test_benchmark.py", "test_vision.py", "test_stale_models.py", "test_page.py", "test_home.py"),
    *("test_writer.py", "test_automation.py", "test_adaptation.py", "test_audience_offers.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no worker is alone with one at the end.

    pytest-xdist keeps the order under `--no-loadscope-reorder`; else it goes by the number of tests.
    """
    place = {name: nth for nth, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    """What was loaded until now stays: it is not looked at for garbage again."""
    gc.collect()
    gc.freeze()


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
    """The first worker that asks makes it; each has a copy, as one process at a time may open a warehouse."""
    mine = tmp_path_factory.getbasetemp()
    made = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "finished"
    output = made / "output"
    with FileLock(made.with_suffix(".lock")):
        if not output.exists():
            run = ("run", "--source", shop.folder, "--config", config, "--device", "cpu")
            told = ecom(*run, home=made / "home", check=True).stdout
            output.write_text(told)
    home = shutil.copytree(made / "home", tmp_path_factory.mktemp("finished") / "home")
    return Finished(home, output.read_text().replace(str(made / "home"), str(home)))


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
