"""`ascnet plan`: its numbers beside real modules, counts made by hand, and memory that was really taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from make_videos import make_video
from torch import nn
from training_data import tiny

from ascnet import cli, optim, plan
from ascnet.build import build_model
from ascnet.config import Config
from ascnet.errors import ConfigError
from ascnet.plan_command import make_plan
from dali_pipes import Corpus

# One clip of 8 x 32 x 32 through r3d10 of width 1/8; batch of 8.
SMALL = (
    "model.encoder=r3d10", "model.width=0.125", "model.projector_hidden=32", "model.projector_dim=16",
    "model.predictor_hidden=32", "data.frames=8", "data.size=32", "data.batch_size=8", "precision=fp32", "device=cpu",
)  # fmt: skip


def small(*overrides: str) -> Config:
    return Config.load(None, [*SMALL, *overrides])


def taken(config: Config) -> int:
    """Most bytes that a real forward and backward pass holds above what was there before, by torch's own allocator."""
    torch.manual_seed(0)
    model = build_model(config).train()
    data = config.data
    clips = torch.randn(data.batch_size, 3, data.frames, data.size, data.size)
    a_j = torch.randn(data.batch_size, config.model.projector_dim)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model(clips, a_j, lambda: (clips, torch.arange(len(clips)))).loss.backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_a_convolution_has_the_operations_counted_by_hand() -> None:
    conv, x = nn.Conv3d(3, 5, 3, padding=1, bias=False), torch.randn(2, 3, 4, 6, 6)
    # Each of 2 x 5 x 4 x 6 x 6 outputs is a sum of 3 x 27 products.
    assert plan.count_flops(lambda: conv(x)) == 2 * (2 * 5 * 4 * 6 * 6) * (3 * 27)


def test_a_step_has_the_operations_of_its_passes() -> None:
    step = plan.simulate_step(small())
    model, clips = build_model(small()), torch.randn(8, 3, 8, 32, 32)
    assert step["flops"]["target"] == 2 * plan.count_flops(lambda: model.appearance_target(clips))
    # Predictors besides; the backward pass is twice the forward one, but for the gradient of the clips.
    assert step["flops"]["target"] / 2 < step["flops"]["online_forward"] < step["flops"]["backward"]
    assert step["flops"]["backward"] < 2 * step["flops"]["online_forward"]
    assert step["flops"]["total"] == sum(value for name, value in step["flops"].items() if name != "total")


def test_directions_double_the_work_and_parts_of_a_batch_do_not() -> None:
    flops = plan.simulate_step(small())["flops"]
    both = plan.simulate_step(small("symmetric=true"))["flops"]
    assert both == {name: 2 * value for name, value in flops.items()}
    halves = plan.simulate_step(small("optim.accumulate=2"))
    assert halves["flops"]["total"] == pytest.approx(flops["total"], rel=1e-6)
    whole = plan.simulate_step(small())["bytes"]["activations"]
    assert halves["bytes"]["activations"] == pytest.approx(whole / 2, rel=0.02)
    alone = plan.simulate_step(small("gamma=0"))["flops"]
    assert alone["target"] == flops["target"] / 2


@pytest.mark.parametrize("encoder", ["r3d10", "s3dg", "c3d", "r2plus1d18"])
def test_parameters_are_those_of_the_real_modules(encoder: str) -> None:
    config = small(f"model.encoder={encoder}", "data.frames=16", "data.size=64")
    model, counted = build_model(config), plan.simulate_step(config)["parameters"]
    trained = [p for group in optim.build_optimizer(model, config.optim).param_groups for p in group["params"]]
    assert counted["trained"] == sum(p.numel() for p in trained)
    assert counted["encoder"] == sum(p.numel() for p in model.online.encoder.parameters())
    assert counted["ema_copy"] == sum(p.numel() for p in model.target.parameters())
    assert counted["encoder"] + counted["heads"] == counted["trained"]


def test_the_estimate_of_memory_is_within_a_quarter_of_what_is_taken() -> None:
    config = small("data.batch_size=16")
    step, real = plan.simulate_step(config), taken(config)
    assert step["bytes"]["activations"] < step["bytes"]["peak"]
    assert 0.75 < step["bytes"]["peak"] / real < 1.25


def test_checkpointed_activations_keep_less_for_more_arithmetic() -> None:
    usual, less = (
        plan.simulate_step(small("data.batch_size=16", f"model.checkpoint_activations={switch}"))
        for switch in ("false", "true")
    )
    assert less["bytes"]["activations"] < 0.6 * usual["bytes"]["activations"]
    assert less["bytes"]["peak"] == usual["bytes"]["peak"]
    assert less["flops"]["backward"] > usual["flops"]["backward"]


