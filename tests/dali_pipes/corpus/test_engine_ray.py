"""Jobs on a real Ray cluster: two machines' worth of Ray on this one, one of them lost in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from make_videos import make_video

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus
from dali_pipes.corpus.engine import Lost, run_all
from dali_pipes.errors import DataError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'dali-pipes[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    ray.init(made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_hanging_and_crashing_items_are_lost_and_the_others_are_not(cluster: Any) -> None:
    slow = dict(run_all(time.sleep, [0, 60, 0], engine="ray", timeout=0.5))
    assert slow == {0: None, 1: Lost("took longer than 0.5 s"), 2: None}
    crashed = dict(run_all(signal.raise_signal, [signal.SIGSEGV, signal.SIGURG], engine="ray"))
    assert crashed == {0: Lost("crashed the decoder (SIGSEGV)"), 1: None}
    assert dict(run_all(os._exit, [3], engine="ray")) == {0: Lost("ended the decoder (exit code 3)")}


def test_a_machine_that_dies_costs_no_item_and_repeats_none(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    seen = []
    for count, (place, result) in enumerate(run_all(time.sleep, [0.15] * 40, engine="ray")):
        seen.append(place)
        assert result is None
        if count == 8:
            cluster.remove_node(node, allow_graceful=False)
    assert sorted(seen) == list(range(40))


def interrupted(command: list[str], now: Callable[[int], bool]) -> str:
    """Runs `dali-pipes`, presses Ctrl-C once `now(process id)`; returns standard error. No process may be left."""
    # A session of its own: its process group gets the signal, as that of a terminal does.
    process = subprocess.Popen(
        [sys.executable, "-m", "dali_pipes.cli", *command], stderr=subprocess.PIPE, text=True, start_new_session=True,
        # Jobs that a shell starts in the background have Ctrl-C switched off, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not now(process.pid):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    deadline = time.monotonic() + 5
    while left := session(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    return said


def session(leader: int) -> list[str]:
    """Commands of the processes of a session, without those that have ended and are not waited for."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == leader and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_ctrl_c_ends_an_index_on_a_cluster_and_the_next_one_goes_on(cluster: Any, tmp_path: Path) -> None:
    folder, output = tmp_path / "videos", tmp_path / "c.parquet"
    first = make_video(folder / "0.mp4", frames=250, size=(320, 240), bframes=2)
    for copy in range(1, 60):
        shutil.copy(first, folder / f"{copy}.mp4")
    command = ["index", str(folder), "-o", str(output), "--thorough", "--engine", "ray", "--address", cluster.address]
    journal = tmp_path / "c.parquet.partial"
    said = interrupted([*command, "--quiet"], lambda _: journal.exists() and journal.read_text().count("\n") > 2)
    assert said == "dali-pipes: interrupted\n"
    assert not output.exists()
    rows = journal.read_text().splitlines()[1:]
    assert 2 <= len(rows) < 60
    # What is taken over can be told by the videos that are no longer there to be probed.
    for copy in range(10, 60):
        os.unlink(folder / f"{copy}.mp4")
    assert main([*command, "--quiet"]) == 0
    assert Corpus.open(output).frames.tolist() == [250] * 10
    assert not journal.exists()


def test_ctrl_c_while_ray_starts_leaves_no_process_of_it(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=20)
    command = ["index", str(tmp_path / "videos"), "-o", str(tmp_path / "c.parquet"), "--engine", "ray"]
    started = interrupted([*command, "--address", "local"], lambda leader: any("raylet" in c for c in session(leader)))
    assert started == "dali-pipes: interrupted\n"


def test_copies_are_made_on_a_cluster(cluster: Any, tmp_path: Path) -> None:
    for name in ("walk/a", "run/b"):
        make_video(tmp_path / "in" / f"{name}.mp4", frames=24, bframes=2)
    Corpus.build(tmp_path / "in", output=tmp_path / "in.parquet", workers=1, progress=False)
    command = ["transcode", str(tmp_path / "in.parquet"), str(tmp_path / "out"), "--engine", "ray", "--quiet"]
    assert main(command) == 0
    copies = Corpus.open(tmp_path / "out" / "corpus.parquet")
    assert copies.usable.all() and copies.column("label").tolist() == ["run", "walk"]
    assert [Path(uri).relative_to(tmp_path / "out").as_posix() for uri in copies.column("uri")] == [
        "run/b.mp4", "walk/a.mp4",
    ]  # fmt: skip


def test_an_address_where_nothing_answers_is_told_at_once() -> None:
    # In a program of its own: this one is connected to a cluster.
    code = "from dali_pipes.corpus.engine import run_all; list(run_all(abs, [1], engine='ray', address='127.0.0.1:1'))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.stderr.splitlines()[-1] == (
        "dali_pipes.errors.DataError: --address 127.0.0.1:1: no Ray cluster answers there: Connection refused"
    )


def test_an_address_needs_the_ray_engine_and_the_engine_must_exist() -> None:
    with pytest.raises(DataError, match="only --engine ray"):
        list(run_all(abs, [1], address="localhost:1"))
    with pytest.raises(DataError, match="local or ray"):
        list(run_all(abs, [1], engine="slurm"))
