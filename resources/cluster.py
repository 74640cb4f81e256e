"""Where pieces of work are done side by side: in processes of this machine, or on the nodes of a Ray cluster."""

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import dagster as dg
from pydantic import Field, field_validator

from ecom_pipeline.errors import ClusterError

JOINED = "ray"  # the setting that takes the cluster that this machine has joined
_ANSWER_SECONDS = 5.0


class Cluster(dg.ConfigurableResource):
    """The one seam to other machines: the domain calls `joblib.Parallel`, and what that is, is decided here."""

    address: str = Field(
        default="",
        description="Nothing: processes of this machine. ray: the Ray cluster that this machine has joined. HOST:PORT: "
        "the cluster of that head, which it has joined. ray://HOST:PORT: a cluster that it has not joined.",
    )

    @field_validator("address")
    @classmethod
    def _known_form(cls, address: str) -> str:
        if address and not re.fullmatch(rf"{JOINED}|(ray://)?[\w.-]+:\d{{1,5}}", address):
            raise ClusterError(
                f"cluster: 1 value is unknown, {address!r}. It must be {JOINED!r}, HOST:PORT or ray://HOST:PORT, or "
                "nothing for processes of this machine: choose one of them."
            )
        return address

    @contextmanager
    def joined(self, log: logging.Logger) -> Iterator[dict[str, str | int]]:
        """Do what `joblib.Parallel` is asked for meanwhile on the cluster; without one nothing is changed.

        Gives what the cluster is, for an asset's metadata.

        Args:
            log: where to say so; an asset's `context.log`.

        Raises:
            ClusterError: if Ray is not installed, the address does not answer or is no cluster that can be joined, or
                a node has other code.
        """
        if not self.address:
            yield {}
            return
        self._require_answer()
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
            from joblib import parallel_config

            from resources.ray_tasks import RayTasks, check_nodes
        except ImportError as error:
            raise ClusterError(
                f"cluster: 1 was asked for, {self.address!r}, and a package is missing: {error}. Ray must be installed "
                "here and on every node: `pip install 'ecom-pipeline[ray]'`, or leave ECOM_CLUSTER empty."
            ) from error
        with _signals_kept():
            try:
                ray.init(
                    "auto" if self.address == JOINED else self.address, log_to_driver=False, logging_level=logging.ERROR
                )
            except (OSError, RuntimeError, ValueError) as error:
                raise ClusterError(
                    f"cluster: 1 cannot be joined, {self.address!r}: {str(error).rstrip('.')}. It must run the "
                    "same versions of Ray and Python, and this machine must be one of its nodes (`ray start --address=HOST:PORT`) unless the "
                    "address begins with ray://: join it, or leave ECOM_CLUSTER empty."
                ) from error
        try:
            figures: dict[str, str | int] = {"cluster": self.address, "cluster_nodes": check_nodes()}
            figures["cluster_cpus"] = int(ray.cluster_resources()["CPU"])
            log.info("on %s", ", ".join(f"{key} {value}" for key, value in figures.items()))
            with closing(RayTasks()) as tasks, parallel_config(backend=tasks, n_jobs=-1):
                yield figures
        finally:
            ray.shutdown()

    def _require_answer(self) -> None:
        """Ask before Ray does, which tries for minutes."""
        if self.address == JOINED:
            return
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(
                f"cluster: 1 address does not answer, {self.address!r}: {error}. The head of a Ray cluster must listen "
                "there: start it (`ray start --head`), correct ECOM_CLUSTER, or leave it empty."
            ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it is joined; whose process this is keeps it."""
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if ours and before is not None:
            signal.signal(signal.SIGTERM, before)
