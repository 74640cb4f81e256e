"""`ecom`: run the pipeline, read its results, free what a dead run holds.

With `definitions.py` the only room of the package that knows Dagster. Exit 0: done; 2: the input is at fault; 1:
anything else.
"""

import gc
import sys

import typer

from ecom_pipeline.cli import audience, check, demand, experiment, privacy, run, serve, show, simulate  # noqa: F401 - their commands are made when they are read
from ecom_pipeline.cli.app import app, require_room
from ecom_pipeline.errors import InputError, PipelineError

_INTERRUPTED = 130  # what typer makes of Ctrl-C
# between two looks for garbage: at Python's 700 they took a fifth of the time in which libraries load
_NEW_OBJECTS = 50_000


def main() -> None:
    """Run a command; errors on purpose are told in a line."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    try:
        if app(standalone_mode=False) == _INTERRUPTED:
            raise KeyboardInterrupt
    except InputError as error:
        _fail(error, 2)
    except PipelineError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("stopped; the next `ecom run` goes on from what was finished.", 1)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show"):
            error.show()
            sys.exit(2)
        try:
            require_room(error)
        except PipelineError as full:
            _fail(full, 1)
        raise


def _fail(error: object, code: int) -> None:
    print(f"ecom: {error}", file=sys.stderr)
    sys.exit(code)
