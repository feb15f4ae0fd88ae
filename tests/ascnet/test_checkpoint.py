from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ascnet import build_encoder, checkpoint, load_encoder
from ascnet.build import build_model
from ascnet.config import Config
from ascnet.errors import CheckpointError
from ascnet.exporting import export_encoder


def payload(seed: int = 0) -> dict[str, Any]:
    config = Config.load(None, [
        "model.encoder=r3d10", "model.width=0.0625", "model.options.stem_stride=[1, 1, 1]",
        "model.projector_hidden=8", "model.projector_dim=4", "model.predictor_hidden=8",
    ])  # fmt: skip
    torch.manual_seed(seed)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.add_(1.0)
    return {"step": 1, "model": model.state_dict(), "config": config.to_dict()}


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_the_newest_are_kept_and_last_is_the_newest(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, {"model": {}, "step": step}, keep=2)
    assert names(tmp_path) == ["last.pt", "step_00000010.pt", "step_00000015.pt"]
    assert checkpoint.load(tmp_path)["step"] == 15
    assert checkpoint.load(tmp_path / "checkpoints" / "step_00000010.pt")["step"] == 10
    # Written once more, as a run does that is stopped right after a checkpoint.
    checkpoint.save(tmp_path, 15, {"model": {}, "step": 15}, keep=2)
    assert names(tmp_path) == ["last.pt", "step_00000010.pt", "step_00000015.pt"]


def test_write_that_fails_leaves_the_earlier_checkpoint_whole_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 1, {"model": {}, "step": 1}, keep=2)

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(tmp_path, 2, {"model": {}, "step": 2}, keep=2)
    assert names(tmp_path) == ["last.pt", "step_00000001.pt"]
    assert checkpoint.load(tmp_path)["step"] == 1


def test_works_where_the_file_system_has_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save(tmp_path, 3, {"model": {}, "step": 3}, keep=1)
    assert names(tmp_path) == ["last.pt", "step_00000003.pt"] and checkpoint.load(tmp_path)["step"] == 3


@pytest.mark.parametrize("network", ["online", "target"])
def test_encoder_of_either_network_is_loaded_from_a_run_and_survives_export(tmp_path: Path, network: str) -> None:
    saved = payload()
    checkpoint.save(tmp_path / "run", 1, saved, keep=1)
    encoder = load_encoder(tmp_path / "run", network=network)
    assert encoder.config == saved["config"] and not encoder.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, saved["model"][f"{network}.encoder.{name}"])

    export_encoder(tmp_path / "run", tmp_path / "out" / "encoder.safetensors", network=network)
    assert sorted(os.listdir(tmp_path / "out")) == ["encoder.safetensors", "encoder.safetensors.md"]
    again = load_encoder(tmp_path / "out" / "encoder.safetensors")
    assert again.config == saved["config"]
    clips = torch.randn(1, 3, 4, 16, 16)
    assert torch.equal(again(clips), encoder(clips))


def test_what_cannot_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_encoder(tmp_path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_encoder(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        load_encoder(tmp_path / "text.pt")
    path = checkpoint.save(tmp_path, 1, payload(), keep=1)
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        load_encoder(tmp_path / "half.pt")
    torch.save({"something": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of"):
        load_encoder(tmp_path / "other.pt")
    torch.save({"format": 99, "model": {}}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="checkpoint format 99; this version reads format 1"):
        load_encoder(tmp_path / "newer.pt")


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    saved = payload()
    saved["config"]["model"]["width"] = 0.125
    checkpoint.save(tmp_path, 1, saved, keep=1)
    with pytest.raises(CheckpointError, match="do not fit encoder 'r3d10'"):
        load_encoder(tmp_path)


def test_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(build_encoder("r3d10", width=0.0625).state_dict()), tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="its header holds no configuration"):
        load_encoder(tmp_path / "foreign.safetensors")
