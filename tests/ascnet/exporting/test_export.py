from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ascnet import checkpoint, load_encoder
from ascnet.build import build_model
from ascnet.cli import main
from ascnet.config import Config
from ascnet.encoders import Encoder
from ascnet.errors import CheckpointError, UserError
from ascnet.exporting import export_encoder

TINY = (
    "data.frames=8", "data.size=32", "model.width=0.0625", "model.projector_hidden=8", "model.projector_dim=4",
    "model.predictor_hidden=8",
)  # fmt: skip


def make_run(folder: Path, *settings: str) -> Path:
    config = Config.load(None, [*TINY, *settings])
    torch.manual_seed(0)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.mul_(1.5)
    corpus = {"fingerprint": "0123abcd", "videos": 12}
    payload = {"step": 40, "model": model.state_dict(), "config": config.to_dict(), "corpus": corpus}
    checkpoint.save(folder, 40, payload, keep=1)
    (folder / "summary.json").write_text(json.dumps({"steps": 40, "loss": 0.625, "loss_acp": 0.5, "loss_scp": 0.75}))
    (folder / "retrieve").mkdir()
    recall = {"chance": {"R@1": 50.0}, "pretrained": {"R@1": 58.9}}
    scores = {"recall": recall, "protocol": {"clips": 10}, "corpus_fingerprint": "0123abcd"}
    (folder / "retrieve" / "retrieval.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "run", "model.encoder=r3d10", "model.options.stem_pool=true")


def clips(batch: int) -> Tensor:
    return torch.randn(batch, 3, 8, 32, 32, generator=torch.Generator().manual_seed(5))


def run_safetensors(path: Path, x: Tensor) -> Tensor:
    return load_encoder(path)(x)


def run_torch(path: Path, x: Tensor) -> Tensor:
    return torch.export.load(path).module()(x)


def run_onnx(path: Path, x: Tensor) -> Tensor:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["features"], {"clips": x.numpy()})[0])


FORMATS: dict[str, tuple[str, Callable[[Path, Tensor], Tensor]]] = {
    "safetensors": (".safetensors", run_safetensors),
    "torch": (".pt2", run_torch),
    "onnx": (".onnx", run_onnx),
}


def needs(form: str) -> None:
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.mark.parametrize(
    ("form", "network"), [("safetensors", "online"), ("safetensors", "target"), ("torch", "target"), ("onnx", "online")]
)
def test_exported_file_computes_what_the_encoder_does_for_any_batch(
    run: Path, tmp_path: Path, form: str, network: str
) -> None:
    needs(form)
    suffix, runner = FORMATS[form]
    done = export_encoder(run, tmp_path / f"encoder{suffix}", network=network)
    assert done.format == form and done.difference <= done.tolerance
    assert sorted(os.listdir(tmp_path)) == [f"encoder{suffix}", f"encoder{suffix}.md"]
    encoder = load_encoder(run, network=network)
    for batch in (1, 5):
        with torch.no_grad():
            expected, got = encoder(clips(batch)), runner(done.path, clips(batch))
        assert got.shape == (batch, encoder.dim)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    other = load_encoder(run, network="target" if network == "online" else "online")
    with torch.no_grad():
        assert not torch.allclose(other(clips(5)), encoder(clips(5)), rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "form"),
    [("s3dg", "onnx"), ("c3d", "torch")],
)
def test_other_encoders_can_be_exported_as_graphs(tmp_path: Path, form: str, name: str) -> None:
    needs(form)
    source = make_run(tmp_path / "run", f"model.encoder={name}")
    assert export_encoder(source, tmp_path / "out" / "encoder", form=form).path.is_file()  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMATS)
def test_file_that_computes_something_else_is_not_kept(run: Path, tmp_path: Path, form: str) -> None:
    needs(form)
    with pytest.raises(UserError, match=r"computes something else: difference .* allowed -1; nothing was kept"):
        export_encoder(run, tmp_path / f"encoder{FORMATS[form][0]}", tolerance=-1.0)
    assert os.listdir(tmp_path) == []


