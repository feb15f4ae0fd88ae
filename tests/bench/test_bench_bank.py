"""`python -m bench bank`: nobody is timed who finds other rows, and nothing is made that does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bank_reference import reference as looped
from bank_reference import unit_case
from torch import Tensor

from bench.__main__ import main
from bench.bank.searches import DTYPES, Faiss, Ours, Plain, Setting, differs, make_bank, reference
from bench.commands.bank import absent, compare, fitting, judge
from bench.measure.bandwidth import cache_bytes, free_bytes, measure

CPU = torch.device("cpu")


class Stale(Ours):
    """Finds the neighbours of the query before."""

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return super().search(query.roll(1, dims=0), k)


def setting(**changes: object) -> Setting:
    usual = {"rows": 3000, "dim": 16, "dtype": "fp32", "batch": 8, "k": 2, "device": CPU}
    return Setting(**(usual | changes))  # type: ignore[arg-type]


def test_reference_has_the_scores_of_a_loop_in_float64() -> None:
    case = unit_case(300, 16, 7, torch.bfloat16)
    case.valid[:] = True
    expected, _ = looped(case, 4, own=False, groups=False)
    torch.testing.assert_close(reference(case.features, case.query, 4), expected)


def test_equal_rows_may_come_in_any_order_and_others_may_not() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.0]])
    expected = reference(rows, query, 2)
    assert differs(rows, query, expected, torch.tensor([[0, 1]])) == ""
    assert differs(rows, query, expected, torch.tensor([[1, 0]])) == ""
    assert "other rows for 1 of 1" in differs(rows, query, expected, torch.tensor([[0, 2]]))
    assert "twice" in differs(rows, query, expected, torch.tensor([[0, 0]]))
    assert "no rows" in differs(rows, query, expected, torch.tensor([[0, -1]]))
    assert "(1, 1)" in differs(rows, query, expected, torch.tensor([[0]]))


def test_who_finds_other_rows_is_wrong_at_any_size_of_a_batch() -> None:
    bank, query = make_bank(setting(), seed=0)
    wrong = compare({"ours": Ours(bank), "stale": Stale(bank), "torch": Plain(bank)}, query, [1, 8], 2)
    # A query alone is its own predecessor, so that only the larger batch tells.
    assert list(wrong) == ["stale"] and "batches of 8" in wrong["stale"]


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_faiss_finds_the_rows_of_float64_or_is_said_to_differ(dtype: str) -> None:
    pytest.importorskip("faiss")
    bank, query = make_bank(setting(dtype=dtype), seed=0)
    wrong = compare({"faiss": Faiss(bank)}, query, [8], 2)
    # It rounds queries to bfloat16 where rows are, which may exchange rows.
    assert not wrong or dtype == "bf16"


def test_faiss_without_gpu_code_is_missing_on_a_gpu() -> None:
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this faiss has GPU code")
    assert "no GPU index" in Faiss.refuses(setting(device=torch.device("cuda")))


def test_what_does_not_fit_is_left_out_before_it_is_made() -> None:
    small, large = setting(), setting(rows=10**12)
    fit, out = fitting([small, large], 10**9)
    assert fit == [small]
    assert out[0]["setting"].startswith("1000000000000 x 16") and "of 1.0 GB" in out[0]["reason"]
    assert fitting([setting(rows=1)], 10**9)[1][0]["reason"] == "k is 2; it has fewer rows"
    # Ours has room, the peer's matrix of all scores has not.
    wide = setting(rows=100_000, batch=10_000)
    assert fitting([wide], 10**9)[0] == [wide]
    assert "torch" in absent(wide, 10**9) and "ours" not in absent(wide, 10**9)


def test_goal_is_held_against_the_most_rows_and_the_largest_batch() -> None:
    def bank(rows: int, dtype: str, *shares: float) -> dict[str, object]:
        batches = {str(4 ** (2 * n)): {"share_of_bandwidth": {"ours": [s]}} for n, s in enumerate(shares)}
        return {"rows": rows, "dim": 8, "dtype": dtype, "batches": batches}

    banks = [bank(100, "fp32", 0.1, 0.1), bank(1000, "fp32", 0.1, 0.9), bank(1000, "fp16", 0.1, 0.7)]
    assert judge(banks, 0.6)["met"]
    found = judge(banks, 0.8)
    assert not found["met"] and found["shares"] == {"fp32": 0.9, "fp16": 0.7} and found["rows"] == 1000
    assert judge(banks, None) == {}


def test_bandwidth_is_measured_over_a_buffer_that_fits() -> None:
    found = measure(CPU, turns=1)
    assert found.read > 0 and found.copy > 0 and found.best == max(found.read, found.copy)
    assert found.buffer <= free_bytes(CPU) and cache_bytes(CPU) >= 0


def test_command_compares_times_and_writes_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bank", "--rows", "500", str(10**12), "--dim", "16", "--batch", "1", "4", "--k", "3", "--rounds", "2"]
    command += ["--device", "cpu", "--threads", "1", "--memory", "1.5", "--output", str(tmp_path / "r.json")]
    threads = torch.get_num_threads()
    assert main([*command, "--dtype", "fp32", "fp16"]) == 0
    assert torch.get_num_threads() == threads
    result = json.loads((tmp_path / "r.json").read_text())
    assert [bank["dtype"] for bank in result["banks"]] == ["fp32", "fp16"]
    assert len(result["left_out"]) == 2 and result["benchmark"] == "bank"
    assert "same as torch" in result["banks"][0]["missing"]["torch-fp32"]
    where = "(500 x 16 fp32, batch 4)"
    for name in ("ours queries/s", "ours / torch queries/s", "ours share of bandwidth", "ours updated rows/s"):
        assert result["figures"][f"{name} {where}"]["count"] == 2, name
    part = result["banks"][0]["batches"]["4"]
    share, seconds = part["share_of_bandwidth"]["ours"][0], part["search_ms"]["ours"][0] / 1000
    assert result["banks"][0]["bytes"] == 500 * (16 * 4 + 1)
    assert share == pytest.approx(result["banks"][0]["bytes"] / seconds / result["bandwidth"]["best"])
    assert "left out" in capsys.readouterr().out
    assert main([*command, "--dtype", "fp32", "--require", "1e9"]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for more, told in (
        (["--memory", "0"], "--memory 0: must be more"),
        (["--device", "meta"], "--device meta: expected one of cpu, cuda"),
        (["--device", "tpu"], "--device is 'tpu'; expected auto, cpu, cuda"),
        (["--rows", str(10**12), "--device", "cpu"], "nothing fits: 1000000000000 x 64 fp32: needs"),
    ):
        assert main(["bank", *more]) == 2
        assert told in capsys.readouterr().err
