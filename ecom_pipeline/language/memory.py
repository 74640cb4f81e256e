"""What to do when a device has too little memory: cut the work in two and go on, and say so.

On the floor of `language`. torch is imported where it is used.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Any, TypeVar

from ecom_pipeline.errors import DeviceError

if TYPE_CHECKING:
    import torch

# how libraries say it that have no class for it: torch's allocator on a CPU (Linux, Windows), C++, cuBLAS, the driver
SAYINGS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)
Rows = TypeVar("Rows", bound=Sized)
Part = TypeVar("Part")
log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: on a GPU, on a CPU, or in Python itself.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in SAYINGS)


def release(device: "str | torch.device") -> None:
    """Give back memory that nobody uses any more: objects in circles, then what torch keeps for later.

    Cost: some 50 ms for the collector; the next step on a GPU pays for its allocations again. So: between steps, not
    between batches.
    """
    import torch

    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def in_two(rows: Any) -> list[Any]:
    """First and second half of anything that can be sliced; nothing where there is nothing to cut.

    >>> in_two([1, 2, 3]), in_two([1])
    ([[1], [2, 3]], [])
    """
    half = len(rows) // 2
    return [rows[:half], rows[half:]] if half else []


class Halving:
    """Does work in parts that fit into memory, and remembers what fits.

    The first part that does not fit is cut in two, and so on down to what cannot be cut; the size found stays for all
    later calls and never rises again. A system that kills the process in place of refusing memory, as Linux does where
    no limit is set, leaves nothing to catch.

    Attributes:
        limit: most rows that are tried at once, infinite until something has failed.
        n_failures: how often memory was short.
    """

    def __init__(self, what: str, device: "str | torch.device", unit: str = "rows") -> None:
        """Remember nothing yet.

        Args:
            what: the work, for messages, such as "encoding".
            device: where it is done.
            unit: what the rows are, for messages.
        """
        self.what, self.device, self.unit = what, device, unit
        self.limit: float = float("inf")
        self.n_failures = 0

    def run(
        self, rows: Rows, work: Callable[[Rows], Part], split: Callable[[Rows], Sequence[Rows]] = in_two
    ) -> list[Part]:
        """What the work gives for each part of the rows, in their order; one part where all fit.

        Args:
            rows: what is worked on.
            work: takes rows. It must be all or nothing: when it runs out of memory it has changed nothing, as its rows
                come again in smaller parts. So return what is found, and add up gradients with `add_gradients`. What
                it returns must not depend on the other rows of its part, beyond what the caller puts together again
                (a mean over a batch does: return sums, or divide by the whole batch's count).
            split: rows to two or more parts in order; fewer where they may not be cut, as inside a group.

        Raises:
            DeviceError: if rows that cannot be cut do not fit.

        Cost: a failed attempt for each halving, once; then nothing.
        """
        waiting, done = [rows], []
        while waiting:
            part = waiting.pop()
            smaller = split(part) if len(part) > self.limit else ()
            if len(smaller) < 2:
                # the attempt has ended, and its frames with all their tensors are gone, before anything is tried again
                fitted, result = _attempt(work, part)
                if fitted:
                    done.append(result)
                    continue
                smaller = self._learn(part, split(part), result)
            waiting.extend(reversed(smaller))
        return done

    def _learn(self, part: Rows, smaller: Sequence[Rows], said: Any) -> Sequence[Rows]:
        self.n_failures += 1
        release(self.device)
        size = len(part)
        if len(smaller) < 2:
            raise DeviceError(
                f"{self.what}: 1 part of {size} {self.unit} that cannot be cut does not fit into the memory of "
                f"{str(self.device)!r}: {said!r}. The smallest part must fit: free memory there or raise its share, "
                "cut texts shorter (max_tokens), or choose a smaller model or another device."
            )
        self.limit = min(self.limit, max(map(len, smaller)))
        log.warning(
            "%s: out of memory on %s with %d %s; goes on with at most %d",
            *(self.what, self.device, size, self.unit, self.limit),
        )
        return smaller


def add_gradients(loss: "torch.Tensor", parameters: Iterable["torch.Tensor"]) -> None:
    """Add a loss's gradients to the parameters: to all of them, or after an error to none.

    `loss.backward()` that runs out of memory half-way has already changed some.

    Args:
        loss: a scalar that depends on some of the parameters.
        parameters: those that learn.

    Cost: memory for a second copy of the gradients while they are added.
    """
    import torch

    learning = list(parameters)
    found: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, learning, allow_unused=True)
    for parameter, gradient in zip(learning, found, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.add_(gradient)  # in place: cannot run out of memory


def _attempt(work: Callable[[Rows], Part], part: Rows) -> tuple[bool, Any]:
    try:
        return True, work(part)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).partition("\n")[0][:200]
    return False, said
