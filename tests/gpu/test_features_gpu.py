"""The GPU twin of tests/ascnet/evaluate/test_features.py: features made on the GPU are those made on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from make_videos import make_video

from ascnet import build_encoder
from ascnet.evaluate.features import extract
from ascnet.evaluate.protocols import Protocol
from dali_pipes import Corpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root: Path = tmp_path_factory.mktemp("videos")
    for number, codec in enumerate(("mjpeg", "h264")):
        make_video(root / f"{codec}.mkv", codec=codec, frames=20, size=(96, 64), first=700 * number)
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9995), ("bf16", 0.995), ("fp16", 0.995)])
def test_features_of_the_gpu_point_where_those_of_the_cpu_do(corpus: Corpus, precision: str, least: float) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("r3d18", width=0.25)
    clip = {"frames": 8, "size": 64, "clips": 2}
    on_cpu = extract(encoder, corpus, [0, 1], Protocol(**clip), progress=False)
    on_gpu = extract(encoder, corpus, [0, 1], Protocol(**clip, precision=precision), device="cuda", progress=False)  # type: ignore[arg-type]
    assert on_gpu.rows.tolist() == [0, 1] and on_gpu.vectors.dtype == np.float32
    lengths = np.linalg.norm(on_cpu.vectors, axis=1) * np.linalg.norm(on_gpu.vectors, axis=1)
    # The GPU decodes and scales by its own units, so pictures agree closely and not to the bit.
    assert ((on_cpu.vectors * on_gpu.vectors).sum(axis=1) / lengths > least).all()
