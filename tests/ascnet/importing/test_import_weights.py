from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import published_layouts as layouts
import pytest
import torch
from make_videos import make_video
from published_layouts import Entry
from torch import Tensor

from ascnet import build_encoder, checkpoint, load_encoder
from ascnet.cli import main
from ascnet.errors import CheckpointError
from ascnet.exporting import export_encoder
from ascnet.importing import import_weights
from dali_pipes import Corpus

WIDTH = 0.125


def torchvision_file(entries: Iterator[Entry], classifier: str, dim: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    state, names = layouts.filled(entries)
    return state | {f"{classifier}.weight": torch.rand(4, dim), f"{classifier}.bias": torch.rand(4)}, names


TORCHVISION: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "r3d_18": (lambda: torchvision_file(layouts.torchvision_resnet(WIDTH, factored=False), "fc", 64), "r3d18", {}),
    "r2plus1d_18": (
        lambda: torchvision_file(layouts.torchvision_resnet(WIDTH, factored=True), "fc", 64),
        "r2plus1d18",
        {},
    ),
    "s3d": (
        lambda: torchvision_file(layouts.s3d(WIDTH, rspnet=False), "classifier.1", 128),
        "s3dg",
        {"gating": False},
    ),
}

RSPNET: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "resnet18": (layouts.rspnet_resnet18, "r3d18", {"stem_kernel": [7, 7, 7], "stem_pool": True}, "fc"),
    "s3dg": (lambda width: layouts.s3d(width, rspnet=True), "s3dg", {"layout": "rspnet"}, "fc"),
    "c3d": (layouts.rspnet_c3d, "c3d", {}, "linear"),
    "r2plus1d-vcop": (layouts.rspnet_r2plus1d, "r2plus1d10", {}, "linear"),
    "torchvision-resnet18": (lambda width: layouts.torchvision_resnet(width, factored=False), "r3d18", {}, "fc"),
}


def rspnet(arch: str, width: float = WIDTH) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    maker, _, _, dummy = RSPNET[arch]
    state, names = layouts.filled(maker(width))
    return layouts.rspnet_file(arch, state, dim=64, dummy=dummy), state, names


@pytest.mark.parametrize("arch", TORCHVISION)
def test_every_tensor_of_torchvisions_file_lands_under_its_name_here(arch: str, tmp_path: Path) -> None:
    make, name, options = TORCHVISION[arch]
    state, names = make()
    torch.save(state, tmp_path / "file.pth")
    done = import_weights(tmp_path / "file.pth", "torchvision", tmp_path / "out" / "ours.pt")
    assert (done.encoder, done.width, done.options) == (name, WIDTH, options)
    assert done.account.used == names and set(done.account.dropped.values()) == {"classifier"}
    assert os.listdir(tmp_path / "out") == ["ours.pt"]
    for network in ("online", "target"):
        encoder = load_encoder(tmp_path / "out" / "ours.pt", network=network)
        weights = encoder.state_dict()
        assert weights.keys() == set(names.values())
        assert all(torch.equal(weights[ours], state[theirs]) for theirs, ours in names.items())
    assert encoder.config is not None
    assert encoder.config["data"]["augment"]["mean"] == [0.43216, 0.394666, 0.37645]
    assert encoder.config["data"]["size"] == (224 if arch == "s3d" else 112)


@pytest.mark.parametrize("arch", RSPNET)
def test_query_encoder_of_rspnets_file_is_used_and_all_else_dropped_by_name(arch: str, tmp_path: Path) -> None:
    _, name, options, _ = RSPNET[arch]
    payload, state, names = rspnet(arch)
    torch.save(payload, tmp_path / "model_best.pth.tar")
    done = import_weights(tmp_path / "model_best.pth.tar", "rspnet", tmp_path / "ours.pt")
    assert (done.encoder, done.width, done.options) == (name, WIDTH, options)
    weights = load_encoder(tmp_path / "ours.pt").state_dict()
    assert weights.keys() == set(names.values())
    assert all(torch.equal(weights[ours], state[theirs]) for theirs, ours in names.items())
    dropped = checkpoint.load(tmp_path / "ours.pt")["imported"]["dropped"]
    assert dropped == {
        "queue": 2, "unused classifier": 2, "projection head": 4, "momentum encoder": len(state) + 6,
        "bookkeeping": 3, "optimiser": 1, "schedule": 1,
    }  # fmt: skip


@pytest.mark.parametrize("arch", RSPNET)
def test_layouts_have_the_names_and_shapes_of_the_encoder_at_full_width(arch: str) -> None:
    maker, name, options, _ = RSPNET[arch]
    with torch.device("meta"):
        encoder = build_encoder(name, **options)
    expected = {ours: shape for _, ours, shape in maker(1.0)}
    assert {ours: tuple(tensor.shape) for ours, tensor in encoder.state_dict().items()} == expected


