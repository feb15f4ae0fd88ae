"""`bench stages` on a GPU: NVDEC and copies are rungs of their own there, and NVML is watched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from make_videos import make_video

from bench.__main__ import main
from bench.measure.poller import gpu

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

TINY = (
    "model.encoder=r3d10",
    "model.width=0.0625",
    "model.projector_hidden=32",
    "model.projector_dim=16",
    "model.predictor_hidden=32",
)
SIZES = ("--frames", "8", "--size", "64", "--batch-size", "4", "--pairs", "8")


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_rungs_of_a_gpu_are_those_that_its_videos_pass_through(codec: str, tmp_path: Path) -> None:
    for number in range(4):
        suffix = "mp4" if codec == "h264" else "mkv"
        make_video(
            tmp_path / "videos" / f"{number}.{suffix}", codec=codec, frames=60, size=(192, 160), first=60 * number
        )
    output = tmp_path / "stages.json"
    options = ("--rounds", "2", "--device", "cuda", "--try-videos", "2", "--output", str(output))
    assert main(["stages", str(tmp_path / "videos"), "--set", *TINY, *SIZES, *options]) == 0
    result = json.loads(output.read_text())
    missing = {name for name, rung in result["ladder"].items() if rung["missing"]}
    # NVDEC takes H.264; MJPEG is decoded on the host, cut by nobody and copied.
    by_host, by_dali = {"decode in order", "copy"}, {"decode in order by DALI", "decode by DALI"}
    assert missing == (by_host if codec == "h264" else by_dali)
    assert result["figures"]["resample + augment clips/s"]["median"] > 0
    decoding = "decode by DALI clips/s" if codec == "h264" else "copy MB/s"
    assert result["figures"][decoding]["median"] > 0
    assert result["verdict"]["sentences"]


def test_nvml_tells_of_this_gpu() -> None:
    pytest.importorskip("pynvml", reason="needs the extra monitor")
    probes = gpu(torch.device("cuda", torch.cuda.current_device()))
    assert {"gpu/sm_load", "gpu/decoder_load", "gpu/memory_used_gib"} <= probes.keys()
    assert probes["gpu/memory_used_gib"]() > 0
    for name in probes.keys() & {"gpu/pcie_rx_mb_s", "gpu/pcie_tx_mb_s", "gpu/encoder_load"}:
        assert probes[name]() >= 0
