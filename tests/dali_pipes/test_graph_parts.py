"""The graph's nodes as functions in somebody else's graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline

from dali_pipes import Augment
from dali_pipes.pipeline import GraphSpec, Sample, build, feed, frames_node, gather_node, view_node

AUGMENT = Augment(blur=0.5)
SPEC = GraphSpec(2, 24, 3, False, True, AUGMENT, "float32", 1, None)


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for height, width in ((40, 56), (32, 32), (64, 30)):
        frames = rng.integers(0, 256, (7, height, width, 3), np.uint8)
        orders = (np.array([0, 1, 2, 3], np.int32), np.array([6, 4, 2, 0], np.int32))
        draws = tuple(AUGMENT.draw(rng, width, height) for _ in orders)
        made.append(Sample(None, np.empty(0, np.int32), frames, orders, draws))
    return made


def run(graph: Pipeline, *, draws: bool = True) -> list[torch.Tensor]:
    graph.build()
    feed(graph, SPEC, samples(), draws=draws)
    return [torch.from_dlpack(output.as_tensor()).clone() for output in graph.run()]


@pipeline_def(enable_conditionals=True)
def views_and_more() -> tuple[DataNode, ...]:
    frames = frames_node(SPEC)
    first, second = view_node(frames, SPEC, 0), view_node(frames, SPEC, 1)
    return first, second, second * 2.0


@pipeline_def(enable_conditionals=True)
def clips_alone() -> tuple[DataNode, ...]:
    frames = frames_node(SPEC)
    clips = [gather_node(frames, 0), gather_node(frames, 1)]
    return fn.resize(clips[0], size=(8, 8)), fn.resize(clips[1], size=(8, 8)), clips[1].shape()


def options() -> dict[str, object]:
    return {"batch_size": 3, "num_threads": 1, "device_id": None, "prefetch_queue_depth": 1, "exec_dynamic": True}


def test_views_in_another_graph_are_the_loaders_to_the_bit() -> None:
    (ours,) = run(build(SPEC))
    first, second, double = run(views_and_more(**options()))
    assert torch.equal(first, ours[:, 0]) and torch.equal(second, ours[:, 1])
    assert torch.equal(double, second * 2)


def test_clips_without_our_operators_need_no_draws() -> None:
    first, second, shapes = run(clips_alone(**options()), draws=False)
    assert first.shape == second.shape == (3, 4, 8, 8, 3) and not torch.equal(first, second)
    assert shapes.tolist() == [[4, 40, 56, 3], [4, 32, 32, 3], [4, 64, 30, 3]]


def test_draws_for_a_graph_that_has_no_place_for_them_are_an_error() -> None:
    with pytest.raises(Exception, match="region0"):
        run(clips_alone(**options()))