def test_fine_tuned_file_of_rspnet_and_one_saved_inside_ddp_are_read_too(tmp_path: Path) -> None:
    _, state, names = rspnet("resnet18")
    tuned = {f"encoder.{name}": tensor for name, tensor in state.items()}
    tuned |= {"encoder.fc.weight": torch.rand(1, 64), "encoder.fc.bias": torch.rand(1)}
    tuned |= {"fc.weight": torch.rand(101, 64), "fc.bias": torch.rand(101)}
    torch.save({"epoch": 30, "arch": "resnet18", "model": tuned, "best_acc1": 74.3}, tmp_path / "tuned.pth")
    done = import_weights(tmp_path / "tuned.pth", "rspnet", tmp_path / "tuned.pt")
    assert set(done.account.used) == {f"encoder.{name}" for name in names}
    assert sorted(set(done.account.dropped.values())) == ["classifier", "unused classifier"]

    bare, _ = TORCHVISION["r3d_18"][0]()
    wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in bare.items()}, "epoch": 45}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    import_weights(tmp_path / "wrapped.pth", "torchvision", tmp_path / "wrapped.pt")
    assert torch.equal(load_encoder(tmp_path / "wrapped.pt").state_dict()["stem.0.weight"], bare["stem.0.weight"])


def test_imported_file_holds_each_weight_once_in_single_precision(tmp_path: Path) -> None:
    state, _ = TORCHVISION["r2plus1d_18"][0]()
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save(half, tmp_path / "half.pth")
    import_weights(tmp_path / "half.pth", "torchvision", tmp_path / "ours.pt")
    saved = checkpoint.load(tmp_path / "ours.pt")["model"]
    size = sum(tensor.numel() * tensor.element_size() for name, tensor in saved.items() if name.startswith("online"))
    assert saved["online.encoder.stem.0.weight"].dtype == torch.float32
    assert saved["online.encoder.stem.1.num_batches_tracked"].dtype == torch.int64
    assert (tmp_path / "ours.pt").stat().st_size < 1.5 * size
    assert load_encoder(tmp_path / "ours.pt")(torch.rand(2, 3, 4, 16, 16)).shape == (2, 64)


def test_file_in_safetensors_is_read_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state, _ = TORCHVISION["r3d_18"][0]()
    save_file(state, tmp_path / "file.safetensors")
    import_weights(tmp_path / "file.safetensors", "torchvision", tmp_path / "ours.pt")
    assert torch.equal(load_encoder(tmp_path / "ours.pt").state_dict()["stem.0.weight"], state["stem.0.weight"])


def broken(change: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = TORCHVISION["r3d_18"][0]()[0]
    if change == "missing":
        del state["layer3.1.conv2.1.running_var"]
    elif change == "unknown":
        state["layer5.0.conv1.0.weight"] = torch.zeros(1)
    elif change == "known name at a place that the network does not have":
        state["layer1.2.conv1.0.weight"] = torch.zeros(8, 8, 3, 3, 3)
    elif change == "shape":
        state["layer2.0.conv1.0.weight"] = torch.zeros(16, 8, 1, 3, 3)
    else:
        state["layer4.0.conv1.0.weight"][0] = torch.nan
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "layer3.1.conv2.1.running_var of r3d18 missing in the file"),
        ("unknown", "layer5.0.conv1.0.weight in the file but not in r3d18"),
        ("known name at a place that the network does not have", "layer1.2.conv1.0.weight in the file but not in"),
        ("shape", r"layer2.0.conv1.0.weight has shape \[16, 8, 1, 3, 3\]; r3d18 needs \[16, 8, 3, 3, 3\]"),
        ("values", "layer4.0.conv1.0.weight holds values that are not finite"),
    ],
)
def test_tensor_that_is_missing_unknown_or_wrong_is_named_and_nothing_is_written(
    change: str, message: str, tmp_path: Path
) -> None:
    torch.save(broken(change), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=f"file.pth: {message}"):
        import_weights(tmp_path / "file.pth", "torchvision", tmp_path / "ours.pt")
    assert os.listdir(tmp_path) == ["file.pth"]


def test_tensors_beside_the_weights_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    payload, _, _ = rspnet("c3d")
    torch.save({**payload, "swa": {"conv1.weight": torch.zeros(1)}}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="entry 'swa' holds tensors that are not accounted for"):
        import_weights(tmp_path / "file.pth", "rspnet", tmp_path / "ours.pt")


