"""The proof of the verdict: a stage slowed by a known amount is named, and what it costs is estimated within 20 %.

Every amount is larger than whatever else happens, and the pace without it is set by another known pause, so that a busy
machine changes neither much. A pair of runs that was disturbed all the same is run again with all of its pauses twice
as long; a model that is wrong is wrong each time. Where no pace can be kept, because others have all of the machine,
nothing can be shown.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from loader_checks import corpus_of, make_plain

from bench import Profile, profile_loader
from bench.verdict import Change, predict
from dali_pipes import Corpus, SpeedLoader, pipeline, prepare

BATCH = 2
# Seconds a sample: the step's own, which is the limit where nothing is slowed, and what is added to a stage.
BASE, ADDED = 0.02, 0.06
# Pauses of the first run, and of those after it.
SCALES = (1, 2, 4)
# Share of the pace that the pauses set which a machine must reach for anything to be shown.
KEPT = 0.75


class SlowStorage(LocalFileSystem):
    """Files of this machine, the beginning of each of which takes a while to come: once for every time it is opened."""

    protocol = "slow"
    pause = 0.0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        time.sleep(0.0 if start else type(self).pause)
        return bytes(super().cat_file(path, start, end, **kwargs))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_plain(tmp_path_factory.mktemp("plain"), 6, 64, codec="h264", suffix=".mp4")


@pytest.fixture(scope="module")
def corpus(paths: list[Path]) -> Corpus:
    return corpus_of(paths)


@pytest.fixture
def stored(paths: list[Path]) -> Iterator[Corpus]:
    """The same videos behind storage that can be slowed."""
    fsspec.register_implementation("slow", SlowStorage, clobber=True)
    SlowStorage.pause = 0.0
    yield corpus_of([f"slow://{path}" for path in paths])
    SlowStorage.pause = 0.0


def profiled(corpus: Corpus, pause: float, *, threads: int = 1, batches: int = 10) -> Profile:
    """A profile of a loader beside a step that takes so many seconds a sample."""
    with SpeedLoader(
        corpus, frames=8, size=56, batch_size=BATCH, device="cpu", threads=threads, clips_per_video=50
    ) as loader:
        return profile_loader(loader, step=lambda batch: time.sleep(pause * len(batch)), batches=batches, warmup=3)


def burn(seconds: float) -> None:
    """Computes, without the interpreter's lock, for so many seconds of CPU time."""
    data, end = bytes(1 << 17), time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(data).digest()


