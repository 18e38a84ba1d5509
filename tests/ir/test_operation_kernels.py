"""The Triton text of every operation means what its record says: interpreted here, compiled in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import operation_kernel
import pytest
import torch
from operation_kernel import Case, cases

from attncc.ir.expr import Sort

COUNT = 100


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("kernels") / "operation_kernels.py"
    operation_kernel.write_module(path)
    return operation_kernel.import_module(path)


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.id)
def test_interpreted_text_agrees_with_meaning(case: Case, kernels: ModuleType) -> None:
    operands = operands_of(case)
    expected = case.record.meaning(np, *operands)
    out = torch.empty(COUNT, dtype=getattr(torch, case.types[-1]))
    with np.errstate(all="ignore"):
        getattr(kernels, case.function)[(1,)](*map(torch.from_numpy, operands), out, COUNT, BLOCK=128)
    if case.signature[1] is Sort.FLOAT:
        np.testing.assert_allclose(out.numpy(), expected, rtol=3e-6, atol=1e-30)
    else:
        np.testing.assert_array_equal(out.numpy(), expected)


def test_every_text_compiles_for_sm_90(tmp_path: Path) -> None:
    path = tmp_path / "operation_kernels.py"
    operation_kernel.write_module(path)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(Path(operation_kernel.__file__)), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(cases())


def operands_of(case: Case) -> list[np.ndarray]:
    """Values over the corners and the middle of what the operation must serve, at the width the case has."""
    rng = np.random.default_rng(len(case.id))
    wide = case.int_type == "int64"
    plain = case.template == case.record.triton_nonnegative
    operands: list[np.ndarray] = []
    for index, (sort, element) in enumerate(zip(case.signature[0], case.types, strict=False)):
        if sort is Sort.INT:
            values = rng.integers(-9, 10, COUNT)
            if wide and case.record.name not in ("pow", "to_float"):
                # The smallest int by -1, and products that wrap, are part of the meaning.
                ends = np.array([-(2**63), 2**63 - 1, -(2**63), 2**40 + 1, -(2**33), 0, 64, 63, -1, 0])
                values[:10] = ends if index == 0 else [-1, -1, 0, 2**39 + 5, 2**62, 0, 65, -1, 0, 63]
            if plain:
                values = np.abs(np.clip(values, -99, 99)) + (case.record.name in ("floordiv", "mod") and index == 1)
                values = np.minimum(values, 31) if case.record.name in ("shl", "shr") and index == 1 else values
            if case.record.name == "pow" and index == 1:
                values = np.full(COUNT, 3)
        elif sort is Sort.FLOAT:
            values = rng.normal(size=COUNT) * 4
            values[:8] = [0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 0.5, 1e-4]
            values[8:12] = (
                [0.05, 0.0999, 0.1001, 3e18] if case.record.name in ("tanh", "floor", "ceil") else values[8:12]
            )
            values = np.roll(values, 3 * index)
            if case.record.name in ("floor", "ceil"):
                values[20:24] = [1e19, -1e19, 2.0**63, -(2.0**63)]
        else:
            values = rng.integers(0, 2, COUNT)
        if index == case.literal:
            values = np.full(COUNT, float(operation_kernel.LITERALS[sort]))
        operands.append(values.astype(element))
    return operands
