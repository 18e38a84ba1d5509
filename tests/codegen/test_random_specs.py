"""Random specs: what their kernels compute under Triton's interpreter is what the oracle says, by the error rule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from poison import poisoned
from random_specs import RandomCase, random_case

import attncc
import attncc.api
from attncc.runtime.verification import compare

# A random spec may leave few distinct scores, or a sum over all pairs: the plain formula, whose error is the measure,
# is then exact by luck, and an error of one unit in the last place breaks the rule. Wrong kernels are off by far more.
LUCK = 3
FLOOR = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def missed(case: RandomCase) -> list[str]:
    """What of a case's outputs and gradients is off."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = case.shape
    sizes = (
        (shape.batch, shape.heads, shape.queries, shape.dim),
        (shape.batch, shape.kv_heads, shape.keys, shape.dim),
        (shape.batch, shape.kv_heads, shape.keys, shape.dim_v),
    )
    leaves = [poisoned(torch.randn(s, generator=generator).to(case.dtype), layout=case.layout) for s in sizes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", attncc.api.SpecWarning)
        # nan and inf stand where a mask may compute them; numpy, which runs the kernels here, says so.
        warnings.simplefilter("ignore", RuntimeWarning)
        attn = attncc.loads(case.text)
        found = compare(attn, *leaves, case.arguments(), backend="triton", return_lse=case.has_lse)
    wrong = [c for c in found if not c.finite or c.error > LUCK * c.allowed + FLOOR[case.dtype]]
    return [f"{c.name}: off by {c.error:.3e}, allowed {c.allowed:.3e}, finite: {c.finite}" for c in wrong]


@pytest.mark.parametrize("seed", range(26))
def test_a_random_spec(seed: int) -> None:
    case = random_case(seed)
    assert not missed(case), case


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(26, 400))
def test_many_random_specs(seed: int) -> None:
    case = random_case(seed)
    assert not missed(case), case


def miscompiled(target: str, seeds: range) -> dict[int, str]:
    """What is refused of these seeds' kernels, by a process of its own: here Triton is an interpreter."""
    root = Path(__file__).parents[2]
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"} | {"PYTHONPATH": str(root)}
    command = [sys.executable, str(Path(__file__).with_name("offline_random_specs.py")), target, *map(str, seeds)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {line["seed"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(found) == list(seeds)
    wrong = {seed: line["error"] for seed, line in found.items() if "error" in line}
    assert all(len(line["kernels"]) >= 3 for seed, line in found.items() if seed not in wrong)
    return wrong


# What only the compiler rejects: types of scalars, literals and constants that NumPy is happy with.
def test_random_specs_compile() -> None:
    assert not miscompiled("cuda:90", range(6))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_many_random_specs_compile(target: str) -> None:
    assert not miscompiled(target, range(6, 80))
