"""The GPU twin of tests/ascnet/search: features written by the GPU point where those of the CPU do, and are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from search_index import make_checkpoint, make_corpus, make_recipe

from ascnet.search.embed import embed
from ascnet.search.searcher import Searcher
from ascnet.weights import load_encoder
from dali_pipes import Corpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def test_features_and_neighbours_of_the_gpu_are_those_of_the_cpu(tmp_path: Path) -> None:
    corpus, checkpoint = make_corpus(tmp_path / "videos", 5), make_checkpoint(tmp_path / "encoder.pt")
    recipe = make_recipe(checkpoint, corpus)
    files = {
        device: embed(
            load_encoder(checkpoint),
            Corpus.open(corpus),
            replace(recipe, device=device),
            tmp_path / f"{device}.npy",
            device=device,
            progress=False,
        )
        for device in ("cpu", "cuda")
    }
    one, two = (np.concatenate(list(file.chunks())) for file in files.values())
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    # The GPU decodes and scales by its own units, so pictures agree closely and not to the bit.
    assert ((one * two).sum(axis=1) / lengths > 0.995).all()
    on_cpu, on_gpu = (Searcher(tmp_path / "cuda.npy", device=device) for device in ("cpu", "cuda"))
    assert "cuda" in on_gpu.told
    for row in range(5):
        ours, theirs = on_gpu.of_row(row, 4), on_cpu.of_row(row, 4)
        assert [hit.row for hit in ours] == [hit.row for hit in theirs]
        np.testing.assert_allclose([hit.score for hit in ours], [hit.score for hit in theirs], atol=1e-6)
