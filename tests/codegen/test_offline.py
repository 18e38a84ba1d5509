"""Every example compiled for every target with no GPU: it builds, fits the target's memory, and spills little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attncc.codegen.triton.schedule import shared_memory_limit

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.attn"))
SOFTMAX = {"forward_kernel", "softmax_rows_kernel", "dquery_kernel", "dkeyvalue_kernel"}
# Matrix instructions the target is bought for: warp-group products on Hopper, fifth-generation ones on Blackwell.
MATRIX = {"cuda:80": "HMMA", "cuda:90": "HGMMA", "cuda:100": "UTCHMMA"}
# Bytes a thread may keep in memory; the largest seen is under half of it.
MOST_SPILLED = 256


def compiled(target: str, dtype: str, dim: int, value_dim: int, files: list[Path]) -> list[dict[str, Any]]:
    """What `offline_compile.py` printed. In a process of its own: here Triton is an interpreter."""
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("offline_compile.py")
    command = [sys.executable, str(script), target, dtype, str(dim), str(value_dim), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_fits(results: list[dict[str, Any]], target: str) -> None:
    """Every kernel is there, within the target's shared memory, and spills little."""
    for result in results:
        name = result["manifest"]["name"]
        kernels = {k["name"]: k for k in result["manifest"]["kernels"]}
        wanted = SOFTMAX if name != "sigmoid" else SOFTMAX - {"softmax_rows_kernel"}
        assert set(kernels) == wanted, name
        for kernel in kernels.values():
            assert result["sizes"][kernel["name"]] > 1000, (name, kernel)
            assert kernel["registers"] > 0, (name, kernel)
            assert kernel["shared_memory"] <= shared_memory_limit(target), (name, kernel)
            assert kernel["spilled"] <= MOST_SPILLED, (name, kernel)


@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_every_example_compiles_for(target: str) -> None:
    results = compiled(target, "bfloat16", 128, 128, EXAMPLES)
    assert len(results) == len(EXAMPLES)
    assert_fits(results, target)
    for result in results:
        for kernel, opcodes in result["opcodes"].items():
            if target in MATRIX and kernel in ("forward_kernel", "dquery_kernel"):
                assert opcodes.get(MATRIX[target], 0) > 0, (result["manifest"]["name"], kernel)


@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
@pytest.mark.parametrize(
    ("dtype", "dim", "value_dim"), [("float16", 64, 64), ("bfloat16", 80, 256), ("float32", 64, 64)]
)
def test_dtypes_and_dims(target: str, dtype: str, dim: int, value_dim: int) -> None:
    files = [ROOT / "examples" / f"{name}.attn" for name in ("alibi",)]
    assert_fits(compiled(target, dtype, dim, value_dim, files), target)


def test_lengths_and_params_compile_nothing_anew() -> None:
    """Launches as on a device, up to its driver: neither a length, a param nor an offset is part of a kernel's key."""
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("launch_without_device.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert len(counts) == 4
    for count in counts:
        assert count == dict.fromkeys(SOFTMAX, 1), counts


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dim", [16, 64, 96, 256])
def test_all_examples_in_all_dtypes(target: str, dtype: str, dim: int) -> None:
    results = compiled(target, dtype, dim, dim, EXAMPLES)
    assert len(results) == len(EXAMPLES)
    for result in results:
        for kernel in result["manifest"]["kernels"]:
            assert kernel["shared_memory"] <= shared_memory_limit(target), kernel