def test_architecture_that_is_not_known_is_told_with_those_that_are(tmp_path: Path) -> None:
    payload, _, _ = rspnet("resnet18")
    torch.save({**payload, "arch": "resnet50"}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="its arch is 'resnet50'; known: c3d, r2plus1d-vcop, resnet18, s3dg"):
        import_weights(tmp_path / "file.pth", "rspnet", tmp_path / "ours.pt")
    torch.save(payload, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"not a network of torchvision .*its first tensors are queue, queue_ptr"):
        import_weights(tmp_path / "file.pth", "torchvision", tmp_path / "ours.pt")


def test_source_is_never_written_over_and_the_checkpoint_is_never_named_as_what_it_is_not(tmp_path: Path) -> None:
    state, _ = TORCHVISION["r3d_18"][0]()
    torch.save(state, tmp_path / "file.pt")
    before = (tmp_path / "file.pt").read_bytes()
    with pytest.raises(CheckpointError, match="is the file to import"):
        import_weights(tmp_path / "file.pt", "torchvision", tmp_path / "." / "file.pt")
    with pytest.raises(CheckpointError, match=r"give a name that ends in \.pt"):
        import_weights(tmp_path / "file.pt", "torchvision", tmp_path / "ours.safetensors")
    assert os.listdir(tmp_path) == ["file.pt"] and (tmp_path / "file.pt").read_bytes() == before


def test_imported_weights_can_be_exported_and_the_card_says_where_they_come_from(tmp_path: Path) -> None:
    state, _ = TORCHVISION["r3d_18"][0]()
    torch.save(state, tmp_path / "file.pth")
    import_weights(tmp_path / "file.pth", "torchvision", tmp_path / "ours.pt")
    done = export_encoder(tmp_path / "ours.pt", tmp_path / "encoder.safetensors", frames=4, size=16)
    digest = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
    assert f"torchvision, file.pth, sha256 {digest}" in done.card.read_text()
    assert torch.equal(load_encoder(done.path).state_dict()["stem.0.weight"], state["stem.0.weight"])


def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["import-weights", *words, "-o", str(tmp_path / "ours.pt")])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_command_prints_a_table_of_what_became_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload, _, names = rspnet("c3d")
    torch.save(payload, tmp_path / "c3d.pth")
    status, out, _ = run(tmp_path, capsys, str(tmp_path / "c3d.pth"), "--from", "rspnet", "--keys")
    assert status == 0 and "c3d, width 0.125" in out
    for row in ("used", "momentum encoder", "queue", "optimiser", "unused classifier", "missing"):
        assert row in out
    assert f"│ {len(names)} │" in out.replace("      ", " ").replace("  ", " ").replace("  ", " ")
    assert "encoder_q.encoder.conv1.weight -> conv1.conv.weight" in out and "queue_ptr: dropped, queue" in out


def test_what_is_no_file_of_weights_gives_one_line_and_runs_no_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    (tmp_path / "text.pth").write_text("no weights in here")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"stem.0.weight": 3}, tmp_path / "number.pth")
    for name, message in (
        ("nothing.pth", "no such file"),
        ("text.pth", "not a file of weights"),
        ("empty.pth", "not a file of weights"),
        ("evil.pth", "never loaded"),
        ("list.pth", "holds no weights but a list"),
        ("number.pth", "'stem.0.weight' is a int; expected tensors by name"),
    ):
        status, _, err = run(tmp_path, capsys, str(tmp_path / name), "--from", "torchvision")
        assert status == 2 and message in err and err.count("\n") == 1 and name in err, err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "ours.pt").exists()


def test_imported_checkpoint_retrieves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        path = tmp_path / "videos" / ("train", "test")[number % 2] / "ab"[number // 2] / f"{number}.mkv"
        make_video(path, codec="mjpeg", frames=12, size=(48, 48), first=999 * number)
    Corpus.build(tmp_path / "videos", output=tmp_path / "corpus.parquet", progress=False, workers=1)
    payload, _, _ = rspnet("c3d")
    torch.save(payload, tmp_path / "file.pth")
    assert run(tmp_path, capsys, str(tmp_path / "file.pth"), "--from", "rspnet")[0] == 0
    arguments = ["retrieve", "--checkpoint", str(tmp_path / "ours.pt"), "--corpus", str(tmp_path / "corpus.parquet")]
    arguments += ["--device", "cpu", "--threads", "1", "--clips", "1", "--frames", "8", "--size", "32", "--untrained"]
    assert main([*arguments, "--no-figure", "--out", str(tmp_path / "scores")]) == 0
    scores = json.loads((tmp_path / "scores" / "retrieval.json").read_text())
    assert list(scores["recall"]) == ["chance", "untrained", "pretrained"] and scores["queries"] == 2
