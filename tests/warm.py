"""A process that has loaded the libraries and forks one for each command, so that none of them loads them again.

Each line on standard input asks for a command, as JSON; a line on standard output tells how it ended.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import NoReturn

LIBRARIES = (
    *(
        "dagster",
        "dagster_pandas",
        "great_expectations",
        "duckdb",
        "pandas",
        "pyarrow",
        "lightgbm",
        "matplotlib",
    ),
    *("torch", "transformers.models.bert.modeling_bert", "transformers.models.auto", "statsforecast", "jinja2"),
    *("sklearn.linear_model", "sklearn.ensemble", "sklearn.isotonic", "scipy.stats", "scipy.sparse", "scipy.optimize"),
    *("assets.refresh", "assets.checks", "assets.automation", "assets.benchmark", "ecom_pipeline.cli"),
    *("ecom_pipeline.report", "ecom_pipeline.sources", "resources.history", "alembic.command"),
    # what Dagster loads when a history is opened and a run begins
    *("dagster._core.storage.sqlite_storage", "dagster._core.instance.factory", "dagster._daemon.controller"),
    *(
        "dagster._core.execution.execute_in_process",
        "dagster._core.storage.local_compute_log_manager",
        "pyarrow.dataset",
    ),
)  # not the definitions: they read the environment when they load


def main() -> None:
    """Fork until the input ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    from assets.code import function_of, version
    from assets.refresh import FLOW
    from ecom_pipeline import sources

    sources.adapters()
    for asset in FLOW:
        version(function_of(asset))  # reads code, which no test changes under a command
    gc.freeze()  # a child that looked for garbage in all this would copy the memory that holds it
    tell("ready")
    while line := sys.stdin.readline():
        asked = json.loads(line)
        child = os.fork()
        if not child:
            become(**asked)
        signal.signal(signal.SIGALRM, lambda *_, child=child: os.kill(child, signal.SIGKILL))
        signal.alarm(asked["timeout"])
        _, status = os.waitpid(child, 0)
        signal.alarm(0)
        tell(str(os.waitstatus_to_exitcode(status)))


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def become(arguments: list[str], environment: dict[str, str], out: str, err: str, timeout: int) -> NoReturn:
    """Be a command from here on."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["ecom", *arguments]
    from ecom_pipeline.cli import main as ecom

    code = 0
    try:
        ecom()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - as an interpreter ends
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)  # libraries would end threads of theirs that the fork did not take along


if __name__ == "__main__":
    main()