def slowed(function: Callable[..., Any], by: Callable[[float], None], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        by(seconds)
        return function(*arguments, **named)

    return slow


def check(
    stage: str,
    kind: str,
    fast: Callable[[int], Profile],
    slow: Callable[[int], Profile],
    resources: tuple[str, ...],
    *,
    pause: float = BASE,
    added: float = ADDED,
) -> None:
    """Names and estimates must be right.

    Args:
        stage: The one that is slowed.
        kind: How: "cpu" or "blocked".
        fast: A run without the slow-down, all pauses so many times as long.
        slow: A run with it.
        resources: What may bind.
        pause: Seconds a sample that set the pace of the fast run.
        added: Seconds a sample that the slow run has on top.
    """
    said = ""
    for scale in SCALES:
        usual = fast(scale)
        kept = usual.rate * pause * scale
        if kept < KEPT:
            continue
        profile = slow(scale)
        verdict, observed = profile.verdict, profile.observed
        told = predict(observed, Change(stages=(observed.stage(stage).less(**{kind: added * scale}),)))
        lost, estimated = 1 - profile.rate / usual.rate, 1 - profile.rate / told
        rates = f"{usual.rate:.1f}/s, slowed {profile.rate:.1f}/s, from which {told:.1f}/s are predicted"
        said = f"{rates}\n{observed}\n{verdict}"
        named = verdict.stage == stage and verdict.resource in resources
        if named and abs(told / usual.rate - 1) < 0.2 and abs(estimated / lost - 1) < 0.2:
            # All of the stage costs what was added to it, or a little more.
            assert verdict.loss is not None and verdict.loss >= estimated - 1e-9
            return
    if not said:
        pytest.skip(f"the machine is too busy: {kept:.0%} of the pace that the pauses allow")
    pytest.fail(said)


def test_slow_storage_is_named_and_its_cost_estimated(stored: Corpus) -> None:
    def slow(scale: int) -> Profile:
        SlowStorage.pause = ADDED * scale
        return profiled(stored, BASE * scale)

    def fast(scale: int) -> Profile:
        SlowStorage.pause = 0.0
        return profiled(stored, BASE * scale)

    check("read", "blocked", fast, slow, ("workers",))


@pytest.mark.parametrize(("by", "kind"), [(time.sleep, "blocked"), (burn, "cpu")])
def test_slow_decoding_is_named_and_its_cost_estimated(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, by: Callable[[float], None], kind: str
) -> None:
    usual = prepare.decode_frames

    def slow(scale: int) -> Profile:
        monkeypatch.setattr(prepare, "decode_frames", slowed(usual, by, ADDED * scale))
        return profiled(corpus, BASE * scale)

    def fast(scale: int) -> Profile:
        monkeypatch.setattr(prepare, "decode_frames", usual)
        return profiled(corpus, BASE * scale)

    # On a machine that is busy otherwise it is the cores that computing lacks.
    check("decode", kind, fast, slow, ("workers",) if kind == "blocked" else ("workers", "cores"))


@pytest.mark.parametrize(("by", "kind"), [(time.sleep, "blocked"), (burn, "cpu")])
def test_slow_augmentation_is_named_and_its_cost_estimated(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, by: Callable[[float], None], kind: str
) -> None:
    usual = pipeline.feed

    def slow(scale: int) -> Profile:
        monkeypatch.setattr(pipeline, "feed", slowed(usual, by, ADDED * BATCH * scale))
        return profiled(corpus, BASE * scale)

    def fast(scale: int) -> Profile:
        monkeypatch.setattr(pipeline, "feed", usual)
        return profiled(corpus, BASE * scale)

    check("graph", kind, fast, slow, ("graph",) if kind == "blocked" else ("graph", "cores"))


def test_a_slow_training_step_is_named_and_its_cost_estimated(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = prepare.decode_frames

    def run(scale: int, added: float) -> Profile:
        # What the step is slower than: decoding, by a pause that both runs have.
        monkeypatch.setattr(prepare, "decode_frames", slowed(usual, time.sleep, 2 * BASE * scale))
        return profiled(corpus, (BASE + added) * scale)

    def slow(scale: int) -> Profile:
        profile = run(scale, 2 * ADDED)
        if profile.verdict.stage == "step":
            assert "The data are not the limit" in str(profile)
        return profile

    check("step", "blocked", lambda scale: run(scale, 0.0), slow, ("consumer",), pause=2 * BASE, added=2 * ADDED)


def test_threads_make_up_for_slow_decoding_as_predicted(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, said = prepare.decode_frames, ""
    for scale in SCALES:
        monkeypatch.setattr(prepare, "decode_frames", slowed(usual, time.sleep, 4 * BASE * scale))
        one = profiled(corpus, BASE * scale, threads=1)
        two = profiled(corpus, BASE * scale, threads=2)
        told = predict(one.observed, Change(threads={"workers": 2}))
        if abs(told / two.rate - 1) < 0.2:
            assert "threads=" in str(one.verdict)
            return
        if two.rate * 2 * BASE * scale >= KEPT:
            said = f"{told:.1f}/s predicted, {two.rate:.1f}/s measured\n{one}\n{two}"
    if not said:
        pytest.skip("the machine is too busy for the pace that the pauses allow")
    pytest.fail(said)