def test_optimiser_and_bank_have_the_bytes_of_the_real_ones() -> None:
    config = small("optim.name=adamw", "retrieval.dtype=fp16")
    step = plan.simulate_step(config)
    parts = plan.memory(config, step, gpus=1, videos=1000)
    model = build_model(config)
    optimizer = optim.build_optimizer(model, config.optim)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = [t for entry in optimizer.state.values() for t in entry.values() if torch.is_tensor(t) and t.ndim > 0]
    assert parts["optimiser"] == sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert parts["gradients"] == 4 * step["parameters"]["trained"]
    assert parts["memory bank"] == 1000 * (16 * 2 + 8 + 1)
    assert parts["total"] == sum(value for name, value in parts.items() if name != "total")
    shared = plan.memory(small("retrieval.placement=sharded"), step, gpus=4, videos=1000)
    assert shared["memory bank"] == 250 * 16 * 4 + 1000 * 9


def test_frames_to_decode_by_hand() -> None:
    config = Config.load(None, ["data.batch_size=2", "data.frames=16"])
    # 16 frames at 1x, 31 at 2x, either for c_k; a key frame every 9: 4 more for each clip.
    assert plan.decoding(config, gop=9) == {"clips": 6, "frames": 96, "frames_decoded": 2 * (16 + 31 + 8 + 23.5 + 4)}
    config = Config.load(None, ["data.batch_size=2", "data.window=shared", "gamma=0"])
    assert plan.decoding(config, gop=1) == {"clips": 4, "frames": 64, "frames_decoded": 2 * 31}
    config = Config.load(None, ["data.batch_size=2", "data.fps=12.5", "gamma=0", "data.frames=8"])
    assert plan.decoding(config, gop=1, rate=25.0)["frames_decoded"] == 2 * (15 + 29)


def test_steps_are_those_of_the_videos_and_of_all_gpus() -> None:
    config = Config.load(None, ["data.batch_size=10", "epochs=3"])
    assert plan.length(config, 205, 2) == {"steps_an_epoch": 10, "epochs": 3, "steps": 30}
    short = Config.load(None, ["data.batch_size=10", "epochs=3", "steps=15"])
    assert plan.length(short, 205, 2) == {"steps_an_epoch": 10, "epochs": 2, "steps": 15}
    with pytest.raises(ConfigError, match="do not fill one batch of 20"):
        plan.length(config, 19, 2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(6):
        split = ("train", "train", "test")[number % 3]
        make_video(root / split / "a" / f"{number}.mkv", codec="mjpeg", frames=12, size=(32, 32), first=99 * number)
    Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)
    return root / "corpus.parquet"


def test_measured_steps_give_a_time(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    settings = tiny(f"corpus={corpus}", "data.batch_size=2", "data.threads=1", "epochs=50")
    result = make_plan(settings, Corpus.open(corpus), measure=3)
    measured = result["measured"]
    assert measured["steps"] == 3 and measured["step_seconds"] > 0 and 0 <= measured["wait_share"] <= 1
    assert result["steps"] == {"steps_an_epoch": 2, "epochs": 50, "steps": 100}
    assert result["time"]["seconds"] == pytest.approx(100 * measured["step_seconds"])
    assert result["decode"]["per_second"]["clips"] == pytest.approx(6 / measured["step_seconds"])
    assert capsys.readouterr().out == ""


def test_the_command_prints_a_table_or_json(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*SMALL, "data.batch_size=2", "epochs=2"]
    assert cli.main(["plan", "--corpus", str(corpus), "--rate", "5", *overrides]) == 0
    table = capsys.readouterr().out
    assert "parameters, encoder" in table and "steps an epoch" in table and "memory of a GPU, total" in table
    assert cli.main(["plan", "--videos", "1000", "--gpus", "2", "--json", *overrides]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"]["steps"] == 500 and result["measured"] is None
    assert result["decode"]["per_second"]["clips"] == 2 * 6


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--measure", "2"], "say corpus=PATH"),
        (["--gpus", "0"], "--gpus 0: must be at least 1"),
        (["--videos", "3"], "do not fill one batch"),
        (["--rate", "0"], "--rate 0"),
        (["--corpus", "nowhere.parquet"], "nowhere.parquet"),
        (["model.encoder=r3d81"], "unknown encoder 'r3d81'"),
        (["model.encoder=s3dg", "data.size=16"], "needs at least"),
        (["--config", "nowhere"], "no such file"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and expected in captured.err and captured.err.count("\n") == 1
