"""Files that appear whole or not at all, as readable as any other of the user's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dali_pipes.writing import replacing, temporary_prefix


def test_the_file_appears_at_the_end_and_the_earlier_one_stays_until_then(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("earlier")
    with replacing(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(temporary_prefix(target)) and temporary.name.endswith(".tmp")
        temporary.write_text("new")
        assert target.read_text() == "earlier"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("earlier", ["earlier", None])
def test_an_error_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, error: type[BaseException], earlier: str | None
) -> None:
    target = tmp_path / "result.json"
    if earlier is not None:
        target.write_text(earlier)
    with pytest.raises(error), replacing(target) as temporary:
        temporary.write_text("half")
        raise error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({target.name: earlier} if earlier else {})


def test_an_error_is_not_hidden_where_the_temporary_file_is_gone_already(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the writer's own"), replacing(tmp_path / "a") as temporary:
        temporary.unlink()
        raise ValueError("the writer's own")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a") as temporary:
        temporary.unlink()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mask_of_the_process_says_who_may_read_it(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "ours") as temporary:
            temporary.write_text("")
        (tmp_path / "plain").write_text("")
    finally:
        os.umask(before)
    modes = {name: os.stat(tmp_path / name).st_mode & 0o777 for name in ("ours", "plain")}
    assert modes == {"ours": 0o666 & ~mask, "plain": 0o666 & ~mask}


def test_where_nothing_can_be_written_the_error_says_so_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "a"):
        pytest.fail("there is no folder to write to")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), replacing(tmp_path / "folder") as temporary:
        temporary.write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_names_as_long_as_may_be_and_in_any_script_will_do(tmp_path: Path) -> None:
    for name in ("a" * 255, "\N{GRINNING FACE}" * 63, "\udcff.mp4"):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text(name[0].encode(errors="surrogateescape").hex())
        assert (tmp_path / name).is_file()
    assert len(list(tmp_path.iterdir())) == 3


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with replacing(target) as one, replacing(target) as other:
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("earlier")
    code = (
        "import sys, time\n"
        "from dali_pipes.writing import replacing\n"
        "with replacing(sys.argv[1]) as temporary, temporary.open('w') as file:\n"
        "    file.write('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        # A job that a shell starts in the background has Ctrl-C switched off, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "earlier"}
