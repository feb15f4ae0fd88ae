"""The trainer on a GPU: close to the CPU in full precision, exact again after an interruption, in every precision."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from make_videos import make_video
from training_data import MadeCorpus, open_made, tiny

from ascnet import checkpoint
from ascnet.pretrain import pretrain

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
RUN = ("device=cuda", "epochs=4", "checkpoint.interval=3", "ema.momentum=0.9")


def train(config: Any, out: Path, *, resume: bool = False, **options: Any) -> dict[str, Any]:
    return pretrain(config, MadeCorpus(), out, resume=resume, open_data=partial(open_made, **options))  # type: ignore[arg-type]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def raise_sigterm(at: int, batch: int) -> None:
    if batch == at:
        os.kill(os.getpid(), signal.SIGTERM)


def test_float64_run_on_the_gpu_equals_that_on_the_cpu(tmp_path: Path) -> None:
    words = ("steps=4", "epochs=9", "retrieval.lookahead=0", "precision=fp64", "ema.momentum=0.9")
    train(tiny(*words, "device=cpu"), tmp_path / "cpu")
    train(tiny(*words, "device=cuda"), tmp_path / "gpu")
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-7)
    cpu, gpu = checkpoint.load(tmp_path / "cpu"), checkpoint.load(tmp_path / "gpu")
    for part in ("model", "bank"):
        for name, tensor in cpu[part].items():
            torch.testing.assert_close(gpu[part][name], tensor, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_run_stopped_and_resumed_equals_one_never_stopped(tmp_path: Path, precision: str, lookahead: int) -> None:
    words = (*RUN, "deterministic=true", f"precision={precision}", f"retrieval.lookahead={lookahead}")
    train(tiny(*words), tmp_path / "whole")
    first = train(tiny(*words), tmp_path / "parts", before=partial(raise_sigterm, 7))
    assert first["interrupted"]
    train(tiny(*words), tmp_path / "parts", resume=True)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    a, b = checkpoint.load(tmp_path / "whole"), checkpoint.load(tmp_path / "parts")
    for part in ("model", "bank"):
        assert all(torch.equal(tensor, b[part][name]) for name, tensor in a[part].items())
    assert a["scaler"] == b["scaler"]


def test_weights_stay_in_fp32_and_bf16_losses_stay_near_those_of_fp32(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16", "fp16"):
        train(tiny(*RUN, f"precision={precision}"), tmp_path / precision)
        assert {t.dtype for t in checkpoint.load(tmp_path / precision)["model"].values()} == {
            torch.float32,
            torch.int64,
        }
    assert losses(tmp_path / "bf16")[0] == pytest.approx(losses(tmp_path / "fp32")[0], rel=0.05)
    assert losses(tmp_path / "fp16")[0] == pytest.approx(losses(tmp_path / "fp32")[0], rel=0.01)


def test_trains_from_video_files_with_clips_made_on_the_gpu(tmp_path: Path) -> None:
    from dali_pipes import Corpus

    for number in range(8):
        make_video(tmp_path / "videos" / str(number % 2) / f"{number}.mp4", codec="h264", frames=24)
    corpus = Corpus.build(tmp_path / "videos", output=tmp_path / "corpus.parquet", workers=1, progress=False)
    summary = pretrain(tiny("device=cuda", "steps=4", "epochs=9"), corpus, tmp_path / "run")
    assert summary["steps"] == 4 and summary["loss"] is not None
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["scp_share"] == 1.0
