"""`python -m bench compare`: what is better, worse or within noise, and what ends it with 1 or 2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.measure.changes import change, compared, ratio_interval
from bench.measure.figures import Better, figure

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
STEADY = [10.0, 10.1, 9.9, 10.0, 10.05]


def scaled(factor: float, values: Sequence[float] = STEADY) -> list[float]:
    return [factor * value for value in values]


def write(path: Path, figures: Mapping[str, Any], **changes: Any) -> Path:
    result = {
        "format": 1,
        "benchmark": "loader",
        "arguments": {"size": 112},
        "environment": {"cpu": "A", "cores_usable": 2, "gpus": [], "packages": {"torch": "2"}},
        "corpus": {"fingerprint": "f"},
        "figures": figures,
    }
    path.write_text(json.dumps(result | changes))
    return path


def two(tmp_path: Path, factor: float, better: Better = "higher", values: Sequence[float] = STEADY) -> list[str]:
    old = write(tmp_path / "a.json", {"rate": figure(list(values), "x", better)})
    new = write(tmp_path / "b.json", {"rate": figure(scaled(factor, values), "x", better)})
    return ["compare", str(old), str(new)]


@pytest.mark.parametrize(
    ("factor", "better", "verdict", "loss"),
    [
        (0.8, "higher", "worse", 0.2),
        (1.3, "higher", "better", -0.3),
        (1.3, "lower", "worse", 0.3),
        (0.8, "lower", "better", -0.2),
        (1.0, "higher", "within noise", 0.0),
        (1.001, "lower", "within noise", 0.001),
    ],
)
def test_a_change_is_judged_by_its_interval_and_the_good_direction(
    factor: float, better: Better, verdict: str, loss: float
) -> None:
    found = change("it", figure(STEADY, "x", better), figure(scaled(factor), "x", better))
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(factor) and found.loss == pytest.approx(loss)
    assert found.low is not None and found.high is not None and found.low <= found.ratio <= found.high


def test_the_interval_comes_from_the_rounds_of_both_and_is_the_same_every_time() -> None:
    assert ratio_interval([2.0] * 5, [3.0] * 5) == (1.5, 1.5)
    low, high = ratio_interval([1.0, 2.0, 4.0], [2.0])
    assert (low, high) == (0.5, 2.0) == ratio_interval([1.0, 2.0, 4.0], [2.0])


def test_without_rounds_the_interval_is_what_both_intervals_allow() -> None:
    old = {"median": 10.0, "low": 8.0, "high": 12.5, "unit": "x", "better": "higher"}
    new = {"median": 9.0, "low": 7.5, "high": 10.0, "unit": "x", "better": "higher"}
    found = change("it", old, new)
    assert (found.low, found.high) == (7.5 / 12.5, 10.0 / 8.0)
    assert found.verdict == "within noise"


def test_what_is_not_above_zero_has_no_ratio_and_fails_nothing() -> None:
    gone = change("it", figure([0.0, 0.0], "s", "lower"), figure([1.0, 1.0], "s", "lower"))
    assert (gone.verdict, gone.ratio, gone.fails(0.0)) == ("no ratio", None, False)
    assert change("it", figure(0.0, "s", "lower"), figure(0.0, "s", "lower")).verdict == "within noise"
    null = {"median": None, "low": None, "high": None, "unit": "s", "better": "lower"}
    assert change("it", null, figure(1.0, "s", "lower")).verdict == "no ratio"


def test_the_greatest_loss_comes_first_whatever_the_direction() -> None:
    old = {"a": figure(10.0, "x", "higher"), "b": figure(10.0, "s", "lower"), "c": figure(0.0, "s", "lower")}
    new = {"a": figure(9.0, "x", "higher"), "b": figure(12.0, "s", "lower"), "c": figure(1.0, "s", "lower")}
    assert [one.name for one in compared(old, new, "abc")] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("factor", "better", "threshold", "code"),
    [
        (0.80, "higher", "0.15", 1),
        (0.90, "higher", "0.15", 0),
        (0.90, "higher", "0.05", 1),
        (1.20, "lower", "0.15", 1),
        (0.80, "lower", "0.15", 0),
    ],
)
def test_a_loss_past_the_threshold_ends_with_1(
    factor: float, better: Better, threshold: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*two(tmp_path, factor, better), "--threshold", threshold]) == code
    assert ("FAILED" in capsys.readouterr().out) == bool(code)


def test_a_loss_that_noise_explains_does_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(two(tmp_path, 0.8, values=[5.0, 10.0, 15.0, 9.0, 12.0])) == 0
    assert "1 within noise" in capsys.readouterr().out


def test_only_chooses_by_name_or_by_being_a_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def figures(factor: float) -> dict[str, Any]:
        rate, share = scaled(factor), scaled(1 / factor)
        return {"ours pairs/s": figure(rate, "pairs/s", "higher"), "ours / it": figure(share, "x", "higher")}

    files = [str(write(tmp_path / f"{name}.json", figures(at))) for name, at in (("a", 1.0), ("b", 0.5))]
    assert main(["compare", *files]) == 1
    assert main(["compare", *files, "--only", "ratios"]) == 0
    assert main(["compare", *files, "--only", "^ours /"]) == 0
    assert main(["compare", *files, "--only", "pairs"]) == 1
    assert main(["compare", *files, "--only", "nothing"]) == 2
    assert "no figure that --only nothing finds is in both" in capsys.readouterr().err


def test_other_surroundings_and_figures_of_one_side_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = two(tmp_path, 1.0)
    write(
        tmp_path / "b.json",
        {"rate": figure(STEADY, "x", "higher"), "new": figure(1.0, "x", "higher")},
        environment={"cpu": "B", "cores_usable": 2, "gpus": [], "packages": {"torch": "3"}},
        corpus={"fingerprint": "g"},
        arguments={"size": 224, "later": 1},
    )
    assert main(arguments) == 0
    said = capsys.readouterr().err
    for line in (
        "cpu differs: A, then B",
        "package torch differs: 2, then 3",
        "corpus fingerprint differs: f, then g",
        "argument size differs: 112, then 224",
        "different machines",
        "only in b.json: new",
    ):
        assert f"warning: {line}" in said
    assert "later" not in said and "cores_usable" not in said


def test_the_comparison_is_written(tmp_path: Path) -> None:
    output = tmp_path / "c.json"
    assert main([*two(tmp_path, 0.5), "--output", str(output)]) == 1
    result = json.loads(output.read_text())
    assert result["benchmark"] == "compare" and result["of"] == "loader" and result["failed"] == ["rate"]
    assert result["figures"]["rate"]["median"] == pytest.approx(0.5)
    assert result["changes"][0]["verdict"] == "worse"
    assert str(tmp_path) not in output.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[1]", "no key 'benchmark'"),
        ('{"benchmark": "size", "figures": {}}', "compare two of the same benchmark"),
        ('{"benchmark": "loader"}', "has no figures; measure again"),
        ('{"benchmark": "loader", "figures": {"rate": {"median": 1}}}', "needs median, low, high, unit and better"),
        ('{"benchmark": "loader", "figures": {"rate": 3}}', "not the shape of a result"),
        ('{"benchmark": "loader", "figures": [1]}', "not the shape of a result"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_2(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = two(tmp_path, 1.0)
    bad = Path(arguments[2])
    bad.unlink()
    if text is not None:
        bad.write_text(text)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0] and str(bad) in error[0]


def test_a_figure_in_another_unit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = two(tmp_path, 1.0)
    write(Path(arguments[2]), {"rate": figure(STEADY, "clips/s", "higher")})
    assert main(arguments) == 2
    assert "unit of 'rate' is clips/s, elsewhere x" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--only", "("], ["--threshold", "-1"], ["--threshold", "much"]])
def test_a_wrong_option_is_refused_as_such(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "a.json", "b.json", *option])
    assert stopped.value.code == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize("rounds", [True, False])
def test_results_from_before_there_were_figures_can_be_compared(
    rounds: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def turn(factor: float) -> dict[str, Any]:
        def one(rate: float) -> dict[str, float]:
            return {"samples": 4, "seconds": 4 / rate, "samples_per_second": rate, "cpu_seconds_per_sample": 1 / rate}

        return {"order": ["ours", "x"], "figures": {"ours": one(factor * 10.0), "x": one(5.0)}}

    def known(value: float) -> dict[str, float]:
        return {"median": value, "low": value, "high": value, "count": 1}

    def part(factor: float) -> dict[str, Any]:
        rate = factor * 10.0
        summary: dict[str, Any] = {
            "ours": {"samples_per_second": known(rate), "cpu_seconds_per_sample": known(1 / rate)},
            "x": {"samples_per_second": known(5.0), "cpu_seconds_per_sample": known(0.2)}
            | {"ratio_of_ours": known(rate / 5)},
        }
        return {"summary": summary} | ({"rounds": [turn(factor)] * 3} if rounds else {})

    files = []
    for name, factor in (("a", 1.0), ("b", 0.5)):
        path = write(tmp_path / f"{name}.json", {}, windows={"shared": part(factor)})
        files.append(str(path))
    output = tmp_path / "c.json"
    assert main(["compare", *files, "--output", str(output)]) == 1
    changes = {one["name"]: one for one in json.loads(output.read_text())["changes"]}
    assert changes["ours / x (shared)"]["before"] == 2.0 and changes["ours / x (shared)"]["after"] == 1.0
    assert {name: one["verdict"] for name, one in changes.items()} == {
        "ours pairs/s (shared)": "worse",
        "ours CPU s/pair (shared)": "worse",
        "x pairs/s (shared)": "within noise",
        "x CPU s/pair (shared)": "within noise",
        "ours / x (shared)": "worse",
    }


def test_results_of_all_commands_that_are_committed_equal_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(path for path in RESULTS.glob("*.json") if not path.name.startswith("fuzz-"))
    assert {"loader", "embed", "overhead", "size"} <= {path.name.partition("-")[0] for path in files}
    for path in files:
        assert main(["compare", str(path), str(path)]) == 0, path.name
    assert "warning" not in capsys.readouterr().err
