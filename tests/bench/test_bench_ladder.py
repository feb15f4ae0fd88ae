"""The rungs: what each reads, decodes and delivers, and that all of them get the same requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from make_videos import make_video

from ascnet.config import Config
from bench.stages.alone import Cut, InOrder, Needed, Plan, Read, on_threads
from bench.stages.alone_graph import Augmented, Copy, DaliDecode, DaliInOrder, Gather, decoded
from bench.stages.ladder import WARM, climb, figures, reading
from bench.stages.rung import Batches, Pass, Rung, Work, decoded_per_frame
from bench.stages.storage_reads import Packets, evict, read, resident
from bench.stages.trainer import Held, Trainer
from bench.stages.whole import FullLoader, FullPass, LoaderAndStep, StepAlone, Training, endless, open_loader
from dali_pipes import Augment, ClipRequest, Corpus, View

TINY = (
    "model.encoder=r3d10 model.width=0.03125 model.projector_hidden=16 model.projector_dim=8 model.predictor_hidden=16 "
    "data.frames=4 data.size=16 data.batch_size=2 data.clips_per_video=4 data.threads=2 device=cpu precision=fp32"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("ladder")
    for number in range(3):
        make_video(folder / f"{number}.mp4", frames=48, size=(64, 48), gop=12, first=100 * number)
    return Corpus.build(folder, progress=False)


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(None, TINY.split())


def work(corpus: Corpus, **changes: Any) -> Work:
    usual: dict[str, Any] = {"frames": 4, "size": 16, "views": 2, "batch_size": 2, "threads": 2}
    usual |= {"device": torch.device("cpu"), "augment": Augment(), "dtype": "float32"}
    return Work(corpus, **(usual | changes))


def requests(*starts: int, video: int = 0) -> list[ClipRequest]:
    return [ClipRequest(video, (View(1.0, at), View(2.0, at))) for at in starts]


def test_bytes_needed_go_from_the_key_frame_to_the_last_packet(corpus: Corpus) -> None:
    video = corpus[0]
    with av.open(video.uri) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    # Without B-frames packets lie in the order of presentation; 26 and 27 need those from key frame 24 on.
    (piece,) = Packets().needed(video, np.array([26, 27]))
    assert piece.offset == places[24][0] and piece.offset + piece.length == sum(places[27])
    apart = Packets().needed(video, np.array([3, 40]))
    assert [one.offset for one in apart] == [places[0][0], places[36][0]]
    assert read(piece) == piece.length < video.bytes


def test_page_cache_is_asked_and_told(corpus: Corpus) -> None:
    path = corpus[0].uri
    Path(path).read_bytes()
    held = resident(path)
    assert held is None or held == 1.0
    evict(path)  # what it forgets is up to the kernel and the file system
    after = resident(path)
    assert after is None or 0 <= after <= 1


def test_frames_decoded_for_each_one_wanted_are_those_from_key_frames_on(corpus: Corpus) -> None:
    # 1x: 14 15 16 17, 2x: 14 16 18 20: five, six with 15 and 17, of 12 to 20: nine are decoded.
    wanted, each = decoded_per_frame(work(corpus), requests(14))
    assert wanted == 6 and each == pytest.approx(9 / 6)


def test_threads_that_find_nothing_left_are_not_counted() -> None:
    def do(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    seconds, _, results = on_threads(do, [0.05, 0.25], 2)
    assert results == [0.05, 0.25]
    # The second thread idles while the first one ends, for 0.2 of the 0.25 s that the clock on the wall shows.
    assert seconds >= 0.15
    assert on_threads(do, [0.02], 4)[0] >= 0.02


@pytest.mark.parametrize("kind", [Read, Plan, Cut, Needed, Gather, Augmented])
def test_rung_does_every_request_of_its_batches(kind: type[Rung], corpus: Corpus) -> None:
    rung = kind(work(corpus))
    batches = [requests(0, 14), requests(5, 20, video=1)]
    assert kind.missing(rung.work, [r for batch in batches for r in batch]) is None
    done = rung.run(batches)
    assert done.samples == 4 and done.seconds > 0 and done.cpu >= 0
    rung.close()


def test_reading_cold_counts_the_same_bytes(corpus: Corpus) -> None:
    batches = [requests(0, 14)]
    assert Read(work(corpus, cold=True)).run(batches).amounts == Read(work(corpus)).run(batches).amounts


def test_decoding_in_order_counts_whole_files(corpus: Corpus) -> None:
    done = InOrder(work(corpus)).run([requests(14), requests(14, video=1)])
    assert done.amounts == {"frames": 96.0}
    assert done.samples == pytest.approx(96 / 6)  # six frames are wanted by each request


def test_what_has_no_meaning_here_says_why(corpus: Corpus) -> None:
    asked = requests(0)
    assert "host decodes" in str(DaliDecode.missing(work(corpus), asked))
    assert "stay on the CPU" in str(Copy.missing(work(corpus), asked))


def test_decoder_of_dali_has_rungs_of_its_own_where_it_decodes(tmp_path: Path) -> None:
    make_video(tmp_path / "a.webm", codec="vp9", frames=30, size=(64, 48), gop=10)
    told = work(Corpus.build(tmp_path, progress=False), decoder="dali")
    assert InOrder.missing(told, requests(0)) == "DALI decodes all of these videos"
    batches = [requests(0, 5), requests(9, 14)]
    for kind in (DaliDecode, DaliInOrder):
        assert kind.missing(told, batches[0]) is None
        rung = kind(told)
        first, second = rung.run(batches), rung.run(batches)
        rung.close()
        assert first.samples == second.samples == (4 if kind is DaliDecode else 30 / 6)
    assert second.amounts == {"frames": 30.0}


def test_graph_is_fed_with_the_frames_that_the_workers_make(corpus: Corpus) -> None:
    told = work(corpus)
    ((sample,),) = decoded(told, [requests(14)])
    assert sample.raw is not None and len(sample.raw) == 6
    np.testing.assert_array_equal(sample.raw, told.preparer(requests(14)[0]).raw)


class Noted(Rung):
    """Notes what it was asked for."""

    def __init__(self, asked: list[tuple[str, Batches]], name: str, seconds: float = 0.0) -> None:
        self.asked, self.name, self.about, self._seconds = asked, name, "", seconds

    def run(self, batches: Batches) -> Pass:
        self.asked.append((self.name, batches))
        time.sleep(self._seconds)
        return Pass(float(len(batches)), 0.5, 0.25, {"MB": 3.0})


def batches_of(number: int) -> list[Sequence[ClipRequest]]:
    return [requests(number + 1, step) for step in range(4)]


def test_all_rungs_of_a_round_get_the_same_requests_and_the_warm_up_is_dropped() -> None:
    asked: list[tuple[str, Batches]] = []
    rungs = {name: Noted(asked, name) for name in "abc"}
    climbed = climb(rungs, batches_of, rounds=5, seconds=1000, seed=0)
    assert [sorted(name for name, _ in asked[at : at + 3]) for at in range(0, 18, 3)] == [["a", "b", "c"]] * 6
    for number in range(-1, 5):
        given = [batches for _, batches in asked[3 * (number + 1) : 3 * (number + 2)]]
        assert given == [batches_of(number)[: WARM if number < 0 else 4]] * 3
    assert len(climbed.passes["a"]) == 5 and not climbed.short
    assert len({tuple(order) for order in climbed.orders}) > 1
    assert climbed.rates("a") == [8.0] * 5


def test_rounds_are_left_out_where_time_is_over_but_not_the_first() -> None:
    climbed = climb({"a": Noted([], "a", 0.05)}, batches_of, rounds=50, seconds=0.01, seed=0)
    assert climbed.short and len(climbed.passes["a"]) == 1


def test_figures_are_of_clips_and_of_what_else_was_counted() -> None:
    found = figures(climb({"a": Noted([], "a")}, batches_of, rounds=2, seconds=1000, seed=0), views=2)
    assert found["a clips/s"]["median"] == 16 and found["a clips/s"]["better"] == "higher"
    assert found["a CPU s/clip"]["median"] == pytest.approx(0.25 / 4 / 2) and found["a CPU s/clip"]["better"] == "lower"
    assert found["a MB/s"] | {"low": 6, "high": 6, "median": 6} == found["a MB/s"]


def test_gaps_between_rungs_are_put_into_words() -> None:
    class At(Noted):
        def run(self, batches: Batches) -> Pass:
            return Pass(self._seconds, 1.0, 1.0)

    rates = {"read": 1000.0, "decode in order": 40.0, "decode needed": 10.0, "loader": 9.0, "step": 6.0}
    rungs = {name: At([], name, rate) for name, rate in (rates | {"loader + step": 4.5}).items()}
    told = reading(climb(rungs, batches_of, rounds=1, seconds=9, seed=0), 3.5, cold=False, warm=0.5)
    text = " ".join(told)
    assert "(50% in the page cache) come 100 times as fast" in text
    assert "cost 4 times" in text and "3.5 frames are decoded for each one wanted" in text
    assert "90% of its slowest part alone (decode needed)" in text
    assert "1.5 times what the step takes" in text and "75% of the slower of the two alone (step)" in text


def test_loader_is_timed_over_exactly_the_requests_of_a_round(corpus: Corpus, config: Config) -> None:
    with open_loader(config, corpus, torch.device("cpu")) as loader:
        asked = [loader.requests(2, step) for step in range(3)]
        stream = endless(loader, asked, 2)
        given = [next(stream).requests for _ in range(5)]
        last = len(loader) - 2
        assert [list(one) for one in given] == [loader.requests(1, last), loader.requests(1, last + 1), *asked]


def test_whole_loader_reports_its_clocks_and_leaves_nothing_on_the_way(corpus: Corpus, config: Config) -> None:
    rung = FullLoader(work(corpus), config)
    try:
        asked = [rung.loader.requests(2, step) for step in range(3)]
        done = rung.run(asked)
        assert isinstance(done, FullPass) and done.samples == 6
        assert {"plan", "read", "decode", "graph"} <= {stage.name for stage in done.observed.stages}
        assert done.observed.rate == pytest.approx(6 / done.reading.seconds)
        assert rung.loader._stream.pending == 0
        assert rung.run(asked).samples == 6
    finally:
        rung.close()


def test_step_trains_on_held_clips_and_on_what_the_loader_brings(corpus: Corpus, config: Config) -> None:
    torch.set_num_threads(1)
    told = work(corpus)
    training = Training(told, config)
    alone, both = StepAlone(told, training), LoaderAndStep(told, training)
    try:
        asked = [both.loader.requests(2, step) for step in range(3)]
        assert alone.run(asked).samples == 6
        done = both.run(asked)
        assert isinstance(done, FullPass) and done.samples == 6
        assert {"step", "fetch", "decode"} <= {stage.name for stage in done.observed.stages}
        assert done.observed.stage("step").cpu > 0
    finally:
        alone.close()
        both.close()


def test_held_clips_stand_in_for_the_positives_asked_for(corpus: Corpus, config: Config) -> None:
    torch.set_num_threads(1)
    with open_loader(config, corpus, torch.device("cpu")) as loader:
        held = Held([next(iter(loader))], loader.sampler)
    held.submit(requests(3, video=2))
    batch = held.get()
    assert batch.clips.shape == (1, 1, 3, 4, 16, 16) and batch.requests[0].video == 2
    trainer = Trainer(config, corpus, torch.device("cpu"))
    before = [p.detach().clone() for p in trainer._train.model.online.parameters()]
    trainer.steps(trainer.ahead(held, held), 2)
    after = trainer._train.model.online.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
