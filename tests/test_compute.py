import gc
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import torch
from test_architecture import ROOT

from ecom_pipeline.errors import DeviceError
from resources.compute import Compute

gpu = pytest.mark.gpu
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
log = logging.getLogger("step")


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused_with_what_torch_sees(device):
    with pytest.raises(DeviceError, match=rf"1 was asked for, '{device}', and torch \S+ sees none\. .*choose 'cpu'"):
        Compute(device=device).torch_device()


@no_gpu
def test_auto_takes_the_cpu_where_there_is_no_gpu():
    assert Compute().torch_device() == "cpu"


def test_a_gpu_of_a_number_beyond_those_there_is_refused_and_those_are_named(monkeypatch):
    two = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda number: f"Card {number}"
    )
    monkeypatch.setattr(torch, "cuda", two)  # a machine with two cards is not at hand
    assert Compute(device="cuda:1").torch_device() == "cuda:1"
    with pytest.raises(DeviceError, match=r"'cuda:2', and torch \S+ sees cuda:0 \(Card 0\), cuda:1 \(Card 1\)"):
        Compute(device="cuda:2").torch_device()


@pytest.mark.parametrize("device", ["tpu", "cuda1", "cuda:", "CPU"])
def test_an_unknown_device_is_refused_when_it_is_written(device):
    with pytest.raises(DeviceError, match=f"1 value is unknown, '{device}'"):
        Compute(device=device)


@pytest.mark.parametrize("share", ["0", "0.0", "1.5", "-0.5", "half", "nan"])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(DeviceError, match=f"1 value is no share, '{share}'"):
        Compute(memory_share=share)


@pytest.mark.parametrize(("written", "share"), [("0.5", 0.5), (".25", 0.25), ("1", 1.0), (0.8, 0.8)])
def test_a_share_may_come_from_the_environment(written, share):
    assert Compute(memory_share=written).memory_share == share


def test_memory_of_a_cpu_is_not_capped_in_silence():
    with pytest.raises(DeviceError, match=r"memory_share: 1 was given, 0.5, and the device is 'cpu'.*ulimit"):
        Compute(device="cpu", memory_share=0.5).torch_device()


def test_the_cpu_is_described_by_name_memory_cores_and_build():
    told = Compute(device="cpu").describe()
    assert told["device"] == "cpu"
    assert told["device_name"]
    assert told["device_memory_gib"] > 0.5
    assert told["n_cores"] >= 1
    assert told["n_threads"] == torch.get_num_threads()
    assert told["torch"] == torch.__version__


def test_a_step_says_where_it_is_and_what_it_took(caplog):
    caplog.set_level(logging.INFO)
    with Compute(device="cpu").step(log) as step:
        assert step.device == "cpu"
    begin, end = (record.getMessage() for record in caplog.records if record.name == "step")
    assert begin.startswith(f"on device cpu, device_name {step.figures['device_name']}, ")
    assert "s on cpu, process_peak_memory_gib " in end
    assert step.figures["process_peak_memory_gib"] > 0.05
    assert step.figures["device_seconds"] >= 0


def test_a_step_that_fails_gives_memory_back_all_the_same():
    class Circle:
        alive = 0

        def __init__(self):
            self.itself = self
            Circle.alive += 1

        def __del__(self):
            Circle.alive -= 1

    def fail():
        Circle()
        raise ZeroDivisionError("in the step")

    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError, match="in the step"), Compute(device="cpu").step(log):
            fail()
    finally:
        gc.enable()
    assert Circle.alive == 0


def test_the_figures_of_a_step_are_metadata_of_an_asset():
    @dg.asset
    def stage(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult:
        with compute.step(context.log) as step:
            torch.ones(1, device=step.device)
        return dg.MaterializeResult(metadata=step.figures)

    done = dg.materialize([stage], resources={"compute": Compute(device="cpu")})
    told = done.asset_materializations_for_node("stage")[0].metadata
    assert told["device"].value == "cpu"
    assert told["process_peak_memory_gib"].value > 0


def test_the_code_location_reads_its_resources_from_the_environment():
    code = """
import os
os.environ |= {"ECOM_DEVICE": "cuda:1", "ECOM_MEMORY_SHARE": "0.5", "ECOM_TRACKING": "none", "ECOM_HOME": "/home/shop",
    "ECOM_CLUSTER": "10.0.0.2:6379"}
from ecom_pipeline.definitions import RESOURCES
compute, tracking = RESOURCES["compute"], RESOURCES["tracking"]
print(compute.device, compute.memory_share, tracking.backend, tracking.wandb_mode, tracking.path, RESOURCES["cluster"].address)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cuda:1", "0.5", "none", "offline", "/home/shop/curves", "10.0.0.2:6379"]


def test_the_command_line_takes_the_device_from_the_environment_too(tmp_path):
    command = [str(Path(sys.executable).with_name("ecom")), "run", "--home", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"ECOM_DEVICE": "tpu"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--device: 1 value is unknown: 'tpu'" in done.stderr


@gpu
@needs_a_gpu
def test_a_gpu_is_described_by_name_memory_and_build():
    told = Compute(device="cuda").describe()
    assert told["device"] == "cuda:0"
    assert told["device_name"] == torch.cuda.get_device_name(0)
    assert told["device_memory_gib"] > 1
    assert "CUDA" in told["torch"]


@gpu
@needs_a_gpu
def test_the_cap_on_a_gpus_memory_holds():
    total = torch.cuda.get_device_properties(0).total_memory
    device = Compute(device="cuda:0", memory_share=0.05).torch_device()
    try:
        torch.empty(int(total * 0.03), dtype=torch.uint8, device=device)
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            torch.empty(int(total * 0.1), dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


@gpu
@needs_a_gpu
def test_a_step_frees_the_gpus_memory_and_tells_its_peak():
    with Compute(device="cuda:0").step(log) as step:
        torch.empty(2**28, dtype=torch.uint8, device=step.device)
        assert torch.cuda.memory_reserved(0) >= 2**28
    assert torch.cuda.memory_reserved(0) < 2**28
    assert 0.25 <= step.figures["device_peak_memory_gib"] < 0.5
    assert step.figures["device_kept_memory_gib"] < 0.25


REUSE = """
import logging, resource
import numpy as np
from resources.compute import Compute

def n_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [np.ones(20 * 2**20, np.uint8) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = n_faults()
with Compute(device="cpu").step(logging.getLogger()):
    print(first, n_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_within_a_step_a_table_takes_the_place_of_the_last_one():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    told = subprocess.run([sys.executable, "-c", REUSE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    before, within = map(int, told.stdout.split())
    assert within < before / 4  # pages are small or large, as the system has it
