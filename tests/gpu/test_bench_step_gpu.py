"""`python -m bench step` on a GPU: the same first losses in all modes, and kernels beside the loader in the trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from make_videos import make_video

from bench.__main__ import main

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
TINY = "model.width=0.25 model.projector_hidden=16 model.projector_dim=8 model.predictor_hidden=16 data.frames=4"
TINY += " data.size=32 data.batch_size=4 data.threads=1 device=cuda"


def test_modes_are_measured_and_kernels_are_in_the_trace(tmp_path: Path) -> None:
    for number in range(4):
        make_video(tmp_path / "videos" / f"{number}.mp4", frames=24, size=(128, 96), first=40 * number)
    command = ["step", str(tmp_path / "videos"), "--lookahead", "0", "1", "--rounds", "2", "--steps", "4"]
    command += ["--trace", str(tmp_path / "t"), "--trace-steps", "2", "--output", str(tmp_path / "r.json")]
    assert main([*command, "--set", *TINY.split()]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["device"].startswith("cuda") and result["wrong"] == {}
    assert {"look-ahead 0 lost to data", "look-ahead 1 waiting"} <= set(result["figures"])
    events = json.loads((tmp_path / "t" / "profile" / "steps_1-2.rank0.json").read_text())["traceEvents"]
    kinds = {event.get("cat") for event in events}
    assert {"kernel", "loader", "user_annotation"} <= kinds