def test_weights_that_are_not_numbers_are_not_exported(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", "model.encoder=r3d10")
    payload = checkpoint.load(source)
    payload["model"]["online.encoder.layer4.0.conv2.0.weight"][0] = torch.nan
    checkpoint.save(source, 40, payload, keep=1)
    with pytest.raises(UserError, match=r"weights layer4.0.conv2.0.weight are not finite"):
        export_encoder(source, tmp_path / "out" / "encoder.safetensors")
    assert not (tmp_path / "out").exists()


def read_card(path: Path, form: str) -> dict[str, Any]:
    if form == "safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        return {**json.loads(header["card"]), "config": json.loads(header["ascnet"])}
    if form == "torch":
        extra = {"card.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["card.json"])
    import onnx

    return json.loads(next(entry.value for entry in onnx.load(path).metadata_props if entry.key == "card"))


@pytest.mark.parametrize("form", FORMATS)
def test_card_says_where_the_encoder_comes_from_and_what_it_scored(run: Path, tmp_path: Path, form: str) -> None:
    needs(form)
    done = export_encoder(run, tmp_path / "encoder", form=form)  # type: ignore[arg-type]
    card = read_card(done.path, form)
    encoder = load_encoder(run)
    assert card["config"] == encoder.config and card["steps"] == 40
    assert card["corpus"] == {"fingerprint": "0123abcd", "videos": 12}
    assert card["input"]["shape"] == ["batch", 3, 8, 32, 32] and card["dim"] == encoder.dim
    assert card["parameters"] == sum(parameter.numel() for parameter in encoder.parameters())
    assert card["metrics"]["loss"] == 0.625
    assert card["metrics"]["retrieval"]["recall"]["pretrained"] == {"R@1": 58.9}
    text = done.card.read_text()
    for words in (
        "r3d10",
        "12 videos, fingerprint 0123abcd",
        "| pretrained | 58.9 |",
        "loss: 0.625",
        "stem_pool: true",
    ):
        assert words in text, words


def test_losses_of_another_step_are_left_out_of_the_card(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", "model.encoder=r3d10")
    (source / "summary.json").write_text(json.dumps({"steps": 80, "loss": 0.1}))
    done = export_encoder(source, tmp_path / "encoder.safetensors")
    assert "loss" not in read_card(done.path, "safetensors")["metrics"]


def test_exported_safetensors_can_be_exported_on_with_its_card(run: Path, tmp_path: Path) -> None:
    first = export_encoder(run, tmp_path / "first.safetensors", network="target")
    second = export_encoder(first.path, tmp_path / "second.pt2")
    card = read_card(second.path, "torch")
    assert (card["network"], card["steps"], card["corpus"]["videos"]) == ("target", 40, 12)
    assert card["metrics"]["retrieval"]["recall"]["pretrained"] == {"R@1": 58.9}


def test_clip_size_of_the_file_can_be_chosen(run: Path, tmp_path: Path) -> None:
    done = export_encoder(run, tmp_path / "encoder.pt2", frames=4, size=48)
    module = torch.export.load(done.path).module()
    assert module(torch.zeros(2, 3, 4, 48, 48)).shape == (2, 32)
    assert "batch x 3 x 4 x 48 x 48" in done.card.read_text()


def test_loaded_encoder_is_used_as_those_of_timm_and_torchvision(run: Path) -> None:
    encoder = load_encoder(run)
    assert isinstance(encoder, Encoder) and not encoder.training
    assert encoder.dim == encoder.num_features == 32
    with torch.no_grad():
        maps = encoder.features(clips(2))
        assert torch.equal(maps, encoder.forward_features(clips(2))) and maps.shape[:2] == (2, 32)
        assert torch.equal(encoder(clips(2)), maps.mean(dim=(2, 3, 4)))
    assert encoder.config is not None and encoder.config["data"]["frames"] == 8
    # A classifier on top, trained as any module.
    head = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.dim, 3)).train()
    head(clips(2)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_written_files_have_the_usual_rights(run: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    done = export_encoder(run, tmp_path / "encoder.safetensors")
    assert done.path.stat().st_mode == done.card.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "encoder.bin"], "say --format, or a name that ends in .safetensors, .onnx, .pt2"),
        (["-o", "encoder.onnx", "--format", "torch"], "its suffix means onnx, not torch"),
        (["-o", "encoder.pt2", "--frames", "0"], "frames=0 must be at least 1"),
    ],
)
def test_what_cannot_be_written_is_told_in_one_line(
    run: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words[1] = str(tmp_path / words[1])
    assert main(["export", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_clips_that_the_encoder_cannot_take_are_told_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_run(tmp_path / "run", "model.encoder=c3d")
    assert main(["export", str(source), "-o", str(tmp_path / "out" / "encoder.pt2"), "--frames", "4"]) == 2
    assert "needs at least 8 frames" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []


def test_export_onto_its_own_source_is_refused(run: Path, tmp_path: Path) -> None:
    done = export_encoder(run, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match="is what is to be exported"):
        export_encoder(done.path, done.path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        export_encoder(tmp_path / "nothing.pt", tmp_path / "other.safetensors")


def test_command_says_what_it_wrote_and_how_well_it_agrees(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "-o", str(tmp_path / "encoder"), "--format", "safetensors"]) == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 'encoder.safetensors'}\n" in out and "largest difference" in out


def test_onnx_without_its_packages_gives_one_line_with_what_to_install(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name.startswith('onnx') else find(name, *rest)\n"
        "from ascnet.cli import main\n"
        f"sys.exit(main(['export', {str(run)!r}, '-o', {str(tmp_path / 'encoder.onnx')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and os.listdir(tmp_path) == []
    assert done.stderr == (
        "ascnet: --format onnx needs onnx, onnxscript, onnxruntime: pip install 'dali-pipes[onnx]'\n"
    )
