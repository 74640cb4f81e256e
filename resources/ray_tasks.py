"""Ray as a backend of joblib: each call is a task of its own, and one whose worker dies is done again elsewhere.

Loaded only where Ray is asked for. Nothing here knows Dagster, which every worker would load for nothing.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import ray
from joblib import parallel_config
from joblib.parallel import ParallelBackendBase
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ecom_pipeline import errors
from ecom_pipeline.errors import ClusterError

N_RETRIES = 3  # of a call whose worker or node died; an error of the call itself is raised at once, as on one machine
PROBE_SECONDS = 120.0  # for a node to start a worker and hash the code; a cold disk took 30
Call = tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]


class RayTasks(ParallelBackendBase):
    """Calls of `joblib.Parallel` on the nodes of the Ray that is connected, as many at once as it has CPUs.

    Ray's own backend of joblib keeps a pool of actors, which loses the call and the actor when a process dies; a task
    that needs nothing but its arguments can be done again.
    """

    supports_retrieve_callback = True

    def __init__(self) -> None:
        super().__init__()
        # one waits for each call that is under way
        self._threads = ThreadPoolExecutor(self.effective_n_jobs(-1), "ray")
        self._kept: dict[int, tuple[Any, ray.ObjectRef]] = {}
        self._asked: list[Future] = []
        self._under_way: set[ray.ObjectRef] = set()
        self._guard = threading.Lock()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """The CPUs of the cluster, however many processes of one machine were asked for; of 1: one, and here."""
        # two where there is one CPU, as joblib would take 1 for this process; the second call waits in Ray
        return 1 if n_jobs == 1 else max(2, int(ray.cluster_resources()["CPU"]))

    def submit(self, func: Any, callback: Callable[[Future], None] | None = None) -> Future:
        """Send a batch of calls, of one unless `Parallel` was told otherwise."""
        calls = [
            (function, [self._put(one) for one in args], {name: self._put(one) for name, one in named.items()})
            for function, args, named in func.items
        ]
        future = self._threads.submit(self._wait_for, calls)
        self._asked.append(future)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future) -> Any:
        """What the calls of a batch returned, or the error of the first that raised one."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what is under way: one call has raised an error, or the user wants no more."""
        for one in self._asked:
            one.cancel()
        with self._guard:
            under_way = list(self._under_way)
        for one in under_way:
            ray.cancel(one, force=True)

    def stop_call(self) -> None:
        """Let go of the arguments and the results of a `Parallel` that is through."""
        self._kept, self._asked = {}, []

    def close(self) -> None:
        """Wait for what is still under way: Ray must not be left while a thread waits for it."""
        self._threads.shutdown(cancel_futures=True)

    def _put(self, argument: Any) -> Any:
        """An argument where workers find it: what several calls share is sent to a node once."""
        if argument is None or isinstance(argument, int | float | str):
            return argument
        if id(argument) not in self._kept:
            self._kept[id(argument)] = (argument, ray.put(argument))  # the argument too, or its id would be another's
        return self._kept[id(argument)][1]

    def _wait_for(self, calls: Sequence[Call]) -> list[Any]:
        sent = _calls.remote(calls)
        with self._guard:
            self._under_way.add(sent)
        try:
            return ray.get(sent)
        except RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from error  # as it would have been raised here
            raise
        except RayError as error:
            name = getattr(calls[0][0], "__qualname__", "a call")
            raise ClusterError(
                f"cluster: 1 piece of work was lost {N_RETRIES + 1} times, {name!r}: {type(error).__name__}: "
                f"{str(error).splitlines()[0].rstrip('.')}. Its worker must live until it is done: look for what "
                "ends it (memory of the nodes, Ray's logs), and start the run again, which goes on from what was finished."
            ) from error
        finally:
            with self._guard:
                self._under_way.discard(sent)


@ray.remote(num_cpus=1, max_retries=N_RETRIES, scheduling_strategy="SPREAD")
def _calls(calls: Sequence[Call]) -> list[Any]:
    # whatever works in parallel inside a call: the other CPUs are taken
    with parallel_config(backend="sequential"):
        return [
            function(*map(_here, args), **{name: _here(one) for name, one in named.items()})
            for function, args, named in calls
        ]


def _here(argument: Any) -> Any:
    return ray.get(argument) if isinstance(argument, ray.ObjectRef) else argument


@cache
def code_here() -> str:
    """A short hash of the domain's code as it is installed on this machine."""
    folder = Path(errors.__file__).parent
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        found.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return found.hexdigest()[:12]


def check_nodes() -> int:
    """How many nodes there are, each with the code that is here.

    Raises:
        ClusterError: if one has none or another, or does not answer, or no node has a CPU.
    """

    # sent by value, so that it says what is missing where this very module is
    def code_there() -> str:
        try:
            from resources.ray_tasks import code_here
        except ImportError as error:
            return f"none ({error})"
        return code_here()

    nodes = {one["NodeID"]: one["NodeManagerAddress"] for one in ray.nodes() if one["Alive"]}
    if not ray.cluster_resources().get("CPU"):
        raise ClusterError(
            f"cluster: 0 CPUs in {len(nodes)} nodes; first: {next(iter(nodes.values()), 'none')}. Work needs one at "
            "least: start a node with `ray start --address=... --num-cpus=1` or more."
        )
    probe = ray.remote(num_cpus=0, max_retries=1)(code_there)
    asked = {
        address: probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node, address in nodes.items()
    }
    told = {address: _answer(one) for address, one in asked.items()}
    others = [(address, code) for address, code in told.items() if code != code_here()]
    if others:
        address, code = others[0]
        raise ClusterError(
            f"cluster: {len(others)} of {len(told)} nodes have other code than this machine; first: {address} has "
            f"{code}, and here is {code_here()}. Every node must have the same, or results would mix two versions: "
            "install this version of ecom-pipeline there, in the Python that runs `ray start`."
        )
    return len(nodes)


def _answer(asked: ray.ObjectRef) -> str:
    try:
        return ray.get(asked, timeout=PROBE_SECONDS)
    except GetTimeoutError:
        return f"no answer within {PROBE_SECONDS:.0f} s"
    except RayError as error:
        return f"no answer ({type(error).__name__})"
