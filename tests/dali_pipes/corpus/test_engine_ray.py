"""Jobs on a real Ray cluster: two machines' worth of Ray on this one, one of them lost in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dali_pipes.corpus.engine import Lost, run_all
from dali_pipes.errors import DataError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'dali-pipes[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    ray.init(made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_hanging_and_crashing_items_are_lost_and_the_others_are_not(cluster: Any) -> None:
    slow = dict(run_all(time.sleep, [0, 60, 0], engine="ray", timeout=0.5))
    assert slow == {0: None, 1: Lost("took longer than 0.5 s"), 2: None}
    crashed = dict(run_all(signal.raise_signal, [signal.SIGSEGV, signal.SIGURG], engine="ray"))
    assert crashed == {0: Lost("crashed the decoder (SIGSEGV)"), 1: None}
    assert dict(run_all(os._exit, [3], engine="ray")) == {0: Lost("ended the decoder (exit code 3)")}


def test_a_machine_that_dies_costs_no_item_and_repeats_none(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    seen = []
    for count, (place, result) in enumerate(run_all(time.sleep, [0.15] * 40, engine="ray")):
        seen.append(place)
        assert result is None
        if count == 8:
            cluster.remove_node(node, allow_graceful=False)
    assert sorted(seen) == list(range(40))


def test_an_address_needs_the_ray_engine_and_the_engine_must_exist() -> None:
    with pytest.raises(DataError, match="only --engine ray"):
        list(run_all(abs, [1], address="localhost:1"))
    with pytest.raises(DataError, match="local or ray"):
        list(run_all(abs, [1], engine="slurm"))
