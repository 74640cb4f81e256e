"""What machine each step needs on Kubernetes, and where steps are done there: in the pod of their run, or each in its own.

Sizes are measured by `benchmarks/step_sizes.py`; elsewhere nothing here has an effect.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import dagster as dg

from assets.benchmark import importance_benchmark
from assets.publish import asset_names
from assets.refresh import FLOW
from ecom_pipeline.errors import ClusterError

RUN, STEP = "run", "step"  # what has a pod of its own
_CONFIG = "dagster-k8s/config"  # the tag of a run that its pod is made by


@dataclass(frozen=True, slots=True)
class Machine:
    """What a pod asks for, and what it may take.

    Attributes:
        cpus: that are kept for it.
        memory_gib: that is kept for it.
        most_gib: that it may take before it is ended. DuckDB alone may hold 3 (`memory_limit` of the warehouse).
    """

    cpus: int
    memory_gib: float
    most_gib: float

    def pod(self) -> dict[str, dict]:
        """The configuration of its container, as `dagster-k8s` takes it."""
        kept, most = (f"{round(gib * 1024)}Mi" for gib in (self.memory_gib, self.most_gib))
        requests = {"cpu": str(self.cpus), "memory": kept}
        return {"container_config": {"resources": {"requests": requests, "limits": {"memory": most}}}}


LIGHT = Machine(1, 2, 4)
_PAIR = Machine(2, 3, 6)  # two processes or threads side by side
_LARGE = Machine(2, 5, 8)
MACHINES: Mapping[str, Machine] = {
    **dict.fromkeys(("embeddings", "interaction_trials", "demand_evaluation", "fine_tuned_model"), _PAIR),
    **dict.fromkeys(("ranker", "sample_choice", "next_visit_evaluation"), _LARGE),
    **dict.fromkeys(("sample_values", "importance_benchmark"), _LARGE),  # of a million samples
}


def machine_of(assets: Iterable[str]) -> Machine:
    """The smallest machine that all of some assets can be made on."""
    needed = [LIGHT, *(MACHINES.get(name, LIGHT) for name in assets)]
    return Machine(*(max(sizes) for sizes in zip(*map(_sizes, needed), strict=True)))


def run_tags(pods: str, assets: Iterable[str]) -> dict[str, str]:
    """Tags by which the pod of a run is as large as its largest asset asks; none where a run is no pod, or does no work itself.

    Args:
        pods: as for `executor_of`.
        assets: that the run makes.
    """
    return {_CONFIG: json.dumps(machine_of(assets).pod())} if pods == RUN else {}


def executor_of(pods: str) -> dg.ExecutorDefinition:
    """Where steps of the daemon's and the UI's runs are done.

    Args:
        pods: nothing, or `run`: one after the other in the process of their run; `step`: one after the other, as one works in
            a home, each step in a pod of its own, all gates of an asset being one.

    Raises:
        ClusterError: if it is neither, or `dagster-k8s` is missing for pods of steps.
    """
    if pods in ("", RUN):
        return dg.in_process_executor
    if pods != STEP:
        raise ClusterError(
            f"ECOM_PODS: 1 value is unknown, {pods!r}. It must be {RUN!r} or {STEP!r}, or nothing where there is no Kubernetes: "
            "choose one of them."
        )
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError as error:
        raise ClusterError(
            f"ECOM_PODS: 1 package is missing for pods of steps: {error}. dagster-k8s must be installed: `pip install "
            "'ecom-pipeline[kubernetes]'`, or leave ECOM_PODS empty."
        ) from error
    sizes = {asset.op.name: machine_of(asset_names(asset)).pod() for asset in (*FLOW, importance_benchmark)}
    return k8s_job_executor.configured(
        {"max_concurrent": 1, "step_k8s_config": LIGHT.pod(), "per_step_k8s_config": sizes}, name="pods_of_steps"
    )


def _sizes(machine: Machine) -> tuple[int, float, float]:
    return machine.cpus, machine.memory_gib, machine.most_gib
