"""Several processes that train one ranker together, one a GPU: each does its share of every step.

On the floor of `ranking`. Accelerate brings the processes together; what they add up is plain gradients, so that any
part of the ranker may learn and a step may be worked on in parts.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor


class Team(Protocol):
    """The processes that train together."""

    rank: int
    size: int

    def add(self, parameters: Iterable[Tensor], loss: float) -> float:
        """Make every process's gradients the sum of all; the sum of their losses."""
        ...


class _Alone:
    rank, size = 0, 1

    def add(self, parameters: Iterable[Tensor], loss: float) -> float:
        return loss


ALONE: Team = _Alone()


class _Together:
    def __init__(self) -> None:
        from accelerate import PartialState

        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.rank, self.size = self._state.process_index, self._state.num_processes

    def add(self, parameters: Iterable[Tensor], loss: float) -> float:
        from accelerate.utils import reduce

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = reduce(parameter.grad, "sum")
        return float(reduce(torch.tensor(loss, device=self._state.device), "sum"))


def together(n_processes: int, work: Callable[..., None], *args: Any) -> None:
    """Run `work(team, *args)` in so many processes of this machine at once, and wait for all.

    Args:
        n_processes: at least 2; on GPUs one each.
        work: a function of a module, which leaves its result in a file.
        args: can be pickled. Tensors among them lie in memory that all processes share: what learns must be a copy.

    Raises:
        torch.multiprocessing.ProcessRaisedException: if one of them fails; the others are stopped.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # forked from one that has loaded the libraries, and nothing of what goes on here: each training would load them anew
    multiprocessing.set_forkserver_preload([__name__, "accelerate", work.__module__])
    torch.multiprocessing.start_processes(
        _member, (n_processes, port, work, args), n_processes, start_method="forkserver"
    )


def _member(rank: int, n_processes: int, port: int, work: Callable[..., None], args: tuple) -> None:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_processes, "LOCAL_WORLD_SIZE": n_processes}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **{k: str(v) for k, v in told.items()}}
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // n_processes))
    work(_Together(), *args)
    torch.distributed.destroy_process_group()
