"""Random specs: what their kernels compute under Triton's interpreter is what the oracle says, by the error rule."""

from __future__ import annotations

import warnings

import pytest
import torch
from poison import poisoned
from random_specs import RandomCase, random_case

import attncc
import attncc.api
from attncc.runtime.verification import compare

# A random spec may leave few distinct scores, or a sum over all pairs: the plain formula, whose error is the measure,
# is then exact by luck, and an error of one unit in the last place breaks the rule. Wrong kernels are off by far more.
LUCK, FLOOR = 3, 1e-5


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
    wrong = [c for c in found if not c.finite or c.error > LUCK * c.allowed + FLOOR]
    return [f"{c.name}: off by {c.error:.3e}, allowed {c.allowed:.3e}, finite: {c.finite}" for c in wrong]


@pytest.mark.parametrize("seed", range(40))
def test_a_random_spec(seed: int) -> None:
    case = random_case(seed)
    assert not missed(case), case


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40, 400))
def test_many_random_specs(seed: int) -> None:
    case = random_case(seed)
    assert not missed(case), case
