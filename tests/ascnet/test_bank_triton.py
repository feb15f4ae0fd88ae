"""The kernel of the memory bank without a GPU: its answers under the interpreter, its code from the compiler."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="the package triton is not installed")

HERE = Path(__file__).resolve().parent
# Shared memory that one program may have, in bytes (CUDA C++ Programming Guide, table of compute capabilities).
SHARED = {(8, 0): 163 << 10, (8, 6): 99 << 10, (9, 0): 227 << 10, (10, 0): 227 << 10}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def test_kernel_answers_as_the_reference_under_the_interpreter() -> None:
    # Triton decides between compiler and interpreter when a kernel is defined: that wants a process of its own.
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / "bank_kernel_checks.py")]
    done = subprocess.run(command, cwd=HERE.parent.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 50


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("k", [1, 16])
def test_kernel_fits_the_device_and_fetches_rows_ahead(
    name: str, capability: tuple[int, int], k: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ascnet.bank.kernel import PARTS, blocks, walk_rows

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    dtype, dim = DTYPES[name], 256
    size = blocks(dtype, dim, capability, 64, k)
    constants = {
        **{"D": dim, "K": k, "BY_GROUP": True, "UPCAST": False},
        **{"PARTS": PARTS[dtype][0], "FACTOR": PARTS[dtype][1]},
        **{"BLOCK_Q": size.queries, "BLOCK_N": size.rows, "BLOCK_D": dim, "STAGES": size.stages},
    }
    pointers = {"features": name, "query": name, "valid": "u8", "videos": "i32", "scores": "fp32"}
    pointers |= dict.fromkeys(("groups", "own", "own_groups"), "i64")
    signature, aligned, folded = {}, {}, {}
    for place, argument in enumerate(walk_rows.arg_names):
        if argument in constants:
            signature[argument], folded[(place,)] = "constexpr", constants[argument]
        elif argument in pointers:
            signature[argument], aligned[(place,)] = "*" + pointers[argument], [["tt.divisibility", 16]]
        else:
            signature[argument] = "i32"
    source = ASTSource(walk_rows, signature=signature, constexprs=folded, attrs=aligned)
    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    kernel = triton.compile(source, target=target, options={"num_warps": size.warps, "enable_fp_fusion": True})
    assert kernel.metadata.shared <= SHARED[capability]
    # A row's address has 64 bits: 10 M rows of 256 numbers are more than 32 bits count.
    assert re.search(r"tt\.addptr %features\w*, %\w+ : !tt\.ptr<\w+>, i64", kernel.asm["ttir"])
    code = kernel.asm["ptx"]
    # Rows on their way while others are compared; products by the tensor cores.
    assert ("cp.async" in code) == (k <= 8) and re.search(r"wgmma\.mma_async|mma\.sync", code)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_parts_of_a_query_add_up_to_it(dtype: torch.dtype) -> None:
    from ascnet.bank.kernel import PARTS, split_query

    torch.manual_seed(0)
    # Beyond what fp16 can hold, and below it.
    query = torch.randn(4, 300) * torch.tensor([[1e-9], [1.0], [1e9], [0.0]])
    parts, scale = split_query(query, dtype)
    count, factor = PARTS[dtype]
    assert parts.shape == (count, 4, 300) and parts.dtype == dtype and parts.isfinite().all()
    total = sum(part.double() * factor**place for place, part in enumerate(parts)) * scale
    error = (total - query.double()).abs().amax(dim=1)
    assert (error <= query.double().abs().amax(dim=1) * 2.0**-22).all()


def test_small_batches_take_small_blocks_and_long_rows_fewer() -> None:
    from ascnet.bank.kernel import blocks

    assert [blocks(torch.float16, 256, (9, 0), count).queries for count in (1, 17, 64, 500)] == [16, 32, 64, 64]
    assert blocks(torch.float16, 512, (9, 0), 64).rows < blocks(torch.float16, 256, (9, 0), 64).rows
