"""JSON lines, TensorBoard and W&B get the same numbers."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ascnet.config import LogConfig
from ascnet.errors import ConfigError
from ascnet.logs.writers import JsonLines, open_writers

ROOT = Path(__file__).resolve().parents[2]


def rows(*steps: int) -> list[dict[str, Any]]:
    return [{"step": step, "loss": step / 2, "loss_scp": float("nan"), "same": None} for step in steps]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_resumed_run_writes_on_behind_its_checkpoint_in_both_files(tmp_path: Path) -> None:
    first = JsonLines(tmp_path, 0)
    first.write(rows(1, 2), {"step": 2, "rate/wait_share": 0.5})
    first.write(rows(3, 4), {"step": 4, "rate/wait_share": 0.25})
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')
    second = JsonLines(tmp_path, 3)
    second.write(rows(4), {"step": 4, "rate/wait_share": 0.75})
    second.close()
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert lines(tmp_path / "metrics.jsonl")[3] == {"step": 4, "loss": 2.0, "loss_scp": None, "same": None}
    assert [line["rate/wait_share"] for line in lines(tmp_path / "intervals.jsonl")] == [0.5, 0.75]


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on the size of files")
def test_what_a_full_disk_did_not_take_is_written_whole_when_there_is_room_again(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from ascnet.logs.writers import JsonLines

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a file at its limit is an OSError, as a full disk is
writer = JsonLines(Path(sys.argv[1]), 0)
row = {"name": "x" * 50}
writer.write([{"step": step, **row} for step in range(1, 6)], {"step": 5})
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
failed = 0
for step in range(6, 12):
    try:
        writer.write([{"step": step, **row}], {"step": step})
    except OSError:
        failed += 1
    assert Path(sys.argv[1], "metrics.jsonl").read_bytes().endswith(b"}\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
writer.write([{"step": 12, **row}], {"step": 12})
writer.close()
print(failed)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == list(range(1, 13))
    assert [line["step"] for line in lines(tmp_path / "intervals.jsonl")] == list(range(5, 13))


def test_tensorboard_has_the_numbers_of_steps_and_intervals_by_name(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writers = open_writers(tmp_path, 0, LogConfig())
    for writer in writers:
        writer.write(rows(1, 2), {"step": 2, "gpu/sm_load": 0.5})
        writer.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert sorted(board.Tags()["scalars"]) == ["gpu/sm_load", "loss"]
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 0.5), (2, 1.0)]


def test_wandb_that_is_missing_is_one_line_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError) as caught:
        open_writers(tmp_path, 0, LogConfig(tensorboard=False, wandb="clips"))
    assert str(caught.value) == (
        "log.wandb is 'clips', but wandb is not installed: pip install \"dali-pipes[wandb]\", or set log.wandb=null"
    )


def test_folder_called_wandb_is_not_taken_for_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="wandb is not installed"):
        open_writers(tmp_path, 0, LogConfig(tensorboard=False, wandb="clips"))
    sys.modules.pop("wandb", None)


def offline(run: Path, step: int, *steps: int) -> None:
    """Writes steps with W&B's offline mode, in a process of its own: wandb starts threads and a service."""
    code = """
import sys
from pathlib import Path
from ascnet.config import LogConfig
from ascnet.logs.writers import open_writers

writers = open_writers(Path(sys.argv[1]), int(sys.argv[2]), LogConfig(tensorboard=False, wandb="clips"), {"gamma": 0.5})
steps = [{"step": int(step), "loss": int(step) / 2} for step in sys.argv[3:]]
for writer in writers:
    writer.write(steps, {"step": steps[-1]["step"], "gpu/sm_load": 0.5})
    writer.close()
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    words = [sys.executable, "-c", code, str(run), str(step), *map(str, steps)]
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


def stored(data: bytes) -> Iterator[bytes]:
    """Records of a .wandb file: LevelDB's log format, blocks of 32 KiB, behind 7 bytes of its own."""
    place, begun = 7, b""
    while place + 7 <= len(data):
        _, length, kind = struct.unpack_from("<IHB", data, place)
        begun += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768


def test_wandb_works_without_network_and_a_resumed_run_keeps_its_identity(tmp_path: Path) -> None:
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="needs the extra wandb")
    offline(tmp_path, 0, 1, 2)
    offline(tmp_path, 2, 3)
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1
    recorded: list[dict[str, Any]] = []
    for file in files:
        for data in stored(file.read_bytes()):
            record = proto.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                recorded.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    assert [(one["step"], one["loss"], one.get("gpu/sm_load")) for one in recorded] == [
        (1, 0.5, None), (2, 1.0, 0.5), (3, 1.5, 0.5),
    ]  # fmt: skip
