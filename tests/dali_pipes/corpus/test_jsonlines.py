"""Records that survive a crash, in a file that one process holds at a time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dali_pipes.corpus.jsonlines import JsonLines
from dali_pipes.errors import DataError


def opened(path: Path, *, stop: int | None = None) -> tuple[JsonLines, list[dict[str, Any]]]:
    """The file and the records that count: those before number `stop`."""
    found: list[dict[str, Any]] = []

    def take(record: dict[str, Any]) -> bool:
        if len(found) == stop:
            return False
        found.append(record)
        return True

    return JsonLines(path, path.with_suffix(""), take), found


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    records = [{"n": 1, "name": "видео \N{GRINNING FACE} \udcff"}, {"n": 2}]
    lines, found = opened(tmp_path / "a.jsonl")
    assert found == []
    for record in records:
        lines.add(record)
        # At once, and not when it is closed.
        assert (tmp_path / "a.jsonl").read_text().count("\n") == record["n"]
    lines.close()
    lines, found = opened(tmp_path / "a.jsonl")
    lines.close()
    assert found == records


@pytest.mark.parametrize("torn", [b'{"n": 2', b'{"n": 2}', b"\0\0\0\n", b"\xff\xfe\n", b"[2]\n", b"2\n", b"\n"])
def test_a_torn_line_and_what_follows_is_cut_off_and_the_file_grows_from_there(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' + torn + (b'{"n": 3}\n' if torn.endswith(b"\n") else b""))
    lines, found = opened(path)
    with closing(lines):
        assert found == [{"n": 1}]
        lines.add({"n": 4})
    assert path.read_bytes() == b'{"n": 1}\n{"n": 4}\n'


def test_records_that_do_not_count_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(1000)))
    opened(path, stop=700)[0].close()
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == list(range(700))


def test_only_one_holds_it_until_it_is_closed_also_after_it_was_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines, _ = opened(path)
    with pytest.raises(DataError, match="a: another process is writing it"):
        opened(path)
    lines.rewrite({"n": n} for n in range(3))
    with pytest.raises(DataError, match="another process"):
        opened(path)
    lines.add({"n": 3})
    lines.close()
    again, found = opened(path)
    again.close()
    assert found == [{"n": n} for n in range(4)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_rewrite_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines, _ = opened(path)
    lines.add({"n": 1})
    with pytest.raises(TypeError):
        lines.rewrite([{"n": 2}, {"n": object()}])
    lines.add({"n": 3})
    lines.close()
    assert path.read_text() == '{"n": 1}\n{"n": 3}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_who_opened_the_file_before_it_was_replaced_gets_the_new_one(tmp_path: Path) -> None:
    """Between the opening and the lock another process may finish; what is added then must not be lost with it."""
    path = tmp_path / "a.jsonl"

    class Late(JsonLines):
        turns = 0

        def _lock(self, file: Any) -> None:
            Late.turns += 1
            if Late.turns == 1:  # the one before ends at this moment
                path.unlink()
                path.write_text('{"n": 1}\n')
            elif Late.turns == 2:
                path.unlink()
            super()._lock(file)

    path.write_text('{"n": 0}\n')
    lines = Late(path, path, lambda record: True)
    lines.add({"n": 2})
    lines.close()
    assert Late.turns == 3
    assert path.read_text() == '{"n": 2}\n'


def test_a_disk_that_is_full_is_an_error_once_and_costs_no_earlier_record(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dali_pipes.corpus.jsonlines import JsonLines\n"
        "lines = JsonLines(Path(sys.argv[1]), Path('a'), lambda record: True)\n"
        "try:\n"
        "    for n in range(1000):\n"
        "        lines.add({'n': n})\n"
        "except OSError as error:\n"
        "    print(n, error.strerror)\n"
        "lines.close()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jsonl")], capture_output=True, text=True, timeout=60,
        # The nearest to a full disk that needs no disk: no file may become larger than this.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )  # fmt: skip
    assert (ended.stdout.split(" ", 1)[1], ended.stderr, ended.returncode) == ("File too large\n", "", 0)
    lines, found = opened(tmp_path / "a.jsonl")
    lines.close()
    assert found == [{"n": n} for n in range(int(ended.stdout.split()[0]))]
