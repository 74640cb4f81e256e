"""Where the arithmetic is done, what that is, and how much of its memory may be taken."""

import ctypes
import gc
import logging
import os
import platform
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import dagster as dg
from pydantic import Field, field_validator

from ecom_pipeline.errors import DeviceError

GIB = 2**30
# glibc's mallopt: freed blocks up to so many bytes are used again at once, and so many bytes are kept, while a step lasts
_REUSED = {"MALLOC_MMAP_THRESHOLD_": (-3, 32 * 2**20), "MALLOC_TRIM_THRESHOLD_": (-1, 256 * 2**20)}


@dataclass(slots=True)
class Step:
    """One step on a device: its name for torch, and for the metadata what it is and what the step took of it."""

    device: str
    figures: dict[str, str | int | float] = field(default_factory=dict)


class Compute(dg.ConfigurableResource):
    """The device that was asked for, or an error: never another one in its place."""

    device: str = Field(default="auto", description="cpu, cuda, cuda:1 and so on; auto: cuda where there is one.")
    memory_share: float | None = Field(
        default=None, description="Share of a GPU's memory, above 0 and up to 1, that may be taken; none: no cap."
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise DeviceError(
                f"device: 1 value is unknown, {device!r}. It must be auto, cpu, cuda, or cuda: and a number: choose "
                "one of them."
            )
        return device

    @field_validator("memory_share", mode="before")
    @classmethod
    def _a_share(cls, share: object) -> float | None:
        if share is None:
            return None
        found = re.fullmatch(r"0?\.\d+|1(\.0*)?", str(share))
        if found is None or float(found[0]) == 0:
            raise DeviceError(
                f"memory_share: 1 value is no share, {share!r}. It must be above 0 and at most 1, such as 0.8: change it."
            )
        return float(found[0])

    def torch_device(self) -> str:
        """The device's name for torch, such as "cpu" or "cuda:0"; on a GPU the cap on memory holds from here on.

        Raises:
            DeviceError: if a GPU was asked for that is not there, or a cap on what has none.
        """
        import torch

        if self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available()):
            if self.memory_share is not None:
                raise DeviceError(
                    f"memory_share: 1 was given, {self.memory_share!r}, and the device is 'cpu'. It must be a GPU, as "
                    "torch caps no other memory: leave it out, or limit the process (ulimit -v)."
                )
            return "cpu"
        there = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
        number = int(self.device.partition(":")[2] or 0)
        if number >= len(there):
            raise DeviceError(
                f"device: 1 was asked for, {self.device!r}, and torch {torch.__version__} sees "
                f"{', '.join(there) or 'none'}. The machine must have that NVIDIA GPU and torch a build for it: choose "
                "'cpu', 'auto' or one that is seen, or install that build."
            )
        if self.memory_share is not None:
            torch.cuda.set_per_process_memory_fraction(self.memory_share, number)
        return f"cuda:{number}"

    def describe(self) -> dict[str, str | int | float]:
        """What the device is, for an asset's metadata.

        Raises:
            DeviceError: as `torch_device`.
        """
        import torch

        device = self.torch_device()
        if device == "cpu":
            return {
                "device": device,
                "device_name": _processor(),
                "device_memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
                "n_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
                "n_threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        its = torch.cuda.get_device_properties(device)
        return {
            "device": device,
            "device_name": its.name,
            "device_memory_gib": round(its.total_memory / GIB, 1),
            "device_memory_share": 1.0 if self.memory_share is None else self.memory_share,
            "compute_capability": f"{its.major}.{its.minor}",
            "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        }

    @contextmanager
    def step(self, log: logging.Logger) -> Iterator[Step]:
        """Hold the device for one step: says which it is, and at the end what was taken, and gives memory back.

        The figures are complete when the step has ended. What the caller still holds then goes when the next step begins on a
        GPU, and when that ends on a processor: to look at every object takes longer than many a step.

        Args:
            log: where to say so; an asset's `context.log`.

        Raises:
            DeviceError: as `torch_device`.
        """
        step = Step(self.torch_device(), self.describe())
        log.info("on %s", ", ".join(f"{key} {value}" for key, value in step.figures.items()))
        _set_loaded_aside()
        _use_freed_again()
        if step.device != "cpu":
            _give_back(step.device)  # what the step before this one still held when it ended
        _forget_peak(step.device)
        started = time.monotonic()
        try:
            yield step
        finally:
            seconds, (kind, peak) = time.monotonic() - started, _peak(step.device)
            _give_back(step.device)
            step.figures |= {"device_seconds": seconds, kind: peak, **_kept(step.device)}
            log.info("%.1f s on %s, %s %.2f", seconds, step.device, kind, peak)


def _forget_peak(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> tuple[str, float]:
    import torch

    if device != "cpu":
        return "device_peak_memory_gib", torch.cuda.max_memory_allocated(device) / GIB
    # of the whole process since it began: the system keeps no other; kibibytes, but bytes on a Mac
    unit = 1 if platform.system() == "Darwin" else 1024
    return "process_peak_memory_gib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


@cache
def _set_loaded_aside() -> None:
    """Once a process: what libraries made as they were loaded, half a million objects, is not looked at for garbage again."""
    gc.collect()
    gc.freeze()


@cache
def _use_freed_again() -> None:
    """Once a process, and in those that it starts: a table of some megabytes takes the place of the last one.

    Else the system takes each back and gives it again page by page, all zero: 4 % of what the ranker takes. What the
    environment says is left as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    for name, (option, n_bytes) in _REUSED.items():
        if name not in os.environ:
            os.environ[name] = str(n_bytes)
            ctypes.CDLL(None).mallopt(option, n_bytes)


def _give_back(device: str) -> None:
    import torch

    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    elif platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed; 50 of 100 MiB came back after encoding


def _kept(device: str) -> dict[str, float]:
    import torch

    return {} if device == "cpu" else {"device_kept_memory_gib": torch.cuda.memory_reserved(device) / GIB}


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", told.read_text(), re.M) if told.is_file() else None
    return named[1] if named else platform.processor() or platform.machine()
