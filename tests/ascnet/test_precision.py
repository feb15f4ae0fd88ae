"""Which number formats a run computes in."""

from __future__ import annotations

import pytest
import torch

from ascnet.errors import ConfigError
from ascnet.precision import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [({"amx_bf16": True, "amx_tile": True}, "bf16"), ({"amx_bf16": True, "amx_tile": False}, "fp32"), ({}, "fp32")],
)
def test_auto_is_bf16_only_on_cpus_with_units_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], name: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert Precision("auto", CPU).name == name


def test_auto_is_fp32_where_torch_cannot_say_what_the_cpu_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert Precision("auto", CPU).name == "fp32"


def test_fp16_on_a_cpu_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigError, match="needs a GPU, use bf16 or fp32"):
        Precision("fp16", CPU)
