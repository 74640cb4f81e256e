import importlib.util
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from crowd import crowd
from joblib import Parallel, delayed

from ecom_pipeline.errors import ClusterError, SampleError
from ecom_pipeline.recommend.trials import choose_weighting
from resources.cluster import Cluster

log = logging.getLogger("cluster")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray, the extra `ray`, is not installed")


def trials() -> bytes:
    acts, _ = crowd(n_users=150, n_items=80)
    periods = [(day, day + 10) for day in range(50, 110, 10)]
    chosen = choose_weighting(acts, periods, n_trials=6, confidence=0.95, text=None, seed=0, n_processes=2)
    return chosen.trials.to_csv(float_format=None).encode()


def test_without_a_setting_work_stays_in_processes_of_this_machine():
    before = type(joblib.parallel.get_active_backend()[0])
    with Cluster().joined(log) as nodes:
        assert nodes == {}
        assert type(joblib.parallel.get_active_backend()[0]) is before


@pytest.mark.parametrize("address", ["dask", "10.0.0.2", ":6379", "http://10.0.0.2:80", "10.0.0.2:port", "ray://", " "])
def test_a_setting_of_another_form_is_refused_when_it_is_written(address):
    with pytest.raises(ClusterError, match=rf"1 value is unknown, '{address}'.*HOST:PORT"):
        Cluster(address=address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_does_not_answer_is_told_at_once(scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with (
            pytest.raises(ClusterError, match=rf"1 address does not answer, '{address}'.*leave it empty\."),
            Cluster(address=address).joined(log),
        ):
            pass
    assert time.monotonic() - started < 10


def test_where_ray_is_missing_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ClusterError, match=r"1 was asked for, 'ray', and a package is missing.*ecom-pipeline\[ray\]"),
        Cluster(address="ray").joined(log),
    ):
        pass


@pytest.fixture(scope="module")
def address():
    """The head of a cluster of two nodes on loopback, one CPU each; who does not know its token is not let in."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:  # a short path, as sockets ask
        settings = {
            "AUTH_MODE": "token",
            "AUTH_TOKEN": "t" * 32,
            "USAGE_STATS_ENABLED": "0",
            "TMPDIR": folder,
            "worker_niceness": "0",
        }
        for name, value in settings.items():
            patch.setenv(f"RAY_{name}", value)
        from ray.cluster_utils import Cluster as Nodes

        size = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        nodes = Nodes(True, head_node_args={**size, "node_ip_address": "127.0.0.2", "include_dashboard": False})
        try:
            nodes.add_node(**size, node_ip_address="127.0.0.3")
            yield nodes.address
        finally:
            nodes.shutdown()


def kill_a_worker(over: threading.Event) -> int | None:
    """The process that was killed in the middle of a call: it is held, looked at again, and ended."""
    import psutil

    while not over.wait(0.01):
        for one in psutil.Process().children(recursive=True):
            try:
                if working(one):
                    one.suspend()
                    if working(one):
                        one.send_signal(signal.SIGKILL)
                        return one.pid
                    one.resume()
            except psutil.NoSuchProcess:
                continue
    return None


def working(process) -> bool:
    return "".join(process.cmdline()[:1]).startswith("ray::_calls")


@needs_ray
def test_a_worker_that_is_killed_in_the_middle_changes_no_byte(address):
    with joblib.parallel_config("loky", inner_max_num_threads=1):  # as many as a worker of Ray has
        here = trials()
    over = threading.Event()
    with Cluster(address=address).joined(log) as nodes, ThreadPoolExecutor(1) as beside:
        assert (nodes["cluster_nodes"], nodes["cluster_cpus"]) == (2, 2)
        killed = beside.submit(kill_a_worker, over)
        try:
            there = trials()
        finally:
            over.set()
        assert killed.result() is not None
    assert there == here


@needs_ray
def test_calls_are_done_on_both_nodes_in_order_and_one_at_a_time_here(address):
    def where(number, shared):
        import ray

        time.sleep(0.2)
        return number, shared.sum(), ray.util.get_node_ip_address(), os.getpid()

    sent = np.ones(200_000)
    before = signal.getsignal(signal.SIGTERM)
    with Cluster(address=address).joined(log):
        assert signal.getsignal(signal.SIGTERM) is before
        found = Parallel(n_jobs=2)(delayed(where)(number, shared=sent) for number in range(8))
        assert Parallel(n_jobs=1)(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    assert [one[:2] for one in found] == [(number, 200_000) for number in range(8)]
    assert {one[2] for one in found} == {"127.0.0.2", "127.0.0.3"}
    assert os.getpid() not in {one[3] for one in found}


@needs_ray
def test_an_error_of_a_call_is_raised_as_it_was_there(address):
    def fail(number):
        if number == 2:
            raise SampleError("samples: 0 rows.")
        time.sleep(0.05)

    with Cluster(address=address).joined(log), pytest.raises(SampleError, match=r"^samples: 0 rows\.$"):
        Parallel(n_jobs=2)(delayed(fail)(number) for number in range(6))


@needs_ray
def test_a_call_that_always_ends_its_worker_is_given_up_and_named(address):
    def crash():
        os.kill(os.getpid(), signal.SIGKILL)

    with Cluster(address=address).joined(log), pytest.raises(ClusterError, match=r"lost 4 times, .*crash'.*start the"):
        Parallel(n_jobs=2)(delayed(crash)() for _ in range(1))


@needs_ray
def test_a_node_with_other_code_is_named_before_anything_is_done(address, monkeypatch):
    from resources import ray_tasks

    monkeypatch.setattr(ray_tasks, "code_here", lambda: "another")
    with (
        pytest.raises(
            ClusterError, match=r"2 of 2 nodes have other code.*127\.0\.0\.\d has [0-9a-f]{12}, and here is an"
        ),
        Cluster(address=address).joined(log),
    ):
        pass
