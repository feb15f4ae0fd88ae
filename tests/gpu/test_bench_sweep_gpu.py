"""`bench sweep` on a GPU: loader and training step are measured there, with NVDEC and with the host's decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from make_videos import make_video

from ascnet.config import Config
from bench.sweep.trial import Knobs, Objective, Rig, decoders
from dali_pipes import Corpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.mark.parametrize("objective", ["loader", "step"])
def test_settings_are_measured_on_the_gpu(objective: Objective, tmp_path: Path) -> None:
    for number in range(8):
        make_video(tmp_path / "a" / f"{number}.mp4", frames=40, size=(128, 96), first=40 * number)
    corpus = Corpus.build(tmp_path, "folders", progress=False)
    tiny = ["model.encoder=r3d10", "model.width=0.0625", "data.frames=8", "data.size=48", "data.batch_size=4"]
    default = Knobs(threads=2, prefetch=2, decoder="auto", lookahead=1)
    rig = Rig(Config.load(None, [*tiny, "device=cuda"]), corpus, objective, 1e3, default)
    assert decoders(corpus, rig.device, "auto") == ["auto", "host"]
    for knobs in (default, replace(default, threads=1, prefetch=1, lookahead=0), replace(default, decoder="host")):
        assert rig.measure(knobs, 0, 0.1, 120.0) > 0
