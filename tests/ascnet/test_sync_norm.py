"""Batch normalisation over processes is that of one process with all of their batches, also of different sizes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from ascnet.parallel.sync_norm import SyncNorm, synchronise

# How many of the 6 samples each of two processes has, and whether the samples have axes of their own.
CASES = [((3, 3), True), ((5, 1), True), ((6, 0), True), ((0, 6), False), ((5, 1), False)]


def layers(spatial: bool, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm3d(4) if spatial else nn.BatchNorm1d(4, affine=False)
    mix = nn.Conv3d(4, 4, 1) if spatial else nn.Linear(4, 4)
    return nn.Sequential(norm, mix).to(dtype)


def samples(spatial: bool) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    shape = (6, 4, 2, 3, 3) if spatial else (6, 4)
    return 5 + 2 * torch.randn(shape, generator=draws, dtype=torch.float64)


def passed(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients and buffers after one pass with a loss that treats samples differently."""
    x = x.clone().requires_grad_()
    y = model(x)
    (y**3).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **gradients, **dict(model.named_buffers())}


def _rank(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for number, (counts, spatial) in enumerate(CASES):
        model = synchronise(layers(spatial), torch.device("cpu"))
        mine = samples(spatial).split(counts)[rank]
        torch.save(passed(model, mine), folder / f"{number}-{rank}.pt")
        with torch.no_grad():
            half = model[0](mine.to(torch.bfloat16))  # type: ignore[index]
            assert half.dtype == torch.bfloat16
        model.eval()
        torch.save(model(mine), folder / f"{number}-{rank}-eval.pt")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        synchronise(layers(False), torch.device("cpu"))(samples(False)[: 1 - rank])
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("norm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, (port, folder), nprocs=2)
    return folder


@pytest.mark.parametrize("number", range(len(CASES)))
def test_outputs_gradients_and_statistics_are_those_of_one_process(number: int, seen: Path) -> None:
    _, spatial = CASES[number]
    expected = passed(layers(spatial), samples(spatial))
    ranks = [torch.load(seen / f"{number}-{rank}.pt") for rank in range(2)]
    for name in expected:
        if name in ("y", "x"):
            found = torch.cat([rank[name] for rank in ranks])
        elif "running" in name or "tracked" in name:
            assert torch.equal(ranks[0][name], ranks[1][name])
            found = ranks[0][name]
        else:
            found = ranks[0][name] + ranks[1][name]
        torch.testing.assert_close(found, expected[name], rtol=1e-12, atol=1e-10)


def test_names_and_tensors_of_a_model_stay_what_they_are() -> None:
    model = layers(True)
    before = dict(model.state_dict(keep_vars=True))
    synchronise(model, torch.device("cpu"))
    assert isinstance(model[0], SyncNorm)  # type: ignore[index]
    assert all(tensor is before[name] for name, tensor in model.state_dict(keep_vars=True).items())
    gpu = synchronise(layers(True), torch.device("cuda"))
    assert isinstance(gpu[0], nn.SyncBatchNorm)  # type: ignore[index]
