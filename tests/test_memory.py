import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from test_architecture import ROOT

from ecom_pipeline.errors import DeviceError
from ecom_pipeline.language.memory import Halving, add_gradients, is_out_of_memory

# a limit on the address space makes torch's own allocator refuse, as on a machine that is full
SHORT_OF_MEMORY = """
import logging, resource, torch
from ecom_pipeline.language.memory import Halving

logging.basicConfig(format="%(message)s")
torch.set_num_threads(1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 512 * 2**20,) * 2)

def total(rows):  # 2 MiB a row, twice
    spread = rows.double()[:, None].expand(-1, 2**18).contiguous()
    return (spread * 2).sum(1)

halving = Halving("sums", "cpu")
rows = torch.arange(400)
for attempt in range(2):
    found = torch.cat(halving.run(rows, total))
    assert torch.equal(found, rows.double() * 2**19), found
print(halving.limit, halving.n_failures)
"""


class Memory:
    """Work that fits up to a size, and remembers what was asked of it."""

    def __init__(self, fits):
        self.fits, self.asked = fits, []

    def __call__(self, rows):
        self.asked.append(len(rows))
        if len(rows) > self.fits:
            raise MemoryError(f"{len(rows)} rows")
        return list(rows)


def test_a_real_shortage_of_memory_halves_the_work_and_says_so():
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["100", "2"]
    assert done.stderr.splitlines() == [
        "sums: out of memory on cpu with 400 rows; goes on with at most 200",
        "sums: out of memory on cpu with 200 rows; goes on with at most 100",
    ]


def test_parts_come_back_in_the_order_of_the_rows():
    parts = Halving("reading", "cpu").run(list(range(11)), Memory(fits=3))
    assert [row for part in parts for row in part] == list(range(11))
    assert max(map(len, parts)) <= 3


def test_work_that_fits_is_done_in_one_part():
    halving, memory = Halving("reading", "cpu"), Memory(fits=8)
    assert halving.run(range(8), memory) == [list(range(8))]
    assert (memory.asked, halving.n_failures) == ([8], 0)


def test_later_work_begins_at_the_size_that_was_learned():
    halving, memory = Halving("reading", "cpu"), Memory(fits=4)
    halving.run(list(range(8)), memory)
    memory.asked.clear()
    halving.run(list(range(16)), memory)
    assert memory.asked == [4, 4, 4, 4]
    assert halving.n_failures == 1


def test_halving_names_the_work_the_size_and_the_new_size(caplog):
    Halving("reading", "cpu", unit="texts").run([1, 2, 3], Memory(fits=2))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "reading: out of memory on cpu with 3 texts; goes on with at most 2")
    ]


def test_a_single_row_that_does_not_fit_is_an_error_that_says_what_to_do():
    with pytest.raises(DeviceError, match=r"reading: 1 part of 1 rows .* of 'cpu': '1 rows'\. .*max_tokens"):
        Halving("reading", "cpu").run([1, 2], Memory(fits=0))


def test_groups_are_never_cut():
    def by_group(rows):
        groups = np.unique(rows)
        return [rows[rows < groups[1]], rows[rows >= groups[1]]] if len(groups) > 1 else []

    parts = Halving("step", "cpu").run(np.array([0, 0, 0, 1, 2, 2]), lambda rows: Memory(fits=3)(rows), by_group)
    assert [list(part) for part in parts] == [[0, 0, 0], [1, 2, 2]]
    with pytest.raises(DeviceError, match="1 part of 3 rows that cannot be cut"):
        Halving("step", "cpu").run(np.array([0, 0, 0, 1]), Memory(fits=2), by_group)


def test_other_errors_pass_through():
    def broken(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Halving("reading", "cpu").run([1, 2], broken)


def test_what_a_failed_attempt_held_is_gone_before_the_next():
    held, alive = [], []

    def work(rows):
        alive.append(sum(tensor() is not None for tensor in held))
        large = torch.zeros(len(rows))
        held.append(weakref.ref(large))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("as on a GPU")
        return float(large.sum())

    assert Halving("reading", "cpu").run(list(range(8)), work) == [0.0] * 4
    assert set(alive) == {0}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:126] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["python", "cuda", "cpu_linux", "cpu_windows", "cublas"],
)
def test_every_way_to_be_out_of_memory_is_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("no memory")])
def test_no_other_error_is_taken_for_a_shortage(error):
    assert not is_out_of_memory(error)


def test_gradients_in_parts_are_the_gradients_of_the_whole():
    torch.manual_seed(0)
    x, layer, idle = torch.randn(12, 4), torch.nn.Linear(4, 1), torch.nn.Parameter(torch.ones(1))
    layer(x).square().sum().div(12).backward()
    whole = layer.weight.grad.clone()
    layer.zero_grad(set_to_none=True)
    halving = Halving("step", "cpu")
    halving.limit = 5
    halving.run(x, lambda rows: add_gradients(layer(rows).square().sum().div(12), [*layer.parameters(), idle]))
    torch.testing.assert_close(layer.weight.grad, whole)
    assert idle.grad is None


def test_a_backward_pass_that_fails_half_way_leaves_no_gradient():
    class Short(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise torch.OutOfMemoryError("in the lower layer")

    low, high = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    with pytest.raises(torch.OutOfMemoryError, match="lower layer"):
        add_gradients((Short.apply(low) * high).sum(), [low, high])
    assert low.grad is None
    assert high.grad is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_real_shortage_on_a_gpu_halves_the_work():
    free, _ = torch.cuda.mem_get_info()
    width = free // 4 // 100  # 200 rows do not fit, 100 do not either with their copy

    def total(rows):
        return (rows.float()[:, None].expand(-1, width).contiguous() * 2)[:, :1].flatten()

    halving = Halving("sums", "cuda")
    rows = torch.arange(200, device="cuda")
    assert_array_equal(torch.cat(halving.run(rows, total)).cpu(), np.arange(200) * 2)
    assert halving.n_failures >= 1
    assert halving.limit < 200
