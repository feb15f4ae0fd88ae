"""`python -m bench sweep`: settings are measured on real clips, and what is written is what `ascnet pretrain` takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_videos import make_video

from ascnet.cli import main as ascnet
from ascnet.config import Config
from bench.__main__ import main
from bench.commands.sweep import proposals, settings, space
from bench.sweep.halving import Found, LeftOut
from bench.sweep.trial import Knobs, Rig, decoders, lowest_psnr, memory_available
from bench.sweep.tuned import write_tuned
from dali_pipes import Corpus
from dali_pipes.errors import DataError

TINY = [
    "model.encoder=r3d10", "model.width=0.0625", "model.projector_hidden=16", "model.projector_dim=8",
    "model.predictor_hidden=16", "data.frames=4", "data.size=16", "data.batch_size=4", "device=cpu", "precision=fp32",
]  # fmt: skip
DEFAULT = Knobs(threads=2, prefetch=2, decoder="auto", lookahead=1)


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for each other take seconds for a step where the machine has other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    for number in range(6):
        make_video(folder / "videos" / "a" / f"{number}.mp4", frames=24, size=(64, 48), first=40 * number)
        make_video(folder / "videos" / "b" / f"{number}.webm", codec="vp9", frames=24, size=(64, 48), first=40 * number)
    Corpus.build(folder / "videos", layout="folders", output=folder / "c.parquet", progress=False)
    return folder / "c.parquet"


def rig(corpus: Path, objective: str, *, memory_gib: float = 1e3, default: Knobs = DEFAULT) -> Rig:
    return Rig(Config.load(None, TINY), Corpus.open(corpus), objective, memory_gib, default)  # type: ignore[arg-type]


def test_the_command_writes_a_file_that_trains(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned, output = tmp_path / "deep" / "tuned.yaml", tmp_path / "result.json"
    command = ["sweep", str(corpus), "--config", "demo", "--set", *TINY, "--minutes", "10", "--shortest", "0.005"]
    assert main([*command, "--knobs", "lookahead", "--write", str(tuned), "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["benchmark"] == "sweep" and result["objective"] == "step"
    assert set(result["figures"]) == {"default steps/s", "best steps/s", "gain (best / default)"}
    assert result["figures"]["gain (best / default)"]["unit"] == "x"
    assert result["space"] == {"threads": [len(os.sched_getaffinity(0))], "prefetch": [2], "decoder": ["auto"],
                               "lookahead": [0, 1, 2]}  # fmt: skip
    assert {trial["setting"] for trial in result["trials"]} == {0, 1, 2}
    # On a machine with much other work one may be left out for being slow, but never without a word.
    assert all(trial["rate"] > 0 if trial["rate"] is not None else trial["reason"] for trial in result["trials"])
    assert all(entry["memory_gib"] > 0 for entry in result["settings"])
    assert str(corpus.parent) not in output.read_text()
    text = tuned.read_text()
    assert "bench sweep c.parquet --config demo" in text and "cores; corpus c.parquet" in text
    assert result["verdict"] in text and result["verdict"] in " ".join(capsys.readouterr().out.split())
    config = Config.load(tuned)
    assert config.retrieval.lookahead == result["best"]["retrieval.lookahead"]
    assert config.model.width == 0.0625 and config.gamma == 0.3  # of --set, of the base
    run = ["pretrain", "--config", str(tuned), f"corpus={corpus}", "steps=2", "--out", str(tmp_path / "run")]
    assert ascnet(run) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 2


def test_the_loader_alone_is_measured_without_a_configuration(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = ["sweep", str(corpus), "--set", *TINY, "--minutes", "10", "--shortest", "0.02", "--output", str(output)]
    assert main([*command, "--knobs", "prefetch,lookahead"]) == 0
    result = json.loads(output.read_text())
    assert result["objective"] == "loader" and result["figures"]["default clips/s"]["median"] > 0
    assert result["space"]["lookahead"] == [1] and result["space"]["prefetch"] == [1, 2, 4, 8]
    # All settings of a turn get the same work, the default among them.
    for turn in {trial["turn"] for trial in result["trials"]}:
        assert any(trial["setting"] == 0 for trial in result["trials"] if trial["turn"] == turn)


@pytest.mark.parametrize("objective", ["loader", "step"])
def test_settings_that_deliver_the_same_clips_are_measured(corpus: Path, objective: str) -> None:
    bench = rig(corpus, objective)
    for knobs in (DEFAULT, replace(DEFAULT, threads=1, prefetch=1), replace(DEFAULT, decoder="dali", lookahead=0)):
        assert bench.measure(knobs, 0, 0.02, 60.0) > 0
        assert bench.memory[knobs] > 0.05


def test_a_setting_that_delivers_other_clips_is_left_out(corpus: Path) -> None:
    bench = rig(corpus, "loader")
    bench.measure(DEFAULT, 0, 0.02, 60.0)
    bench.config = replace(bench.config, seed=1)
    with pytest.raises(LeftOut, match="other clips"):
        bench.measure(replace(DEFAULT, threads=1), 0, 0.02, 60.0)
    bench.config = replace(bench.config, seed=0, data=replace(bench.config.data, augment=replace(
        bench.config.data.augment, mean=(0.5, 0.5, 0.5))))  # fmt: skip
    with pytest.raises(LeftOut, match="PSNR"):
        bench.measure(replace(DEFAULT, threads=1), 0, 0.02, 60.0)


def test_every_sample_has_a_positive_to_decode_from_the_first_step_on_and_no_weight_changes(corpus: Path) -> None:
    bench = rig(corpus, "step")
    bench.measure(DEFAULT, 0, 0.02, 60.0)
    train = bench._train
    assert train is not None and bool(train.bank.valid.all())
    before = [parameter.detach().clone() for parameter in train.model.parameters()]
    bench.measure(DEFAULT, 1, 0.02, 60.0)
    assert all(torch.equal(a, b) for a, b in zip(before, train.model.parameters(), strict=True))


def test_a_setting_beyond_the_memory_is_left_out(corpus: Path) -> None:
    with pytest.raises(LeftOut, match=r"more than the 0.01 GiB of --memory-gib"):
        rig(corpus, "loader", memory_gib=0.01).measure(DEFAULT, 0, 0.02, 60.0)
    assert 0 < memory_available() < 1 << 20


def test_a_setting_that_does_not_get_under_way_is_left_out(corpus: Path) -> None:
    with pytest.raises(LeftOut, match="took all its time"):
        rig(corpus, "loader").measure(DEFAULT, 0, 0.02, 1e-9)


def test_only_decoders_that_differ_on_this_corpus_are_tried(corpus: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert decoders(Corpus.open(corpus), cpu, "auto") == ["auto", "dali"]
    assert decoders(Corpus.open(corpus), cpu, "host") == ["host", "dali"]
    make_video(tmp_path / "a" / "0.mp4", frames=24, size=(64, 48))
    assert decoders(Corpus.build(tmp_path, "folders", progress=False), cpu, "dali") == ["dali"]


def test_the_worst_sample_decides_on_the_psnr() -> None:
    clips = torch.zeros(2, 1, 3, 1, 4, 4)
    other = clips.clone()
    other[1] += 0.1
    assert lowest_psnr(clips, other, (1.0, 1.0, 1.0)) == pytest.approx(20.0)
    assert lowest_psnr(clips, clips, (1.0, 1.0, 1.0)) > 100


def test_fewer_threads_and_less_prefetch_than_the_default_are_tried() -> None:
    values = space(
        replace(DEFAULT, threads=8, prefetch=3), cores=8, decoder=["auto"], knobs=["threads", "prefetch", "lookahead"]
    )
    assert values == {
        "threads": [1, 2, 4, 6, 8, 12, 16],
        "prefetch": [1, 2, 3, 4, 8],
        "decoder": ["auto"],
        "lookahead": [0, 1, 2],
    }
    assert space(DEFAULT, cores=64, decoder=["auto", "dali"], knobs=["decoder"])["threads"] == [2]


def test_one_turn_of_a_knob_is_proposed_before_two() -> None:
    values = space(DEFAULT, cores=2, decoder=["auto"], knobs=["threads", "prefetch"])
    proposed = proposals(DEFAULT, values, frozenset({DEFAULT}), np.random.default_rng(0))
    assert len(proposed) == len(set(proposed)) == 4 * 4 - 1 and DEFAULT not in proposed
    turned = [(knobs.threads != 2) + (knobs.prefetch != 2) for knobs in proposed]
    assert turned == sorted(turned)
    # Threads 1 and 3, prefetch 1 and 4 are next to 2 and 2.
    assert {(knobs.threads, knobs.prefetch) for knobs in proposed[:4]} == {(1, 2), (3, 2), (2, 1), (2, 4)}


def test_only_what_was_found_is_laid_over_the_base(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("data:\n  threads: 2\n  size: 32\n")
    best = replace(DEFAULT, threads=1, lookahead=2)
    found = Found(best=best, default=DEFAULT)
    chosen = settings(found, ["corpus=/x/y.parquet", "optim.lr=0.5"])
    assert chosen == {"optim.lr": 0.5, "data.threads": 1, "retrieval.lookahead": 2}
    write_tuned(tmp_path / "out" / "tuned.yaml", base, chosen, ["measured"])
    assert (tmp_path / "out" / "tuned.yaml").read_text().startswith("# measured\nbase: ../base.yaml\n")
    config = Config.load(tmp_path / "out" / "tuned.yaml")
    assert (config.data.threads, config.data.size, config.retrieval.lookahead) == (1, 32, 2)
    # A file of defaults alone is a configuration too.
    write_tuned(tmp_path / "plain.yaml", None, {}, ["the default is kept"])
    assert Config.load(tmp_path / "plain.yaml") == Config()
    with pytest.raises(DataError, match="unknown key"):
        write_tuned(tmp_path / "bad.yaml", None, {"data.speed": 1}, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.yaml", "out", "plain.yaml"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "nobody"], "no such file"),
        (["--set", "data.thread=2"], "did you mean"),
        (["--set", "data.batch_size=64"], "batch"),
        (["--write", "tuned.txt"], "ends in .yaml"),
        (["--write", "."], "is a folder"),
        (["--set", *TINY, "--minutes", "0.001"], "at least"),
        (["--set", *TINY, "--memory-gib", "0.001"], "cannot be measured"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    corpus: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(corpus), "--shortest", "0.02", *options]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_file_may_not_be_its_own_base(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("gamma: 0.5\n")
    assert main(["sweep", str(corpus), "--config", str(path), "--write", str(path)]) == 2
    assert "write to another name" in capsys.readouterr().err
    assert path.read_text() == "gamma: 0.5\n"


@pytest.mark.parametrize("knobs", ["threads,nothing", ""])
def test_an_unknown_knob_is_refused(knobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", ".", "--knobs", knobs])
    assert stopped.value.code == 2 and "unknown" in capsys.readouterr().err


def test_a_search_that_is_interrupted_writes_nothing_and_exits_130(corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "sweep", str(corpus), "--set", *TINY, "--shortest", "1"]
    command += ["--write", str(tmp_path / "tuned.yaml"), "--output", str(tmp_path / "result.json")]

    def heed() -> None:
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "rung" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, "".join(lines) + rest
    assert rest.strip() == "bench sweep: stopped"
    assert list(tmp_path.iterdir()) == []


def test_real_videos_are_the_same_under_all_settings(videos: Path) -> None:
    corpus = Corpus.build(videos / "kinetics400", "folders", progress=False)
    bench = Rig(Config.load(None, [*TINY, "data.size=48"]), corpus, "loader", 1e3, DEFAULT)
    for knobs in (DEFAULT, replace(DEFAULT, threads=1, prefetch=1), replace(DEFAULT, threads=3, decoder="dali")):
        assert bench.measure(knobs, 0, 0.02, 120.0) > 0
