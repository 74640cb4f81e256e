"""Runs `ecom` commands in forked children, each armed with a fault; started by faults.py, with fault_shim preloaded.

The libraries are loaded once, here; what reads the home's path is loaded in the child. An order is a line of JSON on
standard input: argv, home, out, arm. The answers are two lines: the child's PID, and its exit status when it has ended.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from warm import LIBRARIES

SHIM = ctypes.CDLL(None)
WAYS = ("count", "kill", "torn", "full")
CHANGES = ("replace", "rename", "link")


def load() -> None:
    """What every command takes seconds to load, and the versions of the code; nothing here may start a thread."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "GX_ANALYTICS_ENABLED": "false"}
    for name in (*LIBRARIES, "assets.automation"):
        importlib.import_module(name)
    from assets.code import function_of, version
    from assets.refresh import FLOW

    for asset in FLOW:
        version(function_of(asset))


def serve() -> None:
    """Answer orders until there are none."""
    load()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            obey(order)
        print(json.dumps(child), flush=True)
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)


def obey(order: dict[str, Any]) -> None:
    """The child: one command, and its end."""
    code = 1
    try:
        with open(order["out"], "w") as out:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        arm(order)
        from ecom_pipeline.cli import main

        sys.argv = ["ecom", *order["argv"]]
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - as Python ends a program
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if order.get("count"):
            Path(order["count"]).write_text(str(SHIM.fault_seen()))
        os._exit(code)


def arm(order: dict[str, Any]) -> None:
    """Set what shall go wrong."""
    os.environ |= order.get("environment", {})
    signal.alarm(int(order.get("seconds", 0)))
    SHIM.fault_clock(ctypes.c_long(int(order.get("clock", 0))))
    if "way" in order:
        way, nth = WAYS.index(order["way"]), ctypes.c_long(int(order.get("nth", 0)))
        SHIM.fault_arm(order["under"].encode(), order.get("without", "").encode(), nth, way)
    if "met" in order:
        watch(Met(Path(order["met"])))
    if "wanted" in order:
        watch(Boundaries(Path(order["wanted"]), Path(order["tried"])))


class Met:
    """Notes every point that is reached in a file, a line each: which asset is at work, what happens, how manieth time in it."""

    def __init__(self, file: Path):
        self.file = file
        self.n_times: Counter[str] = Counter()

    def __call__(self, what: str) -> str:
        """A point is reached: its name."""
        name = f"{asset_at_work()}: {what}"
        self.n_times[name] += 1
        name = f"{name} {self.n_times[name]}"
        with self.file.open("a") as file:
            file.write(name + "\n")
        return name


class Boundaries:
    """Dies at the first point of those wanted that no process has died at before; points are kept in files, a line each."""

    def __init__(self, wanted: Path, tried: Path):
        self.tried = tried
        self.left = set(wanted.read_text().splitlines())
        self.left -= set(tried.read_text().splitlines()) if tried.is_file() else set()
        self.met = Met(Path(os.devnull))

    def __call__(self, what: str) -> None:
        """A point is reached."""
        name = self.met(what)
        if name in self.left:
            with self.tried.open("a") as file:
                file.write(name + "\n")
            os.kill(os.getpid(), signal.SIGKILL)


def asset_at_work() -> str:
    """The function in `assets/` that is farthest out on the stack."""
    frame, name = sys._getframe(1), "between assets"
    while frame is not None:
        if Path(frame.f_code.co_filename).parent.name == "assets":
            name = frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]
    return name


def watch(point: Callable[[str], object]) -> None:
    """Tell of every commit to the warehouse and every file that is put in its place, before and after."""
    from resources.warehouse import Warehouse

    begun = Warehouse.transaction

    @contextmanager
    def transaction(self: Warehouse) -> Iterator[Any]:
        with begun(self) as db:
            yield db
            point("before commit")
        point("after commit")

    Warehouse.transaction = transaction  # type: ignore[method-assign]
    for change in CHANGES:
        setattr(os, change, told(getattr(os, change), change, point))


def told(do: Callable[..., Any], what: str, point: Callable[[str], object]) -> Callable[..., Any]:
    """A function of `os` that tells of itself where it works in a home."""

    def changed(source: Any, target: Any, **more: Any) -> Any:
        at_work = asset_at_work() != "between assets"
        if at_work:
            point(f"before {what}")
        do(source, target, **more)
        if at_work:
            point(f"after {what}")

    return changed


if __name__ == "__main__":
    serve()
    os._exit(0)  # nothing is to be put away
